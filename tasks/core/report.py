"""One HTML file for people: scores, how they came about, samples to look at, what ran and what was reused."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader

from tasks.core.calibration import expected_calibration_error, reliability, scaled
from tasks.core.charts import curve_plot, depth_plot, dot, history_plot, strip_axis
from tasks.core.heads import HeadFile
from tasks.core.history import alike
from tasks.core.markdown import grid, told_spent
from tasks.core.metrics import LOWER_IS_BETTER
from tasks.core.pictures import Suspect, Twins, Unsure, Wrong
from tasks.core.readings import read_curve, read_drift, told_time
from tasks.core.words import UNKNOWN, lasted, points

NARROW = "\u202f"
"""A space at which no line is broken."""


@dataclass(frozen=True)
class Confusion:
    """How often a true class was called another, as a mean over the splits.

    Attributes:
        classes: C names.
        counts: (C, C) rows are true, columns are called.
    """

    classes: list[str]
    counts: np.ndarray

    def shares(self) -> np.ndarray:
        """Share of each true class that was called so; (C, C), rows sum to 1."""
        shares: np.ndarray = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1e-12)
        return shares


def confusion(files: Sequence[HeadFile], table: pd.DataFrame) -> Confusion:
    """Count true against called classes over the test parts of an experiment's splits."""
    classes: list[str] = files[0].story["classes"]
    labels = dict(zip(table.digest, table.label, strict=True))
    counts = np.zeros((len(classes), len(classes)))
    for file in files:
        true = [classes.index(labels[digest]) for digest in file.test_rows]
        np.add.at(counts, (true, file.log_proba.argmax(axis=1)), 1 / len(files))
    return Confusion(classes, counts)


def calibration_of(files: Sequence[HeadFile], table: pd.DataFrame) -> dict[str, Any]:
    """Hold confidence against accuracy over the test parts of an experiment's splits together.

    Returns:
        For `summary.json`: the expected calibration error, that before the temperatures were scaled, the
        mean temperature, and the bins of the reliability diagram.
    """
    classes: list[str] = files[0].story["classes"]
    labels = dict(zip(table.digest, table.label, strict=True))
    true = np.array([classes.index(labels[digest]) for file in files for digest in file.test_rows])
    warmth = [file.story["temperature"] for file in files]
    told = np.concatenate([file.log_proba for file in files])
    raw = np.concatenate([scaled(file.log_proba, 1 / t) for file, t in zip(files, warmth, strict=True)])
    ones = np.ones(len(true))
    found = reliability(told, true, ones)
    return {
        "expected_calibration_error": expected_calibration_error(told, true, ones),
        "before_scaling": expected_calibration_error(raw, true, ones),
        "temperature": float(np.mean(warmth)),
        "bins": [
            {"low": low, "high": high, "confidence": confidence, "accuracy": accuracy, "share": share}
            for (low, high), confidence, accuracy, share in zip(
                found.edges.tolist(),
                found.confidence.tolist(),
                found.accuracy.tolist(),
                found.share.tolist(),
                strict=True,
            )
        ],
    }


def render(
    summary: dict[str, Any],
    matrix: Confusion,
    wrong: Sequence[Wrong],
    quarantine: Sequence[tuple[str, str]],
    twins: Mapping[str, Sequence[Twins]],
    unsure: Sequence[Unsure] = (),
    suspects: Sequence[Suspect] = (),
) -> str:
    """Fill in the page; one file, no link leads out of it.

    Args:
        summary: as `summary.json` holds it.
        matrix: of the chosen experiment.
        wrong: its most wrong samples.
        quarantine: path and reason.
        twins: split -> near copies on either side of it, for splits that part any.
        unsure: the samples that the chosen experiment is most unsure of.
        suspects: the first of the suspected label errors.
    """
    template = templates().get_template("report.html.j2")
    page = template.render(
        summary=summary,
        matrix=matrix,
        shares=matrix.shares().tolist(),
        wrong=wrong,
        quarantine=quarantine,
        twins=twins,
        unsure=unsure,
        suspects=suspects,
        **_drawings(summary),
        **_measured(summary.get("verdict")),
    )
    return page.encode(errors="backslashreplace").decode()  # names may hold bytes that are no UTF-8


def _drawings(summary: dict[str, Any]) -> dict[str, Any]:
    """Where the page's lines and dots lie, and what they say."""
    headline, curve = summary["headline"], summary.get("learning_curve")
    history = summary.get("history", [])
    others = [each["value"] for each in summary["references"] if each["metric"] == headline]
    plot = curve_plot(curve["points"]) if curve else None
    return {
        "strip_axis": strip_axis([row["metrics"][headline] for row in summary["scores"]], others),
        "dot": dot,
        "curve": plot,
        "curve_says": read_curve(curve) if curve and plot else "",
        "past": history_plot(alike(history)),
        "drift": read_drift(history),
    }


def _measured(verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    """A verdict as a drawing and a table, and what it took; nothing of none."""
    if not verdict:
        return {}
    return {
        "depths": depth_plot(verdict["cells"], verdict["chosen"]),
        "laid": grid(verdict),
        "gains": {(each["what"], each["share"]): each for each in verdict["differences"]},
        "missed": _missed(verdict["left_out"]),
        "spent": told_spent(verdict),
    }


def _missed(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float, str], list[str]]:
    """Fold what was left out for the same reason: (depth, share, reason) -> seeds."""
    seeds: dict[tuple[str, float, str], list[str]] = {}
    for row in rows:
        seeds.setdefault((row["depth"], row["share"], row["reason"]), []).append(_whole(row["seed"]))
    return seeds


def templates() -> Environment:
    """Open the page's templates, with the words that they use for numbers."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "points": _points, "told": _told, "tick": _tick}
    environment.filters |= {"name": _name, "time": told_time, "lasted": lasted, "whole": _whole}
    environment.filters |= {"gain": _gain, "sentences": _sentences}
    environment.tests["known"] = _known
    return environment


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f}{NARROW}%" if _known(share) else UNKNOWN


def _points(difference: float | None) -> str:
    return points(difference) if _known(difference) else UNKNOWN


def _told(score: float | None, metric: str) -> str:
    """A score in a column of its own: log loss is no share."""
    if not _known(score):
        return UNKNOWN
    return f"{score:.3f}" if metric in LOWER_IS_BETTER else f"{100 * score:.1f}"


def _tick(number: float | None, metric: str) -> str:
    """A round number beside an axis."""
    if not _known(number):
        return UNKNOWN
    return f"{number:.6g}" if metric in LOWER_IS_BETTER else f"{100 * number:.6g}{NARROW}%"


def _gain(difference: float | None, metric: str) -> str:
    """A difference of two scores; of shares in points."""
    if metric in LOWER_IS_BETTER:
        return f"{difference:+.3f}" if _known(difference) else UNKNOWN
    return _points(difference)


def _whole(number: float | None) -> str:
    return f"{number:,.0f}" if _known(number) else UNKNOWN


def _sentences(text: str) -> list[str]:
    """Part a text where one sentence ends and a next one begins."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)


def _name(path: str) -> str:
    """Tell a file by its folder and its own name."""
    return "/".join(path.split("/")[-2:])


def _known(score: float | None) -> TypeGuard[float]:
    return score is not None and not math.isnan(score)
