"""Which samples are being extracted right now, so that no two processes do the same one.

A claim is a lock on one byte of a file, far beyond its end; which byte is told by the sample's digest.
The kernel gives a dead process's locks back at once, so nobody ever waits for one. Locks of this kind
also work between hosts on the usual network file systems.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.digest import digest_value
from tasks.core.errors import StoreError

POLL = 0.2
"""Seconds between two looks at whether a claim is free."""

_guard = threading.Lock()
_files: dict[Path, int] = {}
"""Lock files opened by this process. They stay open: closing one would give up all of its claims."""
_mine: set[tuple[Path, int]] = set()
"""Bytes that this process holds: the kernel would grant them to its other threads as well."""


class Claims:
    """Claims of one kind of work.

    Args:
        path: the lock file, made when missing and never deleted.
        scope: what the names are claimed for, such as a backbone's fingerprint and a view.
    """

    def __init__(self, path: Path, scope: str) -> None:
        self.path = path.resolve()
        self.scope = scope
        self.held: set[str] = set()

    def take(self, names: Iterable[str], most: int | None = None) -> list[str]:
        """Claim names that nobody else holds, without waiting.

        Args:
            names: in the order in which they are wanted; an iterator is read no further than needed.
            most: how many at most.

        Returns:
            Those claimed now.
        """
        taken: list[str] = []
        with _guard:
            for name in names:
                if self._lock(self._byte(name)):
                    taken.append(name)
                    if len(taken) == most:
                        break
        self.held.update(taken)
        return taken

    def release(self, names: Iterable[str]) -> None:
        """Give claims back; a name that is not held by this object is passed over."""
        mine = self.held.intersection(names)
        self.held -= mine
        with _guard:
            for name in mine:
                byte = self._byte(name)
                _mine.discard((self.path, byte))
                fcntl.lockf(self._file(), fcntl.LOCK_UN, 1, byte)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold one name for the length of a block, waiting while somebody who lives has it."""
        while not self.take([name]):
            time.sleep(POLL)
        try:
            yield
        finally:
            self.release([name])

    def _lock(self, byte: int) -> bool:
        if (self.path, byte) in _mine:
            return False
        try:
            fcntl.lockf(self._file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be locked ({error.strerror}); choose with --artifacts a folder whose file "
                "system has locks"
            ) from error
        _mine.add((self.path, byte))
        return True

    def _byte(self, name: str) -> int:
        return int(digest_value([self.scope, name])[:15], 16)  # below 2**60, within what a lock can reach

    def _file(self) -> int:
        if self.path not in _files:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _files[self.path] = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        return _files[self.path]
