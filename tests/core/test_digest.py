"""Digests are the same everywhere, and a remembered one is never of other bytes."""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.digest import RACY_NS, Stamp, StatCache, digest_bytes, digest_value

ALWAYS_SETTLED = -(10**15)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value, rng):
    """The same value with every dict's keys in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def with_tuples(value):
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(with_tuples(item) for item in value) if isinstance(value, list) else value


class Reader:
    """Reads a file's text and counts how often."""

    def __init__(self):
        self.paths = []

    def __call__(self, path):
        self.paths.append(path)
        return path.read_text()


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def settled(monkeypatch):
    """Files are remembered however lately they changed."""
    monkeypatch.setattr("tasks.core.digest.RACY_NS", ALWAYS_SETTLED)


@pytest.fixture
def cache(tmp_path):
    return StatCache(tmp_path / "cache" / "seen.sqlite", "text")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("first")
    return path


@settings(deadline=None)
@given(data=st.binary())
def test_bytes_are_digested_by_blake2b_of_160_bits(data):
    expected = hashlib.blake2b(data, digest_size=20).hexdigest()
    assert digest_bytes(data) == digest_bytes(memoryview(data)) == expected
    assert len(expected) == 40


@settings(deadline=None)
@given(value=values, seed=st.integers(0, 9))
def test_the_order_of_keys_does_not_matter(value, seed):
    assert digest_value(shuffled(value, random.Random(seed))) == digest_value(value)  # noqa: S311


@settings(deadline=None)
@given(value=values)
def test_a_tuple_equals_the_list_of_the_same_items(value):
    assert digest_value(with_tuples(value)) == digest_value(value)


@settings(deadline=None)
@given(one=values, other=values)
def test_different_values_have_different_digests(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest_value(one) == digest_value(other)) == same


def test_near_values_are_told_apart():
    near = [
        1,
        1.0,
        True,
        "1",
        "1.0",
        "true",
        [1],
        [[1]],
        {"1": 1},
        None,
        "null",
        "",
        [],
        {},
        ["a", "b"],
        ["ab"],
    ]
    assert len({digest_value(value) for value in near}) == len(near)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset("a"),
        np.zeros(2),
        np.int64(1),
        np.float32(1),
        b"bytes",
        Path("x"),
        object(),
        1j,
        float("nan"),
        float("inf"),
        -float("inf"),
        {(1, 2): 3},
    ],
    ids=repr,
)
def test_values_whose_text_is_not_certain_are_refused(value):
    for whole in (value, [value], {"key": [value]}):
        with pytest.raises((TypeError, ValueError)):
            digest_value(whole)


def test_a_key_that_is_no_text_does_not_equal_its_text():
    try:
        digest = digest_value({1: "a"})
    except TypeError:
        return  # refused: just as good
    assert digest != digest_value({"1": "a"})


def test_digests_do_not_change_from_version_to_version():
    assert digest_bytes(b"headstart") == "590ad7f61749698a73fc6134b992bfce7da46c21"
    value = {"b": [1, 2.5, None, True], "a": {"é": "\udc80"}}
    assert digest_value(value) == "4976da16961a984812a5fc4a2109fcf14d7ed809"


def test_another_process_with_another_hash_seed_gives_the_same_digest():
    value = {"taps": ["last:mean", "blocks.4:max"], "weights": {"x": 0.1, "y": 1e-300}, "名": None, "seed": 7}
    code = f"from tasks.core.digest import digest_value; print(digest_value({value!r}))"
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == digest_value(value)


@settings(deadline=None)
@given(mtime=st.integers(0, 10**19), ctime=st.integers(0, 10**19), age=st.integers(-RACY_NS, 3 * RACY_NS))
def test_a_stamp_is_settled_once_both_of_its_times_are_old_enough(mtime, ctime, age):
    now = max(mtime, ctime) + age
    assert Stamp(1, mtime, ctime, 1).is_settled(now) == (now - mtime > RACY_NS and now - ctime > RACY_NS)


def test_an_unchanged_file_is_not_read_again(settled, cache, file, reader):
    assert [cache.value(file, reader) for _ in range(3)] == ["first"] * 3
    again = StatCache(cache.path, cache.kind)
    assert again.value(file, reader) == "first"
    assert reader.paths == [file]


def test_a_file_changed_a_moment_ago_is_not_remembered(cache, file, reader):
    assert [cache.value(file, reader) for _ in range(3)] == ["first"] * 3
    assert len(reader.paths) == 3


def test_a_file_is_remembered_once_it_has_settled(cache, file, reader, monkeypatch):
    cache.value(file, reader)
    later = file.stat().st_ctime_ns + RACY_NS + 1
    monkeypatch.setattr("tasks.core.digest.time.time_ns", lambda: later)
    for _ in range(2):
        assert cache.value(file, reader) == "first"
    assert len(reader.paths) == 2


def test_a_stamp_that_was_fresh_when_taken_is_not_remembered_after_a_long_reading(cache, file, monkeypatch):
    _, stamps = cache.recall([file])  # changed a moment ago: a change within the tick would not show
    long_after = file.stat().st_ctime_ns + 10 * RACY_NS
    monkeypatch.setattr("tasks.core.digest.time.time_ns", lambda: long_after)
    cache.remember({file: "first"}, stamps)
    assert cache.recall([file])[0] == {}


def test_changed_content_of_the_same_size_and_mtime_is_noticed(settled, cache, file, reader):
    assert cache.value(file, reader) == "first"
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # until the clock ticks
        file.write_text("other")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert cache.value(file, reader) == "other"


def test_another_file_moved_to_the_name_is_noticed(settled, cache, file, reader):
    assert cache.value(file, reader) == "first"
    other = file.with_name("other.txt")
    other.write_text("other")
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.replace(file)
    assert cache.value(file, reader) == "other"


def test_a_touched_file_is_read_again(settled, cache, file, reader):
    cache.value(file, reader)
    os.utime(file, (1, 1))
    assert cache.value(file, reader) == "first"
    assert len(reader.paths) == 2


def test_a_link_is_as_old_as_the_file_that_it_names(settled, cache, file, reader, tmp_path):
    other, link = tmp_path / "other.txt", tmp_path / "link"
    other.write_text("other")
    link.symlink_to(file)
    assert cache.value(link, reader) == "first"
    link.unlink()
    link.symlink_to(other)
    assert cache.value(link, reader) == "other"


@pytest.mark.parametrize(
    "raw", [b"caf\xe9.txt", b"\xff\xfe", "名前".encode(), b"new\nline", b"quote'\"%;", b" "]
)
def test_any_file_name_is_remembered(settled, cache, reader, tmp_path, raw):
    path = tmp_path / os.fsdecode(raw)
    path.write_text("content")
    assert [cache.value(path, reader) for _ in range(2)] == ["content"] * 2
    assert reader.paths == [path]


def test_kinds_of_one_file_do_not_mix(settled, cache, file):
    upper = StatCache(cache.path, "upper")
    assert cache.value(file, lambda path: "as text") == "as text"
    assert upper.recall([file])[0] == {}
    assert upper.value(file, lambda path: "AS UPPER") == "AS UPPER"
    assert cache.recall([file])[0] == {file: "as text"}
    assert upper.recall([file])[0] == {file: "AS UPPER"}


def test_recall_parts_the_known_from_those_to_read(settled, cache, tmp_path):
    paths = [tmp_path / f"{number}.txt" for number in range(6)]
    for path in paths:
        path.write_text(path.name)
    cache.remember({path: path.name for path in paths[::2]}, {path: Stamp.of(path) for path in paths[::2]})
    known, unknown = cache.recall(paths)
    assert known == {path: path.name for path in paths[::2]}
    assert unknown == {path: Stamp.of(path) for path in paths[1::2]}


def test_a_missing_file_is_an_error(cache, tmp_path, reader):
    with pytest.raises(FileNotFoundError):
        cache.value(tmp_path / "none", reader)
    assert reader.paths == []


def test_a_reading_that_fails_is_not_remembered(settled, cache, file, reader):
    def fail(path):
        raise OSError(5, "input/output error")

    with pytest.raises(OSError, match="input/output"):
        cache.value(file, fail)
    assert cache.value(file, reader) == "first"
    assert reader.paths == [file]


def test_deleting_the_cache_costs_one_reading_and_nothing_else(settled, cache, file, reader):
    cache.value(file, reader)
    cache.path.unlink()
    again = StatCache(cache.path, cache.kind)
    assert [again.value(file, reader) for _ in range(2)] == ["first"] * 2
    assert len(reader.paths) == 2


def test_a_damaged_cache_costs_one_reading_and_nothing_else(settled, file, reader, tmp_path):
    damaged = tmp_path / "seen.sqlite"
    damaged.write_bytes(b"no database, but long enough to be taken for one" * 100)
    assert StatCache(damaged, "text").value(file, reader) == "first"


def test_inode_numbers_of_64_bits_are_remembered(settled, cache, file, monkeypatch):
    real = replace(Stamp.of(file), inode=2**64 - 5)  # as some network and overlay file systems give
    monkeypatch.setattr(Stamp, "of", lambda path: real)
    cache.value(file, Reader())
    assert cache.recall([file])[0] == {file: "first"}


# A cache that cannot be written to costs time and nothing else


def test_what_is_forgotten_is_read_again_and_the_rest_is_not(settled, cache, tmp_path, reader):
    paths = [tmp_path / f"{number}.txt" for number in range(4)]
    for path in paths:
        path.write_text(path.name)
        cache.value(path, reader)
    other = StatCache(cache.path, "other")
    other.value(paths[0], reader)
    cache.forget(paths[:2])
    assert sorted(cache.recall(paths)[0]) == paths[2:]
    assert sorted(other.recall(paths)[0]) == paths[:1]
    cache.forget([])
    cache.forget([tmp_path / "never seen"])
    assert sorted(cache.recall(paths)[0]) == paths[2:]


def test_forgetting_needs_no_cache(cache, file):
    cache.forget([file])
    assert not cache.path.exists()


def test_a_locked_cache_is_done_without(settled, cache, file, reader, monkeypatch):
    other = file.with_name("other.txt")
    other.write_text("other")
    cache.value(file, reader)
    monkeypatch.setattr("tasks.core.digest.PATIENCE", 0.05)
    holder = sqlite3.connect(cache.path)
    holder.execute("BEGIN EXCLUSIVE")
    assert [cache.value(path, reader) for path in (file, other)] == ["first", "other"]
    assert reader.paths == [file, file, other]
    holder.close()
    assert cache.recall([file])[0] == {file: "first"}


def test_what_is_forgotten_in_a_locked_cache_is_read_again(settled, cache, file, reader, monkeypatch):
    cache.value(file, reader)
    monkeypatch.setattr("tasks.core.digest.PATIENCE", 0.05)
    holder = sqlite3.connect(cache.path)
    holder.execute("BEGIN IMMEDIATE")
    cache.forget([file])
    holder.close()
    assert cache.recall([file])[0] == {}


FULL = """
import resource, sys
from pathlib import Path
import tasks.core.digest as digest
digest.RACY_NS = -(10**15)
folder = Path(sys.argv[1])
paths = sorted(folder.glob("*.txt"))
seen = digest.StatCache(folder / "seen.sqlite", "text")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
assert [seen.value(path, lambda path: path.read_text()) for path in paths] == [path.name for path in paths]
seen.forget(paths[:3])
assert not set(seen.recall(paths)[0]) & set(paths[:3])
"""


@pytest.mark.parametrize("limit", [0, 4096, 9000, 20_000])
@pytest.mark.parametrize("before", [0, 100])
def test_a_cache_on_a_full_disk_costs_time_and_nothing_else(settled, tmp_path, limit, before):
    paths = [tmp_path / f"{number:0100}.txt" for number in range(100)]
    for path in paths:
        path.write_text(path.name)
    cache = StatCache(tmp_path / "seen.sqlite", "text")
    cache.remember({path: path.name for path in paths[:before]}, {path: Stamp.of(path) for path in paths})
    told = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit)], capture_output=True, text=True
    )
    assert (told.returncode, told.stderr) == (0, "")
    for path in paths:
        assert cache.value(path, lambda path: path.read_text()) == path.name


def test_a_cache_whose_folder_cannot_be_made_is_done_without(settled, file, reader):
    cache = StatCache(file / "below a file" / "seen.sqlite", "text")
    assert [cache.value(file, reader) for _ in range(2)] == ["first"] * 2
    cache.forget([file])


@pytest.fixture
def read_only(tmp_path):
    """Make a folder that can only be read, for root as well."""
    place = tmp_path / "read only"
    place.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs the right to mount a file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("filled", [True, False])
def test_a_cache_that_can_only_be_read_still_serves(settled, file, reader, read_only, filled):
    place, lock = read_only
    cache = StatCache(place / "seen.sqlite", "text")
    if filled:
        cache.value(file, reader)
    lock()
    assert [cache.value(file, reader) for _ in range(2)] == ["first"] * 2
    assert len(reader.paths) == (1 if filled else 2)


WRITE_MANY = """
import sys
from pathlib import Path
import tasks.core.digest as digest
digest.RACY_NS = -(10**15)
folder, own = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for path in [*sorted(folder.glob(f"{own}-*")), *sorted(folder.glob("shared-*"))]:
    cache = digest.StatCache(folder / "seen.sqlite", "text")
    assert cache.value(path, lambda path: path.read_text()) == path.name
"""


def test_processes_that_write_at_once_lose_nothing(settled, tmp_path):
    owners = ("a", "b", "c")
    paths = [tmp_path / f"{owner}-{number}" for owner in (*owners, "shared") for number in range(12)]
    for path in paths:
        path.write_text(path.name)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_MANY, str(tmp_path), owner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for owner in owners
    ]
    for process in crowd:
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in crowd] == [0] * len(owners)
    known, unknown = StatCache(tmp_path / "seen.sqlite", "text").recall(paths)
    assert (known, unknown) == ({path: path.name for path in paths}, {})


def test_threads_that_write_at_once_lose_nothing(settled, cache, tmp_path):
    paths = [tmp_path / f"{number}.txt" for number in range(40)]
    for path in paths:
        path.write_text(path.name)
    wrong = []

    def work(part):
        try:
            for path in paths[part::4]:
                assert cache.value(path, Path.read_text) == path.name
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert cache.recall(paths)[1] == {}
