"""A name that exists is complete, whatever happens to the writer."""

import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import StoreError
from tasks.core.files import PARTIALS, is_abandoned, remove_abandoned, replacing, write_text

KILLED_HALFWAY = """
import os, signal, sys
from pathlib import Path
from tasks.core.files import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half of the new con")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_block_that_ends_well_replaces_the_old_content(tmp_path):
    place = tmp_path / "table.csv"
    place.write_text("old")
    with replacing(place) as partial:
        partial.write_text("new")
    assert place.read_text() == "new"
    assert names(tmp_path) == ["table.csv"]


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def test_the_name_holds_the_old_content_until_the_block_has_ended(tmp_path):
    place, fresh = tmp_path / "old.txt", tmp_path / "fresh.txt"
    place.write_text("old")
    with replacing(place) as partial, replacing(fresh) as other:
        partial.write_text("new")
        other.write_text("new")
        assert place.read_text() == "old"
        assert not fresh.exists()


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failed_block_leaves_what_was_there_and_no_litter(tmp_path, error, old):
    place = tmp_path / "result.json"
    if old is not None:
        place.write_text(old)
    with pytest.raises(error), replacing(place) as partial:
        partial.write_text("half")
        raise error
    assert names(tmp_path) == ([] if old is None else ["result.json"])
    assert old is None or place.read_text() == old


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    place = tmp_path / "result.json"
    place.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(place):
        pass
    assert place.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_a_failed_rename_keeps_the_old_file_and_leaves_no_litter(tmp_path, monkeypatch):
    place = tmp_path / "result.json"
    place.write_text("old")

    def refuse(self, target):
        raise PermissionError(target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        write_text(place, "new")
    assert place.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_a_killed_process_leaves_the_old_file_and_at_most_a_hidden_partial(tmp_path):
    place = tmp_path / "result.json"
    place.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED_HALFWAY, str(place)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert place.read_text() == "old"
    left = [name for name in names(tmp_path) if name != "result.json"]
    assert all(name.startswith(".") and name.endswith(".partial") for name in left)


def test_a_killed_process_does_not_hinder_the_next(tmp_path):
    place = tmp_path / "result.json"
    subprocess.run([sys.executable, "-c", KILLED_HALFWAY, str(place)], check=False)
    assert not place.exists()
    write_text(place, "whole")
    assert place.read_text() == "whole"


def test_content_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(handle):
        events.append(("flush", Path(f"/proc/self/fd/{handle}").resolve()))
        fsync(handle)

    def note_replace(self, target):
        events.append(("rename", self))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    folder = tmp_path.resolve()
    with replacing(folder / "shard.h5") as partial:
        partial.write_bytes(b"rows")
    assert events == [("flush", partial), ("rename", partial), ("flush", folder)]


def test_writers_of_one_name_do_not_meet_and_the_last_wins_whole(tmp_path):
    place = tmp_path / "shared.txt"
    with replacing(place) as slow:
        slow.write_text("slow" * 1000)
        with replacing(place) as fast:
            assert slow != fast
            fast.write_text("fast")
        assert place.read_text() == "fast"
    assert place.read_text() == "slow" * 1000
    assert names(tmp_path) == ["shared.txt"]


def test_the_temporary_name_stands_in_the_same_folder(tmp_path):
    with replacing(tmp_path / "x") as partial:
        assert partial.parent == tmp_path  # a rename across file systems would be no rename
        partial.touch()


@settings(max_examples=25, deadline=None)  # each one waits for the disk
@given(text=st.text())
def test_text_is_written_as_utf8_to_the_byte(tmp_path_factory, text):
    place = tmp_path_factory.getbasetemp() / "utf8.txt"
    write_text(place, text)
    assert place.read_bytes() == text.encode("utf-8")


def test_text_that_cannot_be_encoded_keeps_the_old_file(tmp_path):
    place = tmp_path / "report.html"
    write_text(place, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(place, "good start \udc80")
    assert place.read_text() == "old"
    assert names(tmp_path) == ["report.html"]


# What dead writers leave

WAITS_HALFWAY = """
import sys
from pathlib import Path
from tasks.core.files import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    print("there", flush=True)
    sys.stdin.readline()
    partial.write_text("whole")
"""


def partials(folder):
    return sorted(folder.rglob(PARTIALS))


def test_a_living_writers_file_is_left_alone_and_a_dead_ones_is_removed(tmp_path):
    place = tmp_path / "result.json"
    command = [sys.executable, "-c", WAITS_HALFWAY, str(place)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as living, subprocess.Popen(command, **pipes) as dead:
        assert living.stdout.readline() == dead.stdout.readline() == "there\n"
        assert len(partials(tmp_path)) == 2
        assert [is_abandoned(path) for path in partials(tmp_path)] == [False, False]
        dead.kill()
        dead.wait()
        assert sorted(is_abandoned(path) for path in partials(tmp_path)) == [False, True]
        assert sorted(remove_abandoned(path) for path in partials(tmp_path)) == [False, True]
        assert len(partials(tmp_path)) == 1
        living.communicate("go\n")
    assert place.read_text() == "whole"
    assert names(tmp_path) == ["result.json"]


def test_looking_at_a_rest_does_not_remove_it(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED_HALFWAY, str(tmp_path / "x")], check=False)
    [rest] = partials(tmp_path)
    assert is_abandoned(rest)
    assert is_abandoned(rest)
    assert remove_abandoned(rest)
    assert not remove_abandoned(rest)
    assert names(tmp_path) == []


def test_this_process_counts_as_alive_as_long_as_the_block_runs(tmp_path):
    with replacing(tmp_path / "x") as partial:
        assert not is_abandoned(partial)
        partial.write_text("content")
        assert not remove_abandoned(partial)
    assert (tmp_path / "x").read_text() == "content"


def test_a_rest_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("x")
    link = tmp_path / ".x.1-abc.partial"
    link.symlink_to(tmp_path / "precious")
    assert not remove_abandoned(link)
    assert names(tmp_path) == [link.name, "precious"]


def test_a_file_tidied_away_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """Somebody who tidies may come between the making of the file and its lock."""
    lock, swept = fcntl.flock, []

    def late(handle, how):
        if not swept and how == fcntl.LOCK_EX:
            [path] = partials(tmp_path)
            swept.append(path)
            assert remove_abandoned(path)
            path.parent.rmdir()
        return lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_text(tmp_path / "folder" / "x", "content")
    assert len(swept) == 1
    assert (tmp_path / "folder" / "x").read_text() == "content"


def test_tidying_beside_many_writers_takes_nothing_from_them(tmp_path):
    def write(own):
        for number in range(60):
            write_text(tmp_path / f"{own}-{number}", str(number))

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, own) for own in range(3)]
        while not all(writer.done() for writer in writers):
            for path in partials(tmp_path):
                remove_abandoned(path)
    assert [writer.exception() for writer in writers] == [None] * 3
    assert len(names(tmp_path)) == 180


# A full disk

FULL = """
import resource, sys
from pathlib import Path
from tasks.core.errors import StoreError
from tasks.core.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "x" * int(sys.argv[2]))
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize(("size", "lines"), [(1000, 0), (1001, 1), (10**6, 1)])
def test_a_full_disk_is_one_line_and_the_old_content_stays(tmp_path, size, lines):
    place = tmp_path / "table.csv"
    place.write_text("old")
    told = subprocess.run(
        [sys.executable, "-c", FULL, str(place), str(size)], capture_output=True, text=True, check=True
    )
    assert len(told.stdout.splitlines()) == lines
    assert place.read_text() == ("old" if lines else "x" * size)
    assert names(tmp_path) == ["table.csv"]
    if lines:
        assert str(place) in told.stdout
        assert "--artifacts" in told.stdout


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(IsADirectoryError) as told, replacing(tmp_path / "x") as partial:
        partial.write_text("content")
        (tmp_path / "x").mkdir()
    assert not isinstance(told.value, StoreError)
    assert names(tmp_path) == ["x"]
