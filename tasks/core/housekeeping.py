"""What lies under artifacts: listing it, finding what is damaged, and removing what nobody needs.

Everything here may run beside a study. What a living process is writing is left alone, and whatever is
removed is only a cache: the next run makes again what it lacks.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from tasks.core.artifacts import Artifacts
from tasks.core.claims import Claims
from tasks.core.errors import RequestError
from tasks.core.files import PARTIALS, is_abandoned, remove_abandoned
from tasks.core.heads import COST, SUFFIX, damage, held
from tasks.core.stopped import ALIVE, broken_checkpoints, is_of_use, useless_checkpoints
from tasks.core.store import VIEW, Holdings, drop, find_damage, holdings, last_used, view_damage

HOURS = {"H": 1, "D": 24, "W": 7 * 24}
BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class SetEntry:
    """One feature set, as `headstart cache ls` shows it.

    Attributes:
        folder: its own.
        backbone: what the rows were made with, and
        tap: where in it;
        view: how the samples were looked at.
        dtype: stored type.
        samples: how many it holds.
        damaged: how many of its shards are damaged.
        bytes: on disk.
        used: when a run last used it, in seconds since 1970.
        engines: that computed the rows.
    """

    folder: Path
    backbone: str
    tap: str
    view: str
    dtype: str
    samples: int
    damaged: int
    bytes: int
    used: float
    engines: tuple[str, ...]


@dataclass(frozen=True)
class Damage:
    """One file that is not what it should be: why, and what a run does about it."""

    path: Path
    reason: str
    mend: str


class Kind(Enum):
    """What is to be removed, which says what must still be true when it is."""

    REST = "a temporary file whose writer is dead"
    SHARD = "a damaged shard"
    VIEW = "a damaged features.h5"
    HEADS = "a damaged file of heads"
    EMPTY = "the folder of a set without samples, or of no heads"
    CHECKPOINTS = "what a search of layers had come to"
    TREE = "a file, or a folder with all that is in it"


@dataclass(frozen=True)
class Removal:
    """Something to remove: why, and how many bytes that frees."""

    path: Path
    kind: Kind
    reason: str
    bytes: int


def parse_age(text: str) -> float:
    """Read an age such as "30d" (units: h, d, w).

    Returns:
        Seconds.

    Raises:
        RequestError: if it is none.
    """
    number, unit = _number_and_unit(text, HOURS, "an age", "30d (units: h, d, w)")
    return number * HOURS[unit] * 3600


def parse_size(text: str) -> int:
    """Read a size such as "10GB" (units: B, KB, MB, GB, TB, powers of 1000).

    Returns:
        Bytes.

    Raises:
        RequestError: if it is none.
    """
    number, unit = _number_and_unit(text, BYTES, "a size", "10GB (units: B, KB, MB, GB, TB)")
    return int(number * BYTES[unit])


def list_sets(artifacts: Artifacts) -> list[SetEntry]:
    """List the feature sets, the most lately used first."""
    return sorted(
        (_entry(folder, held) for folder, held in _held(artifacts)),
        key=lambda entry: (-entry.used, entry.folder),
    )


def size_of(place: Path) -> int:
    """Sum the bytes of a file, or of all files in a folder; 0 if it is not there."""
    return sum(stat.st_size for stat in _stats(place))


def find_all_damage(artifacts: Artifacts) -> list[Damage]:
    """Read every shard, view, file of heads and checkpoint whole, and forget what was remembered of damaged ones.

    A run then finds each of them, too, and mends it.
    """
    shards, views, heads = [], [], []
    for folder in _set_folders(artifacts):
        shards += [
            Damage(path, reason, "a run extracts its samples again")
            for path, reason in find_damage(folder).items()
        ]
        if reason := view_damage(folder):
            views.append(Damage(folder / VIEW, reason, "a run writes it anew"))
    for path in sorted(artifacts.heads.rglob(f"*{SUFFIX}")):
        if reason := damage(path):
            heads.append(Damage(path, reason, "a run trains its heads again"))
    artifacts.seen("shard").forget(each.path for each in shards)
    artifacts.seen("head").forget(each.path for each in heads)
    checkpoints = [
        Damage(path, "its bytes are not those that were written", "a run trains from the start again")
        for path in broken_checkpoints(artifacts)
    ]
    return shards + views + heads + checkpoints


def plan_removals(
    artifacts: Artifacts, now: float, older_than: float | None = None, keep: int | None = None
) -> list[Removal]:
    """Decide what to remove: litter always, and what else is asked for.

    Args:
        artifacts: where to tidy.
        now: in seconds since 1970.
        older_than: seconds; feature sets and engines not used for so long go, and checkpoints, which go after a
            week in any case.
        keep: bytes; the least lately used feature sets go until the others fit.

    Returns:
        In the order in which they are to be removed.
    """
    rests = [
        Removal(path, Kind.REST, "left by a writer that died", size_of(path))
        for path in sorted(artifacts.root.rglob(PARTIALS))
        if is_abandoned(path)
    ]
    damaged = [each for folder, held in _held(artifacts) for each in _unusable(folder, held)]
    damaged += _unusable_heads(artifacts)
    sets = [entry for entry in list_sets(artifacts) if entry.samples and not _is_written_to(entry.folder)]
    old = [] if older_than is None else [entry for entry in sets if entry.used < now - older_than]
    over = [] if keep is None else _over(keep, [entry for entry in sets if entry not in old])
    dropped = [
        Removal(entry.folder, Kind.TREE, reason, entry.bytes)
        for entries, reason in ((old, "not used for long"), (over, "least lately used"))
        for entry in entries
    ]
    engines = [] if older_than is None else _old_engines(artifacts, now - older_than)
    checkpoints = [
        Removal(path, Kind.CHECKPOINTS, reason, size_of(path))
        for path, reason in useless_checkpoints(artifacts, now, older_than).items()
    ]
    return rests + damaged + checkpoints + dropped + engines


def remove(artifacts: Artifacts, removal: Removal) -> bool:
    """Remove something if there is still reason to; say whether it is gone."""
    path = removal.path
    if removal.kind is Kind.REST:
        return remove_abandoned(path)
    if removal.kind is Kind.SHARD:
        return _remove_damaged(artifacts, path)
    if removal.kind is Kind.VIEW or (removal.kind is Kind.HEADS and damage(path)):
        path.unlink(missing_ok=True)  # heads that a run has written anew stay
    elif removal.kind is Kind.CHECKPOINTS and not is_of_use(artifacts, path, time.time() - ALIVE):
        _remove_tree(path, list(_files(path)))
    elif removal.kind in (Kind.EMPTY, Kind.TREE) and not _is_written_to(path):
        _remove_tree(path, [] if removal.kind is Kind.EMPTY else list(_files(path)))
    return not path.exists()


# Listing


def _number_and_unit(text: str, units: dict[str, int], what: str, example: str) -> tuple[float, str]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    if match is None or match[2].upper() not in units:
        raise RequestError(f"{text!r} is not {what}; write a number and a unit, such as {example}")
    return float(match[1]), match[2].upper()


def _set_folders(artifacts: Artifacts) -> list[Path]:
    return [place for place in _children(artifacts.features) if place.is_dir()]


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _held(artifacts: Artifacts) -> Iterator[tuple[Path, Holdings]]:
    seen = artifacts.seen("shard")
    return ((folder, holdings(folder, seen)) for folder in _set_folders(artifacts))


def _entry(folder: Path, held: Holdings) -> SetEntry:
    stories = [json.loads(text) for text in {shard.layout.provenance for shard in held.shards}]
    story = stories[0] if stories else {}
    return SetEntry(
        folder=folder,
        backbone=str(story.get("backbone", "?")),
        tap=str(story.get("tap", "?")),
        view=str(story.get("view", "?")),
        dtype=np.dtype(held.shards[0].layout.dtype).name if held.shards else "?",
        samples=len(held.rows),
        damaged=len(held.damaged),
        bytes=size_of(folder),
        used=last_used(folder),
        engines=tuple(sorted({str(each.get("engine", "?")) for each in stories})),
    )


def _files(place: Path) -> Iterator[Path]:
    """Go through the files of a folder, or give the file itself; links are not followed."""
    if place.is_dir() and not place.is_symlink():
        for folder, _, names in os.walk(place):
            yield from (Path(folder, name) for name in sorted(names))
    else:
        yield place


def _stats(place: Path) -> Iterator[os.stat_result]:
    for path in _files(place):
        with suppress(OSError):  # gone by now
            yield path.lstat()


# Damage


def _unusable(folder: Path, held: Holdings) -> list[Removal]:
    """What is of no use in a set: damaged files, and the folder itself if nothing else is in it."""
    removals = [
        Removal(path, Kind.SHARD, f"damaged: {reason}", size_of(path))
        for path, reason in held.damaged.items()
    ]
    if reason := view_damage(folder):
        removals.append(Removal(folder / VIEW, Kind.VIEW, f"damaged: {reason}", size_of(folder / VIEW)))
    if not held.shards and not _is_written_to(folder):
        removals.append(Removal(folder, Kind.EMPTY, "holds no samples", 0))
    return removals


def _unusable_heads(artifacts: Artifacts) -> Iterator[Removal]:
    """What is of no use among heads: damaged files, and folders without any other."""
    seen = artifacts.seen("head")
    for folder in (artifacts.heads, *filter(Path.is_dir, _children(artifacts.heads))):
        found, damaged = held(folder, seen)
        for path in damaged:
            yield Removal(path, Kind.HEADS, f"damaged: {damage(path)}", size_of(path))
        for cost in sorted(folder.glob(f"*{COST}")):
            if not cost.with_suffix(SUFFIX).exists() or cost.with_suffix(SUFFIX) in damaged:
                yield Removal(cost, Kind.TREE, "of heads that are gone", size_of(cost))
        if not found and folder != artifacts.heads and not _is_written_to(folder):
            yield Removal(folder, Kind.EMPTY, "holds no heads", 0)


# Removing


def _is_written_to(folder: Path) -> bool:
    """Whether a living process is writing a file there."""
    return any(not is_abandoned(path) and path.exists() for path in folder.rglob(PARTIALS))


def _over(keep: int, sets: list[SetEntry]) -> list[SetEntry]:
    """Choose the sets that do not fit; they come most lately used first."""
    kept = 0
    for place, entry in enumerate(sets):
        kept += entry.bytes
        if kept > keep:
            return sets[place:]
    return []


def _old_engines(artifacts: Artifacts, since: float) -> list[Removal]:
    """Choose converted networks of which no file was touched since then."""
    return [
        Removal(place, Kind.TREE, "not used for long", size_of(place))
        for place in _children(artifacts.engines)
        if max((stat.st_mtime for stat in _stats(place)), default=0.0) < since
    ]


def _remove_damaged(artifacts: Artifacts, shard: Path) -> bool:
    """Drop a shard that is still damaged, one process at a time: a run may have written it anew."""
    folder = shard.parents[1]
    used = last_used(folder)
    with Claims(artifacts.features / ".claims", "damage").alone(folder.name):
        if shard in holdings(folder, artifacts.seen("shard")).damaged:
            drop(folder, [shard])
            os.utime(folder, (used, used))  # tidying is no use of it
    return not shard.exists()


def _remove_tree(place: Path, files: list[Path]) -> None:
    """Remove files, a set's view before its shards, then the folders that are empty."""
    for path in sorted(files, key=lambda path: path.name != VIEW):
        path.unlink(missing_ok=True)
    (place / VIEW).unlink(missing_ok=True)
    folders = [Path(folder) for folder, _, _ in os.walk(place, topdown=False)]
    for folder in folders:
        with suppress(OSError):  # somebody has just written into it
            folder.rmdir()
