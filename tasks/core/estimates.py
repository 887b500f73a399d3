"""How large and how long: told from what is stored, from what is remembered, or from a trial of a moment."""

import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tasks.core.backbones import Backbone
from tasks.core.choice import Measured
from tasks.core.cuts import Prefix
from tasks.core.engine import open_engine
from tasks.core.engines import build
from tasks.core.errors import HeadstartError
from tasks.core.fits import FOLDS
from tasks.core.hyper import Hyper
from tasks.core.media import pixels
from tasks.core.networks import load_network, outline
from tasks.core.selection import Rows, train_heads
from tasks.core.taps import Tap

PATIENCE = 3.0
"""Seconds that a trial takes at most, more or less: the pass or fit that is under way is not broken off."""

TRIAL_ROWS = (64, 128, 256, 512, 1024)
"""Rows of the fits that are timed; the first makes ready and does not count."""

USUAL_GROWTH, LEAST_GROWTH, MOST_GROWTH = 1.5, 1.0, 2.0
"""Training time grows with this power of the number of rows."""

NETWORK_GROWTH = 0.7
"""The same of small networks: with more rows an epoch takes longer, but they stop after fewer (between trials of 128
and of 1,024 rows it was 0.4 to 1.3)."""


def row_shapes(backbone: Backbone, taps: Sequence[Tap]) -> list[tuple[int, ...]] | None:
    """Tell the shape of each tap's row, by a pass of shapes without numbers; no weights are needed.

    Returns:
        One shape for each tap; None if the network cannot be run so.

    Raises:
        RequestError: if the network has no such tap.
    """
    if not taps:
        return []
    side = backbone.preprocessing.crop
    try:
        prefix = Prefix(outline(backbone), taps)
        rows = prefix(torch.empty(1, 3, side, side, device="meta"))
    except HeadstartError:
        raise
    except Exception:  # a network may do what cannot be done without numbers
        return None
    shapes = dict(zip(prefix.taps, (tuple(row.shape[1:]) for row in rows), strict=True))
    return [shapes[tap] for tap in taps]


@dataclass(frozen=True)
class Pace:
    """How fast pictures go through a network.

    Attributes:
        forward: seconds a picture.
        startup: seconds before the first.
        basis: how that is known, in words.
    """

    forward: float
    startup: float
    basis: str

    def seconds(self, passes: int, decoding: float) -> float:
        """Time of so many passes; decoding takes so long a picture, and wants the same cores."""
        return self.startup + passes * (self.forward + decoding)


def decode_some(backbone: Backbone, view: str, files: Mapping[str, str]) -> tuple[float, list[np.ndarray]]:
    """Decode pictures as a run does, on all cores.

    Args:
        backbone: whose preprocessing is taken.
        view: of them.
        files: sample digest -> its file, which was read before.

    Returns:
        Seconds a picture, and the pictures.
    """

    def read(digest: str) -> np.ndarray:
        return pixels(Path(files[digest]).read_bytes(), backbone.preprocessing, view, digest)

    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        pictures = list(pool.map(read, files))
    return (time.perf_counter() - started) / len(files), pictures


def find_pace(
    backbone: Backbone,
    taps: Sequence[Tap],
    pictures: Sequence[np.ndarray],
    known: Mapping[str, Measured],
    passes: int,
) -> Pace:
    """Tell how fast a network runs: on a GPU as tried, else as measured before, else as plain torch does.

    Args:
        backbone: whose network.
        taps: what is wanted of it.
        pictures: (3, crop, crop) uint8 each; one at least.
        known: engine -> what an earlier run measured on this machine.
        passes: how many there will be.
    """
    usable = {name: found for name, found in known.items() if found.rate}
    if usable and not torch.cuda.is_available():
        best = min(usable, key=lambda name: usable[name].seconds(passes))
        return Pace(1 / usable[best].rate, usable[best].startup, f"by {best}, as measured before")
    started = time.perf_counter()
    prefix, spec = Prefix(load_network(backbone), taps), backbone.preprocessing
    with tempfile.TemporaryDirectory() as folder:
        if torch.cuda.is_available():
            engine, basis = open_engine(prefix, spec, Path(folder), 1), "tried on the GPU"
        else:
            engine = build("eager", prefix, spec, Path(folder))
            basis = "at most: tried in plain torch, a run looks for something faster"
        batch = np.resize(np.stack(pictures), (engine.batch, *pictures[0].shape))
        engine.forward(batch)
        ready, turns = time.perf_counter(), 0
        while turns == 0 or time.perf_counter() - ready < PATIENCE:
            engine.forward(batch)
            turns += 1
    return Pace((time.perf_counter() - ready) / (turns * engine.batch), ready - started, basis)


def time_training(
    features: np.ndarray, labels: np.ndarray, hypers: Sequence[Hyper], *, classes: int
) -> list[tuple[int, float]]:
    """Train heads, inner folds and all, on ever more rows for a moment.

    Args:
        features: (N, D), in an order in which each beginning has its share of each class.
        labels: (N,) int.
        hypers: heads.
        classes: C.

    Returns:
        (rows, seconds), the fewest first; none where there are too few rows to tell.
    """
    took: list[tuple[int, float]] = []
    begun = time.perf_counter()
    for most in TRIAL_ROWS:
        counts = np.bincount(labels[:most], minlength=classes)
        rows = np.flatnonzero(counts[labels[:most]] >= FOLDS)  # so that there are as many folds as in a run
        if len(rows) <= (took[-1][0] if took else 0) or len(set(labels[rows])) < 2:
            continue
        some = Rows(features[rows], labels[rows], np.ones(len(rows)), rows)
        started = time.perf_counter()
        train_heads(some, hypers, classes=classes, seed=0)
        took.append((len(rows), time.perf_counter() - started))
        if time.perf_counter() - begun > PATIENCE / 2:
            break
    return took[1:] or took


def extrapolated(took: Sequence[tuple[int, float]], rows: float, *, networks: bool = False) -> float:
    """Guess how long training on more rows takes, as a power of their number.

    Args:
        took: as `time_training` gives it, not empty.
        rows: how many.
        networks: whether small networks are among the heads, which take most of the time.
    """
    last, seconds = took[-1]
    growth = NETWORK_GROWTH if networks else USUAL_GROWTH
    if len(took) > 1 and not networks:
        before, less = took[-2]
        growth = min(MOST_GROWTH, max(LEAST_GROWTH, math.log(seconds / less) / math.log(last / before)))
    return float(seconds * (rows / last) ** growth)


def mixed(labels: np.ndarray) -> np.ndarray:
    """Order rows so that each beginning of them has its share of each class; (N,) -> their numbers, (N,)."""
    place = np.empty(len(labels))
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(place, kind="stable")


def made_up(labels: np.ndarray, columns: int) -> np.ndarray:
    """Draw features of which the classes can be told, but not easily: (N, columns) float32."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(labels.max() + 1, columns)) * 3 / math.sqrt(columns)
    rows: np.ndarray = centres[labels] + random.normal(size=(len(labels), columns))
    return rows.astype(np.float32)
