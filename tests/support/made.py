"""Made-up rows of features for tests of heads."""

import weakref
from collections.abc import Iterator, Sequence

import numpy as np


def noisy_classes(
    rows: int, columns: int, classes: int, seed: int = 0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy classes on features of very different scales and offsets, every class with some rows.

    Returns:
        Features (N, D), labels (N,), and weights (N,).
    """
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    centres = rng.normal(size=(classes, columns))
    features = centres[labels] + noise * rng.normal(size=(rows, columns))
    features = features * 10 ** rng.uniform(-2, 2, columns) + rng.normal(size=columns) * 5
    return features, labels, rng.uniform(0.2, 3, rows)


class Blocks:
    """Rows handed out some at a time, each time anew; notes how many of its blocks anyone holds at once."""

    def __init__(self, features: np.ndarray, ends: Sequence[int]) -> None:
        self._features, self._edges, self.shape = features, [0, *ends, len(features)], features.shape
        self.held, self.most_held = 0, 0

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        for first, end in zip(self._edges[:-1], self._edges[1:], strict=True):
            yield slice(first, end), self._handed(self._features[first:end].copy())

    def _handed(self, block: np.ndarray) -> np.ndarray:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        weakref.finalize(block, self._dropped)
        return block

    def _dropped(self) -> None:
        self.held -= 1
