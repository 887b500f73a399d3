"""Heads on disk: named by all that decides them, read back whole or not at all."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tasks.core import versions
from tasks.core.digest import digest_bytes
from tasks.core.errors import StoreError
from tasks.core.heads import Experiment, HeadFile, head_key, load_head, save_head

EXPERIMENT = Experiment("last layer", "lite0", ("last:mean",), (0.1, 1.0))
SETS = ["a" * 40, "b" * 40]
ROWS = [(digest_bytes(bytes([n])), "cat" if n % 2 else "dog", 1.0, f"g{n // 2}") for n in range(6)]
TEST = np.array([False, False, True, False, True, False])


def some_head(classes: int = 3, columns: int = 4, rows: int = 5) -> HeadFile:
    rng = np.random.default_rng(0)
    return HeadFile(
        weight=rng.normal(size=(classes, columns)),
        bias=rng.normal(size=classes),
        log_proba=rng.normal(size=(rows, classes)),
        test_rows=[digest_bytes(bytes([n])) for n in range(rows)],
        story={"classes": ["größe", 'a "quoted" one', ""], "strength": 0.1, "inner_brier": None},
    )


def assert_same(one: HeadFile, other: HeadFile) -> None:
    for name in ("weight", "bias", "log_proba"):
        assert getattr(one, name).dtype == getattr(other, name).dtype
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.test_rows == other.test_rows
    assert one.story == other.story


@pytest.mark.parametrize(("classes", "columns", "rows"), [(3, 4, 5), (2, 1, 1), (50, 30, 7)])
def test_a_head_comes_back_bit_for_bit(classes, columns, rows, tmp_path):
    head = some_head(classes, columns, rows)
    save_head(tmp_path / "new" / "head.safetensors", head)
    assert_same(load_head(tmp_path / "new" / "head.safetensors"), head)


def test_arrays_of_any_layout_come_back(tmp_path):
    head = some_head(4, 4)
    turned = replace(head, weight=head.weight.T, log_proba=head.log_proba[::-1])
    save_head(tmp_path / "head", turned)
    assert_same(load_head(tmp_path / "head"), turned)


def test_the_same_head_gives_the_same_bytes(tmp_path):
    save_head(tmp_path / "one", some_head())
    save_head(tmp_path / "other", some_head())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


# Damage


def test_a_missing_head_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="run the study again"):
        load_head(tmp_path / "head")


def test_every_truncation_is_a_store_error(tmp_path):
    path = tmp_path / "head"
    save_head(path, some_head())
    data = path.read_bytes()
    for length in range(0, len(data), 5):
        path.write_bytes(data[:length])
        with pytest.raises(StoreError):
            load_head(path)


def test_a_flipped_bit_in_the_header_is_a_store_error_or_leaves_arrays_of_the_right_kind(tmp_path):
    path, head = tmp_path / "head", some_head()
    save_head(path, head)
    data = path.read_bytes()
    refused, header = 0, 8 + int.from_bytes(data[:8], "little")
    for offset in range(header):
        for bit in (0x01, 0x04, 0x20, 0x80):
            path.write_bytes(data[:offset] + bytes([data[offset] ^ bit]) + data[offset + 1 :])
            try:
                found = load_head(path)
            except StoreError:
                refused += 1
            else:
                assert offset >= 8, "the header's length is wrong, and nothing was said"
                assert found.weight.size == head.weight.size
    assert refused > 2 * header  # at least half of the flips; those within the story's words pass


@pytest.mark.parametrize("lacking", ["weight", "bias", "log_proba", "test_rows"])
def test_a_file_without_one_of_the_arrays_is_a_store_error(lacking, tmp_path):
    arrays = {name: np.zeros((2, 2)) for name in ("weight", "bias", "log_proba", "test_rows")}
    del arrays[lacking]
    save_file(arrays, tmp_path / "head", {"story": "{}"})
    with pytest.raises(StoreError):
        load_head(tmp_path / "head")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"another": "{}"},
        {"story": "{"},
    ],
)
def test_a_file_without_a_story_is_a_store_error(metadata, tmp_path):
    arrays = {name: np.zeros((2, 2)) for name in ("weight", "bias", "log_proba", "test_rows")}
    save_file(arrays, tmp_path / "head", metadata)
    with pytest.raises(StoreError):
        load_head(tmp_path / "head")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_other_bytes_are_a_store_error(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head")
        path.write_bytes(data)
        with pytest.raises(StoreError):
            load_head(path)


def test_a_save_that_fails_leaves_the_old_head(tmp_path, monkeypatch):
    path = tmp_path / "head"
    save_head(path, some_head())

    write_bytes = Path.write_bytes

    def full(place, data):
        write_bytes(place, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="No space"):
        save_head(path, some_head(2, 2, 2))
    monkeypatch.undo()
    assert_same(load_head(path), some_head())
    assert [each.name for each in tmp_path.iterdir()] == ["head"]


# Names


def key(
    experiment: Experiment = EXPERIMENT, sets=SETS, rows=ROWS, test: np.ndarray = TEST, seed: int = 0
) -> str:
    return head_key(experiment, sets, rows, test, seed)


def changed(row: int, column: int, value: object) -> list[tuple]:
    rows = [list(each) for each in ROWS]
    rows[row][column] = value
    return [tuple(each) for each in rows]


def test_every_ingredient_changes_the_name(monkeypatch):
    keys = [
        key(),
        key(replace(EXPERIMENT, strengths=(0.1, 1.0, 10.0))),
        key(replace(EXPERIMENT, strengths=(0.1, 1.0000001))),
        key(sets=["a" * 40, "c" * 40]),
        key(sets=["b" * 40, "a" * 40]),
        key(sets=["a" * 40]),
        key(rows=changed(1, 0, "f" * 40)),
        key(rows=changed(1, 1, "dog")),
        key(rows=changed(1, 2, 1.5)),
        key(rows=changed(1, 3, "g9")),
        key(rows=ROWS[:-1], test=TEST[:-1]),
        key(test=~TEST),
        key(test=np.array([True, *TEST[1:]])),
        key(seed=1),
    ]
    monkeypatch.setattr(versions, "TRAINER", versions.TRAINER + 1)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_what_decides_nothing_is_not_in_the_name():
    other = replace(EXPERIMENT, name="another", backbone="renamed", taps=("bn2:mean",))  # the sets tell
    assert key(other) == key()
    assert key(test=TEST.tolist(), rows=tuple(ROWS), sets=tuple(SETS)) == key()


def test_rows_and_marks_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        key(test=TEST[:-1])
