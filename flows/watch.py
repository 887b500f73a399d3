"""Waiting until files have changed and come to rest."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

REST = 5.0
"""Seconds without a further change after which files are taken to be whole; copying takes its time."""
AT_MOST = 600.0
"""Seconds after which changes are told although more keep coming."""


async def file_changes(*files: Path) -> AsyncIterator[set[Path]]:
    """Wait for changes of some files, and tell each lot when it has come to rest.

    They are watched by their folders: many programs save by putting a new file in the place of the old.
    """
    async for found in _changes({file.parent for file in files}, lambda path: path in files, recursive=False):
        yield found


async def folder_changes(folder: Path, *, leave_out: Sequence[Path] = ()) -> AsyncIterator[set[Path]]:
    """Wait for changes of anything in a folder, and tell each lot when it has come to rest.

    Args:
        folder: with all that is in it, but for what is hidden.
        leave_out: folders in it that do not count, such as that of the outputs.
    """

    def matters(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        return not hidden and not any(path.is_relative_to(each) for each in leave_out)

    async for found in _changes({folder}, matters, recursive=True):
        yield found


async def feed(news: "asyncio.Queue[set[Path]]", stream: AsyncIterator[set[Path]]) -> None:
    """Put what a stream tells into a queue, where several streams meet."""
    async for found in stream:
        news.put_nowait(found)


async def gathered(news: "asyncio.Queue[set[Path]]") -> set[Path]:
    """Wait for news, and take all that has come meanwhile."""
    found = await news.get()
    while not news.empty():
        found |= news.get_nowait()
    return found


async def _changes(
    folders: set[Path], matters: Callable[[Path], bool], *, recursive: bool
) -> AsyncIterator[set[Path]]:
    from watchfiles import awatch

    settled, longest = int(1000 * REST), int(1000 * AT_MOST)
    async for found in awatch(
        *folders,
        watch_filter=lambda change, name: matters(Path(name)),
        step=settled,
        debounce=longest,
        recursive=recursive,
        ignore_permission_denied=True,
    ):
        yield {Path(name) for _, name in found}
