"""What can be said of transfer before anything is trained: sizes, kinds of pictures, and scores of taps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.backbones import Backbone
from tasks.core.media import MediaError, decode
from tasks.core.transferability import h_score, log_me

LOOKED_AT = 32
"""Pictures that are decoded to see of what kind they are."""
SAME = 8
"""Channels that differ by no more than this, of 255, are grey."""
UPSCALED = 1.5
"""A picture that is enlarged by more than this has less to show than the network is used to."""


def count_classes(labels: Sequence[str]) -> list[dict[str, Any]]:
    """Count the samples of each class, the classes by name."""
    names, counts = np.unique(np.asarray(labels, dtype=object), return_counts=True)
    return [{"label": str(name), "count": int(count)} for name, count in zip(names, counts, strict=True)]


def notes_on(files: Sequence[str], backbone: Backbone, source: str) -> list[str]:
    """Say in what the pictures are unlike those that the network learnt from.

    Args:
        files: of the samples; a few of them are looked at.
        backbone: the network.
        source: the name of what it learnt from, "" if nobody said.
    """
    some = min(len(files), LOOKED_AT)
    spread = [files[number * len(files) // some] for number in range(some)]
    seen = [each for file in spread if (each := _look(file)) is not None]
    if not seen:
        return []
    notes = []
    grey = float(np.mean([is_grey for is_grey, _ in seen]))
    if grey > 0.5 and source.startswith("ImageNet"):
        notes.append(f"grey pictures; {source} are colour photographs")
    short = float(np.median([side for _, side in seen]))
    if backbone.preprocessing.resize > UPSCALED * short:
        notes.append(f"pictures of {short:.0f} pixels are enlarged to {backbone.preprocessing.resize}")
    return notes


def scores_of(features: np.ndarray, labels: np.ndarray, *, classes: int) -> dict[str, float | None]:
    """Score what features tell of the classes, without training: LogME and H-score.

    Args:
        features: (N, D).
        labels: (N,) int.
        classes: C.
    """
    return {
        "log_me": _finite(log_me(features, labels, classes=classes)),
        "h_score": _finite(h_score(features, labels, classes=classes)),
    }


def _look(file: str) -> tuple[bool, int] | None:
    """Whether a picture is grey, and its shorter side; None if it cannot be read."""
    try:
        picture = decode(Path(file).read_bytes())
    except (OSError, MediaError):
        return None
    channels = np.asarray(picture.resize((32, 32))).astype(int)
    return bool(np.ptp(channels, axis=2).max() <= SAME), min(picture.size)


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
