"""The slot of a run that was killed while it used the GPU comes back, on a real server and with real processes."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import launched
import pytest
from launched import Launched, Ui, until, write_study

ui, launch, server = launched.ui, launched.launch, launched.no_harness

PRETEND = """
import sys

import tasks.limits
from slow_run import main

tasks.limits.has_gpu = lambda: True
sys.exit(main(*sys.argv[1:]))
"""
LEASE_AND_LOOK = 60 + 15
"""Seconds after which a slot comes back: those of the lease, and those between two looks of the server."""


def taken(ui: Ui) -> int:
    """How many slots of the limit are taken; none where it is not made yet."""
    answer = httpx.get(f"{ui.api.url}/v2/concurrency_limits/gpu", trust_env=False)
    return int(answer.json()["active_slots"]) if answer.status_code == 200 else 0


def start(launch: Callable[..., Launched], ui: Ui, folder: Path, study: Path, pause: float) -> Launched:
    """Start a run that believes that it has a GPU."""
    words = (
        str(folder / "log"),
        str(pause),
        "8",
        "run",
        str(study),
        "--artifacts",
        str(folder / "artifacts"),
    )
    support = {"PYTHONPATH": str(Path(launched.__file__).parent)}
    return launch((sys.executable, "-c", PRETEND, *words), ui.home, folder, support)


@pytest.mark.slow
def test_the_slot_of_a_killed_run_comes_back_and_the_next_run_goes_on(ui, launch, pictures, tmp_path):
    study = write_study(tmp_path / "gpu.toml", f'folder = "{pictures}"')
    first = start(launch, ui, tmp_path, study, 600.0)
    until(lambda: taken(ui) == 1, "the first run holds the slot")
    until((tmp_path / "log").exists, "it forwards")
    first.signal(signal.SIGKILL)
    first.end()
    second = start(launch, ui, tmp_path, study, 0.0)
    assert second.end(within=LEASE_AND_LOOK + launched.PATIENCE) == 0, second.err
    assert taken(ui) == 0
