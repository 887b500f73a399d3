"""Near copies, found from the features: the same picture saved again, resized, brightened, mirrored.

Copies to the byte are one sample from the start. A near copy has bytes of its own, and a score is
flattered where the network meets in the test part what it was trained on. How alike two different
pictures look to a network depends on the data set: any two solar cells are more alike than most near
copies of photographs. So a pair must be alike as such, and also stand out among its neighbours.

Measured with EfficientNet-Lite0's last layer, by adding copies of 177 photographs, of 20 others and of
150 among 2,624 solar cells. Different pictures taken for copies: none, none, 0.5 %. Copies found, resized
to 90 %: 99, 100, 89 %; 10 % brighter: 100, 100, 91 %; two pixels cut off: 100, 100, 39 %; mirrored: 100,
100, 3 %; saved as JPEG of quality 60: 62, 100, 0 %. So what is reported is nearly always true, and where
all pictures are alike it is not all.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ALIKE = 0.8
"""Cosine of two standardised rows from which a pair may be near copies,"""
NEARER = 0.5
"""if its distance is at most this share of the distance to the fifth neighbour;"""
SAME = 0.98
"""and from which it is, whatever the neighbours: there may be many copies."""
NEIGHBOURS = 5
MOST_ROWS = 40_000
"""With more rows it is not looked for: the time grows with their square."""
BLOCK = 2**23
"""Similarities held at once."""


@dataclass(frozen=True)
class NearCopy:
    """Two samples, by their digests, and the cosine of their standardised rows."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class Straddling:
    """Near copies that stand on both sides of a split.

    Attributes:
        count: test samples that have a near copy in the training part, as the mean over the split's seeds.
        share: of the test samples, likewise.
        pairs: test sample and training sample, the most alike first, each once.
    """

    count: float
    share: float
    pairs: list[NearCopy]


def near_copies(rows: np.ndarray, digests: Sequence[str]) -> list[NearCopy]:
    """Find the pairs of samples that are near copies of each other.

    Args:
        rows: (N, D) features, any type; they are standardised here.
        digests: (N,) of the samples.

    Returns:
        Each pair once, the most alike first; a sample is held against its nearest neighbours alone.
        With fewer than three samples, none: nothing can stand out.
    """
    if len(digests) < 3:
        return []
    unit = _unit(rows)
    found: dict[tuple[int, int], float] = {}
    for row, neighbours, similarity in _nearest(unit):
        distance = np.sqrt(np.maximum(2 - 2 * similarity, 0))
        stands_out = (similarity >= ALIKE) & (distance <= NEARER * distance[-1])
        for place in np.flatnonzero(stands_out | (similarity >= SAME)):
            pair = (min(row, int(neighbours[place])), max(row, int(neighbours[place])))
            found[pair] = float(similarity[place])
    pairs = [NearCopy(digests[a], digests[b], min(alike, 1.0)) for (a, b), alike in found.items()]
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def across(
    pairs: Sequence[NearCopy], tests: Sequence[Collection[str]], labelled: Collection[str]
) -> Straddling:
    """Tell which near copies a split parts.

    Args:
        pairs: as `near_copies` finds them.
        tests: the digests of the test part, one collection for each seed.
        labelled: the digests of all samples that are trained on or tested.
    """
    counts, shares = [], []
    parted: dict[NearCopy, NearCopy] = {}
    known = set(labelled)
    for test in map(set, tests):
        hit = set()
        for pair in pairs:
            if {pair.first, pair.second} <= known and (pair.first in test) != (pair.second in test):
                inside, outside = sorted((pair.first, pair.second), key=lambda digest: digest not in test)
                hit.add(inside)
                parted.setdefault(pair, NearCopy(inside, outside, pair.similarity))
        counts.append(len(hit))
        shares.append(len(hit) / len(test))
    in_order = [parted[pair] for pair in pairs if pair in parted]
    return Straddling(float(np.mean(counts)), float(np.mean(shares)), in_order)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Standardise each column and bring each row to length 1: (N, D) float32."""
    wide = rows.astype(np.float32)
    wide -= wide.mean(axis=0)
    spread = wide.std(axis=0)
    wide /= np.where(spread > 0, spread, 1)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: np.ndarray = wide / np.where(length > 0, length, 1)
    return unit


def _nearest(unit: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Give, for each row that is alike to any other, its nearest neighbours and their similarities, falling."""
    count = len(unit)
    kept = min(NEIGHBOURS, count - 1)
    step = max(1, BLOCK // count)
    for start in range(0, count, step):
        alike = unit[start : start + step] @ unit.T  # (B, N)
        own = np.arange(len(alike))
        alike[own, start + own] = -np.inf
        for place in np.flatnonzero(alike.max(axis=1) >= ALIKE):
            nearest = np.argpartition(alike[place], -kept)[-kept:]
            nearest = nearest[np.argsort(-alike[place][nearest], kind="stable")]
            yield start + int(place), nearest, alike[place][nearest]
