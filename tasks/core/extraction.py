"""Which rows a study still lacks, and filling them in: decide, then act.

Several processes may extract for the same sets at once. Each claims the samples that it is about to run
(`tasks.core.claims`), so that every sample is extracted once, and what a dead process had claimed is
taken over by the others.
"""

import json
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tasks.core.claims import POLL, Claims
from tasks.core.digest import StatCache
from tasks.core.errors import Cancelled, Unreachable
from tasks.core.store import (
    Holdings,
    as_stored,
    drop,
    extend,
    holdings,
    mark_used,
    set_folder,
    view_is_current,
    write_shard,
    write_view,
)
from tasks.core.taps import Tap

SHARD_ROWS = 512
"""So many rows make a shard, or"""
SHARD_BYTES = 64 * 2**20
"""so many bytes, whole batches: what a killed run loses, and holds in memory."""


@dataclass(frozen=True)
class Batch:
    """What one pass left behind.

    Attributes:
        digests: (n,) the samples that went through.
        rows: one (n, ...) float32 for each tap.
        failed: sample digest -> why it could not be read now.
    """

    digests: list[str]
    rows: list[np.ndarray]
    failed: dict[str, str]


@dataclass(frozen=True)
class TapSet:
    """One tap's feature set, and what it holds."""

    tap: Tap
    folder: Path
    held: Holdings

    def shards(self) -> list[str]:
        """Name the shards that hold its rows."""
        return sorted(shard.path.name for shard in self.held.shards)


def open_set(root: Path, tap: Tap, identity: Mapping[str, object], verified: StatCache) -> TapSet:
    """Look at what a tap's set holds, and drop its damaged shards.

    Args:
        root: the folder of all sets.
        tap: whose rows they are.
        identity: as `Recipe.set_identity`.
        verified: remembers which shards were found whole.
    """
    folder = set_folder(root, identity)
    mark_used(folder)  # so that none is tidied away under a run
    held = holdings(folder, verified)
    if held.damaged:
        held = _drop_damaged(folder, Claims(root / ".claims", "damage"), verified)
    return TapSet(tap, folder, held)


def _drop_damaged(folder: Path, claims: Claims, verified: StatCache) -> Holdings:
    """Drop damaged shards, one process at a time: another may have written one anew under its name."""
    with claims.alone(folder.name):
        held = holdings(folder, verified)
        drop(folder, held.damaged)
        return held


def missing_rows(wanted: Iterable[str], held: Iterable[Container[str]]) -> list[str]:
    """Decide which samples must go through the network: those that any set lacks.

    Args:
        wanted: (N,) sample digests.
        held: for each set, the digests that it holds.
    """
    sets = list(held)
    return [digest for digest in wanted if not all(digest in each for each in sets)]


def engine_of(sets: Iterable[TapSet]) -> str:
    """Name the engine that made the first of the rows already stored, or "" if there are none."""
    stories = (json.loads(shard.layout.provenance) for each in sets for shard in each.held.shards[:1])
    return next((str(story.get("engine", "")) for story in stories), "")


@dataclass
class Extraction:
    """Fills sets with the rows of samples, sharing the work with whoever else is at it.

    Attributes:
        sets: one for each tap, of one backbone and view.
        dtype: stored type.
        provenance: plain values that say how rows are made.
        claims: of this backbone and view.
        verified: remembers which shards were found whole.
        failed: sample digest -> why it could not be read.
        ran: the samples that this process ran.
    """

    sets: list[TapSet]
    dtype: str
    provenance: Mapping[str, object]
    claims: Claims
    verified: StatCache
    failed: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    _digests: list[str] = field(default_factory=list)
    _rows: list[list[np.ndarray]] = field(default_factory=list)
    _bytes: int = 0

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """List the samples that a set lacks by now, but for those that cannot be read."""
        self.sets = [replace(each, held=extend(each.held, each.folder, self.verified)) for each in self.sets]
        lacking = missing_rows(wanted, [each.held.rows for each in self.sets])
        return [digest for digest in lacking if digest not in self.failed]

    def fill(
        self,
        wanted: Sequence[str],
        run: Callable[[Iterator[str]], Iterator[Batch]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Extract what is missing, until nothing is.

        Args:
            wanted: (N,) sample digests.
            run: takes digests as they are claimed, and gives their rows, one array for each set.
            progress: is told how many of the samples that were missing at first are there.

        Raises:
            StoreError: if rows cannot be stored, as on a full disk. What was stored before is whole.
        """
        todo = self.missing(wanted)
        total = len(todo)
        try:
            while todo:
                self._fill_once(todo, run, lambda left: progress(max(0, total - left)))
                # all: a shard may have been lost meanwhile
                todo = self._wait(list(wanted), lambda left: progress(max(0, total - left)))
        except BaseException as error:
            # Somebody stops the run, or it is tried again: keep what is done.
            if not isinstance(error, Exception) or isinstance(error, Cancelled | Unreachable):
                self._flush()
            raise
        finally:
            self.claims.release(list(self.claims.held))

    def _fill_once(
        self,
        todo: Sequence[str],
        run: Callable[[Iterator[str]], Iterator[Batch]],
        progress: Callable[[int], None],
    ) -> None:
        """Extract what nobody else has in hand; `progress` is told how many are left."""
        left = len(todo)
        for batch in run(self._claimed(todo)):
            self._add(batch)
            left -= len(batch.digests) + len(batch.failed)
            progress(left)
        self._flush()
        if self.claims.held:  # waiting for ourselves would have no end
            raise RuntimeError(f"{len(self.claims.held)} samples were claimed and never run")

    def _claimed(self, todo: Sequence[str]) -> Iterator[str]:
        """Claim samples, a shard's worth at a time, as long as there are some that nobody has."""
        rest = iter(todo)
        while mine := self.claims.take(rest, SHARD_ROWS):
            lacking = set(self.missing(mine))
            self.claims.release(digest for digest in mine if digest not in lacking)  # others were faster
            yield from (digest for digest in mine if digest in lacking)

    def _wait(self, todo: list[str], progress: Callable[[int], None]) -> list[str]:
        """Return what is still missing; wait as long as others have all of it in hand."""
        while True:
            todo = self.missing(todo)
            progress(len(todo))
            free = self.claims.take(todo, 1)
            self.claims.release(free)
            if free or not todo:
                return todo
            time.sleep(POLL)

    def _add(self, batch: Batch) -> None:
        self.failed |= batch.failed
        self.claims.release(batch.failed)
        if not batch.digests:
            return
        blocks = [as_stored(block, self.dtype) for block in batch.rows]
        self._digests += batch.digests
        self._rows.append(blocks)
        self._bytes += max(block.nbytes for block in blocks)
        self.ran += batch.digests
        if len(self._digests) >= SHARD_ROWS or self._bytes >= SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write what was collected; every set gets the rows that it lacks."""
        for number, each in enumerate(self.sets if self._digests else ()):
            lacking = [row for row, digest in enumerate(self._digests) if digest not in each.held.rows]
            if lacking:
                block = np.concatenate([batch[number] for batch in self._rows])
                names = [self._digests[row] for row in lacking]
                rows = block if len(lacking) == len(block) else block[lacking]
                write_shard(each.folder, names, rows, {**self.provenance, "tap": str(each.tap)})
        self.claims.release(self._digests)
        self._digests, self._rows, self._bytes = [], [], 0


def refresh_view(each: TapSet, claims: Claims, verified: StatCache) -> TapSet:
    """Make a set's `features.h5` show what the set now holds; return the set as it is now.

    Args:
        each: the set.
        claims: any; one process at a time writes a set's view.
        verified: remembers which shards were found whole.
    """
    with claims.alone(f"{each.folder.name} view"):
        held = holdings(each.folder, verified)
        if held.rows and not view_is_current(each.folder, held):
            write_view(each.folder, held)
    return replace(each, held=held)
