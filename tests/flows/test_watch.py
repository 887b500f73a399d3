"""Files that change: told once they have come to rest, in lots, and only those that matter."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import launched
import pytest

from flows import watch
from flows.watch import feed, file_changes, folder_changes, gathered

server = launched.no_harness

Act = Callable[[], object]
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REST", 0.3)


async def _lots(stream: AsyncIterator[set[Path]], ready: Path, acts: list[Act]) -> list[set[Path]]:
    """What a stream tells of each of some acts; it looks from when it first tells of `ready`."""
    told: asyncio.Queue[set[Path]] = asyncio.Queue()
    looking = asyncio.create_task(feed(told, stream))
    try:
        await _until_it_looks(told, ready)
        lots = []
        for act in acts:
            act()
            lots.append(await asyncio.wait_for(told.get(), PATIENCE))
        return lots
    finally:
        looking.cancel()


async def _until_it_looks(told: "asyncio.Queue[set[Path]]", ready: Path) -> None:
    """Change a file until the stream tells of it: only then does it see what changes."""
    for turn in range(30):
        await asyncio.sleep(0.1)
        ready.write_text(str(turn))
        try:
            await asyncio.wait_for(told.get(), 2)
        except TimeoutError:
            continue
        if turn:  # an earlier change may be told as well
            await asyncio.sleep(2)
        while not told.empty():
            told.get_nowait()
        return
    raise AssertionError("it never tells anything")


def in_folder(folder: Path, *acts: Act, leave_out: tuple[Path, ...] = ()) -> list[set[Path]]:
    stream = folder_changes(folder, leave_out=leave_out)
    return asyncio.run(_lots(stream, folder / "ready", list(acts)))


def of_file(file: Path, *acts: Act) -> list[set[Path]]:
    return asyncio.run(_lots(file_changes(file), file, list(acts)))


def test_new_changed_moved_and_removed_files_of_a_folder_are_told(tmp_path):
    (tmp_path / "old.png").write_text("a")
    new = tmp_path / "class" / "new.png"
    new.parent.mkdir()
    lots = in_folder(
        tmp_path,
        lambda: new.write_text("a"),
        lambda: (tmp_path / "old.png").write_text("b"),
        lambda: new.rename(tmp_path / "class" / "moved.png"),
        (tmp_path / "old.png").unlink,
    )
    moved = tmp_path / "class" / "moved.png"
    assert lots == [{new}, {tmp_path / "old.png"}, {new, moved}, {tmp_path / "old.png"}]


def test_files_of_a_folder_that_is_new_itself_are_told(tmp_path):
    def add() -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "0.png").write_text("a")

    [lot] = in_folder(tmp_path, add)
    assert tmp_path / "new" in lot


def test_files_that_change_together_are_told_in_one_lot(tmp_path):
    names = {tmp_path / f"{number}.png" for number in range(50)}

    def write_all() -> None:
        for name in names:
            name.write_text("a")

    assert in_folder(tmp_path, write_all) == [names]


def test_files_are_told_only_when_they_have_come_to_rest(tmp_path, monkeypatch):
    """A copy that takes twice the rest is one lot."""
    monkeypatch.setattr(watch, "REST", 1.0)
    names = [tmp_path / f"{number}.png" for number in range(10)]

    async def copy() -> tuple[list[Path], set[Path]]:
        told: asyncio.Queue[set[Path]] = asyncio.Queue()
        looking = asyncio.create_task(feed(told, folder_changes(tmp_path)))
        await _until_it_looks(told, tmp_path / "ready")
        for name in names:
            name.write_text("a")
            await asyncio.sleep(0.2)
        early = [] if told.empty() else sorted(told.get_nowait())
        lot = set() if early else await asyncio.wait_for(told.get(), PATIENCE)
        looking.cancel()
        return early, lot

    assert asyncio.run(copy()) == ([], set(names))


def test_hidden_files_and_the_folder_of_the_outputs_do_not_count(tmp_path):
    outputs, seen = tmp_path / "artifacts", tmp_path / "seen.png"
    for folder in (outputs / "studies", tmp_path / ".git", tmp_path / "artifacts-2"):
        folder.mkdir(parents=True)

    def write() -> None:
        (tmp_path / ".hidden.png").write_text("a")
        (tmp_path / ".git" / "index").write_text("a")
        (outputs / "studies" / "report.html").write_text("a")
        (tmp_path / "artifacts-2" / "0.png").write_text("a")
        seen.write_text("a")

    [lot] = in_folder(tmp_path, write, leave_out=(outputs,))
    assert lot == {seen, tmp_path / "artifacts-2" / "0.png"}


def test_a_folder_that_lies_in_a_hidden_one_is_watched(tmp_path):
    folder = tmp_path / ".data"
    folder.mkdir()
    assert in_folder(folder, lambda: (folder / "0.png").write_text("a")) == [{folder / "0.png"}]


def test_a_file_s_changes_are_told_and_not_those_of_its_neighbours(tmp_path):
    file, other = tmp_path / "study.toml", tmp_path / "other.toml"
    file.write_text("a")

    def write_both() -> None:
        other.write_text("a")
        file.write_text("b")

    assert of_file(file, write_both) == [{file}]


def test_a_file_that_is_saved_by_putting_another_in_its_place_is_told_each_time(tmp_path):
    file, draft = tmp_path / "study.toml", tmp_path / "study.toml~"
    file.write_text("a")

    def save() -> None:
        draft.write_text("b")
        draft.replace(file)

    assert of_file(file, save, save, file.unlink, save) == [{file}] * 4


def test_what_several_streams_tell_is_gathered(tmp_path):
    async def gather() -> list[set[Path]]:
        news: asyncio.Queue[set[Path]] = asyncio.Queue()
        for name in ("a", "b"):
            news.put_nowait({Path(name)})
        first = await gathered(news)
        later = asyncio.create_task(gathered(news))
        await asyncio.sleep(0)
        news.put_nowait({Path("c")})
        return [first, await later]

    assert asyncio.run(gather()) == [{Path("a"), Path("b")}, {Path("c")}]
