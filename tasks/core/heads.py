"""Trained heads on disk: one safetensors file each, named by what it was made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tasks.core import versions
from tasks.core.digest import digest_bytes, digest_value
from tasks.core.errors import StoreError
from tasks.core.files import replacing
from tasks.core.taps import CENTRE, parse_tap, spell

ARRAYS = ("weight", "bias", "log_proba", "test_rows")


@dataclass(frozen=True)
class Experiment:
    """One head with its hyper-parameters on given taps.

    Attributes:
        name: what tables call it; it decides nothing.
        backbone: the name of the backbone in the study; the features' identity decides.
        taps: as text, side by side in one row of features.
        strengths: L2 strengths to choose from.
        views: of each sample; a head is trained on all of them, and says the mean of what it says of each.
    """

    name: str
    backbone: str
    taps: tuple[str, ...]
    strengths: tuple[float, ...]
    views: tuple[str, ...] = (CENTRE,)

    def sets(self, known: Mapping[str, str]) -> list[str]:
        """Name the feature sets, every tap of the first view, then of the next: (V * T,).

        Args:
            known: a tap of a view, as `spell` names it -> its feature set.
        """
        return [known[spell(parse_tap(tap), view)] for view in self.views for tap in self.taps]

    def identity(self) -> list[object]:
        """Say what decides the head besides features, labels and split, as plain values."""
        views = [] if self.views == (CENTRE,) else [list(self.views)]
        return [versions.TRAINER, "softmax", list(self.strengths), *views]


@dataclass(frozen=True)
class HeadFile:
    """What a head's file holds.

    Attributes:
        weight: (C, D) on raw features.
        bias: (C,).
        log_proba: (n, C) of the test part.
        test_rows: (n,) digests of the test part.
        story: classes, strength, inner scores, certificate, versions.
    """

    weight: np.ndarray
    bias: np.ndarray
    log_proba: np.ndarray
    test_rows: list[str]
    story: dict[str, Any]


def head_key(
    experiment: Experiment,
    sets: Sequence[str],
    rows: Sequence[tuple[str, str, float, str]],
    test: np.ndarray,
    seed: int,
) -> str:
    """Name a head by all that decides it.

    Args:
        experiment: the head and its hyper-parameters.
        sets: the identities of its feature sets, in order.
        rows: (N,) digest, label, weight and group of each sample, sorted.
        test: (N,) bool.
        seed: of the inner folds.
    """
    parts = [[*row, bool(held_out)] for row, held_out in zip(rows, test, strict=True)]
    return digest_value([experiment.identity(), list(sets), parts, seed])


def save_head(path: Path, head: HeadFile) -> None:
    """Write a head under `path`, whole or not at all."""
    digests = np.frombuffer(bytes.fromhex("".join(head.test_rows)), dtype=np.uint8)
    arrays = {
        "weight": np.ascontiguousarray(head.weight),
        "bias": np.ascontiguousarray(head.bias),
        "log_proba": np.ascontiguousarray(head.log_proba),
        "test_rows": digests.reshape(len(head.test_rows), -1),
    }
    told = {"story": head.story, "checksum": _checksum(arrays, head.story)}
    data = save(arrays, {"story": json.dumps(told)})  # of two entries the order would vary
    with replacing(path) as partial:
        partial.write_bytes(data)


def load_head(path: Path) -> HeadFile:
    """Read a head.

    Raises:
        StoreError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
            told = json.loads(file.metadata()["story"])
            story, checksum = told["story"], told["checksum"]
            found = _checksum(arrays, story)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: no head can be read ({error}); run the study again") from error
    if found != checksum:
        raise StoreError(f"{path}: its checksum does not match its content; run the study again")
    rows = [row.tobytes().hex() for row in arrays.pop("test_rows")]
    return HeadFile(**arrays, test_rows=rows, story=story)


def _checksum(arrays: Mapping[str, np.ndarray], story: dict[str, Any]) -> str:
    sums = [
        [name, array.dtype.str, list(array.shape), digest_bytes(array.tobytes())]
        for name, array in arrays.items()
    ]
    return digest_value([sorted(sums), story])
