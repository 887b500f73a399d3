"""Stage of several targets: what a run leaves for people and for scripts. Never cached: it tells what was reused."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.caching import stage
from tasks.core.answer_parts import answer_parts
from tasks.core.answer_pictures import Looks, label_errors, looks_of
from tasks.core.answer_scores import ANSWER_METRICS
from tasks.core.answer_words import LINEAR, of_targets, read_gains, read_widths
from tasks.core.answers import MICRO
from tasks.core.artifacts import Artifacts
from tasks.core.charts import curve_plot, dot, history_plot, strip_axis
from tasks.core.copies import NearCopy, Straddling, across
from tasks.core.files import write_text
from tasks.core.heads import HeadFile
from tasks.core.history import RUNS, alike, append_run
from tasks.core.pictures import Album, Twins, show_pairs
from tasks.core.provenance import told_of
from tasks.core.readings import read_curve, read_drift
from tasks.core.report import templates
from tasks.core.splits import SplitSpec
from tasks.core.standings import DIFFERENCES, choose_name, rows_of_chosen
from tasks.core.summary import (
    copies_of,
    head_of,
    heads_told,
    history_row,
    label_errors_of,
    less_chosen,
    number,
    with_ends,
)
from tasks.core.tables import read_table, write_table
from tasks.core.targets import answered
from tasks.references import AnswerScores, Copies, Samples, Targets

GAINS = ("split", "joint", "separate", "target", "metric", "difference", "low", "high", "real")


@stage("answer-report")
def write_answer_report(
    study: str,
    samples: Samples,
    targets: Targets,
    splits: tuple[SplitSpec, ...],
    scores: AnswerScores,
    copies: Copies,
    story: dict[str, Any],
    artifacts: Artifacts,
    curve: dict[str, Any] | None,
) -> dict[str, Any]:
    """Write `results.csv`, `joint.csv`, `summary.json`, `report.html` and what they name; return the summary."""
    place, table, album = artifacts.study(study), read_table(samples.table), Album()
    parted = _parted(copies, table, splits)
    _write_scores(place, scores)
    best = choose_name(scores.macro())
    rows = rows_of_chosen(scores.splits, best)
    files = heads_told(rows, artifacts.root)
    looks = looks_of(_by_target(rows, files), table, album)
    write_table(place / "label_errors.csv", label_errors(looks))
    made = told_of(story["features"], artifacts)
    heads = [{"target": row["target"]} | head_of(row, file) for row, file in zip(rows, files, strict=True)]
    near = [copies_of(split, found, table) for split, found in parted.items()]
    run = history_row(best, story, made["ended"], targets.kept)
    summary = _found(study, targets, scores, story, best, heads) | {
        "learning_curve": curve and curve | {"targets": [_read(each) for each in curve["targets"]]},
        "label_errors": [
            {"target": each.target} | label_errors_of(each.listed, each.looked_at) for each in looks
        ],
        "near_copies": near if copies.searched else None,
        "history": append_run(place / "history.csv", run)[-RUNS:],
        "notes": story["notes"],
        "references": story["references"],
        "features": story["features"],
        "versions": made["versions"],
        "made": made,
    }
    pairs = _pairs(summary)
    summary["joint_says"] = [
        {name: each[name] for name in ("joint", "split", "says", "width_says")} for each in pairs
    ]
    write_text(place / "summary.json", json.dumps(summary, indent=2, allow_nan=False))
    twins = {split: show_pairs(found.pairs, table, album) for split, found in parted.items() if found.pairs}
    listed = read_table(samples.quarantine)
    page = _page(summary, pairs, looks, twins, list(zip(listed.path, listed.reason, strict=True)))
    write_text(place / "report.html", page)
    return summary


def _write_scores(place: Path, scores: AnswerScores) -> None:
    write_table(place / "results.csv", pd.DataFrame(scores.splits))
    write_table(place / "differences.csv", pd.DataFrame(scores.differences, columns=list(DIFFERENCES)))
    write_table(place / "joint.csv", pd.DataFrame(scores.gains, columns=list(GAINS)))


def _found(
    study: str,
    targets: Targets,
    scores: AnswerScores,
    story: dict[str, Any],
    best: Mapping[str, Any],
    heads: Sequence[Mapping[str, Any]],
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
            "inner_brier": number(best["inner_brier"]),
            "metrics": _metrics(best),
            "heads": heads,
            "targets": [_of_target(row) for row in _rows(scores.means, best)],
        },
        "verdict": None,
        "scores": [_score(row, best, scores, story["headline"]) for row in scores.macro()],
        "targets": targets.model_dump()
        | {name: sum(each[name] for each in targets.counts) for name in ("known", "unknown")},
        "joint": [_spelled(row) for row in scores.gains],
        "widths": [_spelled(row) for row in scores.widths],
        "operating_points": [],
    }


def _read(target: Mapping[str, Any]) -> dict[str, Any]:
    """Say whether more answers to a target would help."""
    return {**target, "says": read_curve(target, "answers")}


def _parted(copies: Copies, table: pd.DataFrame, splits: Sequence[SplitSpec]) -> dict[str, Straddling]:
    """Tell for each split which near copies it parts."""
    known, pairs = answered(table), [NearCopy(*pair) for pair in copies.pairs]
    digests = known.digest.to_numpy()
    tests: dict[str, list[list[str]]] = {}
    for part in answer_parts(known, splits) if pairs else ():
        tests.setdefault(part.spec.name, []).append(digests[part.test].tolist())
    return {split: across(pairs, each, digests.tolist()) for split, each in tests.items()}


def _by_target(rows: Sequence[Mapping[str, Any]], files: Sequence[HeadFile]) -> dict[str, list[HeadFile]]:
    """Put the heads of each target together."""
    found: dict[str, list[HeadFile]] = {}
    for row, file in zip(rows, files, strict=True):
        found.setdefault(row["target"], []).append(file)
    return found


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        metric: with_ends(row, metric) | {"sd": number(row.get(f"{metric.replace(' ', '_')}_sd"))}
        for metric in ANSWER_METRICS
    }


def _of_target(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "target": row["target"],
        "known": row["known"],
        "metrics": _metrics(row),
        "calibration_error": row["calibration_error"],
    }


def _rows(means: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of one experiment and split, the targets before the means over them."""
    mine = {
        row["target"]: row
        for row in means
        if (row["experiment"], row["split"]) == (best["experiment"], best["split"])
    }
    return [mine[name] for name in of_targets(list(mine))]


def _score(
    row: dict[str, Any], best: Mapping[str, Any], scores: AnswerScores, headline: str
) -> dict[str, Any]:
    [micro] = [each for each in _rows(scores.means, row) if each["target"] == MICRO]
    return {
        "experiment": row["experiment"],
        "split": row["split"],
        "seeds": row["seeds"],
        "metrics": _metrics(row),
        "micro": _metrics(micro),
        "less_chosen": less_chosen(row, best["experiment"], scores.differences, headline),
    }


def _spelled(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {name: number(value) if isinstance(value, float) else value for name, value in row.items()}


def _page(
    summary: dict[str, Any],
    pairs: Sequence[Mapping[str, Any]],
    looks: Sequence[Looks],
    twins: Mapping[str, Sequence[Twins]],
    quarantine: Sequence[tuple[str, str]],
) -> str:
    headline, history = summary["headline"], summary["history"]
    page = (
        templates()
        .get_template("answers.html.j2")
        .render(
            summary=summary,
            metrics=ANSWER_METRICS,
            strip_axis=strip_axis(
                [row["metrics"][headline] for row in summary["scores"]],
                [each["value"] for each in summary["references"] if each["metric"] == headline],
            ),
            dot=dot,
            past=history_plot(alike(history)),
            curve=curve_plot(curve["points"]) if (curve := summary["learning_curve"]) else None,
            curve_says=read_curve(curve, "answers") if curve and curve["gain"] else "",
            drift=read_drift(history),
            gains=pairs,
            linear=LINEAR,
            looks=looks,
            twins=twins,
            quarantine=quarantine,
        )
    )
    return page.encode(errors="backslashreplace").decode()  # names may hold bytes that are no UTF-8


def _dots(rows: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Where each target's difference lies on an axis that has nought on it."""
    found = {
        target: {"value": row[metric]["difference"], "ci95": [row[metric]["low"], row[metric]["high"]]}
        for target, row in rows.items()
        if row[metric]["difference"] is not None
    }
    axis = strip_axis(list(found.values()), [0.0])
    return {"axis": axis, "of": {name: dot(axis, each) for name, each in found.items()}} if axis else {}


def _pairs(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each pair of a joint experiment and its separate twin on each split: what joint training changes."""
    headline, counts = summary["headline"], summary["targets"]["counts"]
    seeds = {(row["experiment"], row["split"]): row["seeds"] for row in summary["scores"]}
    pairs = []
    for (joint, split), alike_rows in groupby(summary["joint"], key=lambda row: (row["joint"], row["split"])):
        rows: dict[str, dict[str, Any]] = {}
        for row in alike_rows:
            rows.setdefault(row["target"], {})[row["metric"]] = row
        widths = [row for row in summary["widths"] if (row["joint"], row["split"]) == (joint, split)]
        pairs.append(
            {
                "joint": joint,
                "split": split,
                "rows": rows,
                "dots": _dots(rows, headline),
                "says": read_gains(summary["joint"], headline, counts, joint, split, seeds[joint, split]),
                "widths": widths if len(widths) > 1 else [],
                "width_says": read_widths(widths),
            }
        )
    return pairs
