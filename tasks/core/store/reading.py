"""Rows out of shards, without HDF5: each shard once, straight into the answer."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from tasks.core.errors import StoreError
from tasks.core.store.inspection import inspect, read_at, stamp_of
from tasks.core.store.sealed import DamageError
from tasks.core.store.shards import Holdings, Layout, Shard

BLOCK = 1 << 20  # bytes read at once: they stay in the processor's cache until they are converted
SHARE = 1 << 24  # bytes that one thread reads at a time
PIECE = 32_000  # numbers: torch converts up to 32,767 without threads
GAP = 1 << 14  # bytes: reading so many more costs as much as asking once more


def load(held: Holdings, digests: Sequence[str], dtype: str | None = None) -> np.ndarray:
    """Read rows in the order of `digests`: each shard once, straight into the answer.

    Args:
        held: the set's holdings; every digest must be among them.
        digests: (N,) sample digests.
        dtype: type of the answer; the stored one if not given.

    Returns:
        (N, ...).

    Raises:
        StoreError: if a row is not held, or a shard is gone or damaged by now.
    """
    return _gather(held, _numbers(held, digests), dtype)


def blocks(held: Holdings, digests: Sequence[str], rows: int) -> Iterator[np.ndarray]:
    """Read rows in the order of `digests`, some at a time, for sets that do not fit in memory.

    Args:
        held: the set's holdings; every digest must be among them.
        digests: (N,) sample digests.
        rows: how many at a time.

    Yields:
        (rows, ...) in the stored type, the last one what is left.

    Raises:
        StoreError: as for `load`; a row that is not held is told before the first block.
    """
    numbers = _numbers(held, digests)
    for start in range(0, len(numbers), rows):
        yield _gather(held, numbers[start : start + rows], None)


def by_shard(held: Holdings, numbers: np.ndarray) -> Iterator[tuple[Shard, np.ndarray]]:
    """Part sorted row numbers by their shards; each comes with its rows' places in it."""
    ends = np.searchsorted(numbers, held.rows.starts)
    for which in np.flatnonzero(np.diff(ends)).tolist():
        yield held.shards[which], numbers[ends[which] : ends[which + 1]] - held.rows.starts[which]


def _numbers(held: Holdings, digests: Sequence[str]) -> np.ndarray:
    """Find the rows' numbers: (N,)."""
    numbers = held.rows.find(digests)
    if (absent := np.flatnonzero(numbers == held.rows.total)).size:
        raise StoreError(
            f"{len(absent)} of {len(digests)} rows are not stored (first: {digests[absent[0]]}); "
            "run the study again"
        )
    return numbers


def _gather(held: Holdings, numbers: np.ndarray, dtype: str | None) -> np.ndarray:
    """Read the rows of these numbers, in their order; much is read by several threads."""
    if not held.shards:
        return np.empty((0,), dtype)
    first = held.shards[0].layout
    out = np.empty((len(numbers), *first.shape[1:]), dtype or first.dtype)
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    share = max(1, SHARE // max(1, held.shards[0].row_bytes))
    parts = [slice(start, start + share) for start in range(0, len(order), share)]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8, len(parts) + 1)) as pool:
        for _ in pool.map(lambda part: _fill(out, order[part], held, numbers[part]), parts):
            pass  # an error of a thread is raised here
    return out


def _fill(out: np.ndarray, places: np.ndarray, held: Holdings, numbers: np.ndarray) -> None:
    """Read rows of ascending numbers, shard by shard into a block, and from there to their places."""
    first = held.shards[0].layout
    step = max(1, min(BLOCK // max(1, held.shards[0].row_bytes), len(numbers)))
    block = np.empty((step, *first.shape[1:]), first.dtype)
    start = 0
    for shard, rows in by_shard(held, numbers):
        _check_alike(shard, first)
        with _opened(shard) as (handle, layout):
            for cut in range(-(start % step), len(rows), step):  # where blocks begin
                part = rows[max(0, cut) : cut + step]
                _read_rows(handle, layout, part, block[start % step :][: len(part)])
                start += len(part)
                if start % step == 0 or start == len(places):
                    where = places[start - 1 - (start - 1) % step : start]
                    _put(block[: len(where)], out, where)


def _check_alike(shard: Shard, first: Layout) -> None:
    if (shard.layout.shape[1:], shard.layout.dtype) != (first.shape[1:], first.dtype):
        raise StoreError(
            f"{shard.path}: holds {shard.layout.shape[1:]} {shard.layout.dtype}, the set's first shard "
            f"{first.shape[1:]} {first.dtype}; remove the set and run the study again"
        )


@contextmanager
def _opened(shard: Shard) -> Iterator[tuple[int, Layout]]:
    """Open a shard to read its rows; one that is not the file that was checked is checked anew.

    Another process may have written it again: the same rows, as its name says, but perhaps elsewhere in it.
    """
    path, layout = shard.path, shard.layout
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if stamp_of(handle) != layout.stamp:
                layout = inspect(path, path.parents[1].name, path.stem, handle).layout
            yield handle, layout
        finally:
            os.close(handle)
    except (DamageError, OSError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run the study again to mend it") from error


def _read_rows(handle: int, layout: Layout, rows: np.ndarray, out: np.ndarray) -> None:
    """Read ascending rows of a shard: all from the first to the last at once, unless too many lie between."""
    size = out.nbytes // len(out)
    first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
    if span == len(rows) and _is_run(rows):
        read_at(handle, layout.features + first * size, out.data.cast("B"))
    elif (span - len(rows)) * size <= GAP * len(rows):
        piece = np.empty((span, *out.shape[1:]), out.dtype)
        read_at(handle, layout.features + first * size, piece.data.cast("B"))
        np.take(piece, rows - first, axis=0, out=out)
    else:
        into = out.data.cast("B")
        for place, row in enumerate(rows.tolist()):
            read_at(handle, layout.features + row * size, into[place * size : (place + 1) * size])


def _put(block: np.ndarray, out: np.ndarray, where: np.ndarray) -> None:
    """Copy rows to their places, converting them on the way."""
    if _is_run(where):
        _convert(block, out[where[0] : where[-1] + 1])
    else:
        converted = np.empty(block.shape, out.dtype)
        _convert(block, converted)
        out[where] = converted


def _is_run(numbers: np.ndarray) -> bool:
    return bool((np.diff(numbers) == 1).all())


def _convert(block: np.ndarray, out: np.ndarray) -> None:
    """Copy rows into `out`, which may be of another type."""
    if block.dtype == np.float16 and out.dtype == np.float32:
        # numpy converts halves one by one, torch eight at once: 20 times as fast. In pieces so small that
        # torch starts no threads: on a busy machine they wait for each other ten times as long as this takes.
        # Imported here, not above, since most who look into the store read nothing from it.
        import torch

        pieces = (torch.split(torch.from_numpy(each).view(-1), PIECE) for each in (out, block))
        for target, source in zip(*pieces, strict=True):
            target.copy_(source)
    else:
        out[...] = block
