"""Which rows a study still lacks, and filling them in: decide, then act."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.core import versions
from tasks.core.digest import StatCache
from tasks.core.store import (
    Holdings,
    as_stored,
    holdings,
    set_folder,
    view_is_current,
    write_shard,
    write_view,
)
from tasks.core.taps import Tap

SHARD_ROWS = 512
"""Rows of a shard: what a killed run loses at most."""

CENTRE = "centre"
"""The only view so far: the picture as its preprocessing crops it."""


@dataclass(frozen=True)
class TapSet:
    """One tap's feature set, and what it holds."""

    tap: Tap
    folder: Path
    held: Holdings


def tap_folder(root: Path, fingerprint: str, tap: Tap, dtype: str) -> Path:
    """Name the set that holds a backbone's rows at a tap.

    Args:
        root: the folder of all sets.
        fingerprint: the backbone's.
        tap: with the backbone's own name of the cut.
        dtype: stored type, "float16" or "float32".
    """
    identity = {
        "backbone": fingerprint,
        "tap": str(tap),
        "view": CENTRE,
        "dtype": dtype,
        "extractor": versions.EXTRACTOR,
    }
    return set_folder(root, identity)


def open_set(tap: Tap, folder: Path, verified: StatCache) -> TapSet:
    """Look at what a tap's set holds, and drop its damaged shards."""
    held = holdings(folder, verified)
    for shard in held.damaged:
        shard.unlink(missing_ok=True)
    return TapSet(tap, folder, held)


def missing_rows(wanted: Sequence[str], held: Iterable[Container[str]]) -> list[str]:
    """Decide which samples must go through the network: those that any set lacks.

    Args:
        wanted: (N,) sample digests.
        held: for each set, the digests that it holds.
    """
    sets = list(held)
    return [digest for digest in wanted if not all(digest in each for each in sets)]


@dataclass
class Filler:
    """Collects rows batch by batch and writes a shard for each set when enough are together."""

    sets: Sequence[TapSet]
    dtype: str
    provenance: Mapping[str, object]
    digests: list[str] = field(default_factory=list)
    rows: list[list[np.ndarray]] = field(default_factory=list)

    def add(self, digests: Sequence[str], rows: Sequence[np.ndarray]) -> None:
        """Take one batch: (n,) digests and one (n, ...) float32 for each set."""
        self.digests += digests
        self.rows.append([as_stored(block, self.dtype) for block in rows] if digests else [])
        if len(self.digests) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected; every set gets the rows that it lacks."""
        batches = [batch for batch in self.rows if batch]
        for number, each in enumerate(self.sets if batches else ()):
            block = np.concatenate([batch[number] for batch in batches])
            lacking = [row for row, digest in enumerate(self.digests) if digest not in each.held.rows]
            names = [self.digests[row] for row in lacking]
            if names:
                write_shard(each.folder, names, block[lacking], {**self.provenance, "tap": str(each.tap)})
        self.digests, self.rows = [], []


def refresh_views(sets: Iterable[TapSet], verified: StatCache) -> None:
    """Make each set's `features.h5` show what the set now holds."""
    for each in sets:
        held = holdings(each.folder, verified)
        if held.rows and not view_is_current(each.folder, held):
            write_view(each.folder, held)
