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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

AnyPath = TypeVar("AnyPath", str, Path)

DIGEST_BYTES = 20
RACY_NS = 2_000_000_000
"""A file changed less than this long ago may change again within the same time stamp."""
PATIENCE = 20
"""Seconds to wait for another process that writes to the cache."""


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
    _refuse_odd_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return digest_bytes(text.encode())


def _refuse_odd_keys(value: object) -> None:
    """JSON would write the key 1 as the text "1"."""
    if isinstance(value, dict):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise TypeError(f"a dict's keys must be text to be digested, found {odd[0]!r}")
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, dict | list | tuple):
                _refuse_odd_keys(item)


SCHEMA = """
    CREATE TABLE IF NOT EXISTS seen (kind TEXT, path BLOB, stamp TEXT, value TEXT, PRIMARY KEY (kind, path))
    WITHOUT ROWID
"""


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file: two equal stamps mean the same content.

    Attributes:
        size: bytes.
        mtime_ns: when the content was last written, as the file says.
        ctime_ns: when anything of it was last changed, as the system says.
        inode: number of the file.
        seen_ns: the clock just before the stamp was taken.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    seen_ns: int = field(default=0, compare=False)

    @classmethod
    def of(cls, path: str | Path) -> "Stamp":
        """Ask the file system (follows links)."""
        seen_ns = time.time_ns()
        stat = os.stat(path)  # noqa: PTH116 - a hundred thousand times, so no Path is made
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, seen_ns)

    def is_settled(self, seen_ns: int) -> bool:
        """Whether a write after `seen_ns`, when the stamp was taken, would be sure to give another one."""
        return max(self.mtime_ns, self.ctime_ns) + RACY_NS < seen_ns

    def __str__(self) -> str:
        return f"{self.size} {self.mtime_ns} {self.ctime_ns} {self.inode}"


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

    def recall(self, paths: Iterable[AnyPath]) -> tuple[dict[AnyPath, str], dict[AnyPath, Stamp]]:
        """Sort paths into those whose value is known and those that must be read.

        Args:
            paths: files. One that cannot be asked for its stamp is in neither answer.

        Returns:
            The known values, and the stamps, taken just now, of the others.
        """
        paths = list(paths)
        seen = self._seen([os.fsencode(path) for path in paths])
        known: dict[AnyPath, str] = {}
        unknown: dict[AnyPath, Stamp] = {}
        for path in paths:
            try:
                stamp = Stamp.of(path)
            except (OSError, ValueError):
                continue
            old_stamp, value = seen.get(os.fsencode(path), ("", ""))
            if str(stamp) == old_stamp:
                known[path] = value
            else:
                unknown[path] = stamp
        return known, unknown

    def remember(self, values: Mapping[AnyPath, str], stamps: Mapping[AnyPath, Stamp]) -> None:
        """Keep values read from files whose stamps were taken before the reading.

        A file that changed just before its stamp was taken is not remembered: a second change within
        the clock's tick would leave the same stamp.
        """
        rows = [
            (self.kind, os.fsencode(path), str(stamps[path]), value)
            for path, value in values.items()
            if stamps[path].is_settled(stamps[path].seen_ns)
        ]
        with suppress(sqlite3.OperationalError, OSError):  # locked, or no space: it is read again next time
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", rows)

    def forget(self, paths: Iterable[Path]) -> None:
        """Drop what is known of files, so that they are read again.

        Raises:
            OSError: if it cannot be dropped.
        """
        rows = [(self.kind, os.fsencode(path)) for path in paths]
        try:
            if rows and self.path.exists():
                self._execute("DELETE FROM seen WHERE kind = ? AND path = ?", rows)
        except sqlite3.OperationalError:  # locked, or no space: rather forget everything
            self.path.unlink(missing_ok=True)

    def value(self, path: Path, read: Callable[[Path], str]) -> str:
        """Return what is known of one file, or read it and remember.

        Raises:
            OSError: if the file is missing or cannot be read.
        """
        known, _ = self.recall([path])
        if path not in known:
            stamp = Stamp.of(path)
            known[path] = read(path)
            self.remember(known, {path: stamp})
        return known[path]

    def _seen(self, names: Sequence[bytes]) -> dict[bytes, tuple[str, str]]:
        """Look up the stamps and values kept for names; none if the cache cannot be read."""
        if not names or not self.path.exists():
            return {}
        statement = "SELECT path, stamp, value FROM seen WHERE kind = ? AND path BETWEEN ? AND ?"
        try:
            found = self._execute(statement, [(self.kind, min(names), max(names))])
        except (sqlite3.OperationalError, OSError):
            return {}
        return {path: (stamp, value) for path, stamp, value in found}

    def _execute(self, statement: str, rows: Sequence[tuple[object, ...]]) -> list[tuple[bytes, str, str]]:
        """Run one statement for each of the rows; a damaged cache is begun anew."""
        try:
            return self._attempt(statement, rows)
        except sqlite3.OperationalError:
            raise  # locked for long, read only, or the disk is full
        except sqlite3.DatabaseError:
            self.path.unlink(missing_ok=True)
            return self._attempt(statement, rows)

    def _attempt(self, statement: str, rows: Sequence[tuple[object, ...]]) -> list[tuple[bytes, str, str]]:
        with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as connection, connection:
            connection.execute(SCHEMA)
            return [found for row in rows for found in connection.execute(statement, row)]
