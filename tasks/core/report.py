"""One HTML file for people: scores, confusion, the most wrong samples, what ran and what was reused."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader

from tasks.core.calibration import expected_calibration_error, reliability, scaled
from tasks.core.copies import NearCopy
from tasks.core.heads import HeadFile
from tasks.core.media import MediaError, decode
from tasks.core.metrics import LOWER_IS_BETTER

PICTURES = 24
PAIRS = 8
"""Near copies that are shown of each split."""
PICTURE_SIDE = 160  # pixels
UNKNOWN = "–"


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


@dataclass(frozen=True)
class Wrong:
    """A sample that the heads got most wrong.

    Attributes:
        path: its file.
        label: what it is said to be.
        called: what the heads say.
        chance: probability that they give the label, averaged over the splits that tested it.
        picture: a data URI, or "" where the file cannot be shown.
    """

    path: str
    label: str
    called: str
    chance: float
    picture: str


@dataclass(frozen=True)
class Twins:
    """Two near copies on either side of a split: files, similarity, and pictures as in `Wrong`."""

    test: str
    train: str
    similarity: float
    test_picture: str
    train_picture: str


def confusion(files: Sequence[HeadFile], table: pd.DataFrame) -> Confusion:
    """Count true against called classes over the test parts of an experiment's splits."""
    classes: list[str] = files[0].story["classes"]
    labels = dict(zip(table.digest, table.label, strict=True))
    counts = np.zeros((len(classes), len(classes)))
    for file in files:
        true = [classes.index(labels[digest]) for digest in file.test_rows]
        np.add.at(counts, (true, file.log_proba.argmax(axis=1)), 1 / len(files))
    return Confusion(classes, counts)


def most_wrong(files: Sequence[HeadFile], table: pd.DataFrame) -> list[Wrong]:
    """List the samples to whose label the heads give the least probability, the worst first."""
    known = table.set_index("digest")
    classes: list[str] = files[0].story["classes"]
    said: dict[str, list[np.ndarray]] = {}
    for file in files:
        for digest, log_proba in zip(file.test_rows, file.log_proba, strict=True):
            said.setdefault(digest, []).append(np.exp(log_proba))
    mean = {digest: np.mean(each, axis=0) for digest, each in said.items()}
    chance = {digest: float(p[classes.index(known.label[digest])]) for digest, p in mean.items()}
    wrong = [digest for digest, p in mean.items() if classes[int(p.argmax())] != known.label[digest]]
    return [
        Wrong(
            path=known.path[digest],
            label=known.label[digest],
            called=classes[int(mean[digest].argmax())],
            chance=chance[digest],
            picture=_thumbnail(Path(known.path[digest])),
        )
        for digest in sorted(wrong, key=lambda digest: (chance[digest], digest))[:PICTURES]
    ]


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


def show_pairs(pairs: Sequence[NearCopy], table: pd.DataFrame) -> list[Twins]:
    """Show the first pairs of near copies, test sample and training sample."""
    path = dict(zip(table.digest, table.path, strict=True))
    return [
        Twins(
            test=path[pair.first],
            train=path[pair.second],
            similarity=pair.similarity,
            test_picture=_thumbnail(Path(path[pair.first])),
            train_picture=_thumbnail(Path(path[pair.second])),
        )
        for pair in pairs[:PAIRS]
    ]


def render(
    summary: dict[str, Any],
    matrix: Confusion,
    wrong: Sequence[Wrong],
    quarantine: Sequence[tuple[str, str]],
    twins: Mapping[str, Sequence[Twins]],
) -> str:
    """Fill in the page; one file, no link leads out of it.

    Args:
        summary: as `summary.json` holds it.
        matrix: of the chosen experiment.
        wrong: its most wrong samples.
        quarantine: path and reason.
        twins: split -> near copies on either side of it, for splits that part any.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters |= {"percent": _percent, "points": _points, "told": _told}
    environment.tests["known"] = _known
    page = environment.get_template("report.html.j2").render(
        summary=summary,
        matrix=matrix,
        shares=matrix.shares().tolist(),
        wrong=wrong,
        quarantine=quarantine,
        twins=twins,
    )
    return page.encode(errors="backslashreplace").decode()  # names may hold bytes that are no UTF-8


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f} %" if _known(share) else UNKNOWN


def _points(difference: float | None) -> str:
    """A difference of two shares; what rounds to nought has no sign of its own."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}" if _known(difference) else UNKNOWN


def _told(score: float | None, metric: str) -> str:
    """A score in a column of its own: log loss is no share."""
    if not _known(score):
        return UNKNOWN
    return f"{score:.3f}" if metric in LOWER_IS_BETTER else f"{100 * score:.1f}"


def _known(score: float | None) -> TypeGuard[float]:
    return score is not None and not math.isnan(score)


def _thumbnail(path: Path) -> str:
    try:
        image = decode(path.read_bytes())
    except (OSError, MediaError):
        return ""
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
