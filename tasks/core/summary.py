"""How `summary.json` spells what a run found: plain values, and None for what is not known."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.class_scores import CLASS_METRICS
from tasks.core.copies import Straddling
from tasks.core.heads import HeadFile, load_heads
from tasks.core.metrics import METRICS
from tasks.core.pictures import PAIRS
from tasks.core.predictors import Networks

COUNTED = {"samples": "total", "extracted": "extracted", "quarantined": "quarantined"}
"""What `history.csv` calls the counts of samples."""

UNASKED = Networks({})
"""Stands in a head for its predictor, which nobody asks any more."""


def heads_told(rows: Sequence[Mapping[str, Any]], root: Path) -> list[HeadFile]:
    """Read what heads said and their stories.

    What they would say of other rows is let go file by file: all networks of a study may not fit in memory together.

    Args:
        rows: of `results.csv`, a head each.
        root: the artifacts folder.
    """
    return [replace(load_heads(root / row["file"])[row["key"]], predictor=UNASKED) for row in rows]


def head_of(row: Mapping[str, Any], head: HeadFile) -> dict[str, Any]:
    """Spell a chosen head for `summary.json`: what it is, where it lies, and which features it takes.

    "seed" is the split's, "first_seed" that of a small network, as in results.csv.
    """
    kind, hyper = head.story["hyper"]
    told = {name: row[name] for name in ("seed", "file", "key")}
    own = {"first_seed" if name == "seed" else name: value for name, value in hyper.items()}
    return told | {
        "head": kind,
        **own,
        "sets": head.story["sets"],
        "views": head.story["views"],
        "classes": head.story["classes"],
    }


def metrics_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a row's scores as {name: {value, ci95, sd}}; sd is over the seeds, None with one."""
    spelled = {}
    for metric in METRICS:
        sd = number(row.get(f"{metric.replace(' ', '_')}_sd"))
        spelled[metric] = with_ends(row, metric) | {"sd": sd}
    return spelled


def less_chosen(
    row: dict[str, Any], chosen: str, differences: Sequence[Mapping[str, Any]], metric: str
) -> dict[str, Any] | None:
    """How far an experiment's headline score lies from the chosen one's; None for the chosen itself."""
    for each in differences:
        pair = {each["first"], each["second"]}
        if (each["split"], each["metric"]) == (row["split"], metric) and pair == {row["experiment"], chosen}:
            sign = 1 if each["first"] == row["experiment"] else -1
            value, low, high = (number(each[name]) for name in ("difference", "low", "high"))
            if value is None or low is None or high is None:
                return {"value": None, "ci95": [None, None], "real": False}
            return {"value": sign * value, "ci95": sorted([sign * low, sign * high]), "real": each["real"]}
    return None


def operating_of(row: dict[str, Any]) -> dict[str, Any]:
    """Spell an operating point for `summary.json`; without a threshold where the inner folds found none."""
    told = {name: row[name] for name in ("experiment", "split", "class", "wanted", "at_least", "thresholds")}
    for name in ("recall", "precision"):
        if name in row:
            told[name] = with_ends(row, name)
    return told


def class_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a class's scores for `summary.json`; "test" is how many test samples it has, the mean over the seeds."""
    told = {"class": row["class"], "test": row["test"]}
    return told | {name: with_ends(row, name) for name in CLASS_METRICS}


def copies_of(split: str, found: Straddling, table: pd.DataFrame) -> dict[str, Any]:
    """Spell a split's near copies for `summary.json`, the first pairs by their files."""
    path = dict(zip(table.digest, table.path, strict=True))
    return {
        "split": split,
        "count": found.count,
        "share": found.share,
        "pairs": [
            {"test": path[pair.first], "train": path[pair.second], "similarity": round(pair.similarity, 4)}
            for pair in found.pairs[:PAIRS]
        ],
    }


def label_errors_of(suspects: pd.DataFrame, looked_at: int) -> dict[str, Any]:
    """Count the suspected label errors for `summary.json`, by what they are labelled and what they look like."""
    kinds = Counter(zip(suspects.label, suspects.suggested, strict=True)).most_common()
    return {
        "count": len(suspects),
        "looked_at": looked_at,
        "kinds": [
            {"label": label, "suggested": suggested, "count": count} for (label, suggested), count in kinds
        ],
    }


def history_row(
    best: Mapping[str, Any], story: Mapping[str, Any], ended: str, targets: Sequence[str] = ()
) -> dict[str, Any]:
    """Spell this run as a row of `history.csv`.

    Args:
        best: the scores of what was chosen.
        story: what ran.
        ended: when, as an ISO time.
        targets: over which the score is a mean, in any order; none if it is of one target.
    """
    found = with_ends(best, story["headline"])
    return {
        "ended": ended,
        "run": story.get("run", ""),
        **{name: best[name] for name in ("experiment", "split")},
        "metric": story["headline"],
        **dict(zip(("value", "low", "high"), (found["value"], *found["ci95"]), strict=True)),
        **{name: story["samples"][of] for name, of in COUNTED.items()},
        "trained": story["experiments"]["trained"],
        "targets": ", ".join(sorted(targets)),
    }


def with_ends(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Spell one of a row's scores as {value, ci95}."""
    name = metric.replace(" ", "_")
    ends = [number(row[f"{name}_low"]), number(row[f"{name}_high"])]
    return {"value": number(row[name]), "ci95": ends}


def number(value: float | None) -> float | None:
    """JSON knows no NaN; scores that Prefect read back have None in its place."""
    return None if value is None or math.isnan(value) else value
