"""Bytes and values -> digests, and a cache that spares reading unchanged files.

Every stored thing is named by the digest of what it was made from. A digest is the first
160 bits of BLAKE2b as 40 hexadecimal digits: short enough for a file name, and no two
inputs that anyone will ever meet share one.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

DIGEST_BYTES = 20
RACY_NS = 2_000_000_000
"""A file changed less than this long ago may change again within the same time stamp."""


def digest_bytes(data: bytes | memoryview) -> str:
    """Digest bytes.

    Returns:
        40 hexadecimal digits.
    """
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def digest_value(value: object) -> str:
    """Digest a plain value: None, bool, int, float, str, and lists, tuples and dicts of them.

    The order of a dict's keys does not matter, and a tuple equals the list of the same items.

    Raises:
        TypeError: if the value holds anything else, whose text could differ between processes.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return digest_bytes(text.encode())


class Stamp(NamedTuple):
    """What the file system says of a file: two equal stamps mean the same content."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Ask the file system (follows links)."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    def is_settled(self, now_ns: int) -> bool:
        """Whether a further write would be sure to give another stamp."""
        return max(self.mtime_ns, self.ctime_ns) + RACY_NS < now_ns


class StatCache:
    """Remembers what was found out by reading a file, for as long as its stamp stays the same.

    One SQLite file, safe for many processes. It is a cache alone: deleting it costs time, and
    nothing is taken from it for a file whose stamp could not tell a later change.

    Args:
        path: the SQLite file, made when missing.
        kind: what is remembered; caches of several kinds share one file.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connect() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS seen (kind TEXT, path BLOB, size INT, mtime_ns INT, ctime_ns INT,"
                " inode INT, value TEXT, PRIMARY KEY (kind, path)) WITHOUT ROWID"
            )

    def recall(self, paths: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, Stamp]]:
        """Sort paths into those whose value is known and those that must be read.

        Args:
            paths: existing files.

        Returns:
            The known values, and the stamps, taken just now, of the others.

        Raises:
            OSError: if a path cannot be asked for its stamp.
        """
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT path, size, mtime_ns, ctime_ns, inode, value FROM seen WHERE kind = ?", (self.kind,)
            )
            seen = {path: (Stamp(*stamp), value) for path, *stamp, value in rows}
        known: dict[Path, str] = {}
        unknown: dict[Path, Stamp] = {}
        for path in paths:
            stamp = Stamp.of(path)
            old_stamp, value = seen.get(os.fsencode(path), (None, ""))
            if stamp == old_stamp:
                known[path] = value
            else:
                unknown[path] = stamp
        return known, unknown

    def remember(self, values: dict[Path, str], stamps: dict[Path, Stamp]) -> None:
        """Keep values read from files whose stamps were taken before the reading.

        A file that changed a moment ago is not remembered: a second change within the clock's
        tick would leave the same stamp.
        """
        now = time.time_ns()
        rows = [
            (self.kind, os.fsencode(path), *stamps[path], value)
            for path, value in values.items()
            if stamps[path].is_settled(now)
        ]
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def value(self, path: Path, read: Callable[[Path], str]) -> str:
        """Return what is known of one file, or read it and remember.

        Raises:
            OSError: if the file is missing or cannot be read.
        """
        known, unknown = self.recall([path])
        if path not in known:
            known[path] = read(path)
            self.remember(known, unknown)
        return known[path]

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
            yield connection
