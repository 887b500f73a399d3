"""Sets of shards: written, listed, checked, dropped."""

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tasks.core.digest import StatCache, digest_value
from tasks.core.errors import StoreError
from tasks.core.files import replacing
from tasks.core.store.inspection import DIGEST_TYPE, check, inspect, list_shards, shard_name
from tasks.core.store.sealed import USER_BLOCK, DamageError, write_sealed
from tasks.core.store.shards import Holdings
from tasks.core.store.view import VIEW


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
    path = folder / "shards" / f"{shard_name(folder.name, digests)}.h5"
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=USER_BLOCK) as file:
        file.create_dataset("features", data=np.ascontiguousarray(rows))
        file.create_dataset("digests", data=np.array(digests, dtype=DIGEST_TYPE))
        file.attrs["set"] = folder.name
        file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)
    with replacing(path) as partial:
        write_sealed(partial, image)
        try:
            inspect(partial, folder.name, path.stem)
        except DamageError as damage:
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
    known, listed = {shard.path.name for shard in held.shards}, list_shards(folder)
    if not known <= listed:  # some were dropped: begin anew
        held, known = Holdings(), set()
    paths = [folder / "shards" / name for name in sorted(listed - known)]
    shards, damaged = check(paths, folder.name, verified)
    return held.with_more(shards, damaged) if shards or damaged != held.damaged else held


def find_damage(folder: Path) -> dict[Path, str]:
    """Read all of a set, whatever is remembered of it, and say what is wrong with which shard."""
    damaged: dict[Path, str] = {}
    for name in sorted(list_shards(folder)):
        path = folder / "shards" / name
        try:
            inspect(path, folder.name, path.stem)
        except DamageError as damage:
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
