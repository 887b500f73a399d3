"""What trainings that are not done have come to: of which somebody may go on, which is damaged or of no use."""

from contextlib import suppress
from pathlib import Path

from tasks.core.artifacts import Artifacts
from tasks.core.files import unsealed
from tasks.core.heads import held

CHECKPOINTS = "*.checkpoint"
KEPT_FOR = 7 * 24 * 3600.0
"""Seconds that what a stopped training has come to waits for somebody to go on with it."""
ALIVE = 3600.0
"""A search that has kept something so lately may be under way; it does so more often."""


def broken_checkpoints(artifacts: Artifacts) -> list[Path]:
    """Read all checkpoints; list those whose bytes are not those that were written."""
    return [path for path in sorted(artifacts.checkpoints.rglob(CHECKPOINTS)) if _is_broken(path)]


def useless_checkpoints(artifacts: Artifacts, now: float, older_than: float | None) -> dict[Path, str]:
    """Find folders of checkpoints from which nobody will go on, and say why of each.

    Args:
        artifacts: where to look.
        now: in seconds since 1970.
        older_than: seconds after which they are given up, if that is sooner than usual.
    """
    age = max(ALIVE, min(KEPT_FOR, KEPT_FOR if older_than is None else older_than))
    folders = sorted(filter(Path.is_dir, artifacts.checkpoints.glob("*")))
    return {
        folder: "its search is done" if _is_done(artifacts, folder) else "its training was stopped long ago"
        for folder in folders
        if not is_of_use(artifacts, folder, now - age)
    }


def is_of_use(artifacts: Artifacts, folder: Path, since: float) -> bool:
    """Whether a search is not done, and has kept something since a time, or has begun to."""
    touched = 0.0
    for path in (folder, *folder.glob("*")):
        with suppress(OSError):  # gone by now
            touched = max(touched, path.lstat().st_mtime)
    return touched >= since and not _is_done(artifacts, folder)


def _is_done(artifacts: Artifacts, folder: Path) -> bool:
    """Whether a search, whose folder is named by its shelf and key, has left its layers there."""
    shelf, _, key = folder.name.partition("-")
    return key in held(artifacts.heads / shelf, artifacts.seen("head"))[0]


def _is_broken(checkpoint: Path) -> bool:
    """Whether a file does not begin with the digest of what follows; one that is gone by now is not broken."""
    try:
        return unsealed(checkpoint.read_bytes()) is None
    except OSError:
        return False
