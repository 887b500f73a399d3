"""Rows of a feature set for looking at, pooled where they are whole activations."""

from collections.abc import Sequence

import numpy as np
import torch

from tasks.core.artifacts import Artifacts
from tasks.core.cuts import pool
from tasks.core.store import blocks, holdings

AT_ONCE = 256


def pooled_rows(name: str, digests: Sequence[str], artifacts: Artifacts) -> np.ndarray:
    """Read rows, the mean over places where they are maps or tokens.

    Args:
        name: of the feature set.
        digests: (N,) of the samples.
        artifacts: where the set lies.

    Returns:
        (N, D) float32.
    """
    held = holdings(artifacts.features / name, artifacts.seen("shard"))
    parts = (torch.from_numpy(block).float() for block in blocks(held, digests, AT_ONCE))
    rows: np.ndarray = torch.cat([pool(part, "mean") for part in parts]).numpy()
    return rows
