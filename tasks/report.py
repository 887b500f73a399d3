"""Stage 5: what a run leaves for people and for scripts. Never cached: it tells what was reused."""

import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from itertools import groupby
from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.core.artifacts import Artifacts
from tasks.core.copies import NearCopy, Straddling, across
from tasks.core.files import write_text
from tasks.core.heads import HeadFile, load_heads
from tasks.core.metrics import METRICS
from tasks.core.report import (
    PAIRS,
    Confusion,
    calibration_of,
    confusion,
    most_wrong,
    render,
    show_pairs,
)
from tasks.core.standings import choose_name
from tasks.core.tables import read_table, write_table
from tasks.references import Copies, Heads, Samples, Scores, Shelf

DIFFERENCES = ("split", "first", "second", "metric", "difference", "low", "high", "real")
VERSIONS = ("headstart", "prefect", "torch", "timm", "h5py", "numpy", "pandas", "scikit-learn", "pillow")


@task(name="report", task_run_name="{study}: report", cache_policy=NO_CACHE)
def write_report(
    study: str,
    samples: Samples,
    trained: list[Heads],
    scores: Scores,
    copies: Copies,
    story: dict[str, Any],
    artifacts: Artifacts,
) -> dict[str, Any]:
    """Write `results.csv`, `summary.json` and `report.html`; return the summary."""
    place, table = artifacts.study(study), read_table(samples.table)
    parted = _parted(copies, trained[0], table)
    write_table(place / "results.csv", pd.DataFrame(scores.splits))
    write_table(place / "differences.csv", pd.DataFrame(scores.differences, columns=DIFFERENCES))
    best = choose_name(scores.means)
    chosen = _chosen(scores, best)
    files = [load_heads(artifacts.root / row["file"])[row["key"]] for row in chosen]
    summary = {
        "study": study,
        "target": story["target"],
        "headline": story["headline"],
        "samples": story["samples"],
        "experiments": story["experiments"],
        "stages": story["stages"],
        "best": {
            "experiment": best["experiment"],
            "split": best["split"],
            "inner_brier": best["inner_brier"],
            "metrics": _metrics(best),
            "heads": [_told_of(row, file) for row, file in zip(chosen, files, strict=True)],
        },
        "verdict": None,
        "scores": [
            {
                "experiment": row["experiment"],
                "split": row["split"],
                "seeds": row["seeds"],
                "metrics": _metrics(row),
                "less_chosen": _less_chosen(row, best["experiment"], scores, story["headline"]),
            }
            for row in scores.means
        ],
        "calibration": calibration_of(files, table),
        "operating_points": [_operating(row) for row in scores.operating],
        "near_copies": [_told(split, found, table) for split, found in parted.items()]
        if copies.searched
        else None,
        "notes": story["notes"],
        "references": story["references"],
        "features": story["features"],
        "versions": {name: version(name) for name in VERSIONS},
    }
    write_text(place / "summary.json", json.dumps(summary, indent=2, allow_nan=False))
    matrix: Confusion = confusion(files, table)
    listed = read_table(samples.quarantine)
    quarantine = list(zip(listed.path, listed.reason, strict=True))
    twins = {split: show_pairs(found.pairs, table) for split, found in parted.items() if found.pairs}
    write_text(place / "report.html", render(summary, matrix, most_wrong(files, table), quarantine, twins))
    create_table_artifact(_leaderboard(summary), key=_artifact_key(study), description=f"{study}: scores")
    return summary


def _chosen(scores: Scores, best: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the heads that the inner folds chose of a name, one for each seed of a split."""
    wanted = (best["experiment"], best["split"], True)
    return [row for row in scores.splits if (row["experiment"], row["split"], row["chosen"]) == wanted]


def _told_of(row: Mapping[str, Any], head: HeadFile) -> dict[str, Any]:
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


def _parted(copies: Copies, heads: Heads, table: pd.DataFrame) -> dict[str, Straddling]:
    """Tell for each split which near copies it parts; every experiment has the same splits."""
    pairs = [NearCopy(*pair) for pair in copies.pairs]
    labelled = table.digest[table.label != ""].tolist()
    return {
        split: across(pairs, [_test_rows(shelf) for shelf in shelves], labelled)
        for split, shelves in groupby(heads.shelves, key=lambda shelf: shelf.split)
    }


def _test_rows(shelf: Shelf) -> list[str]:
    return next(iter(load_heads(shelf.paths()[0]).values())).test_rows


def _told(split: str, found: Straddling, table: pd.DataFrame) -> dict[str, Any]:
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


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a row's scores as {name: {value, ci95, sd}}; sd is over the seeds, None with one."""
    spelled = {}
    for metric in METRICS:
        name = metric.replace(" ", "_")
        spelled[metric] = {
            "value": _number(row[name]),
            "ci95": [_number(row[f"{name}_low"]), _number(row[f"{name}_high"])],
            "sd": _number(row.get(f"{name}_sd")),
        }
    return spelled


def _less_chosen(row: dict[str, Any], chosen: str, scores: Scores, metric: str) -> dict[str, Any] | None:
    """How far an experiment's headline score lies from the chosen one's; None for the chosen itself."""
    for each in scores.differences:
        pair = {each["first"], each["second"]}
        if (each["split"], each["metric"]) == (row["split"], metric) and pair == {row["experiment"], chosen}:
            sign = 1 if each["first"] == row["experiment"] else -1
            value, low, high = (_number(each[name]) for name in ("difference", "low", "high"))
            if value is None or low is None or high is None:
                return {"value": None, "ci95": [None, None], "real": False}
            return {"value": sign * value, "ci95": sorted([sign * low, sign * high]), "real": each["real"]}
    return None


def _operating(row: dict[str, Any]) -> dict[str, Any]:
    """Spell an operating point for `summary.json`; without a threshold where the inner folds found none."""
    told = {name: row[name] for name in ("experiment", "split", "class", "wanted", "at_least", "thresholds")}
    for name in ("recall", "precision"):
        if name in row:
            ends = [_number(row[f"{name}_low"]), _number(row[f"{name}_high"])]
            told[name] = {"value": _number(row[name]), "ci95": ends}
    return told


def _number(value: float | None) -> float | None:
    """JSON knows no NaN; scores that Prefect read back have None in its place."""
    return None if value is None or math.isnan(value) else value


def _leaderboard(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"experiment": row["experiment"], "split": row["split"]}
        | {name: found["value"] and round(found["value"], 4) for name, found in row["metrics"].items()}
        for row in summary["scores"]
    ]


def _artifact_key(study: str) -> str:
    """Prefect's artifact keys are lower-case letters, digits and dashes."""
    return "scores-" + "".join(
        letter if letter.isascii() and letter.isalnum() else "-" for letter in study.lower()
    )
