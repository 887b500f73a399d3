"""`features.h5`: one file that shows a set's shards as one array, to whoever has HDF5 alone."""

import io
from pathlib import Path

import h5py
import numpy as np

from tasks.core.digest import digest_value
from tasks.core.files import replacing
from tasks.core.store.inspection import DIGEST_TYPE, list_shards
from tasks.core.store.reading import by_shard
from tasks.core.store.sealed import USER_BLOCK, DamageError, opened_sealed, text, write_sealed
from tasks.core.store.shards import Holdings

VIEW = "features.h5"


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
    for shard, rows in by_shard(held, numbers):
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
        write_sealed(partial, image)
    return view


def view_is_current(folder: Path, held: Holdings) -> bool:
    """Whether `features.h5` can be read and shows exactly the shards held."""
    try:
        return _view_shows(folder / VIEW) == (folder.name, _shown(held))
    except (DamageError, OSError):
        return False


def view_damage(folder: Path) -> str:
    """Say what is wrong with `features.h5`, or "" if it is whole or not there.

    One that merely lacks the newest shards is whole: the next run adds them.
    """
    try:
        owner, _ = _view_shows(folder / VIEW)
        lost = _view_sources(folder / VIEW) - list_shards(folder)
    except FileNotFoundError:
        return ""
    except (DamageError, OSError) as error:
        return str(error)
    if owner != folder.name:
        return f"belongs to another set ({owner})"
    return f"shows shards that are gone ({len(lost)})" if lost else ""


def _view_shows(view: Path) -> tuple[str, str]:
    """Whose view it is, and of which shards."""
    with opened_sealed(view) as (_, file):
        return text(file, "set"), text(file, "shards")


def _view_sources(view: Path) -> set[str]:
    with opened_sealed(view) as (_, file):
        return {source.file_name.removeprefix("shards/") for source in file["features"].virtual_sources()}


def _shown(held: Holdings) -> str:
    return digest_value(sorted(shard.path.name for shard in held.shards))
