"""Stage 5: what a run leaves for people and for scripts. Never cached: it tells what was reused."""

import json
import math
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
from tasks.core.heads import load_head
from tasks.core.metrics import METRICS
from tasks.core.report import PAIRS, Confusion, confusion, most_wrong, render, show_pairs
from tasks.core.tables import read_table, write_table
from tasks.references import Copies, Heads, Samples, Scores

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
    best = choose(scores.means)
    summary = {
        "study": study,
        "target": story["target"],
        "headline": story["headline"],
        "samples": story["samples"],
        "experiments": story["experiments"],
        "stages": story["stages"],
        "best": {"experiment": best["experiment"], "split": best["split"], "metrics": _metrics(best)},
        "verdict": None,
        "scores": [
            {
                "experiment": row["experiment"],
                "split": row["split"],
                "seeds": row["seeds"],
                "metrics": _metrics(row),
            }
            for row in scores.means
        ],
        "near_copies": [_told(split, found, table) for split, found in parted.items()]
        if copies.searched
        else None,
        "notes": story["notes"],
        "references": story["references"],
        "features": story["features"],
        "versions": {name: version(name) for name in VERSIONS},
    }
    write_text(place / "summary.json", json.dumps(summary, indent=2, allow_nan=False))
    [heads] = [each for each in trained if each.experiment == best["experiment"]]
    files = [load_head(head.path) for head in heads.heads if head.split == best["split"]]
    matrix: Confusion = confusion(files, table)
    listed = read_table(samples.quarantine)
    quarantine = list(zip(listed.path, listed.reason, strict=True))
    twins = {split: show_pairs(found.pairs, table) for split, found in parted.items() if found.pairs}
    write_text(place / "report.html", render(summary, matrix, most_wrong(files, table), quarantine, twins))
    create_table_artifact(_leaderboard(summary), key=_artifact_key(study), description=f"{study}: scores")
    return summary


def choose(means: list[dict[str, Any]]) -> dict[str, Any]:
    """Choose among experiments by their inner folds on the first split; test scores are not looked at."""
    first = [row for row in means if row["split"] == means[0]["split"]]
    return min(first, key=lambda row: math.inf if row["inner_brier"] is None else row["inner_brier"])


def _parted(copies: Copies, heads: Heads, table: pd.DataFrame) -> dict[str, Straddling]:
    """Tell for each split which near copies it parts; every experiment has the same splits."""
    pairs = [NearCopy(*pair) for pair in copies.pairs]
    labelled = table.digest[table.label != ""].tolist()
    return {
        split: across(pairs, [load_head(head.path).test_rows for head in parts], labelled)
        for split, parts in groupby(heads.heads, key=lambda head: head.split)
    }


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


def _metrics(row: dict[str, Any]) -> dict[str, Any]:
    """Spell a row's scores as {name: {value, ci95}}."""
    spelled = {}
    for metric in METRICS:
        name = metric.replace(" ", "_")
        spelled[metric] = {
            "value": _number(row[name]),
            "ci95": [_number(row[f"{name}_low"]), _number(row[f"{name}_high"])],
        }
    return spelled


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value


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
