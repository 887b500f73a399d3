"""A name that exists is complete, whatever happens to the writer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.files import replacing, write_text

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
