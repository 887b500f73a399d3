"""Samples that the report shows: the right ones first, each with a small picture of its file."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from said_heads import CLASSES, head_of, random_study, table_of

from tasks.core import pictures
from tasks.core.copies import NearCopy
from tasks.core.label_errors import Suspected
from tasks.core.pictures import (
    PAIRS,
    PICTURE_SIDE,
    PICTURES,
    Album,
    list_suspects,
    most_unsure,
    most_wrong,
    show_pairs,
    show_suspects,
)
from tasks.core.said import Said, of_test_rows

SURE = np.array([[0.1, 0.8, 0.1]])


def said_once(proba: np.ndarray, labels: list[str], folder=None) -> Said:
    """What one head says of as many samples as there are labels."""
    table = table_of(labels) if folder is None else table_of(labels, folder)
    return of_test_rows([head_of(list(range(len(labels))), proba)], table)


# Which samples


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_most_wrong_come_first_and_only_wrong_ones_are_listed(seed):
    said = of_test_rows(*random_study(seed))
    expected = []
    for path, label, proba in zip(said.paths, said.labels, said.proba, strict=True):
        if proba.argmax() != label:
            expected.append((proba[label], path, CLASSES[label], CLASSES[proba.argmax()]))
    expected = sorted(expected)[:PICTURES]
    found = most_wrong(said, Album())
    assert [(item.path, item.label, item.called) for item in found] == [item[1:] for item in expected]
    np.testing.assert_allclose([item.chance for item in found], [item[0] for item in expected])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_most_unsure_come_first_with_their_two_likeliest_classes(seed):
    said = of_test_rows(*random_study(seed))
    expected = []
    for path, label, proba in zip(said.paths, said.labels, said.proba, strict=True):
        (first, called), (second, other) = sorted(zip(proba, CLASSES, strict=True), reverse=True)[:2]
        expected.append((first - second, path, CLASSES[label], called, other, first, second))
    found = most_unsure(said, Album())
    told = [
        (item.path, item.label, item.called, item.second, item.chance, item.second_chance) for item in found
    ]
    assert told == [item[1:] for item in sorted(expected)[:PICTURES]]


def test_lists_are_cut_off():
    said = said_once(np.tile(SURE, (3 * PICTURES, 1)), ["cat"] * 3 * PICTURES)
    assert len(most_wrong(said, Album())) == len(most_unsure(said, Album())) == PICTURES


def test_samples_that_are_called_right_are_not_listed():
    assert most_wrong(said_once(np.array([[0.4, 0.3, 0.3]] * 2), ["cat", "cat"]), Album()) == []


def test_suspects_are_listed_whole_and_the_first_are_shown():
    n = PICTURES + 3
    said = said_once(np.tile(SURE, (n, 1)), ["cat"] * n)
    rows = np.arange(n)[::-1]
    listed = list_suspects(said, Suspected(rows, np.ones(n, dtype=int)))
    columns = ["path", "label", "suggested", "label_probability", "suggested_probability"]
    assert listed.columns.tolist() == columns
    assert listed.path.tolist() == [said.paths[row] for row in rows]
    assert listed.iloc[0].tolist()[1:] == ["cat", "dog", pytest.approx(0.1), pytest.approx(0.8)]
    shown = show_suspects(listed, Album())
    assert len(shown) == PICTURES
    assert (shown[0].path, shown[0].label, shown[0].suggested) == (said.paths[-1], "cat", "dog")
    assert (shown[0].chance, shown[0].suggested_chance) == (pytest.approx(0.1), pytest.approx(0.8))


def test_a_list_of_no_suspects_keeps_its_columns():
    none = np.empty(0, dtype=int)
    listed = list_suspects(said_once(SURE, ["dog"]), Suspected(none, none))
    assert len(listed) == 0
    assert len(listed.columns) == 5
    assert show_suspects(listed, Album()) == []


# Their pictures


def test_pictures_are_shown_small_and_their_proportions_kept(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (400, 800, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    [item] = most_wrong(said_once(SURE, ["cat"], tmp_path), Album())
    start, data = item.picture.split(",")
    assert start == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (PICTURE_SIDE, PICTURE_SIDE // 2)


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_picture_that_cannot_be_shown_is_left_out(content, tmp_path):
    if content is not None:
        (tmp_path / "0.png").write_bytes(content)
    said = said_once(SURE, ["cat"], tmp_path)
    assert most_wrong(said, Album())[0].picture == most_unsure(said, Album())[0].picture == ""


def test_a_file_is_decoded_once_however_many_lists_it_is_in(tmp_path, monkeypatch):
    for row in range(2):
        Image.new("RGB", (4, 4), (90 * row, 0, 0)).save(tmp_path / f"{row}.png")
    decoded = []
    decode = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda data: decoded.append(data) or decode(data))
    said, album = said_once(np.tile(SURE, (2, 1)), ["cat", "dog"], tmp_path), Album()
    wrong, unsure = most_wrong(said, album), most_unsure(said, album)
    assert len(decoded) == 2
    assert {item.path: item.picture for item in unsure}[wrong[0].path] == wrong[0].picture
    assert unsure[0].picture != unsure[1].picture


def test_pairs_are_shown_side_by_side_and_their_list_is_cut_off(tmp_path):
    table = table_of(["cat"] * (2 * PAIRS + 2), tmp_path)
    for row in (0, 1):
        Image.new("RGB", (4, 4), "red").save(tmp_path / f"{row}.png")
    digests = table.digest.tolist()
    pairs = [NearCopy(digests[2 * n], digests[2 * n + 1], 0.9) for n in range(PAIRS + 1)]
    shown = show_pairs(pairs, table, Album())
    assert len(shown) == PAIRS
    assert (shown[0].test, shown[0].train) == (str(tmp_path / "0.png"), str(tmp_path / "1.png"))
    assert shown[0].test_picture.startswith("data:")
    assert shown[0].train_picture.startswith("data:")
    assert (shown[1].test_picture, shown[1].train_picture) == ("", "")
