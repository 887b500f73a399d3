"""HDF5 files whose first bytes, HDF5's user block, hold a checksum of all the others.

A damaged file is found before HDF5 sees it, which could crash or hang.
"""

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from tasks.core.digest import DIGEST_BYTES, digest_bytes
from tasks.core.errors import StoreError

USER_BLOCK = 512  # bytes, the least that HDF5 allows


class DamageError(Exception):
    """A file is not what its name promises; the text says why."""


def write_sealed(path: Path, image: io.BytesIO) -> None:
    """Write an HDF5 file that was made in memory, with its checksum in the user block, left empty."""
    content = image.getbuffer()[USER_BLOCK:]
    with path.open("wb") as file:
        file.write(_user_block(digest_bytes(content)))
        file.write(content)


@contextmanager
def opened_sealed(path: Path, handle: int | None = None) -> Iterator[tuple[io.BufferedReader, h5py.File]]:
    """Open an HDF5 file whose checksum is right, through one handle: what was checked is what is read."""
    try:
        with path.open("rb") if handle is None else os.fdopen(handle, "rb", closefd=False) as raw:
            if raw.read(USER_BLOCK) != _user_block(_checksum(raw)):
                raise DamageError("its checksum does not match its content")
            with h5py.File(raw, "r") as file:
                yield raw, file
    except FileNotFoundError:
        raise
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
            raise StoreError(f"{path}: cannot be read ({error.strerror}); nothing was changed") from error
        raise DamageError(f"cannot be read ({error})") from error


def text(file: h5py.File, name: str) -> str:
    """Read an attribute of a file."""
    return str(file.attrs[name])


def _checksum(file: io.BufferedReader) -> str:
    """Digest what is left to read of a file."""
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def _user_block(checksum: str) -> bytes:
    """What the first bytes must be: the checksum of all that follow them, then zeros."""
    return f"headstart shard {checksum}\n".encode().ljust(USER_BLOCK, b"\0")
