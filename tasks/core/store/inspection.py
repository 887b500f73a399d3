"""Whether shards are what their names promise, and how they are laid out; unchanged ones by what is remembered."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import h5py

from tasks.core.digest import Stamp, StatCache, digest_value
from tasks.core.store.sealed import DamageError, opened_sealed, text
from tasks.core.store.shards import NAME_LENGTH, Layout, Shard

DIGEST_TYPE = f"S{NAME_LENGTH}"


def list_shards(folder: Path) -> set[str]:
    """Name the files of a set's shards, whole or not; none if the set is not there."""
    try:
        with os.scandir(folder / "shards") as entries:
            return {entry.name for entry in entries if entry.name.endswith(".h5")}
    except FileNotFoundError:
        return set()


def check(paths: Sequence[Path], set_name: str, verified: StatCache) -> tuple[list[Shard], dict[Path, str]]:
    """Open shards: the unchanged ones by what is remembered, the others by reading them whole."""
    known, stamps = verified.recall(paths)
    shards, damaged, learnt = [], {}, {}
    for path in paths:
        try:
            shard = _remembered(path, known.get(path, ""))
            if shard is None:
                stamps.setdefault(path, Stamp.of(path))
                shard = inspect(path, set_name, path.stem)
                learnt[path] = json.dumps(asdict(shard.layout))
            shards.append(shard)
        except DamageError as damage:
            damaged[path] = str(damage)
        except FileNotFoundError:
            continue  # dropped by another process a moment ago
    verified.remember(learnt, stamps)
    return shards, damaged


def inspect(path: Path, set_name: str, name: str, handle: int | None = None) -> Shard:
    """Read a shard whole, by its path or by a handle, and make sure that it is what its name promises.

    Raises:
        DamageError: if it is not.
        FileNotFoundError: if it is gone.
        StoreError: if it cannot be read for a reason that is not the shard's.
    """
    with opened_sealed(path, handle) as (raw, file):
        layout = Layout(
            stamp_of(raw.fileno()),
            *_features_in(file),
            file["digests"].id.get_offset(),
            text(file, "provenance"),
        )
        names = file["digests"][:]
        owner = text(file, "set")
    if names.dtype != DIGEST_TYPE or names.shape != layout.shape[:1] or None in asdict(layout).values():
        raise DamageError("its features and digests are not laid out as a shard's")
    if owner != set_name:
        raise DamageError(f"belongs to another set ({owner})")
    if shard_name(set_name, [name.decode() for name in names]) != name:
        raise DamageError("its name does not match its rows")
    return Shard(path, layout, names.tobytes())


def shard_name(set_name: str, digests: Sequence[str]) -> str:
    """Name a shard by its set and what its rows are of."""
    return digest_value([set_name, *digests])


def read_at(handle: int, start: int, into: memoryview | bytearray) -> None:
    """Fill a piece of memory with what the file has from `start` on."""
    if os.preadv(handle, [into], start) != len(into):
        raise OSError(errno.EIO, "the file ends too early")


def stamp_of(handle: int) -> tuple[int, int, int]:
    """Tell size, mtime in ns and inode of an open file."""
    stat = os.fstat(handle)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


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
            if stamp_of(file.fileno()) != layout.stamp:
                return None
            read_at(file.fileno(), layout.digests, digests)
    except FileNotFoundError:
        raise
    except OSError:
        return None  # reading it whole tells what is wrong
    return Shard(path, layout, bytes(digests))


def _features_in(file: h5py.File) -> tuple[tuple[int, ...], str, int]:
    features = file["features"]
    return features.shape, features.dtype.str, features.id.get_offset()
