"""Feature sets on disk: immutable HDF5 shards, and one file that shows them as one array.

A set is a folder. Its name is the digest of what its rows were made with (backbone, tap, view,
stored type, extractor version); which samples it holds is told by its shards alone:

    <set>/shards/<digest of the rows' digests>.h5   features (n, ...), digests (n,), provenance, checksum
    <set>/features.h5                               features (N, ...), digests (N,) over all shards

A shard is written under a temporary name, flushed, checked and renamed, so a name that exists is
complete. It is never changed afterwards. Its first 512 bytes, HDF5's user block, hold a checksum of all
the others: a damaged file is found before HDF5 sees it, which could crash or hang. This is the only
module that knows h5py.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tasks.core.digest import DIGEST_BYTES, StatCache, digest_value
from tasks.core.errors import StoreError
from tasks.core.files import replacing

DIGEST_TYPE = f"S{2 * DIGEST_BYTES}"
VIEW = "features.h5"
USER_BLOCK = 512  # bytes, the least that HDF5 allows


@dataclass(frozen=True)
class Holdings:
    """What a set holds.

    Attributes:
        rows: sample digest -> (shard, row in it).
        damaged: shard -> what is wrong with it.
    """

    rows: dict[str, tuple[Path, int]]
    damaged: dict[Path, str] = field(default_factory=dict)


def set_folder(root: Path, identity: Mapping[str, object]) -> Path:
    """Name the folder of the set made with `identity`, plain values only."""
    return root / digest_value(dict(identity))


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
        StoreError: if what was written cannot be read back.
    """
    path = folder / "shards" / f"{_shard_name(folder, digests)}.h5"
    with replacing(path) as partial:
        with h5py.File(partial, "w", userblock_size=USER_BLOCK) as file:
            file.create_dataset("features", data=np.ascontiguousarray(rows))
            file.create_dataset("digests", data=np.array(digests, dtype=DIGEST_TYPE))
            file.attrs["set"] = folder.name
            file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)
        _seal(partial)
        problem = _problem(partial, folder.name, path.stem)
        if problem:
            raise StoreError(f"{path}: written but {problem}; check the disk")
    return path


def holdings(folder: Path, verified: StatCache) -> Holdings:
    """List the rows of a set, checking every shard that changed since it was last checked.

    Args:
        folder: the set; it may not exist yet.
        verified: remembers which shards were found whole.
    """
    shards = sorted((folder / "shards").glob("*.h5"))
    whole, unknown = verified.recall(shards)
    found = {path: _problem(path, folder.name, path.stem) for path in unknown}
    verified.remember({path: "" for path, problem in found.items() if not problem}, unknown)
    damaged = {path: problem for path, problem in found.items() if problem}
    rows: dict[str, tuple[Path, int]] = {}
    for path in shards:
        if path not in damaged and (path in whole or path in found):
            rows |= {digest: (path, row) for row, digest in enumerate(_digests(path)) if digest not in rows}
    return Holdings(rows, damaged)


def load(held: Holdings, digests: Sequence[str]) -> np.ndarray:
    """Read rows in the order of `digests`: each shard once, by one large read.

    Args:
        held: the set's holdings; every digest must be among them.
        digests: (N,) sample digests.

    Returns:
        (N, ...) in the stored type.

    Raises:
        StoreError: if a row is not held, or a shard is gone by now.
    """
    absent = [digest for digest in digests if digest not in held.rows]
    if absent:
        raise StoreError(
            f"{len(absent)} of {len(digests)} rows are not stored (first: {absent[0]}); run the study again"
        )
    wanted: dict[Path, list[tuple[int, int]]] = {}
    for place, digest in enumerate(digests):
        path, row = held.rows[digest]
        wanted.setdefault(path, []).append((place, row))
    out: np.ndarray | None = None
    for path, pairs in wanted.items():
        block = _read(path)
        if out is None:
            out = np.empty((len(digests), *block.shape[1:]), block.dtype)
        places, rows = np.array(pairs).T
        out[places] = block[rows]
    return np.empty((0,)) if out is None else out


def write_view(folder: Path, held: Holdings) -> Path:
    """Write `features.h5`: every held row of the set as one array that h5py alone can read.

    The arrays are virtual: they point at the shards beside the file, so it stays small, and it
    is written anew whenever the shards change.

    Returns:
        The file's path.
    """
    shards = sorted({path for path, _ in held.rows.values()})
    digests = [_digests(path) for path in shards]
    with h5py.File(shards[0]) as first:
        shape, kind = first["features"].shape[1:], first["features"].dtype
    layout = h5py.VirtualLayout(shape=(sum(map(len, digests)), *shape), dtype=kind)
    start = 0
    for path, names in zip(shards, digests, strict=True):
        source = h5py.VirtualSource(f"shards/{path.name}", "features", shape=(len(names), *shape), dtype=kind)
        layout[start : start + len(names)] = source
        start += len(names)
    view = folder / VIEW
    with replacing(view) as partial:
        with h5py.File(partial, "w", libver="latest", userblock_size=USER_BLOCK) as file:
            file.create_virtual_dataset("features", layout)
            file.create_dataset(
                "digests", data=np.array([name for names in digests for name in names], dtype=DIGEST_TYPE)
            )
            file.attrs["provenance"] = json.dumps(provenance(shards[0]), sort_keys=True)
        _seal(partial)
    return view


def view_is_current(folder: Path, held: Holdings) -> bool:
    """Whether `features.h5` can be read and shows exactly the shards held."""
    try:
        if not _is_sealed(folder / VIEW):
            return False
        with h5py.File(folder / VIEW) as file:
            shown = {source.file_name for source in file["features"].virtual_sources()}
            return shown == {f"shards/{shard.name}" for shard, _ in held.rows.values()}
    except (OSError, KeyError):
        return False


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


def _shard_name(folder: Path, digests: Sequence[str]) -> str:
    return digest_value([folder.name, *digests])


def _seal(path: Path) -> None:
    """Write the checksum into the user block, which HDF5 left empty."""
    with path.open("r+b") as file:
        file.write(_user_block(path))


def _is_sealed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(USER_BLOCK) == _user_block(path)


def _user_block(path: Path) -> bytes:
    """What the first bytes must be: the checksum of all that follow them, then zeros."""
    with path.open("rb") as file:
        file.seek(USER_BLOCK)
        checksum = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()
    return f"headstart shard {checksum}\n".encode().ljust(USER_BLOCK, b"\0")


def _problem(path: Path, set_name: str, name: str) -> str:
    """Say what is wrong with a shard, or "" if nothing is."""
    try:
        if not _is_sealed(path):
            return "its checksum does not match its content"
        with h5py.File(path) as file:
            owner, digests = file.attrs["set"], [digest.decode() for digest in file["digests"][:]]
    except (OSError, KeyError) as error:
        return f"cannot be read ({error})"
    if owner != set_name:
        return f"belongs to another set ({owner})"
    if digest_value([set_name, *digests]) != name:
        return "its name does not match its rows"
    return ""


def _digests(path: Path) -> list[str]:
    with h5py.File(path) as file:
        return [digest.decode() for digest in file["digests"][:]]


def _read(path: Path) -> np.ndarray:
    try:
        with h5py.File(path) as file:
            rows: np.ndarray = file["features"][:]
            return rows
    except (OSError, KeyError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run the study again to mend it") from error
