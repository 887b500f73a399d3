"""Claims: held by one at a time, and never by the dead."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tasks.core.claims import Claims

SPAWN = multiprocessing.get_context("spawn")


def hold(path: Path, names: list[str], pipe) -> None:
    """Claim in another process, say what was got, and keep it until told."""
    claims = Claims(path, "samples")
    pipe.send(claims.take(names))
    if pipe.recv() == "release":
        claims.release(names)
        pipe.send("released")
        pipe.recv()


class Other:
    """Another process that claims names."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=hold, args=(path, names, theirs))
        self.process.start()
        self.got = self.pipe.recv()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features" / ".claims"


@pytest.fixture
def other(path: Path):
    other = Other(path, ["b", "c"])
    yield other
    other.process.kill()
    other.process.join()


def test_what_another_process_holds_is_not_taken(path: Path, other: Other):
    assert other.got == ["b", "c"]
    claims = Claims(path, "samples")
    assert claims.take(["a", "b", "c", "d"]) == ["a", "d"]
    claims.release(["a", "d"])


def test_what_was_given_back_is_free(path: Path, other: Other):
    claims = Claims(path, "samples")
    other.pipe.send("release")
    assert other.pipe.recv() == "released"
    assert claims.take(["b", "c"]) == ["b", "c"]
    claims.release(["b", "c"])


def test_a_killed_process_holds_nothing(path: Path, other: Other):
    claims = Claims(path, "samples")
    assert claims.take(["b"]) == []
    os.kill(other.process.pid, signal.SIGKILL)
    other.process.join()
    assert claims.take(["b", "c"]) == ["b", "c"]
    claims.release(["b", "c"])


def test_threads_of_one_process_exclude_each_other_too(path: Path):
    one, two = Claims(path, "samples"), Claims(path, "samples")
    assert one.take(["a"]) == ["a"]
    assert two.take(["a", "b"]) == ["b"]
    two.release(["a"])  # not its own
    assert two.take(["a"]) == []
    one.release(["a"])
    assert two.take(["a"]) == ["a"]
    two.release(["a", "b"])


def test_many_threads_share_names_without_overlap(path: Path):
    names = [str(number) for number in range(2000)]
    got: list[list[str]] = []

    def work() -> None:
        got.append(Claims(path, "many").take(names))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for some in got for name in some) == sorted(names)


def test_scopes_do_not_touch_each_other(path: Path):
    assert Claims(path, "one").take(["a"]) == ["a"]
    assert Claims(path, "other").take(["a"]) == ["a"]


def test_no_more_is_taken_than_asked_for_and_an_iterator_goes_on_behind(path: Path):
    claims, names = Claims(path, "iterator"), iter("abcdef")
    assert claims.take(names, 2) == ["a", "b"]
    assert claims.take(names, 3) == ["c", "d", "e"]
    assert list(names) == ["f"]


def test_alone_waits_for_the_living(path: Path):
    claims, seen = Claims(path, "alone"), []

    def second() -> None:
        with Claims(path, "alone").alone("x"):
            seen.append("second")

    thread = threading.Thread(target=second)
    with claims.alone("x"):
        thread.start()
        time.sleep(0.1)
        seen.append("first")
    thread.join(10)
    assert seen == ["first", "second"]


def test_a_block_that_fails_gives_its_claim_back(path: Path):
    claims = Claims(path, "failing")
    with pytest.raises(ZeroDivisionError), claims.alone("x"):
        1 / 0  # noqa: B018
    assert claims.take(["x"]) == ["x"]


def test_the_file_stays_empty(path: Path):
    Claims(path, "empty").take(["a", "b"])
    assert path.stat().st_size == 0
