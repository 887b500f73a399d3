"""What is said before anything is trained: counts, pictures of another kind, and scores without a NaN."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.core import preflight
from tasks.core.backbones import Backbone
from tasks.core.media import ImageSpec
from tasks.core.preflight import LOOKED_AT, count_classes, notes_on, scores_of
from tasks.core.transferability import h_score, log_me

BACKBONE = Backbone("net", "resnet18", Path("none"), ImageSpec(64, 56, (0.0,) * 3, (1.0,) * 3), "last")
GREY = "grey pictures; ImageNet-1k are colour photographs"


def drawn(folder: Path, kinds: str, size: tuple[int, int] = (70, 60)) -> list[str]:
    """Draw pictures: g grey, j a grey colour JPEG, t tinted by next to nothing, c coloured, x no picture."""
    files = []
    for number, kind in enumerate(kinds):
        rng = np.random.default_rng(number)
        grey = rng.integers(20, 200, size[::-1], dtype=np.uint8)
        path = folder / f"{number}.{'jpg' if kind == 'j' else 'png'}"
        if kind == "x":
            path.write_bytes(b"no picture")
        elif kind == "g":
            Image.fromarray(grey).save(path)
        else:
            tint = {"j": (0, 0, 0), "t": (3, 0, 5), "c": (40, 0, 0)}[kind]
            Image.fromarray(grey[..., None] + np.array(tint, dtype=np.uint8)).save(path)
        files.append(str(path))
    return files


@pytest.mark.parametrize("kinds", ["gggg", "gjtg", "gggcc", "tttt", "gxxx"])
def test_grey_pictures_are_noted_where_the_network_learnt_from_coloured_ones(tmp_path, kinds):
    files = drawn(tmp_path, kinds)
    assert notes_on(files, BACKBONE, "ImageNet-1k") == [GREY]
    assert notes_on(files, BACKBONE, "ImageNet-22k") == [GREY.replace("1k", "22k")]
    assert notes_on(files, BACKBONE, "X-rays") == notes_on(files, BACKBONE, "") == []


@pytest.mark.parametrize("kinds", ["cccc", "ggcc", "gccc", "x", ""])
def test_nothing_is_noted_of_pictures_as_the_network_knows_them_nor_of_none(tmp_path, kinds):
    assert notes_on(drawn(tmp_path, kinds), BACKBONE, "ImageNet-1k") == []


def test_files_that_cannot_be_read_are_passed_over(tmp_path):
    files = [str(tmp_path / "gone.png"), str(tmp_path), *drawn(tmp_path, "xg")]
    assert notes_on(files, BACKBONE, "ImageNet-1k") == [GREY]


@pytest.mark.parametrize(
    ("short", "is_noted"), [(40, True), (42, True), (43, False), (64, False), (500, False)]
)
def test_pictures_that_are_much_enlarged_are_noted(tmp_path, short, is_noted):
    files = drawn(tmp_path, "ccc", size=(short + 100, short))
    expected = [f"pictures of {short} pixels are enlarged to 64"] if is_noted else []
    assert notes_on(files, BACKBONE, "") == expected
    larger = replace(BACKBONE, preprocessing=replace(BACKBONE.preprocessing, resize=short, crop=short))
    assert notes_on(files, larger, "") == []


@given(samples=st.integers(1, 3000))
def test_a_few_pictures_spread_over_all_are_looked_at(samples):
    """Files come folder by folder, that is class by class."""
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "_look", lambda file: seen.append(int(file)))
        notes_on([str(number) for number in range(samples)], BACKBONE, "")
    assert len(seen) == min(samples, LOOKED_AT)
    assert seen[0] == 0
    gaps = set(np.diff([*seen, samples]).tolist())
    assert max(gaps) - min(gaps) <= 1


@given(st.lists(st.sampled_from(["cat", "dog", "Emu", "1", ""]), max_size=40))
def test_classes_are_counted_by_name(labels):
    found = count_classes(labels)
    assert [each["label"] for each in found] == sorted(set(labels))
    assert [each["count"] for each in found] == [labels.count(each["label"]) for each in found]


def test_scores_are_log_me_and_the_h_score():
    random = np.random.default_rng(0)
    labels = np.arange(40) % 3
    features = random.normal(size=(40, 6)) + np.eye(6)[labels]
    assert scores_of(features, labels, classes=3) == {
        "log_me": pytest.approx(log_me(features, labels, classes=3)),
        "h_score": pytest.approx(h_score(features, labels, classes=3)),
    }


def test_features_that_tell_nothing_have_scores_that_json_can_spell():
    found = scores_of(np.zeros((6, 3)), np.arange(6) % 2, classes=2)
    assert all(score is None or np.isfinite(score) for score in found.values())
    assert preflight._finite(np.nan) is preflight._finite(-np.inf) is None
