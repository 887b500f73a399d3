"""Feature sets on disk: immutable HDF5 shards, and one file that shows them as one array.

A set is a folder. Its name is the digest of what its rows were made with (backbone, tap, view,
stored type, extractor version); which samples it holds is told by its shards alone:

    <set>/shards/<digest of the rows' digests>.h5   features (n, ...), digests (n,), provenance, checksum
    <set>/features.h5                               features (N, ...), digests (N,): each sample once

A shard is made in memory, written under a temporary name, flushed, checked and renamed, so a name
that exists is complete and a full disk never meets HDF5. It is never changed afterwards. Its first
512 bytes, HDF5's user block, hold a checksum of all the others: a damaged file is found before HDF5
sees it, which could crash or hang. Features and digests lie in one piece each; where, is remembered
when a shard is checked, so that rows are later read without HDF5. This is the only module that knows
h5py.
"""

import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tasks.core.digest import DIGEST_BYTES, Stamp, StatCache, digest_bytes, digest_value
from tasks.core.errors import StoreError
from tasks.core.files import replacing
from tasks.core.shards import NAME_LENGTH, Holdings, Layout, Shard

__all__ = [
    "Holdings",
    "as_stored",
    "blocks",
    "drop",
    "extend",
    "find_damage",
    "holdings",
    "last_used",
    "load",
    "mark_used",
    "provenance",
    "set_folder",
    "view_damage",
    "view_is_current",
    "write_shard",
    "write_view",
]

DIGEST_TYPE = f"S{NAME_LENGTH}"
VIEW = "features.h5"
USER_BLOCK = 512  # bytes, the least that HDF5 allows
BLOCK = 1 << 20  # bytes read at once: they stay in the processor's cache until they are converted
SHARE = 1 << 24  # bytes that one thread reads at a time
PIECE = 32_000  # numbers: torch converts up to 32,767 without threads
GAP = 1 << 14  # bytes: reading so many more costs as much as asking once more


class _DamageError(Exception):
    """A file is not what its name promises; the text says why."""


def set_folder(root: Path, identity: Mapping[str, object]) -> Path:
    """Name the folder of the set made with `identity`, plain values only."""
    return root / digest_value(dict(identity))


def mark_used(folder: Path) -> None:
    """Note that a set was used just now, for `headstart cache gc`."""
    with suppress(OSError):  # not there yet, or a folder that one may only read
        os.utime(folder)


def last_used(folder: Path) -> float:
    """Say when a set was last used, in seconds since 1970; 0 if it is not there."""
    return folder.stat().st_mtime if folder.exists() else 0.0


def write_shard(
    folder: Path, digests: Sequence[str], rows: np.ndarray, provenance: Mapping[str, object]
) -> Path:
    """Write one shard; the same digests in the same set give the same name.

    Args:
        folder: the set.
        digests: (n,) one sample digest a row.
        rows: (n, ...) float16 or float32.
        provenance: plain values that say how the rows were made.

    Returns:
        The shard's path; when this returns the file is complete.

    Raises:
        StoreError: if there is no space, or what was written cannot be read back.
    """
    path = folder / "shards" / f"{_shard_name(folder.name, digests)}.h5"
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=USER_BLOCK) as file:
        file.create_dataset("features", data=np.ascontiguousarray(rows))
        file.create_dataset("digests", data=np.array(digests, dtype=DIGEST_TYPE))
        file.attrs["set"] = folder.name
        file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)
    with replacing(path) as partial:
        _write_sealed(partial, image)
        try:
            _inspect(partial, folder.name, path.stem)
        except _DamageError as damage:
            raise StoreError(f"{path}: written but {damage}; check the disk") from damage
    return path


def holdings(folder: Path, verified: StatCache) -> Holdings:
    """List the rows of a set, checking every shard that changed since it was last checked.

    Args:
        folder: the set; it may not exist yet.
        verified: remembers which shards were found whole, and how they are laid out.

    Raises:
        StoreError: if a shard cannot be read for a reason that is not the shard's.
    """
    return extend(Holdings(), folder, verified)


def extend(held: Holdings, folder: Path, verified: StatCache) -> Holdings:
    """Look again at a set that others may be writing to; only shards that are new are read.

    Args:
        held: what the set held.
        folder: the set.
        verified: as for `holdings`.

    Returns:
        What the set holds now; `held` itself if nothing has changed.
    """
    known, listed = {shard.path.name for shard in held.shards}, _list_shards(folder)
    if not known <= listed:  # some were dropped: begin anew
        held, known = Holdings(), set()
    paths = [folder / "shards" / name for name in sorted(listed - known)]
    shards, damaged = _check(paths, folder.name, verified)
    return held.with_more(shards, damaged) if shards or damaged != held.damaged else held


def find_damage(folder: Path) -> dict[Path, str]:
    """Read all of a set, whatever is remembered of it, and say what is wrong with which shard."""
    damaged: dict[Path, str] = {}
    for name in sorted(_list_shards(folder)):
        path = folder / "shards" / name
        try:
            _inspect(path, folder.name, path.stem)
        except _DamageError as damage:
            damaged[path] = str(damage)
        except FileNotFoundError:
            continue
    return damaged


def drop(folder: Path, shards: Iterable[Path]) -> None:
    """Remove shards, and before them the view, which must never show what is not there."""
    paths = list(shards)
    if paths:
        (folder / VIEW).unlink(missing_ok=True)
    for path in paths:
        path.unlink(missing_ok=True)


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


def write_view(folder: Path, held: Holdings) -> Path:
    """Write `features.h5`: every sample that the set holds, once, as one array that h5py alone can read.

    The arrays are virtual: they point at the shards beside the file, so it stays small, and it
    is written anew whenever the shards change. A row whose shard is gone reads as NaN.

    Args:
        folder: the set.
        held: what it holds; at least one shard.

    Returns:
        The file's path.

    Raises:
        StoreError: if there is no space.
    """
    numbers = held.rows.each_once()
    names = np.frombuffer(b"".join(shard.digests for shard in held.shards), DIGEST_TYPE)
    kind = held.shards[0].layout.dtype
    layout = h5py.VirtualLayout(shape=(len(numbers), *held.shards[0].layout.shape[1:]), dtype=kind)
    start = 0
    for shard, rows in _by_shard(held, numbers):
        source = h5py.VirtualSource(f"shards/{shard.path.name}", "features", shard.layout.shape, dtype=kind)
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
            layout[start : start + len(run)] = source[run[0] : run[-1] + 1]
            start += len(run)
    image = io.BytesIO()
    with h5py.File(image, "w", libver="latest", userblock_size=USER_BLOCK) as file:
        file.create_virtual_dataset("features", layout, fillvalue=np.nan)
        file.create_dataset("digests", data=names[numbers])
        file.attrs["provenance"] = held.shards[0].layout.provenance
        file.attrs["set"] = folder.name
        file.attrs["shards"] = _shown(held)
    view = folder / VIEW
    with replacing(view) as partial:
        _write_sealed(partial, image)
    return view


def view_is_current(folder: Path, held: Holdings) -> bool:
    """Whether `features.h5` can be read and shows exactly the shards held."""
    try:
        return _view_shows(folder / VIEW) == (folder.name, _shown(held))
    except (_DamageError, OSError):
        return False


def view_damage(folder: Path) -> str:
    """Say what is wrong with `features.h5`, or "" if it is whole or not there.

    One that merely lacks the newest shards is whole: the next run adds them.
    """
    try:
        owner, _ = _view_shows(folder / VIEW)
        lost = _view_sources(folder / VIEW) - _list_shards(folder)
    except FileNotFoundError:
        return ""
    except (_DamageError, OSError) as error:
        return str(error)
    if owner != folder.name:
        return f"belongs to another set ({owner})"
    return f"shows shards that are gone ({len(lost)})" if lost else ""


def provenance(shard: Path) -> dict[str, Any]:
    """Say how a shard's rows were made."""
    with h5py.File(shard) as file:
        story: dict[str, Any] = json.loads(file.attrs["provenance"])
    return story


def as_stored(rows: np.ndarray, dtype: str) -> np.ndarray:
    """Convert rows to the stored type, refusing what it cannot hold.

    Raises:
        StoreError: if a value is not finite, or lies beyond the type's range.
    """
    if not np.isfinite(rows).all():
        raise StoreError(
            "the network gave a value that is not finite; check its weights and its input's scale"
        )
    with np.errstate(over="ignore"):
        stored = rows.astype(dtype)
    if not np.isfinite(stored).all():
        top = float(np.abs(rows).max())
        raise StoreError(f'features reach {top:.3g}, beyond {dtype}; set dtype = "float32" for the backbone')
    return stored


# Checking


def _shard_name(set_name: str, digests: Sequence[str]) -> str:
    return digest_value([set_name, *digests])


def _list_shards(folder: Path) -> set[str]:
    try:
        with os.scandir(folder / "shards") as entries:
            return {entry.name for entry in entries if entry.name.endswith(".h5")}
    except FileNotFoundError:
        return set()


def _check(paths: Sequence[Path], set_name: str, verified: StatCache) -> tuple[list[Shard], dict[Path, str]]:
    """Open shards: the unchanged ones by what is remembered, the others by reading them whole."""
    known, stamps = verified.recall(paths)
    shards, damaged, learnt = [], {}, {}
    for path in paths:
        try:
            shard = _remembered(path, known.get(path, ""))
            if shard is None:
                stamps.setdefault(path, Stamp.of(path))
                shard = _inspect(path, set_name, path.stem)
                learnt[path] = json.dumps(asdict(shard.layout))
            shards.append(shard)
        except _DamageError as damage:
            damaged[path] = str(damage)
        except FileNotFoundError:
            continue  # dropped by another process a moment ago
    verified.remember(learnt, stamps)
    return shards, damaged


def _remembered(path: Path, value: str) -> Shard | None:
    """Open a shard by its layout, or not at all if it is not the file that was checked."""
    try:
        told = json.loads(value)
        layout = Layout(**{**told, "stamp": tuple(told["stamp"]), "shape": tuple(told["shape"])})
    except (ValueError, TypeError, KeyError):
        return None  # never seen, or remembered by another version
    digests = bytearray(layout.shape[0] * NAME_LENGTH)
    try:
        with path.open("rb", buffering=0) as file:
            if _stamp(file.fileno()) != layout.stamp:
                return None
            _read_at(file.fileno(), layout.digests, digests)
    except FileNotFoundError:
        raise
    except OSError:
        return None  # reading it whole tells what is wrong
    return Shard(path, layout, bytes(digests))


def _inspect(path: Path, set_name: str, name: str, handle: int | None = None) -> Shard:
    """Read a shard whole, by its path or by a handle, and make sure that it is what its name promises.

    Raises:
        _DamageError: if it is not.
        FileNotFoundError: if it is gone.
        StoreError: if it cannot be read for a reason that is not the shard's.
    """
    with _opened_sealed(path, handle) as (raw, file):
        layout = Layout(
            _stamp(raw.fileno()),
            *_features_in(file),
            file["digests"].id.get_offset(),
            _text(file, "provenance"),
        )
        names = file["digests"][:]
        owner = _text(file, "set")
    if names.dtype != DIGEST_TYPE or names.shape != layout.shape[:1] or None in asdict(layout).values():
        raise _DamageError("its features and digests are not laid out as a shard's")
    if owner != set_name:
        raise _DamageError(f"belongs to another set ({owner})")
    if _shard_name(set_name, [name.decode() for name in names]) != name:
        raise _DamageError("its name does not match its rows")
    return Shard(path, layout, names.tobytes())


def _features_in(file: h5py.File) -> tuple[tuple[int, ...], str, int]:
    features = file["features"]
    return features.shape, features.dtype.str, features.id.get_offset()


def _text(file: h5py.File, name: str) -> str:
    return str(file.attrs[name])


@contextmanager
def _opened_sealed(path: Path, handle: int | None = None) -> Iterator[tuple[io.BufferedReader, h5py.File]]:
    """Open an HDF5 file whose checksum is right, through one handle: what was checked is what is read."""
    try:
        with path.open("rb") if handle is None else os.fdopen(handle, "rb", closefd=False) as raw:
            if raw.read(USER_BLOCK) != _user_block(_checksum(raw)):
                raise _DamageError("its checksum does not match its content")
            with h5py.File(raw, "r") as file:
                yield raw, file
    except FileNotFoundError:
        raise
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
            raise StoreError(f"{path}: cannot be read ({error.strerror}); nothing was changed") from error
        raise _DamageError(f"cannot be read ({error})") from error


def _checksum(file: io.BufferedReader) -> str:
    """Digest what is left to read of a file."""
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def _user_block(checksum: str) -> bytes:
    """What the first bytes must be: the checksum of all that follow them, then zeros."""
    return f"headstart shard {checksum}\n".encode().ljust(USER_BLOCK, b"\0")


def _write_sealed(path: Path, image: io.BytesIO) -> None:
    """Write an HDF5 file that was made in memory, with its checksum in the user block, left empty."""
    content = image.getbuffer()[USER_BLOCK:]
    with path.open("wb") as file:
        file.write(_user_block(digest_bytes(content)))
        file.write(content)


def _view_shows(view: Path) -> tuple[str, str]:
    """Whose view it is, and of which shards."""
    with _opened_sealed(view) as (_, file):
        return _text(file, "set"), _text(file, "shards")


def _view_sources(view: Path) -> set[str]:
    with _opened_sealed(view) as (_, file):
        return {source.file_name.removeprefix("shards/") for source in file["features"].virtual_sources()}


def _shown(held: Holdings) -> str:
    return digest_value(sorted(shard.path.name for shard in held.shards))


# Reading


def _numbers(held: Holdings, digests: Sequence[str]) -> np.ndarray:
    """Find the rows' numbers: (N,)."""
    numbers = held.rows.find(digests)
    if (absent := np.flatnonzero(numbers == held.rows.total)).size:
        raise StoreError(
            f"{len(absent)} of {len(digests)} rows are not stored (first: {digests[absent[0]]}); "
            "run the study again"
        )
    return numbers


def _by_shard(held: Holdings, numbers: np.ndarray) -> Iterator[tuple[Shard, np.ndarray]]:
    """Part sorted row numbers by their shards; each comes with its rows' places in it."""
    ends = np.searchsorted(numbers, held.rows.starts)
    for which in np.flatnonzero(np.diff(ends)).tolist():
        yield held.shards[which], numbers[ends[which] : ends[which + 1]] - held.rows.starts[which]


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
    for shard, rows in _by_shard(held, numbers):
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
            if _stamp(handle) != layout.stamp:
                layout = _inspect(path, path.parents[1].name, path.stem, handle).layout
            yield handle, layout
        finally:
            os.close(handle)
    except (_DamageError, OSError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run the study again to mend it") from error


def _read_rows(handle: int, layout: Layout, rows: np.ndarray, out: np.ndarray) -> None:
    """Read ascending rows of a shard: all from the first to the last at once, unless too many lie between."""
    size = out.nbytes // len(out)
    first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
    if span == len(rows) and _is_run(rows):
        _read_at(handle, layout.features + first * size, out.data.cast("B"))
    elif (span - len(rows)) * size <= GAP * len(rows):
        piece = np.empty((span, *out.shape[1:]), out.dtype)
        _read_at(handle, layout.features + first * size, piece.data.cast("B"))
        np.take(piece, rows - first, axis=0, out=out)
    else:
        into = out.data.cast("B")
        for place, row in enumerate(rows.tolist()):
            _read_at(handle, layout.features + row * size, into[place * size : (place + 1) * size])


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


def _read_at(handle: int, start: int, into: memoryview | bytearray) -> None:
    """Fill a piece of memory with what the file has from `start` on."""
    if os.preadv(handle, [into], start) != len(into):
        raise OSError(errno.EIO, "the file ends too early")


def _stamp(handle: int) -> tuple[int, int, int]:
    stat = os.fstat(handle)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
