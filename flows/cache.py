"""`headstart cache`: what is stored, whether it is whole, and removing what nobody needs.

Neither Prefect nor torch is loaded.
"""

import argparse
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tasks.core.artifacts import Artifacts
from tasks.core.errors import RequestError
from tasks.core.housekeeping import (
    SetEntry,
    find_all_damage,
    list_sets,
    parse_age,
    parse_size,
    plan_removals,
    remove,
    size_of,
)
from tasks.core.words import size

DONE, DAMAGED = 0, 1

WIDTH = 400
"""Names are never cut short, whatever the terminal says."""


def run_cache(given: argparse.Namespace) -> int:
    """Run one of the commands; return the exit code.

    Raises:
        RequestError: if there is no such folder, or an option cannot be understood.
    """
    artifacts: Path = given.artifacts.resolve()
    if not artifacts.is_dir():
        raise RequestError(f"{artifacts}: no such folder; name the one of your runs with --artifacts")
    if given.action == "ls":
        return cache_ls(artifacts)
    if given.action == "verify":
        return cache_verify(artifacts)
    return cache_gc(artifacts, given.older_than, given.keep, given.dry_run)


def cache_ls(artifacts: Path) -> int:
    """Show what is stored, the most lately used first."""
    here, console = Artifacts(artifacts), _console()
    sets = list_sets(here)
    if sets:
        console.print(_set_table(sets))
    console.print(f"{len(sets)} feature sets: {size(sum(entry.bytes for entry in sets))}")
    others = {
        "heads and layers": here.heads,
        "checkpoints of trainings that are not done": here.checkpoints,
        "converted networks": here.engines,
    }
    for name, place in others.items():
        console.print(f"{name}: {size(size_of(place) if place.exists() else 0)}")
    if damaged := sum(entry.damaged for entry in sets):
        console.print(f'{damaged} shards are damaged; "headstart cache verify" tells which')
    return DONE


def cache_verify(artifacts: Path) -> int:
    """Read every shard, view, head and checkpoint; show the damaged ones. Exit code 1 if there are any."""
    console = _console()
    damages = find_all_damage(Artifacts(artifacts))
    rows = [(_place(damage.path, artifacts), damage.reason, damage.mend) for damage in damages]
    if rows:
        console.print(_table(("damaged", "why", "what follows"), rows))
    console.print(f"{len(rows)} files are damaged" if rows else "everything is whole")
    return DAMAGED if rows else DONE


def cache_gc(
    artifacts: Path, older_than: str | None = None, keep: str | None = None, dry_run: bool = False
) -> int:
    """Remove litter, and the feature sets that the options ask for.

    Args:
        artifacts: the folder.
        older_than: an age such as "30d".
        keep: a size such as "10GB".
        dry_run: only show what would be removed.

    Raises:
        RequestError: if an option cannot be understood.
    """
    here, console = Artifacts(artifacts), _console()
    removals = plan_removals(
        here,
        time.time(),
        None if older_than is None else parse_age(older_than),
        None if keep is None else parse_size(keep),
    )
    gone = [removal for removal in removals if dry_run or remove(here, removal)]
    rows = [(_place(each.path, artifacts), each.reason, size(each.bytes)) for each in gone]
    if rows:
        console.print(_table(("would be removed" if dry_run else "removed", "why", "size"), rows))
    total = sum(removal.bytes for removal in gone)
    console.print(f"{size(total)} would be freed" if dry_run else f"{size(total)} freed")
    return DONE


def _console() -> Console:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.width = max(console.width, WIDTH)
    return console


def _set_table(sets: Sequence[SetEntry]) -> Table:
    headings = ("backbone", "tap", "view", "dtype", "samples", "size", "last used", "engine", "set")
    rows = [
        (
            entry.backbone,
            entry.tap,
            entry.view,
            entry.dtype,
            f"{entry.samples:,}",
            size(entry.bytes),
            f"{datetime.fromtimestamp(entry.used).astimezone():%Y-%m-%d %H:%M}",
            ", ".join(entry.engines),
            entry.folder.name[:8],
        )
        for entry in sets
    ]
    return _table(headings, rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("samples", "size") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _place(path: Path, artifacts: Path) -> str:
    return str(path.relative_to(artifacts))
