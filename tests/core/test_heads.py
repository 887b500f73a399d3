"""Heads on disk: named by all that decides them, read back whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.digest import StatCache, digest_bytes
from tasks.core.errors import StoreError
from tasks.core.files import PARTIALS, is_abandoned
from tasks.core.heads import (
    HeadFile,
    Inputs,
    damage,
    head_key,
    held,
    keys_in,
    load_heads,
    save_heads,
    shelf_key,
)
from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Ridge, Softmax
from tasks.core.predictors import KINDS, Layers, Linear, Networks, Predictor, Voting

COLUMNS, CLASSES = 7, 3
INPUTS = Inputs("lite0", ("last:mean",))
SETS = ["a" * 40, "b" * 40]
ROWS = [(digest_bytes(bytes([n])), "cat" if n % 2 else "dog", 1.0, f"g{n // 2}") for n in range(6)]
TEST = np.array([False, False, True, False, True, False])


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def voting(k: int = 3, temperature: float = 1.25) -> Voting:
    rows = numbers(9, COLUMNS).astype("float32")
    labels, votes, prior = np.arange(9) % CLASSES, np.linspace(0.5, 2, 9), np.full(CLASSES, 0.1)
    return Voting(rows, labels, votes, prior, numbers(COLUMNS), np.ones(COLUMNS), k, temperature)


PREDICTORS: dict[str, Predictor] = {
    "linear": Linear(numbers(CLASSES, COLUMNS), numbers(CLASSES)),
    "one layer": Layers((numbers(CLASSES, COLUMNS).astype("float32"),), (np.zeros(CLASSES, "float32"),)),
    "two layers": Layers(
        (numbers(5, COLUMNS).astype("float32"), numbers(CLASSES, 5).astype("float32")),
        (numbers(5).astype("float32"), numbers(CLASSES).astype("float32")),
    ),
    "voting": voting(),
    "networks": Networks({"0 a.weight": numbers(3, 2), "1 a.weight": numbers(3, 2, seed=1)}, 1.5),
    "networks that were not kept": Networks({}),
}


def digests_of(n: int, first: int = 0) -> list[str]:
    return [digest_bytes(bytes([first + number])) for number in range(n)]


def some_head(predictor: Predictor = PREDICTORS["linear"], inner: bool = True, seed: int = 0) -> HeadFile:
    return HeadFile(
        predictor=predictor,
        log_proba=numbers(4, CLASSES, seed=seed).astype("float32").astype("float64"),
        test_rows=digests_of(4),
        inner=numbers(6, CLASSES, seed=seed + 1).astype("float32").astype("float64") if inner else None,
        train_rows=digests_of(6, first=4),
        story={
            "classes": ["größe", 'a "quoted" one', ""],
            "hyper": ["softmax", {"strength": 0.1}],
            "inner": None,
        },
    )


def some_heads() -> dict[str, HeadFile]:
    return {key: some_head(each, seed=n) for n, (key, each) in enumerate(PREDICTORS.items())}


def assert_same(one: HeadFile, other: HeadFile) -> None:
    ours, theirs = (each.predictor.arrays() for each in (one, other))
    assert type(one.predictor) is type(other.predictor)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_array_equal(array, theirs[name])
    assert (one.inner is None) == (other.inner is None)
    for mine, yours in ((one.log_proba, other.log_proba), (one.inner, other.inner)):
        assert mine is None or mine.dtype == yours.dtype == np.float64
        np.testing.assert_array_equal(mine, yours)
    assert (one.test_rows, one.train_rows) == (other.test_rows, other.train_rows)
    assert one.story == other.story


def named_by_its_bytes(folder: Path, data: bytes) -> Path:
    path = folder / f"{digest_bytes(data)}.safetensors"
    path.write_bytes(data)
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are remembered however lately they changed."""
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**18))


@pytest.fixture
def seen(tmp_path: Path, settled: None) -> StatCache:
    return Artifacts(tmp_path / "artifacts").seen("head")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Heads' files that are opened from now on."""
    opened: list[Path] = []
    plain: Callable[..., object] = Path.open

    def noted(path: Path, *given: object, **options: object) -> object:
        if path.suffix == ".safetensors":
            opened.append(path)
        return plain(path, *given, **options)

    monkeypatch.setattr(Path, "open", noted)
    return opened


# Round trips


def test_every_kind_of_predictor_is_tried():
    assert {each.kind for each in PREDICTORS.values()} == set(KINDS)


@pytest.mark.parametrize("inner", [True, False], ids=["folds", "no folds"])
@pytest.mark.parametrize("name", PREDICTORS)
def test_a_head_comes_back_bit_for_bit(name, inner, tmp_path):
    head = some_head(PREDICTORS[name], inner)
    path = save_heads(tmp_path / "new" / "shelf", {"its key": head})
    assert path.parent == tmp_path / "new" / "shelf"
    found = load_heads(path)
    assert list(found) == ["its key"]
    assert_same(found["its key"], head)
    if isinstance(head.predictor, Networks):
        return  # takes no rows of features
    rows = numbers(20, COLUMNS, seed=5).astype("float16")
    told = found["its key"].predictor.log_proba(rows)
    np.testing.assert_array_equal(told, head.predictor.log_proba(rows))


def test_heads_of_all_kinds_lie_in_one_file(tmp_path):
    heads = some_heads()
    path = save_heads(tmp_path, heads)
    assert list(tmp_path.iterdir()) == [path]
    found = load_heads(path)
    assert found.keys() == heads.keys()
    for key, head in heads.items():
        assert_same(found[key], head)


@pytest.mark.parametrize(("classes", "columns", "rows"), [(2, 1, 1), (50, 30, 7), (3, 4, 0)])
def test_heads_of_any_size_come_back(classes, columns, rows, tmp_path):
    head = replace(
        some_head(Linear(numbers(classes, columns), numbers(classes))),
        log_proba=np.ones((rows, classes)),
        test_rows=digests_of(rows),
    )
    assert_same(load_heads(save_heads(tmp_path, {"a": head}))["a"], head)


def test_arrays_of_any_layout_come_back(tmp_path):
    head = some_head(Linear(numbers(COLUMNS, CLASSES).T, numbers(2 * CLASSES)[::2]))
    turned = replace(head, log_proba=head.log_proba[::-1], inner=np.asfortranarray(head.inner))
    assert_same(load_heads(save_heads(tmp_path, {"a": turned}))["a"], turned)


def test_what_is_said_of_rows_is_kept_in_single_precision(tmp_path):
    head = replace(some_head(), log_proba=numbers(4, CLASSES), inner=numbers(6, CLASSES))
    found = load_heads(save_heads(tmp_path, {"a": head}))["a"]
    np.testing.assert_array_equal(found.log_proba, head.log_proba.astype("float32"))
    np.testing.assert_array_equal(found.inner, head.inner.astype("float32"))


def test_heads_that_share_an_array_keep_it_once(tmp_path):
    """Neighbours differ by k alone; their training rows are by far the largest thing on a shelf."""
    big = replace(voting(), rows=numbers(2_000, COLUMNS).astype("float32"))
    heads = {str(k): some_head(replace(big, k=k)) for k in range(1, 21)}
    path = save_heads(tmp_path, heads)
    assert path.stat().st_size < 2 * big.rows.nbytes
    found = load_heads(path)
    for key, head in heads.items():
        assert_same(found[key], head)
    assert len({id(head.predictor.rows) for head in found.values()}) == 1


def test_equal_bytes_of_another_type_or_shape_are_another_array(tmp_path):
    weight = numbers(1, 6)
    heads = {
        str(shape): some_head(Linear(weight.reshape(shape), np.zeros(shape[0])))
        for shape in ((1, 6), (2, 3), (6, 1))
    }
    heads["whole numbers"] = some_head(Linear(weight.view("int64"), np.zeros(1)))
    found = load_heads(save_heads(tmp_path, heads))
    for key, head in heads.items():
        assert_same(found[key], head)


def test_reading_ten_times_the_heads_is_some_ten_times_the_work(tmp_path):
    """The arrays of all are looked through once, not once for each head."""

    def seconds(number: int) -> float:
        heads = {str(n): some_head(Linear(numbers(2, 3, seed=n), numbers(2))) for n in range(number)}
        path = save_heads(tmp_path, heads)
        spans = []
        for _ in range(5):
            started = time.process_time()
            load_heads(path)
            spans.append(time.process_time() - started)
        return min(spans)

    assert seconds(2_000) < 40 * seconds(200) + 0.1


# Bytes and names


def test_the_same_heads_give_the_same_bytes_and_the_same_name(tmp_path):
    one, other = (save_heads(tmp_path / name, some_heads()) for name in ("one", "other"))
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    assert one.stem == digest_bytes(one.read_bytes())


def test_the_order_of_heads_decides_nothing(tmp_path):
    heads = some_heads()
    names = {save_heads(tmp_path, {key: heads[key] for key in order}).name for order in permutations(heads)}
    assert len(names) == 1


def test_heads_read_and_written_again_give_the_same_file(tmp_path):
    path = save_heads(tmp_path / "one", some_heads())
    assert save_heads(tmp_path / "other", load_heads(path)).name == path.name


def test_other_processes_give_the_same_bytes(tmp_path):
    """Texts are digested in another order in every process."""
    program = """
import sys
from pathlib import Path
import numpy as np
from tasks.core.heads import HeadFile, save_heads
from tasks.core.predictors import Linear
story = {name: name for name in ("a", "b", "classes")}
heads = {key: HeadFile(Linear(np.ones((2, n + 1)), np.ones(2)), np.ones((1, 2)), ["ab"], None, ["cd"], story)
         for n, key in enumerate(("x", "y", "z"))}
print(save_heads(Path(sys.argv[1]), heads).name)
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    ]
    assert told[0] == told[1] != ""


@pytest.mark.parametrize(
    "change",
    [
        {"log_proba": np.zeros((4, CLASSES))},
        {"inner": None},
        {"predictor": PREDICTORS["voting"]},
        {"story": {}},
        {"test_rows": digests_of(4, first=20)},
        {"train_rows": digests_of(6, first=20)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_heads_give_another_name(change, tmp_path):
    one = save_heads(tmp_path, {"a": some_head()})
    assert save_heads(tmp_path, {"a": replace(some_head(), **change)}) != one
    assert save_heads(tmp_path, {"b": some_head()}) != one


# Damage


def assert_refused(path: Path) -> str:
    """Make sure that everything says that a file is damaged, in one line; return what it says."""
    for read in (load_heads, keys_in):
        with pytest.raises(StoreError, match="run the study again") as told:
            read(path)
        assert str(path) in str(told.value)
        assert "\n" not in str(told.value)
    return str(told.value)


def test_a_missing_file_is_a_store_error(tmp_path):
    assert_refused(tmp_path / "head.safetensors")
    assert_refused(tmp_path / "nowhere" / "head.safetensors")


def test_every_truncation_is_a_store_error(tmp_path):
    path = save_heads(tmp_path, {"a": some_head()})
    data = path.read_bytes()
    for length in range(0, len(data), 11):
        path.write_bytes(data[:length])
        assert_refused(path)
    path.write_bytes(data + b"\0")
    assert_refused(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of heads of all kinds."""
    return save_heads(tmp_path_factory.mktemp("heads"), some_heads())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_flipped_byte_anywhere_is_found(whole, data):
    kept = whole.read_bytes()
    offset = data.draw(st.integers(0, len(kept) - 1))
    changed = bytearray(kept)
    changed[offset] ^= data.draw(st.integers(1, 255))
    try:
        whole.write_bytes(changed)
        assert_refused(whole)
        assert damage(whole)
    finally:
        whole.write_bytes(kept)


def test_a_file_under_another_name_is_a_store_error(tmp_path):
    one, other = (save_heads(tmp_path, {key: some_head()}) for key in "ab")
    other.replace(one)
    assert "named by" in assert_refused(one)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_other_bytes_are_a_store_error_though_they_have_the_right_name(data):
    with tempfile.TemporaryDirectory() as folder:
        assert_refused(named_by_its_bytes(Path(folder), data))


@pytest.mark.parametrize(
    "metadata",
    [None, {"another": "[]"}, {"heads": "{"}, {"heads": "3"}, {"heads": "[3]"}, {"heads": '[{"kind": "x"}]'}],
)
def test_a_file_without_the_heads_stories_is_a_store_error(metadata, tmp_path):
    rows = np.zeros((2, 20), "uint8")
    assert_refused(named_by_its_bytes(tmp_path, save({"test_rows": rows, "train_rows": rows}, metadata)))


@pytest.mark.parametrize("lacking", ["weight", "log_proba", "test_rows", "train_rows", "kind"])
def test_a_file_without_one_of_the_arrays_or_of_an_unknown_kind_is_a_store_error(lacking, tmp_path):
    """Another version may have written it; its bytes are those that it is named by."""
    data = save_heads(tmp_path, {"a": some_head()}).read_bytes()
    arrays = dict(load(data))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    [told] = json.loads(header["__metadata__"]["heads"])
    if lacking == "kind":
        told["kind"] = "oracle"
    else:
        del arrays[told["arrays"].get(lacking, lacking)]
    path = named_by_its_bytes(tmp_path, save(arrays, {"heads": json.dumps([told])}))
    with pytest.raises(StoreError, match="run the study again") as refused:
        load_heads(path)
    assert "\n" not in str(refused.value)


def test_a_save_that_fails_leaves_nothing_and_the_other_heads_whole(tmp_path, monkeypatch):
    path = save_heads(tmp_path, {"a": some_head()})
    write_bytes = Path.write_bytes

    def full(place, data):
        write_bytes(place, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="No space"):
        save_heads(tmp_path, {"b": some_head()})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert_same(load_heads(path)["a"], some_head())


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from tasks.core.heads import HeadFile, save_heads
from tasks.core.predictors import Linear
write_bytes = Path.write_bytes
def die(path, data):
    write_bytes(path, data[:len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = die
head = HeadFile(Linear(np.ones((2, 3)), np.ones(2)), np.ones((1, 2)), ["ab"], None, ["cd"], {})
save_heads(Path(sys.argv[1]), {"a": head})
"""


def test_a_process_killed_while_it_saves_leaves_no_damaged_head(tmp_path, seen):
    shelf = tmp_path / "shelf"
    path = save_heads(shelf, {"b": some_head()})
    ended = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(shelf)], check=False)
    assert ended.returncode == -signal.SIGKILL
    [rest] = shelf.glob(PARTIALS)
    assert is_abandoned(rest)
    assert held(shelf, seen) == ({"b": path}, [])


# What lies on a shelf


def test_a_shelf_that_is_not_there_or_empty_holds_nothing(tmp_path, seen):
    assert held(tmp_path / "shelf", seen) == ({}, [])
    (tmp_path / "shelf").mkdir()
    assert held(tmp_path / "shelf", seen) == ({}, [])
    assert not seen.path.exists()


def test_keys_are_listed_of_whole_files_and_damaged_ones_are_named(tmp_path, seen):
    paths = [save_heads(tmp_path, {key: some_head() for key in keys}) for keys in ("abc", "d", "ef")]
    (tmp_path / "notes.txt").write_text("not a head")
    (tmp_path / f".{'0' * 40}.safetensors.1-ab.partial").write_text("half a h")
    assert sorted(keys_in(paths[0])) == ["a", "b", "c"]
    every = dict.fromkeys("abc", paths[0]) | {"d": paths[1]} | dict.fromkeys("ef", paths[2])
    assert held(tmp_path, seen) == (every, [])
    hurt = bytearray(paths[0].read_bytes())
    hurt[-1] ^= 1
    paths[0].write_bytes(hurt)
    assert held(tmp_path, seen) == ({key: every[key] for key in "def"}, [paths[0]])
    paths[0].unlink()
    assert held(tmp_path, seen) == ({key: every[key] for key in "def"}, [])


def test_a_head_in_two_files_is_held_as_long_as_one_of_them_is(tmp_path, seen):
    """Two processes may train the same head, and one of them others beside it."""
    paths = [save_heads(tmp_path, {key: some_head() for key in keys}) for keys in ("ab", "bc")]
    found, _ = held(tmp_path, seen)
    assert found.keys() == set("abc")
    found["b"].unlink()
    [left] = {*paths} - {found["b"]}
    assert held(tmp_path, seen)[0]["b"] == left


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path, seen, read):
    paths = {save_heads(tmp_path, {key: some_head()}) for key in "abc"}
    first = held(tmp_path, seen)
    assert set(read) == paths
    read.clear()
    assert held(tmp_path, seen) == first
    assert read == []
    os.utime(first[0]["b"])
    assert held(tmp_path, seen) == first
    assert read == [first[0]["b"]]


def test_a_damaged_file_is_read_every_time_until_it_is_whole(tmp_path, seen, read):
    path = save_heads(tmp_path, {"a": some_head()})
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    read.clear()
    for _ in range(2):
        assert held(tmp_path, seen) == ({}, [path])
    assert len([each for each in read if each == path]) == 2
    path.write_bytes(data)
    assert held(tmp_path, seen) == ({"a": path}, [])


def test_a_file_just_written_is_not_trusted_by_its_time_stamp(tmp_path, read):
    seen = Artifacts(tmp_path / "artifacts").seen("head")  # not settled
    path = save_heads(tmp_path, {"a": some_head()})
    read.clear()
    held(tmp_path, seen), held(tmp_path, seen)
    assert read == [path, path]


@pytest.mark.parametrize("value", ["whole", "", "5e3a", "123", '{"a": 1}', "null"])
def test_what_another_version_remembered_of_a_file_is_passed_over(tmp_path, seen, value):
    path = save_heads(tmp_path, {"a": some_head()})
    seen.value(path, lambda path: value)
    assert held(tmp_path, seen) == ({"a": path}, [])


def test_a_file_removed_by_another_process_meanwhile_is_not_called_damaged(tmp_path, seen, monkeypatch):
    path = save_heads(tmp_path, {"a": some_head()})
    glob = Path.glob

    def late(place, pattern):
        found = list(glob(place, pattern))
        path.unlink()
        return found

    monkeypatch.setattr(Path, "glob", late)
    assert held(tmp_path, seen) == ({}, [])


def test_a_file_that_cannot_be_read_for_another_reason_is_not_called_damaged(tmp_path, seen, monkeypatch):
    """Whoever finds damage removes it; one may lack the right to read, or open files, only now."""
    path = save_heads(tmp_path, {"a": some_head()})

    def refuse(place, *given):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(Path, "open", refuse)
    for look in (lambda: held(tmp_path, seen), lambda: damage(path)):
        with pytest.raises(StoreError, match=r"Permission denied\); nothing was changed"):
            look()


def test_damage_is_told_without_the_path(tmp_path):
    path = save_heads(tmp_path, {"a": some_head()})
    assert damage(path) == ""
    path.write_bytes(path.read_bytes()[:-1])
    assert damage(path) == "its bytes are not those that it is named by"
    path.unlink()
    assert damage(path) == ""


# Names of heads


HYPERS: list[Hyper] = [
    Softmax(1.0),
    Softmax(1.0000001),
    Softmax(10.0),
    Softmax(1.0, "balanced"),
    Ridge(1.0),
    Ridge(10.0),
    Ridge(1.0, "balanced"),
    Neighbours(1),
    Neighbours(2),
    Centroid(),
    Mlp((8,)),
    Mlp((8, 8)),
    Mlp((9,)),
    Mlp((8,), learning_rate=0.01),
    Mlp((8,), weight_decay=0.1),
    Mlp((8,), dropout=0.5),
    Mlp((8,), seed=1),
]


def test_every_hyper_parameter_and_the_version_change_a_heads_key(monkeypatch):
    keys = [head_key(hyper) for hyper in HYPERS]
    monkeypatch.setattr(versions, "TRAINER", versions.TRAINER + 1)
    keys += [head_key(hyper) for hyper in HYPERS]
    assert len(set(keys)) == len(keys)


def test_nothing_else_changes_a_heads_key(monkeypatch):
    keys = [head_key(hyper) for hyper in HYPERS]
    for name in ("MEDIA", "EXTRACTOR", "SCORER", "COPIES"):
        monkeypatch.setattr(versions, name, 99)
    assert [head_key(replace(hyper)) for hyper in HYPERS] == keys
    assert head_key(Softmax(strength=1.0, class_weight="none")) == head_key(Softmax(1.0))


# Names of shelves


def shelf(inputs: Inputs = INPUTS, sets=SETS, rows=ROWS, test: np.ndarray = TEST, seed: int = 0) -> str:
    return shelf_key(inputs, sets, rows, test, seed)


def changed(row: int, column: int, value: object) -> list[tuple]:
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return [tuple(each) for each in rows]


def test_every_ingredient_changes_a_shelfs_name():
    names = [
        shelf(),
        shelf(replace(INPUTS, views=("centre", "hflip"))),
        shelf(replace(INPUTS, views=("hflip", "centre"))),
        shelf(sets=["a" * 40, "c" * 40]),
        shelf(sets=["b" * 40, "a" * 40]),
        shelf(sets=["a" * 40]),
        shelf(rows=changed(1, 0, "f" * 40)),
        shelf(rows=changed(1, 1, "dog")),
        shelf(rows=changed(1, 2, 1.5)),
        shelf(rows=changed(1, 3, "g9")),
        shelf(rows=ROWS[:-1], test=TEST[:-1]),
        shelf(test=~TEST),
        shelf(test=np.array([True, *TEST[1:]])),
        shelf(seed=1),
    ]
    assert len(set(names)) == len(names)


def test_what_decides_nothing_is_not_in_a_shelfs_name(monkeypatch):
    other = Inputs(backbone="renamed", taps=("bn2:mean", "bn1:mean"))  # the sets tell
    expected = shelf()
    assert shelf(other) == expected
    assert shelf(test=TEST.tolist(), rows=tuple(ROWS), sets=tuple(SETS)) == expected
    monkeypatch.setattr(versions, "TRAINER", 99)  # heads of several versions stand on one shelf
    assert shelf() == expected


def test_rows_and_marks_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        shelf(test=TEST[:-1])


def test_sets_are_named_tap_by_tap_then_view_by_view():
    known = {"a:mean": "1", "b:max": "2", "a:mean hflip": "3", "b:max hflip": "4"}
    assert Inputs("net", ("b:max", "a:mean")).sets(known) == ["2", "1"]
    assert Inputs("net", ("a:mean", "b:max"), ("hflip", "centre")).sets(known) == ["3", "4", "1", "2"]
