"""The store: what was written is read back, whole, or is told as damaged."""

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

from tasks.core import store
from tasks.core.digest import StatCache, digest_bytes
from tasks.core.errors import HeadstartError, StoreError
from tasks.core.store import (
    Holdings,
    as_stored,
    holdings,
    load,
    provenance,
    set_folder,
    view_is_current,
    write_shard,
    write_view,
)

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
    assert holdings(folder, seen) == Holdings({}, {})


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


def test_provenance_comes_back(folder):
    assert provenance(write(folder, [1])) == STORY


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
    monkeypatch.setattr(store, "_problem", lambda *args: "its checksum does not match")


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
import h5py
import numpy as np
import tasks.core.store as store

def hang(*args, **kwargs):
    print("there", flush=True)
    time.sleep(60)

place, name = {"create": (h5py.Group, "create_dataset"), "check": (store, "_problem"), "flush": (os, "fsync")}[
    sys.argv[2]
]
original = getattr(place, name)
setattr(place, name, hang if name != "create_dataset" else
        lambda self, what, **of: hang() if what == "digests" else original(self, what, **of))
store.write_shard(Path(sys.argv[1]), ["0" * 40, "1" * 40], np.ones((2, 3), "float16"), {})
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
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("moment", ["create", "check", "flush"])
def test_a_writer_killed_before_the_rename_leaves_no_shard(moment, folder, seen):
    with start(KILLED_AT, str(folder), moment) as writer:
        assert writer.stdout.readline() == "there\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert list((folder / "shards").iterdir()), "it was killed in the middle of its work"
    assert list((folder / "shards").glob("*.h5")) == []
    assert holdings(folder, seen) == Holdings({}, {})
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
        file.write(bytes(store.USER_BLOCK))


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


@pytest.mark.parametrize(
    "damage",
    [edit_set, edit_a_digest, turn_the_digests_round, drop_the_digests, swap_for_another_of_this_set],
)
def test_a_checksum_alone_makes_no_shard(damage: Callable, folder, seen):
    """What the set and the name promise must be inside, even where every byte is as it was written."""
    shard = write(folder, [1, 2, 3])
    damage(shard)
    store._seal(shard)
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
    problem = store._problem
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**18))
    monkeypatch.setattr(store, "_problem", lambda path, *names: read.append(path) or problem(path, *names))
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
