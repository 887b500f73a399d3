"""Samples that the report shows with their pictures: most wrong, most unsure, suspected, near copies."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.copies import NearCopy
from tasks.core.label_errors import Suspected
from tasks.core.media import MediaError, decode
from tasks.core.said import Said

PICTURES = 24
"""Samples that are shown of each kind."""
PAIRS = 8
"""Near copies that are shown of each split."""
PICTURE_SIDE = 160  # pixels


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
class Unsure:
    """A sample between two classes: those that the heads find likeliest, and how likely; the rest as in `Wrong`."""

    path: str
    label: str
    called: str
    second: str
    chance: float
    second_chance: float
    picture: str


@dataclass(frozen=True)
class Suspect:
    """A sample whose label may be wrong: the likelier class, and both probabilities; the rest as in `Wrong`."""

    path: str
    label: str
    suggested: str
    chance: float
    suggested_chance: float
    picture: str


@dataclass(frozen=True)
class Twins:
    """Two near copies on either side of a split: files, similarity, and pictures as in `Wrong`."""

    test: str
    train: str
    similarity: float
    test_picture: str
    train_picture: str


@dataclass(frozen=True)
class Album:
    """Small pictures of files, each made once however many lists it is in."""

    made: dict[str, str] = field(default_factory=dict)

    def show(self, paths: Sequence[str]) -> list[str]:
        """Give a data URI for each file, "" where it cannot be shown."""
        lacking = [path for path in dict.fromkeys(paths) if path not in self.made]
        with ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="pictures") as pool:
            self.made.update(zip(lacking, pool.map(_thumbnail, lacking), strict=True))
        return [self.made[path] for path in paths]


def most_wrong(said: Said, album: Album, most: int = PICTURES) -> list[Wrong]:
    """List the samples to whose label the heads give the least probability, the worst first, so many at most."""
    called, own = said.proba.argmax(axis=1), np.arange(len(said.labels))
    chance = said.proba[own, said.labels]
    wrong = np.flatnonzero(called != said.labels)
    rows = wrong[np.argsort(chance[wrong], kind="stable")][:most].tolist()  # of equals by their digests
    return [
        Wrong(
            path=said.paths[row],
            label=said.classes[said.labels[row]],
            called=said.classes[called[row]],
            chance=float(chance[row]),
            picture=picture,
        )
        for row, picture in zip(rows, album.show([said.paths[row] for row in rows]), strict=True)
    ]


def most_unsure(said: Said, album: Album) -> list[Unsure]:
    """List the samples whose two likeliest classes are nearest to each other, the nearest first."""
    order = np.argsort(-said.proba, axis=1, kind="stable")[:, :2]  # (N, 2)
    top = np.take_along_axis(said.proba, order, axis=1)
    rows = np.argsort(top[:, 0] - top[:, 1], kind="stable")[:PICTURES].tolist()
    return [
        Unsure(
            path=said.paths[row],
            label=said.classes[said.labels[row]],
            called=said.classes[order[row, 0]],
            second=said.classes[order[row, 1]],
            chance=float(top[row, 0]),
            second_chance=float(top[row, 1]),
            picture=picture,
        )
        for row, picture in zip(rows, album.show([said.paths[row] for row in rows]), strict=True)
    ]


def show_suspects(listed: pd.DataFrame, album: Album, most: int = PICTURES) -> list[Suspect]:
    """Show the first of the suspected label errors, as `list_suspects` lists them."""
    first = listed.head(most)
    columns = [first[name].tolist() for name in first.columns]
    return [Suspect(*row) for row in zip(*columns, album.show(first.path.tolist()), strict=True)]


def list_suspects(said: Said, found: Suspected) -> pd.DataFrame:
    """Put suspected label errors in a table of path, label, suggested, and the probability of each of the two."""
    names, labels = np.array(said.classes, dtype=object), said.labels[found.rows]
    return pd.DataFrame(
        {
            "path": [said.paths[row] for row in found.rows],
            "label": names[labels],
            "suggested": names[found.suggested],
            "label_probability": said.proba[found.rows, labels],
            "suggested_probability": said.proba[found.rows, found.suggested],
        }
    )


def show_pairs(pairs: Sequence[NearCopy], table: pd.DataFrame, album: Album) -> list[Twins]:
    """Show the first pairs of near copies, test sample and training sample."""
    path = dict(zip(table.digest, table.path, strict=True))
    shown = [(path[pair.first], path[pair.second], pair.similarity) for pair in pairs[:PAIRS]]
    album.show([each for test, train, _ in shown for each in (test, train)])
    return [
        Twins(test, train, similarity, album.made[test], album.made[train])
        for test, train, similarity in shown
    ]


def _thumbnail(path: str) -> str:
    try:
        image = decode(Path(path).read_bytes())
    except (OSError, MediaError):
        return ""
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
