"""Feature sets on disk: immutable HDF5 shards, and one file that shows them as one array.

A set is a folder. Its name is the digest of what its rows were made with (backbone, tap, view,
stored type, extractor version); which samples it holds is told by its shards alone:

    <set>/shards/<digest of the rows' digests>.h5   features (n, ...), digests (n,), provenance, checksum
    <set>/features.h5                               features (N, ...), digests (N,): each sample once

A shard is made in memory, written under a temporary name, flushed, checked and renamed, so a name
that exists is complete and a full disk never meets HDF5. It is never changed afterwards. Its first
512 bytes, HDF5's user block, hold a checksum of all the others: a damaged file is found before HDF5
sees it, which could crash or hang. Features and digests lie in one piece each; where, is remembered
when a shard is checked, so that rows are later read without HDF5. This is the only package that knows
h5py.

    sealed.py      HDF5 files with a checksum
    inspection.py  whether a shard is what its name promises, and how it is laid out
    shards.py      where each row lies
    reading.py     rows, without HDF5
    view.py        features.h5
    sets.py        sets: written, listed, checked, dropped
"""

from tasks.core.store.reading import blocks, load
from tasks.core.store.sets import (
    as_stored,
    drop,
    extend,
    find_damage,
    holdings,
    last_used,
    mark_used,
    provenance,
    set_folder,
    write_shard,
)
from tasks.core.store.shards import Holdings
from tasks.core.store.view import VIEW, view_damage, view_is_current, write_view

__all__ = [
    "VIEW",
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
