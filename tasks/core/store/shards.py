"""What is known of a set's shards: where each one's rows lie in it, and which sample is which row."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.digest import DIGEST_BYTES

NAME_LENGTH = 2 * DIGEST_BYTES
"""Bytes of a digest in a shard: its hexadecimal digits."""


@dataclass(frozen=True)
class Layout:
    """What a shard was found to be when it was last checked; enough to read it without HDF5.

    Attributes:
        stamp: size, mtime in ns and inode of the file that was checked.
        shape: (n, ...) of the features.
        dtype: of the features, with its byte order.
        features: where their bytes begin.
        digests: where the digests' bytes begin.
        provenance: how the rows were made, as JSON.
    """

    stamp: tuple[int, int, int]
    shape: tuple[int, ...]
    dtype: str
    features: int
    digests: int
    provenance: str


@dataclass(frozen=True)
class Shard:
    """A whole shard: its file, its layout, and its digests one after the other."""

    path: Path
    layout: Layout
    digests: bytes = field(repr=False)

    def __len__(self) -> int:
        return self.layout.shape[0]

    def names(self) -> list[str]:
        """Give the digests, one a row."""
        text = self.digests.decode()
        return [text[start : start + NAME_LENGTH] for start in range(0, len(text), NAME_LENGTH)]

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return math.prod(self.layout.shape[1:]) * np.dtype(self.layout.dtype).itemsize


class Rows(Mapping[str, tuple[Path, int]]):
    """Sample digest -> (shard, row in it).

    The index is one dict, which a longer list of shards takes over instead of copying. A list never
    changes for who holds it: its own numbers stand first in the dict, and are below its total.

    Attributes:
        starts: number of each shard's first row, rows counted through all shards, and their total.
    """

    def __init__(self, shards: Sequence[Shard], before: "Rows | None" = None) -> None:
        """Number the rows of `shards`, the first of which may be numbered already."""
        self.shards = shards
        self.starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.total = int(self.starts[-1])
        self._numbers: dict[str, int] = {}
        self._heir = [None]  # taken by the one that may add to the dict
        skip = 0
        if before is not None and before._hand_on():
            self._numbers, skip = before._numbers, len(before.shards)
        for shard, start in zip(shards[skip:], self.starts[skip:].tolist(), strict=False):
            for number, digest in enumerate(shard.names(), start):
                self._numbers.setdefault(digest, number)
        self._count = len(self._numbers)

    def find(self, digests: Sequence[str]) -> np.ndarray:
        """Give the rows' numbers: (N,), or the total where there is none."""
        numbers = np.fromiter(map(self._numbers.get, digests, repeat(self.total)), np.int64, len(digests))
        return np.minimum(numbers, self.total, out=numbers)

    def each_once(self) -> np.ndarray:
        """Give one row's number for each sample, ascending."""
        return np.sort(np.fromiter(islice(self._numbers.values(), self._count), np.int64, self._count))

    def _hand_on(self) -> bool:
        """Say, once, that the dict may be added to."""
        try:
            self._heir.pop()
        except IndexError:
            return False
        return True

    def __getitem__(self, digest: str) -> tuple[Path, int]:
        if digest not in self:
            raise KeyError(digest)
        number = self._numbers[digest]
        shard = bisect_right(self.starts, number) - 1
        return self.shards[shard].path, number - int(self.starts[shard])

    def __contains__(self, digest: Any) -> bool:
        return self._numbers.get(digest, self.total) < self.total

    def __iter__(self) -> Iterator[str]:
        return iter(list(islice(self._numbers, self._count)))

    def __len__(self) -> int:
        return self._count


@dataclass(frozen=True)
class Holdings:
    """What a set holds.

    Attributes:
        shards: the whole ones.
        damaged: shard -> what is wrong with it.
        before: what part of the shards was known before, whose index can be added to.
    """

    shards: tuple[Shard, ...] = ()
    damaged: dict[Path, str] = field(default_factory=dict)
    before: Rows | None = field(default=None, repr=False, compare=False)

    @cached_property
    def rows(self) -> Rows:
        """Where each sample's row is; made when first asked for."""
        return Rows(self.shards, self.before)

    def with_more(self, shards: Sequence[Shard], damaged: dict[Path, str]) -> "Holdings":
        """Add shards."""
        return Holdings((*self.shards, *shards), damaged, self.__dict__.get("rows", self.before))
