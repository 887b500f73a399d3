"""Stage 5: what a run leaves for people and for scripts. Never cached: it tells what was reused."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from tasks.caching import stage
from tasks.core.artifacts import Artifacts
from tasks.core.copies import NearCopy, Straddling, across
from tasks.core.files import write_text
from tasks.core.heads import HeadFile, load_heads
from tasks.core.history import RUNS, append_run
from tasks.core.label_errors import suspected_errors
from tasks.core.pictures import (
    Album,
    list_suspects,
    most_unsure,
    most_wrong,
    show_pairs,
    show_suspects,
)
from tasks.core.provenance import told_of
from tasks.core.report import calibration_of, confusion, render
from tasks.core.said import of_test_rows, of_unseen_rows
from tasks.core.standings import DIFFERENCES, choose_name, rows_of_chosen
from tasks.core.summary import (
    class_of,
    copies_of,
    head_of,
    heads_told,
    history_row,
    label_errors_of,
    less_chosen,
    metrics_of,
    operating_of,
)
from tasks.core.tables import read_table, write_table
from tasks.references import Copies, Heads, Samples, Scores, Shelf


@stage("report")
def write_report(
    study: str,
    samples: Samples,
    trained: list[Heads],
    scores: Scores,
    copies: Copies,
    story: dict[str, Any],
    artifacts: Artifacts,
    curve: dict[str, Any] | None,
    verdict: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write `results.csv`, `summary.json`, `report.html` and what they name; return the summary."""
    place, table = artifacts.study(study), read_table(samples.table)
    parted = _parted(copies, trained[0], table)
    write_table(place / "results.csv", pd.DataFrame(scores.splits))
    write_table(place / "differences.csv", pd.DataFrame(scores.differences, columns=list(DIFFERENCES)))
    best = choose_name(scores.means)
    chosen = rows_of_chosen(scores.splits, best)
    files = heads_told(chosen, artifacts.root)
    said = of_unseen_rows(files, table)
    suspects = list_suspects(said, suspected_errors(said.labels, said.proba))
    write_table(place / "label_errors.csv", suspects)
    made = told_of(story["features"], artifacts)
    heads = [head_of(row, file) for row, file in zip(chosen, files, strict=True)]
    near = [copies_of(split, found, table) for split, found in parted.items()]
    calibration = calibration_of(files, table)
    summary = _found(study, scores, story, best, heads, calibration, curve, verdict) | {
        "label_errors": label_errors_of(suspects, len(said.digests)),
        "near_copies": near if copies.searched else None,
        "history": append_run(place / "history.csv", history_row(best, story, made["ended"]))[-RUNS:],
        "notes": story["notes"],
        "references": story["references"],
        "features": story["features"],
        "versions": made["versions"],
        "made": made,
    }
    write_text(place / "summary.json", json.dumps(summary, indent=2, allow_nan=False))
    listed = read_table(samples.quarantine)
    quarantine = list(zip(listed.path, listed.reason, strict=True))
    write_text(place / "report.html", _page(summary, files, table, parted, suspects, quarantine))
    return summary


def _found(
    study: str,
    scores: Scores,
    story: dict[str, Any],
    best: Mapping[str, Any],
    heads: Sequence[Mapping[str, Any]],
    calibration: dict[str, Any],
    curve: dict[str, Any] | None,
    verdict: dict[str, Any] | None,
) -> dict[str, Any]:
    """Spell for `summary.json` what ran and how well it does, all but what to look at and how it was made."""
    return {
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
            "metrics": metrics_of(best),
            "heads": heads,
        },
        "verdict": verdict,
        "scores": [
            {
                "experiment": row["experiment"],
                "split": row["split"],
                "seeds": row["seeds"],
                "metrics": metrics_of(row),
                "less_chosen": less_chosen(row, best["experiment"], scores.differences, story["headline"]),
            }
            for row in scores.means
        ],
        "classes": [class_of(row) for row in scores.classes],
        "learning_curve": curve,
        "calibration": calibration,
        "operating_points": [operating_of(row) for row in scores.operating],
    }


def _page(
    summary: dict[str, Any],
    files: Sequence[HeadFile],
    table: pd.DataFrame,
    parted: Mapping[str, Straddling],
    suspects: pd.DataFrame,
    quarantine: Sequence[tuple[str, str]],
) -> str:
    album, test = Album(), of_test_rows(files, table)
    return render(
        summary,
        confusion(files, table),
        most_wrong(test, album),
        quarantine,
        {split: show_pairs(found.pairs, table, album) for split, found in parted.items() if found.pairs},
        most_unsure(test, album),
        show_suspects(suspects, album),
    )


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
