"""A study's headline score from run to run, in one CSV file."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.files import one_at_a_time
from tasks.core.tables import read_table, write_table

COLUMNS = (
    *("ended", "run", "experiment", "split", "metric", "value", "low", "high"),
    *("samples", "extracted", "trained", "quarantined"),
    "targets",
)
WITHOUT_TARGETS = COLUMNS[:-1]
"""The columns of files that were begun before runs told their targets."""
NUMBERS = ("value", "low", "high")
COUNTS = ("samples", "extracted", "trained", "quarantined")
BAD = ".bad"
"""Ends the name of a file that could not be read, which is kept beside the new one."""

RUNS = 100
"""So many of the last runs are told in a summary; history.csv has them all."""


def append_run(place: Path, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add a run to a history, which is written anew with all `COLUMNS`, whole or not at all.

    A file that is not a history is kept aside, and the history begins with this run.

    Args:
        place: the file; it need not exist.
        row: a value for each of `COLUMNS`; a number of `NUMBERS` may be None, and of one target "targets" is "".

    Returns:
        All rows, the oldest first.

    Raises:
        StoreError: if there is no space left.
    """
    with one_at_a_time(place.parent):  # two runs of a study may end at once
        try:
            rows = read_history(place)
        except (OSError, ValueError):
            with suppress(OSError):
                place.replace(place.with_name(place.name + BAD))
            rows = []
        rows.append({name: row[name] for name in COLUMNS})
        write_table(place, pd.DataFrame(rows, columns=COLUMNS))
    return rows


def read_history(place: Path) -> list[dict[str, Any]]:
    """Read a history, the oldest run first; none if there is no file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no history.
    """
    if not place.exists():
        return []
    table = read_table(place)
    if tuple(table.columns) not in (COLUMNS, WITHOUT_TARGETS):
        raise ValueError(f"{place}: has columns {', '.join(map(str, table.columns))}")
    return [_typed(row) for row in table.to_dict("records")]


def alike(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave the runs whose headline can be held against the last one's.

    These are of the same split and metric, a mean over the same targets where there are several, and known.
    """
    same = [row for row in rows if _measure(row) == _measure(rows[-1])]
    return [row for row in same if None not in (row[name] for name in NUMBERS)]


def _measure(row: Mapping[str, Any]) -> list[str]:
    """What a run's headline is a score of."""
    return [row["split"], row["metric"], row["targets"]]


def _typed(row: Mapping[Any, str]) -> dict[str, Any]:
    """Make numbers of text; raises ValueError where it is none."""
    datetime.fromisoformat(row["ended"])
    return {
        **row,
        "targets": row.get("targets", ""),
        **{name: _number(row[name]) if row[name] else None for name in NUMBERS},
        **{name: int(row[name]) for name in COUNTS},
    }


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no score")
    return number
