"""A run from the command line: what the server knows of it, and what is left of it however it ends."""

import signal
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import launched
import pytest
from launched import Launched, Ui, headstart, home_with_tables, states_in, until, write_study
from slow_run import BATCH, IN_FLIGHT, SHARD

ui, launch, server = launched.ui, launched.launch, launched.no_harness

SAMPLES = 40
STAGES = ["samples", "features lite0", "train last layer", "scores", "learning curve", "near copies", "report", "publish"]
HINT = "to watch runs in a browser: headstart ui"
MANY_SECONDS = "9"
"""So long a pause that a run does not end by itself before a test has acted."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, painter_of_many: Any) -> str:
    """Two classes of pictures, as a study's table of data."""
    folder = tmp_path_factory.mktemp("data") / "stripes"
    for number in range(SAMPLES // 2):
        painter_of_many(folder / "upright" / f"{number}.png", number, 0.0)
        painter_of_many(folder / "lying" / f"{number}.png", 1000 + number, 1.57)
    return f'folder = "{folder}"'
