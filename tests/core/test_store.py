"""The store: what was written is read back, whole, or is told as damaged."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.core.digest import Stamp, StatCache, digest_bytes
from tasks.core.errors import HeadstartError, StoreError
from tasks.core.store import (
    Holdings,
    as_stored,
    blocks,
    drop,
    extend,
    find_damage,
    holdings,
    inspection,
    last_used,
    load,
    mark_used,
    provenance,
    reading,
    set_folder,
    sets,
    view_damage,
    view_is_current,
    write_shard,
    write_view,
)
from tasks.core.store.sealed import USER_BLOCK, DamageError

IDENTITY = {"backbone": "b" * 40, "tap": "last:mean", "dtype": "float16"}
STORY = {"backbone": "tiny", "weights": "gewöhnlich.pth", "versions": {"torch": "1"}}


def digests_of(numbers: Sequence[int]) -> list[str]:
    return [digest_bytes(str(number).encode()) for number in numbers]


def rows_of(numbers: Sequence[int], shape: tuple[int, ...] = (3,), dtype: str = "float16") -> np.ndarray:
    """Give each sample a row of its own, exact in float16."""
    size = int(np.prod(shape))
    return np.array([np.arange(size) + 10 * number for number in numbers], dtype).reshape(-1, *shape)


def cache(folder: Path) -> StatCache:
    return StatCache(folder / "seen.sqlite", "shard")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return set_folder(tmp_path / "features", IDENTITY)


@pytest.fixture
def seen(tmp_path: Path) -> StatCache:
    return cache(tmp_path)


def write(folder: Path, numbers: Sequence[int], **of: object) -> Path:
    return write_shard(folder, digests_of(numbers), rows_of(numbers, **of), STORY)


# What is written is read back


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["float16", "float32"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
            elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
        )
    ),
    st.randoms(use_true_random=False),
)
def test_rows_come_back_bit_for_bit_in_the_order_asked(rows, random):
    names = digests_of(range(len(rows)))
    order = random.sample(range(len(rows)), random.randint(1, len(rows)))
    with tempfile.TemporaryDirectory() as place:
        folder = set_folder(Path(place), IDENTITY)
        write_shard(folder, names, rows, STORY)
        held = holdings(folder, cache(Path(place)))
        back = load(held, [names[row] for row in order])
    assert not held.damaged
    assert back.dtype == rows.dtype
    assert back.tobytes() == rows[order].tobytes()


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda rows: rows[:, ::-1], lambda rows: rows.T])
def test_rows_come_back_whatever_their_layout_in_memory(layout, folder, seen):
    rows = layout(np.arange(16, dtype="float32").reshape(4, 4))
    names = digests_of(range(4))
    write_shard(folder, names, rows, STORY)
    np.testing.assert_array_equal(load(holdings(folder, seen), names), rows)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_any_order_is_loaded_though_shards_overlap(shards, random):
    with tempfile.TemporaryDirectory() as place:
        folder = set_folder(Path(place), IDENTITY)
        for numbers in shards:
            write(folder, numbers)
        held = holdings(folder, cache(Path(place)))
        stored = sorted({number for numbers in shards for number in numbers})
        asked = random.choices(stored, k=random.randint(1, 20))  # repeated ones too
        assert sorted(held.rows) == sorted(digests_of(stored))
        np.testing.assert_array_equal(load(held, digests_of(asked)), rows_of(asked))


def test_a_set_that_does_not_exist_holds_nothing(folder, seen):
    assert holdings(folder, seen) == Holdings()


def test_loading_a_row_that_is_not_held_names_it(folder, seen):
    write(folder, [1, 2])
    with pytest.raises(StoreError, match=digests_of([7])[0]):
        load(holdings(folder, seen), digests_of([1, 7, 2]))


def test_loading_from_a_shard_that_is_gone_by_now_is_a_store_error(folder, seen):
    shard = write(folder, [1, 2])
    held = holdings(folder, seen)
    shard.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        load(held, digests_of([1]))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(3,), (2, 2), (40, 40), ()]),
    st.sampled_from([("float16", None), ("float16", "float32"), ("float32", "float16"), ("float32", None)]),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
def test_rows_are_loaded_at_once_or_in_blocks_as_h5py_reads_them(shape, dtypes, sizes, most, random):
    stored, wanted = dtypes
    rng = np.random.default_rng(random.randrange(1000))
    with tempfile.TemporaryDirectory() as place:
        folder, start, expected = set_folder(Path(place), IDENTITY), 0, {}
        for size in sizes:
            rows = rng.standard_normal((size, *shape)).astype(stored)
            shard = write_shard(folder, digests_of(range(start, start + size)), rows, STORY)
            with h5py.File(shard) as file:
                expected |= dict(zip(file["digests"].asstr()[:], file["features"][:], strict=True))
            start += size
        asked = random.choices(list(expected), k=random.randint(1, 2 * start))
        if random.random() < 0.5:
            asked = list(expected)
        reference = np.array([expected[digest] for digest in asked])
        held = holdings(folder, cache(Path(place)))
        back, parts = load(held, asked, wanted), list(blocks(held, asked, most))
    assert back.dtype == (wanted or stored)
    np.testing.assert_array_equal(back, reference.astype(wanted or stored))
    assert [len(part) for part in parts[:-1]] == [most] * (len(parts) - 1)
    assert np.concatenate(parts).tobytes() == reference.tobytes()


def test_every_float16_becomes_the_float32_of_the_same_value(folder, seen):
    rows = np.arange(2**16, dtype="uint16").view("float16")
    rows = rows[np.isfinite(rows)].reshape(2, -1)
    write_shard(folder, digests_of([1, 2]), rows, STORY)
    back = load(holdings(folder, seen), digests_of([1, 2]), "float32")
    assert back.tobytes() == rows.astype("float32").tobytes()  # the subnormal ones and the signs of zero, too


@pytest.mark.parametrize("gap", [0, 1 << 14, 1 << 30])
@pytest.mark.parametrize("share", [7, 50, 1 << 20])
def test_rows_are_the_same_however_they_are_read(gap, share, folder, seen, monkeypatch):
    """One by one or in one piece, by one thread or by several."""
    monkeypatch.setattr(reading, "GAP", gap)
    monkeypatch.setattr(reading, "BLOCK", 100)
    monkeypatch.setattr(reading, "SHARE", share)
    write(folder, range(20)), write(folder, range(20, 50))
    for asked in ([0, 49], [3, 3, 4], [*range(50)], [*range(49, -1, -1)], [7], [10, 12, 11]):
        back = load(holdings(folder, seen), digests_of(asked))
        np.testing.assert_array_equal(back, rows_of(asked))


def test_loading_nothing_gives_no_rows_of_the_right_shape(folder, seen):
    write(folder, [1], shape=(2, 5))
    assert load(holdings(folder, seen), []).shape == (0, 2, 5)
    assert list(blocks(holdings(folder, seen), [], 10)) == []


def test_blocks_tell_of_a_missing_row_before_the_first_block(folder, seen):
    write(folder, [1, 2])
    with pytest.raises(StoreError, match="1 of 3 rows are not stored"):
        next(blocks(holdings(folder, seen), digests_of([1, 2, 3]), 1))


def test_rows_are_read_without_hdf5_once_their_shards_were_checked(folder, seen, checked, monkeypatch):
    write(folder, [1, 2]), write(folder, [3])
    holdings(folder, seen)
    monkeypatch.setattr(h5py, "File", None)
    back = load(holdings(folder, seen), digests_of([3, 1]))
    np.testing.assert_array_equal(back, rows_of([3, 1]))


def test_a_shard_written_again_in_another_order_is_read_from_where_its_rows_now_lie(folder, seen):
    shard = write(folder, [1, 2, 3])
    held = holdings(folder, seen)
    with h5py.File(other := shard.with_name("other"), "w", userblock_size=512) as file:
        file["digests"] = np.array(digests_of([1, 2, 3]), "S40")
        file["features"] = rows_of([1, 2, 3])
        file.attrs["set"], file.attrs["provenance"] = folder.name, "{}"
    seal(other)
    other.replace(shard)
    assert holdings(folder, seen).shards[0].layout.features != held.shards[0].layout.features
    np.testing.assert_array_equal(load(held, digests_of([3, 1])), rows_of([3, 1]))


def test_a_shard_damaged_after_it_was_checked_is_a_store_error(folder, seen):
    shard = write(folder, [1, 2])
    held = holdings(folder, seen)
    edit_a_row(shard)
    with pytest.raises(StoreError, match="checksum"):
        load(held, digests_of([1]))


def test_provenance_comes_back(folder):
    assert provenance(write(folder, [1])) == STORY


# While others write


def numbers_in(held: Holdings) -> set[int]:
    return {number for number in range(100) if digests_of([number])[0] in held.rows}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=6, unique=True), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_what_is_held_grows_shard_by_shard_and_earlier_answers_stay_as_they_were(shards, looked_into):
    with tempfile.TemporaryDirectory() as place:
        folder, seen = set_folder(Path(place), IDENTITY), cache(Path(place))
        held = Holdings()
        answers = [(held, set())]
        for numbers, look in zip(shards, looked_into, strict=False):
            if look:
                assert numbers_in(held) == answers[-1][1]  # so that there is an index to hand on
            write(folder, numbers)
            held = extend(held, folder, seen)
            answers.append((held, answers[-1][1] | set(numbers)))
            again = extend(held, folder, seen)
            assert again is held
        for answer, numbers in answers:
            assert numbers_in(answer) == numbers
            assert sorted(answer.rows) == sorted(digests_of(sorted(numbers)))
            assert len(answer.rows) == len(numbers)
            asked = sorted(numbers)
            if asked:
                np.testing.assert_array_equal(load(answer, digests_of(asked)), rows_of(asked))
                for digest, (shard, row) in answer.rows.items():
                    with h5py.File(shard) as file:
                        assert file["digests"].asstr()[row] == digest
        assert dict(held.rows).keys() == dict(holdings(folder, seen).rows).keys()


def test_rows_written_later_are_not_loaded_by_who_looked_before(folder, seen):
    write(folder, [1, 2])
    held = holdings(folder, seen)
    assert numbers_in(held) == {1, 2}
    write(folder, [3, 4])
    assert numbers_in(extend(held, folder, seen)) == {1, 2, 3, 4}
    with pytest.raises(StoreError, match="2 of 3 rows are not stored"):
        load(held, digests_of([1, 3, 4]))
    with pytest.raises(KeyError):
        held.rows[digests_of([3])[0]]


def test_two_that_go_on_from_the_same_answer_do_not_disturb_each_other(tmp_path, seen):
    one, other = tmp_path / "1" / "set", tmp_path / "2" / "set"
    for folder in (one, other):
        write(folder, [1, 2])
    held = holdings(one, seen)
    assert numbers_in(held) == {1, 2}
    write(one, [3, 4]), write(other, [4, 5, 6])
    more = [shard for shard in holdings(other, seen).shards if len(shard) == 3]
    left, right = extend(held, one, seen), held.with_more(more, {})
    assert (numbers_in(left), numbers_in(right)) == ({1, 2, 3, 4}, {1, 2, 4, 5, 6})
    np.testing.assert_array_equal(load(left, digests_of([4, 1])), rows_of([4, 1]))
    np.testing.assert_array_equal(load(right, digests_of([6, 4, 1])), rows_of([6, 4, 1]))


def test_only_new_shards_are_read_when_a_set_is_looked_at_again(folder, seen, checked):
    write(folder, [1, 2])
    held = holdings(folder, seen)
    new = write(folder, [3])
    checked.clear()
    held = extend(held, folder, seen)
    assert (checked, numbers_in(held)) == ([new], {1, 2, 3})


def test_a_shard_that_was_dropped_is_no_longer_held(folder, seen):
    write(folder, [1, 2])
    held = holdings(folder, seen)
    drop(folder, [shard.path for shard in held.shards])
    write(folder, [2, 3])
    assert numbers_in(extend(held, folder, seen)) == {2, 3}


def test_damage_that_was_mended_is_forgotten_when_a_set_is_looked_at_again(folder, seen):
    shard = write(folder, [1, 2])
    empty(shard)
    held = holdings(folder, seen)
    assert list(held.damaged) == [shard]
    assert write(folder, [1, 2]) == shard
    assert (extend(held, folder, seen).damaged, numbers_in(extend(held, folder, seen))) == ({}, {1, 2})


class Vanishing(StatCache):
    """A cache beside which another process drops a shard between two steps of ours."""

    lost: Path
    after: bool

    def recall(self, paths):
        if not self.after:
            self.lost.unlink(missing_ok=True)
        answer = super().recall(paths)
        self.lost.unlink(missing_ok=True)
        return answer


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_shard_that_vanishes_while_we_look_is_neither_held_nor_damaged(
    remembered, after, folder, seen, checked
):
    vanishing = Vanishing(seen.path, seen.kind)
    vanishing.lost, vanishing.after = write(folder, [1]), after
    write(folder, [2])
    if remembered:
        holdings(folder, seen)
    held = holdings(folder, vanishing)
    assert (numbers_in(held), held.damaged) == ({2}, {})


def test_a_shard_that_vanishes_while_it_is_checked_is_neither_held_nor_damaged(folder, seen, monkeypatch):
    lost = write(folder, [1])
    inspect = inspection.inspect
    monkeypatch.setattr(inspection, "inspect", lambda path, *names: path.unlink() or inspect(path, *names))
    assert holdings(folder, seen) == Holdings()
    assert not lost.exists()


def test_a_shard_that_cannot_be_read_for_want_of_handles_is_not_taken_for_damaged(folder, seen, monkeypatch):
    write(folder, [1])

    def refuse(self, *how, **of):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match="Too many open files"):
        holdings(folder, seen)


WRITES_ONE = """
import sys
from pathlib import Path
import numpy as np
from tasks.core.store import write_shard

print("there", flush=True)
sys.stdin.readline()
for turn in range(30):
    rows = np.arange(3000, dtype="float32").reshape(100, 30)
    write_shard(Path(sys.argv[1]), [f"{row:040}" for row in range(100)], rows, {"by": sys.argv[2] * turn})
"""


def test_two_processes_that_write_the_same_shard_leave_it_whole_at_every_moment(folder, seen):
    writers = [start(WRITES_ONE, str(folder), name) for name in ("a", "bb")]
    names = [f"{row:040}" for row in range(100)]
    for writer in writers:
        writer.stdout.readline()
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    looks = 0
    while any(writer.poll() is None for writer in writers):
        held = holdings(folder, seen)
        assert held.damaged == {}
        if held.shards:
            np.testing.assert_array_equal(load(held, names)[:, 0], np.arange(100) * 30)
            looks += 1
    assert looks > 0
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(left_in(folder)) == 1
    for writer in writers:
        writer.stdin.close(), writer.stdout.close()


# Names


def test_a_set_is_named_by_every_part_of_its_identity_and_not_by_their_order(tmp_path):
    names = {set_folder(tmp_path, {**IDENTITY, key: "other"}).name for key in IDENTITY}
    names.add(set_folder(tmp_path, IDENTITY).name)
    assert len(names) == len(IDENTITY) + 1
    assert set_folder(tmp_path, dict(reversed(IDENTITY.items()))) == set_folder(tmp_path, IDENTITY)


def test_a_shard_is_named_by_its_set_and_its_rows_in_order(tmp_path):
    other = set_folder(tmp_path, {"another": "set"})
    folder = set_folder(tmp_path, IDENTITY)
    paths = [write(folder, [1, 2]), write(folder, [2, 1]), write(folder, [1]), write(other, [1, 2])]
    assert len({path.name for path in paths}) == 4
    assert write(folder, [1, 2]) == paths[0]


# Whole or absent


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def fail_when_creating_the_second_dataset(monkeypatch):
    create = h5py.Group.create_dataset

    def full(self, name, *args, **kwargs):
        if name == "digests":
            raise OSError(28, "No space left on device")
        return create(self, name, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", full)


def fail_when_reading_back(monkeypatch):
    def refuse(*args):
        raise DamageError("its checksum does not match")

    monkeypatch.setattr(sets, "inspect", refuse)


def fail_when_flushing(monkeypatch):
    def refuse(handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)


FAILURES = [fail_when_creating_the_second_dataset, fail_when_reading_back, fail_when_flushing]


@pytest.mark.parametrize("fail", FAILURES)
def test_a_write_that_fails_leaves_nothing_behind(fail: Callable, folder, seen, monkeypatch):
    fail(monkeypatch)
    with pytest.raises(OSError, match=r"No space|does not match|Input/output"):
        write(folder, [1, 2])
    monkeypatch.undo()
    assert left_in(folder) == []
    assert holdings(folder, seen).rows == {}


@pytest.mark.parametrize("fail", FAILURES)
def test_a_rewrite_that_fails_leaves_the_old_shard(fail: Callable, folder, seen, monkeypatch):
    shard = write(folder, [1, 2])
    before = shard.read_bytes()
    fail(monkeypatch)
    with pytest.raises(OSError, match=r"No space|does not match|Input/output"):
        write(folder, [1, 2])
    assert left_in(folder) == [shard.name]
    assert shard.read_bytes() == before


KILLED_AT = """
import os, sys, time
from pathlib import Path
import numpy as np
from tasks.core.store import sets

def hang(*args, **kwargs):
    print("there", flush=True)
    time.sleep(60)

place, name = {"write": (sets, "write_sealed"), "check": (sets, "inspect"), "flush": (os, "fsync")}[sys.argv[2]]
setattr(place, name, hang)
sets.write_shard(Path(sys.argv[1]), ["0" * 40, "1" * 40], np.ones((2, 3), "float16"), {})
"""

WRITES_WITHOUT_END = """
import sys
from pathlib import Path
import numpy as np
from tasks.core.store import write_shard

print("there", flush=True)
for number in range(10**6):
    rows = np.full((200, 500), number % 100, "float16")
    write_shard(Path(sys.argv[1]), [f"{number:020}{row:020}" for row in range(200)], rows, {})
"""


def start(script: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("moment", ["write", "check", "flush"])
def test_a_writer_killed_before_the_rename_leaves_no_shard(moment, folder, seen):
    with start(KILLED_AT, str(folder), moment) as writer:
        assert writer.stdout.readline() == "there\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert list((folder / "shards").iterdir()), "it was killed in the middle of its work"
    assert list((folder / "shards").glob("*.h5")) == []
    assert holdings(folder, seen) == Holdings()
    write_shard(folder, ["0" * 40, "1" * 40], np.ones((2, 3), "float16"), {})
    assert len(holdings(folder, seen).rows) == 2


def test_a_writer_killed_at_any_moment_leaves_whole_shards_only(folder, seen):
    for delay in (0.02, 0.05, 0.09):
        with start(WRITES_WITHOUT_END, str(folder)) as writer:
            writer.stdout.readline()
            time.sleep(delay)
            writer.kill()
        assert holdings(folder, seen).damaged == {}


# Damage


def seal(path: Path) -> None:
    """Make the checksum right again, which a bare BLAKE2b of what follows the first 512 bytes is."""
    rest = path.read_bytes()[512:]
    checksum = hashlib.blake2b(rest, digest_size=20).hexdigest()
    path.write_bytes(f"headstart shard {checksum}\n".encode().ljust(512, b"\0") + rest)


def edit_provenance(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = json.dumps({**STORY, "weights": "others.pth"}, sort_keys=True)


def edit_set(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["set"] = "0" * 40


def edit_a_row(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["features"][0, 1] += 1


def edit_a_digest(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["digests"][0] = digests_of([99])[0].encode()


def turn_the_digests_round(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["digests"][:] = file["digests"][:][::-1]


def reshape_the_rows(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        rows = file["features"][:]
        del file["features"]
        file["features"] = rows.reshape(len(rows), -1, 1)


def widen_the_rows(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        rows = file["features"][:]
        del file["features"]
        file["features"] = rows.astype("float32")


def drop_the_digests(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["digests"]


def drop_the_checksum(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(USER_BLOCK))


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def not_hdf5(path: Path) -> None:
    path.write_bytes(b"nothing that HDF5 knows" * 100)


def swap_for_another_sets(path: Path) -> None:
    shutil.copy(write(set_folder(path.parents[2], {"another": "set"}), [1, 2, 3]), path)


def swap_for_another_of_this_set(path: Path) -> None:
    shutil.copy(write(path.parents[1], [4, 5]), path)


DAMAGES = [
    edit_provenance,
    edit_set,
    edit_a_row,
    edit_a_digest,
    turn_the_digests_round,
    reshape_the_rows,
    widen_the_rows,
    drop_the_digests,
    drop_the_checksum,
    lengthen,
    empty,
    not_hdf5,
    swap_for_another_sets,
    swap_for_another_of_this_set,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_and_the_other_shards_still_serve(damage: Callable, folder, seen):
    hurt, sound = write(folder, [1, 2, 3]), write(folder, [4, 5])
    damage(hurt)
    held = holdings(folder, seen)
    assert list(held.damaged) == [hurt]
    assert held.damaged[hurt]
    assert held.rows == dict(zip(digests_of([4, 5]), [(sound, 0), (sound, 1)], strict=True))
    np.testing.assert_array_equal(load(held, digests_of([5, 4])), rows_of([5, 4]))


@pytest.fixture
def unstamped(monkeypatch):
    """The file system's stamps tell nothing, as when bits rot: every stamp is the same."""
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**18))
    monkeypatch.setattr("tasks.core.digest.Stamp.of", lambda path: Stamp(path.stat().st_ino * 0, 0, 0, 0))
    for place in (inspection, reading):
        monkeypatch.setattr(place, "stamp_of", lambda handle: (0, 0, 0))


def exchange(one: Path, other: Path) -> None:
    aside = one.rename(one.with_name("aside"))
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_without_a_trace_is_found_by_reading_everything(damage: Callable, folder, seen, unstamped):
    hurt, _ = write(folder, [1, 2, 3]), write(folder, [4, 5])
    assert find_damage(folder) == {}
    holdings(folder, seen)
    size = hurt.stat().st_size
    damage(hurt)
    if hurt.stat().st_size == size:
        assert holdings(folder, seen).damaged == {}, "the stamps should have told nothing"
    assert list(find_damage(folder)) == [hurt]
    seen.forget([hurt])
    assert list(holdings(folder, seen).damaged) == [hurt]


def test_shards_that_have_exchanged_their_names_are_both_damaged(folder, seen, unstamped):
    shards = [write(folder, [1, 2]), write(folder, [3, 4])]
    other = write(set_folder(folder.parent, {"another": "set"}), [1, 2])
    holdings(folder, seen)
    exchange(*shards)
    assert sorted(find_damage(folder)) == sorted(shards)
    exchange(*shards)
    exchange(shards[0], other)
    assert list(find_damage(folder)) == [shards[0]]
    assert "another set" in find_damage(folder)[shards[0]]


@pytest.mark.parametrize(
    "damage",
    [edit_set, edit_a_digest, turn_the_digests_round, drop_the_digests, swap_for_another_of_this_set],
)
def test_a_checksum_alone_makes_no_shard(damage: Callable, folder, seen):
    """What the set and the name promise must be inside, even where every byte is as it was written."""
    shard = write(folder, [1, 2, 3])
    damage(shard)
    seal(shard)
    assert shard in holdings(folder, seen).damaged


def test_a_renamed_shard_is_damaged(folder, seen):
    shard = write(folder, [1, 2])
    other = shard.rename(shard.with_name(f"{'0' * 40}.h5"))
    assert list(holdings(folder, seen).damaged) == [other]


def test_a_row_in_a_damaged_shard_is_served_by_a_sound_one(folder, seen):
    hurt = write(folder, [1, 2])
    write(folder, [2, 3])
    empty(hurt)
    held = holdings(folder, seen)
    assert sorted(held.rows) == sorted(digests_of([2, 3]))
    np.testing.assert_array_equal(load(held, digests_of([2])), rows_of([2]))


def test_every_truncation_is_damage(folder, seen):
    shard = write(folder, [1, 2])
    data = shard.read_bytes()
    for length in {*range(0, len(data), 97), len(data) - 1}:
        shard.write_bytes(data[:length])
        held = holdings(folder, seen)
        assert (list(held.damaged), held.rows) == ([shard], {}), length


SWEEP = """
import json, signal, sys
from pathlib import Path
import h5py
from tasks.core.digest import StatCache
from tasks.core.store import holdings, load, provenance, view_is_current

name, folder, step, masks = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
seen = StatCache(folder.parent / "sweep.sqlite", "shard")
[target] = folder.rglob(name)
whole = target.read_bytes()
held = holdings(folder, seen)
names = list(held.rows)
rows = load(held, names)
stories = [provenance(shard) for shard, _ in held.rows.values()]

def of_a_shard():
    held = holdings(folder, seen)
    if held.damaged:
        return "found"
    back = load(held, names)
    same = back.dtype == rows.dtype and back.tobytes() == rows.tobytes() and list(held.rows) == names
    same = same and [provenance(shard) for shard, _ in held.rows.values()] == stories
    return "harmless" if same else "WRONG"

def of_the_view():
    if not view_is_current(folder, held):
        return "found"
    with h5py.File(target) as file:
        digests = [digest.decode() for digest in file["digests"][:]]
        same = digests == names and file["features"][:].tobytes() == rows.tobytes()
    return "harmless" if same else "WRONG"

for offset in range(0, len(whole), step):
    for mask in masks:
        data = bytearray(whole)
        data[offset] ^= mask
        target.write_bytes(data)
        print(f"\\n{offset} ^ {mask}: ", end="", flush=True)
        signal.alarm(3)  # HDF5 may go round in circles; this ends the process
        try:
            print(of_the_view() if name == "features.h5" else of_a_shard(), end="")
        except Exception as error:
            print(repr(error), end="")
print("\\nend")
"""


def bad_flips(folder: Path, name: str, step: int, masks: list[int]) -> list[str]:
    """Flip bits of one file of the set; list what was neither found nor harmless.

    The sweep runs in a process of its own, since a damaged file can hang the HDF5 library.
    """
    command = [sys.executable, "-c", SWEEP, name, str(folder), str(step), json.dumps(masks)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=500).stdout.splitlines()
    assert told[1].startswith("0 ^ ")
    return [line for line in told[1:] if not line.endswith((": found", ": harmless", "end"))] + (
        [] if told[-1] == "end" else ["the sweep ended there"]
    )


def test_a_flipped_bit_is_found_or_changes_nothing(folder):
    shard = write(folder, [1, 2])
    assert bad_flips(folder, shard.name, 9, [0x80, 0x01]) == []


def test_a_view_with_a_flipped_bit_is_not_current_or_shows_all_the_same(folder, seen):
    write(folder, [1, 2])
    write_view(folder, holdings(folder, seen))
    assert bad_flips(folder, "features.h5", 7, [0x80, 0x01]) == []


@pytest.mark.slow
def test_no_flipped_bit_anywhere_passes(folder):
    shard = write(folder, [1, 2, 3])
    assert bad_flips(folder, shard.name, 1, [0x80, 0x10, 0x02, 0x01]) == []


# What was checked once is not read again


@pytest.fixture
def checked(monkeypatch) -> list[Path]:
    """Which shards are read, with fresh files remembered at once."""
    read: list[Path] = []
    inspect = inspection.inspect
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**18))
    for place in (inspection, reading, sets):
        monkeypatch.setattr(place, "inspect", lambda path, *names: read.append(path) or inspect(path, *names))
    return read


def test_a_shard_is_checked_once_and_again_when_it_changed(folder, seen, checked):
    first, second = write(folder, [1, 2]), write(folder, [3])
    checked.clear()
    holdings(folder, seen)
    assert sorted(checked) == sorted([first, second])
    checked.clear()
    assert len(holdings(folder, seen).rows) == 3
    assert checked == []
    time.sleep(0.02)  # the clock of the file system ticks every few milliseconds
    edit_a_row(second)
    assert list(holdings(folder, seen).damaged) == [second]
    assert checked == [second]


def test_a_damaged_shard_is_not_remembered_as_whole(folder, seen, checked):
    shard = write(folder, [1])
    edit_a_row(shard)
    checked.clear()
    for _ in range(2):
        assert list(holdings(folder, seen).damaged) == [shard]
    assert checked == [shard, shard]


def test_a_shard_written_a_moment_ago_is_checked_again(folder, seen, checked, monkeypatch):
    monkeypatch.setattr("tasks.core.digest.RACY_NS", 60 * 10**9)
    shard = write(folder, [1])
    checked.clear()
    holdings(folder, seen), holdings(folder, seen)
    assert checked == [shard, shard]


# One file that shows all rows

READ_VIEW = """
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    for digest, row in zip(file["digests"][:], file["features"][:], strict=True):
        print(digest.decode(), row.dtype, row.tobytes().hex())
assert not [name for name in sys.modules if name.split(".")[0] == "tasks"]
"""


@pytest.mark.parametrize(("shape", "dtype"), [((3,), "float16"), ((2, 2, 2), "float32")])
def test_the_view_is_read_by_h5py_alone_from_anywhere_after_a_move(shape, dtype, folder, tmp_path, seen):
    write(folder, [5, 3, 1], shape=shape, dtype=dtype)
    write(folder, [2, 4], shape=shape, dtype=dtype)
    write_view(folder, holdings(folder, seen))
    moved, elsewhere = tmp_path / "some where" / "else", tmp_path / "cwd"
    shutil.move(folder, moved)
    decoys = elsewhere / "shards"  # HDF5 must not take these for the view's own
    decoys.mkdir(parents=True)
    for shard in (moved / "shards").iterdir():
        (decoys / shard.name).write_bytes(b"")
    command = [sys.executable, "-c", READ_VIEW, str(moved / "features.h5")]
    told = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=True).stdout
    expected = [
        f"{digest} {dtype} {row.tobytes().hex()}"
        for digest, row in zip(digests_of(range(1, 6)), rows_of(range(1, 6), shape, dtype), strict=True)
    ]
    assert sorted(told.splitlines()) == sorted(expected)


def view_rows(folder: Path) -> dict[str, bytes]:
    with h5py.File(folder / "features.h5") as file:
        pairs = zip(file["digests"][:], file["features"][:], strict=True)
        return {digest.decode(): row.tobytes() for digest, row in pairs}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True), min_size=1, max_size=4))
def test_the_view_shows_the_rows_held_each_beside_its_digest(shards):
    with tempfile.TemporaryDirectory() as place:
        folder = set_folder(Path(place), IDENTITY)
        for numbers in shards:
            write(folder, numbers)
        held = holdings(folder, cache(Path(place)))
        write_view(folder, held)
        assert view_is_current(folder, held)
        stored = sorted({number for numbers in shards for number in numbers})
        expected = {d: row.tobytes() for d, row in zip(digests_of(stored), rows_of(stored), strict=True)}
        assert view_rows(folder) == expected


def test_the_view_stays_small(folder, seen):
    shard = write(folder, range(64), shape=(4096,), dtype="float32")
    view = write_view(folder, holdings(folder, seen))
    assert view.stat().st_size < shard.stat().st_size / 50


def test_a_view_without_the_newest_rows_is_not_current(folder, seen):
    write(folder, [1, 2])
    assert not view_is_current(folder, holdings(folder, seen))
    write_view(folder, holdings(folder, seen))
    assert view_is_current(folder, holdings(folder, seen))
    write(folder, [3])
    assert not view_is_current(folder, holdings(folder, seen))


def test_a_damaged_view_is_not_current(folder, seen):
    write(folder, [1, 2])
    view = write_view(folder, holdings(folder, seen))
    view.write_bytes(view.read_bytes()[:100])
    assert not view_is_current(folder, holdings(folder, seen))


def test_a_view_is_not_current_when_the_rows_moved_to_other_shards(folder, seen):
    lost = [write(folder, [1, 2]), write(folder, [3])]
    write_view(folder, holdings(folder, seen))
    for shard in lost:
        shard.unlink()
    write(folder, [1, 2, 3])
    held = holdings(folder, seen)
    if not view_is_current(folder, held):
        write_view(folder, held)
    expected = {d: row.tobytes() for d, row in zip(digests_of([1, 2, 3]), rows_of([1, 2, 3]), strict=True)}
    assert view_rows(folder) == expected


def test_the_view_shows_each_sample_once_and_digests_in_ascending_shards(folder, seen):
    for numbers in ([1, 2, 3, 4], [4, 5, 2], [6, 1], [3]):
        write(folder, numbers)
    write_view(folder, holdings(folder, seen))
    with h5py.File(folder / "features.h5") as file:
        assert sorted(file["digests"].asstr()[:]) == sorted(digests_of(range(1, 7)))
        assert file["features"].shape == (6, 3)
    numbers = range(1, 7)
    assert view_rows(folder) == {
        d: row.tobytes() for d, row in zip(digests_of(numbers), rows_of(numbers), strict=True)
    }


def test_a_row_whose_shard_is_gone_is_shown_as_no_number(folder, seen):
    lost, _ = write(folder, [1, 2]), write(folder, [3])
    write_view(folder, holdings(folder, seen))
    lost.unlink()
    with h5py.File(folder / "features.h5") as file:
        shown = dict(zip(file["digests"].asstr()[:], file["features"][:], strict=True))
    for number in (1, 2):
        assert np.isnan(shown[digests_of([number])[0]]).all()
    np.testing.assert_array_equal(shown[digests_of([3])[0]], rows_of([3])[0])
    assert "gone" in view_damage(folder)


def test_dropping_a_shard_takes_the_view_away_first(folder, seen, monkeypatch):
    shards = [write(folder, [1, 2]), write(folder, [3])]
    view = write_view(folder, holdings(folder, seen))
    gone = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **how: gone.append(path) or unlink(path, **how))
    drop(folder, [])
    assert gone == []
    drop(folder, shards[:1])
    assert gone == [view, shards[0]]
    assert (view_damage(folder), find_damage(folder)) == ("", {})
    assert list(holdings(folder, seen).rows) == digests_of([3])


def test_a_view_that_lacks_the_newest_shard_is_not_damaged(folder, seen):
    write(folder, [1, 2])
    view = write_view(folder, holdings(folder, seen))
    write(folder, [3])
    assert view_damage(folder) == ""
    with view.open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\xff")
    assert "checksum" in view_damage(folder)


def test_another_sets_view_is_damage(folder, seen):
    other = set_folder(folder.parent, {"another": "set"})
    write(folder, [1]), write(other, [1])
    shutil.copy(write_view(other, holdings(other, seen)), folder / "features.h5")
    assert view_damage(folder)
    assert not view_is_current(folder, holdings(folder, seen))


def test_the_last_use_of_a_set_is_noted(folder, seen):
    assert last_used(folder) == 0
    mark_used(folder)  # nothing there yet
    write(folder, [1])
    os.utime(folder, (1000, 1000))
    holdings(folder, seen), load(holdings(folder, seen), digests_of([1]))
    assert last_used(folder) == 1000
    mark_used(folder)
    assert time.time() - 60 < last_used(folder) <= time.time() + 1


# A full disk

FULL_AT = """
import resource, sys
from pathlib import Path
import numpy as np
from tasks.core.digest import StatCache
from tasks.core.errors import StoreError
from tasks.core.store import holdings, write_shard, write_view

folder, seen = Path(sys.argv[1]), StatCache(Path(sys.argv[1]).parent / "seen.sqlite", "shard")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    if sys.argv[3] == "shard":
        write_shard(folder, [f"{row:040}" for row in range(200)], np.ones((200, 100), "float16"), {})
    else:
        write_view(folder, holdings(folder, seen))
except StoreError as error:
    print(error)
"""


def told_when_full(folder: Path, limit: int, what: str) -> str:
    command = [sys.executable, "-c", FULL_AT, str(folder), str(limit), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("limit", [0, 100, 512, 3000, 40_000])
def test_a_shard_for_which_there_is_no_space_is_one_line_and_leaves_no_trace(limit, folder, seen):
    old = write(folder, [1, 2])
    [line] = told_when_full(folder, limit, "shard").splitlines()
    assert str(folder / "shards") in line
    assert "File too large" in line
    assert "--artifacts" in line
    assert left_in(folder) == [old.name]
    np.testing.assert_array_equal(load(holdings(folder, seen), digests_of([2, 1])), rows_of([2, 1]))


def test_a_shard_that_just_fits_is_written(folder, seen):
    assert told_when_full(folder, 60_000, "shard") == ""
    assert len(holdings(folder, seen).rows) == 200


@pytest.mark.parametrize("limit", [0, 600, 2000])
def test_a_view_for_which_there_is_no_space_is_one_line_and_the_old_one_stays(limit, folder, seen):
    write(folder, [1, 2])
    before = write_view(folder, holdings(folder, seen)).read_bytes()
    write(folder, range(3, 30))
    [line] = told_when_full(folder, limit, "view").splitlines()
    assert "features.h5" in line
    assert (folder / "features.h5").read_bytes() == before
    assert view_damage(folder) == ""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if not mounted or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_set_on_a_full_disk_stays_whole_and_goes_on_when_there_is_space(small_disk):
    folder, seen = set_folder(small_disk, IDENTITY), cache(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    stored = []
    with pytest.raises(StoreError, match="No space left") as told:
        for number in range(0, 1000, 50):
            write(folder, range(number, number + 50), shape=(200,))
            stored += range(number, number + 50)
    assert "\n" not in str(told.value)
    held = holdings(folder, seen)  # though nothing can be remembered
    assert numbers_in(held) == {number for number in stored if number < 100}
    assert held.damaged == {}
    assert all(name.endswith(".h5") for name in left_in(folder))
    try:
        write_view(folder, held)
    except StoreError as full:
        assert "No space left" in str(full)
    assert view_damage(folder) == ""
    ballast.unlink()
    number = len(stored)
    write(folder, range(number, number + 50), shape=(200,))
    held = holdings(folder, seen)
    write_view(folder, held)
    assert view_is_current(folder, held)
    assert len(view_rows(folder)) == number + 50


# The stored type


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays("float32", (3, 4), elements=st.floats(-60000, 60000, width=32)),
    st.sampled_from(["float16", "float32"]),
)
def test_values_within_the_type_are_rounded_to_it(rows, dtype):
    stored = as_stored(rows, dtype)
    assert stored.dtype == dtype
    resolution, smallest = np.finfo(dtype).eps / 2, np.finfo(dtype).smallest_subnormal
    error = np.abs(stored.astype("float64") - rows)
    assert (error <= np.abs(rows.astype("float64")) * resolution + smallest).all()


@pytest.mark.parametrize("value", [65520.0, -65520.0, 1e6])
def test_what_float16_cannot_hold_is_refused_with_the_way_out(value):
    rows = np.array([[1.0, value]], "float32")
    with pytest.raises(StoreError, match=r"float16.*float32") as refused:
        as_stored(rows, "float16")
    assert "\n" not in str(refused.value)
    np.testing.assert_array_equal(as_stored(rows, "float32"), rows)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_not_finite_is_refused(value, dtype):
    with pytest.raises(HeadstartError, match="not finite"):
        as_stored(np.array([[1.0, value]], "float32"), dtype)
