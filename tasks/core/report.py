"""One HTML file for people: scores, confusion, the most wrong samples, what ran and what was reused."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader

from tasks.core.heads import HeadFile
from tasks.core.media import MediaError, decode

PICTURES = 24
PICTURE_SIDE = 160  # pixels


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


def render(
    summary: dict[str, Any], matrix: Confusion, wrong: Sequence[Wrong], quarantine: Sequence[tuple[str, str]]
) -> str:
    """Fill in the page; one file, no link leads out of it."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    return environment.get_template("report.html.j2").render(
        summary=summary, matrix=matrix, shares=matrix.shares().tolist(), wrong=wrong, quarantine=quarantine
    )


def _thumbnail(path: Path) -> str:
    try:
        image = decode(path.read_bytes())
    except (OSError, MediaError):
        return ""
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
