"""Writing files so that a name that exists is complete, and a dead writer's rest can be told from a live one's."""

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.core.digest import DIGEST_BYTES, digest_bytes
from tasks.core.errors import StoreError

PARTIALS = ".*.partial"
"""Pattern of the temporary names."""

NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well.

    The content is flushed to disk before the rename, so that after a crash the name holds the old
    file or the new one, never a part of either. A block that fails leaves nothing behind; a process
    that is killed leaves the temporary file, which `is_abandoned` then tells from a live writer's.

    Args:
        path: where the finished file shall stand. Its folder is made when missing.

    Yields:
        A fresh name in the same folder, for the block to write by plain means (HDF5 would want
        the lock for itself).

    Raises:
        StoreError: if there is no space left.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    lock = -1
    try:
        lock = _locked(partial)
        yield partial
        if partial.stat().st_mtime_ns == 0:
            raise FileNotFoundError(errno.ENOENT, "nothing was written", str(path))
        _flush(partial)
        partial.replace(path)  # last: this name means complete
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StoreError(no_space(path, error)) from error
        raise
    finally:
        if lock >= 0:
            os.close(lock)
        partial.unlink(missing_ok=True)
    _flush(path.parent)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let no other process into such a block on the same folder, where folders can be locked.

    Args:
        folder: is made when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a share may have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def no_space(path: Path, error: OSError) -> str:
    """Say on one line what a full disk means and what to do."""
    return (
        f"{path}: cannot be written ({error.strerror}); what is stored is whole. "
        "Free some space or choose another folder with --artifacts, then run again"
    )


def is_abandoned(partial: Path) -> bool:
    """Whether the writer of a temporary file is dead; where files cannot be locked, nobody can tell."""
    with _taken(partial) as taken:
        return taken


def remove_abandoned(partial: Path) -> bool:
    """Remove a temporary file unless its writer is alive; say whether it was removed."""
    with _taken(partial) as taken:
        if taken:
            partial.unlink(missing_ok=True)  # under the lock: a writer that comes just now starts again
        return taken


def sealed(data: bytes) -> bytes:
    """Put before data the digest of it."""
    return digest_bytes(data).encode() + data


def unsealed(data: bytes) -> bytes | None:
    """Give what `sealed` was given; None if it is not that any more."""
    seal, content = data[: 2 * DIGEST_BYTES], data[2 * DIGEST_BYTES :]
    return content if seal == digest_bytes(content).encode() else None


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 under `path`, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _locked(partial: Path) -> int:
    """Make an empty file and hold its lock, which dies with this process.

    Its time is set to 0, so that a block that writes nothing is told from one that writes no bytes.
    """
    while True:
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # an empty folder was tidied away in between
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.utime(handle, ns=(0, 0))
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # tidied away before it was locked


@contextmanager
def _taken(partial: Path) -> Iterator[bool]:
    """Try to hold the lock of a temporary file, for as long as the block runs."""
    try:
        handle = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False  # its writer has just finished
        return
    try:
        yield _lock_if_free(handle)
    finally:
        os.close(handle)


def _lock_if_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
