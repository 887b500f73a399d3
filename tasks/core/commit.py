"""Which commit of a git checkout some code is."""

import os
import shutil
import subprocess
from pathlib import Path

SECONDS = 5
"""A checkout that takes longer to look at is not told."""

QUIETLY = ("--no-optional-locks", "-c", "core.fsmonitor=false")
"""Nothing is written, and no program that a checkout names is started."""


def commit_of(file: Path) -> str | None:
    """Name the commit that a file's checkout stands at.

    Args:
        file: one that would be tracked. Installed code may lie somewhere within another project's checkout,
            whose commit says nothing of it.

    Returns:
        The commit, with "+changes" where tracked files differ from it; None where the file is not tracked,
        or git cannot tell.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", "--", file.name) is None:
        return None
    commit = _git(file.parent, "rev-parse", "--verify", "HEAD")
    changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None
    return commit + ("+changes" if changes else "")


def _git(folder: Path, *words: str) -> str | None:
    """What git answers, or None where it is not there, fails, or takes too long."""
    git = shutil.which("git")
    if git is None:
        return None
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and no word of a user's
            [git, *QUIETLY, "-C", str(folder), *words],
            env=own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
