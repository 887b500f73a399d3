"""Rows of several feature sets side by side, for training: held in memory, or read anew at each pass."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.core.artifacts import Artifacts
from tasks.core.store import Holdings, blocks, holdings, load

BYTES_A_NUMBER = 24
"""Training in memory holds a feature as stored, standardised in double precision, and turned in both."""
SHARE = 1 / 3
"""Of the machine's memory that the features may take; larger ones are streamed."""
NUMBERS_AT_ONCE = 1 << 23
"""Of a block that is streamed."""
CGROUP = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much of the machine's memory a container may have."""


@dataclass(frozen=True)
class Stored:
    """Rows on disk as a source: taps side by side, the views below each other.

    Attributes:
        views: the holdings of each view's taps.
        digests: (N,) of the samples wanted.
    """

    views: tuple[tuple[Holdings, ...], ...]
    digests: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(V * N, D)."""
        columns = sum(math.prod(held.shards[0].layout.shape[1:]) for held in self.views[0])
        return len(self.views) * len(self.digests), columns

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Give all rows in order, some at a time."""
        first, most = 0, max(1, NUMBERS_AT_ONCE // max(1, self.shape[1]))
        for taps in self.views:
            for parts in zip(*(blocks(held, self.digests, most) for held in taps), strict=True):
                rows = _beside(parts)
                yield slice(first, first + len(rows)), rows
                first += len(rows)

    def in_memory(self) -> np.ndarray:
        """Read everything at once, (V * N, D)."""
        return np.concatenate([_beside([load(held, self.digests) for held in taps]) for taps in self.views])

    def fits(self) -> bool:
        """Whether there is memory for training on all rows at once."""
        return fits_in_memory(*self.shape)


def fits_in_memory(rows: int, columns: int) -> bool:
    """Whether there is memory for training on so many features at once; the same answer every time.

    Fewer rows than features are held in any case: a stream would need the larger, square covariance.
    """
    return rows < columns or rows * columns * BYTES_A_NUMBER <= SHARE * machine_memory()


def machine_memory() -> int:
    """Bytes of memory that this machine has, or that its container may use."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(CGROUP.read_text()))
    except (OSError, ValueError):  # no limit is spelled "max"
        return whole


def open_stored(names: Sequence[str], taps: int, digests: Sequence[str], artifacts: Artifacts) -> Stored:
    """Open feature sets as one source.

    Args:
        names: (V * taps,) of the sets, the taps of each view side by side.
        taps: how many of them each view has.
        digests: (N,) of the samples wanted.
        artifacts: where the sets lie.
    """
    seen = artifacts.seen("shard")
    each = [holdings(artifacts.features / name, seen) for name in names]
    views = tuple(tuple(each[start : start + taps]) for start in range(0, len(each), taps))
    return Stored(views, tuple(digests))


def _beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Flatten rows and put them side by side; (n, ...) each -> (n, D)."""
    flat = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
