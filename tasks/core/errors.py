"""The ways in which a run can end early, each with one line for the user."""

import errno
import os
from pathlib import Path


class HeadstartError(Exception):
    """Something went wrong that the user can mend; the text is the whole message."""


class RequestError(HeadstartError, ValueError):
    """The request itself was wrong: what was found, what was needed, what to do. Exit code 2."""


class StoreError(HeadstartError, OSError):
    """A stored file is not what its name promises: lost, damaged, or of another make."""


class Unreachable(HeadstartError, OSError):  # noqa: N818 - a state of the world, which may pass
    """A place is not to be had just now, such as a share that is gone for a minute; trying again may help."""


class Cancelled(HeadstartError):  # noqa: N818 - somebody's wish
    """Somebody asked the run to stop; what is done is kept."""


PASSING = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""What a file system says of a share that does not answer; never of one bad file."""


def may_pass(error: BaseException) -> bool:
    """Whether trying again may help: a share or a server did not answer."""
    return isinstance(error, Unreachable) or (isinstance(error, OSError) and error.errno in PASSING)


def check_reachable(path: Path, error: OSError) -> None:
    """Tell a file that cannot be read from a place that is gone.

    Args:
        path: the file.
        error: what reading it gave.

    Raises:
        Unreachable: if its folder is gone, too, or the file system does not answer.
    """
    if may_pass(error) or not path.parent.is_dir():
        reason = error.strerror or str(error)
        raise Unreachable(f"{path.parent}: cannot be reached ({reason}, {path.name}); is its share there?")


def check_place(folder: Path) -> None:
    """Refuse a data folder that is not there, or an empty one, which is what an unmounted share looks like.

    Raises:
        Unreachable: if it holds nothing.
    """
    try:
        with os.scandir(folder) as found:
            holds_something = next(found, None) is not None
    except OSError:
        holds_something = False
    if not holds_something:
        raise Unreachable(f"{folder}: cannot be reached, or is empty; is its share mounted?")
