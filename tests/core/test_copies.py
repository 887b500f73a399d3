"""Near copies are found where there are some, and hardly where there are none; a split that parts them is told."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from tasks.core import copies as module
from tasks.core.copies import ALIKE, NEARER, NEIGHBOURS, SAME, NearCopy, across, near_copies


def features(count=60, width=64, seed=0):
    """(N, D): different samples on scales as different as a network's channels."""
    rng = np.random.default_rng(seed)
    return rng.gamma(1.0, size=(count, width)) * rng.lognormal(0, 2, width)


def with_copies(rows, of, noise=0.05, seed=1):
    """The same with noisy copies of some rows behind."""
    spread = rows.std(axis=0)
    extra = (
        rows[list(of)] + np.random.default_rng(seed).normal(size=(len(of), rows.shape[1])) * noise * spread
    )
    return np.concatenate([rows, extra])


def names(count):
    return [f"{number:03}" for number in range(count)]


def told(pairs):
    return {(pair.first, pair.second) for pair in pairs}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_copies_are_found_and_nothing_else(dtype):
    rows = with_copies(features(), of=[3, 17, 40]).astype(dtype)
    assert told(near_copies(rows, names(63))) == {("003", "060"), ("017", "061"), ("040", "062")}


def test_different_samples_are_no_copies():
    for seed in range(5):
        assert near_copies(features(seed=seed), names(60)) == []


def test_the_scale_of_a_column_does_not_matter():
    rows = with_copies(features(), of=[3, 17])
    scale = np.random.default_rng(5).lognormal(0, 5, 64)
    assert told(near_copies(rows, names(62))) == told(near_copies(rows * scale + 100, names(62)))


def test_many_copies_of_one_sample_are_found_though_none_stands_out():
    rows = with_copies(features(), of=[0] * 30, noise=0.01)
    pairs = near_copies(rows, names(90))
    assert {name for pair in pairs for name in (pair.first, pair.second)} == {"000", *names(90)[60:]}
    assert len(pairs) <= 31 * NEIGHBOURS


def test_pictures_that_are_all_alike_are_not_all_copies():
    """As solar cells are: any two are more alike than ALIKE, and none stands out."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(3, 64)) * 3
    rows = groups[rng.integers(0, 3, 90)] + rng.normal(size=(90, 64)) * 0.7
    unit = rows - rows.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert np.median(np.sort(unit @ unit.T, axis=1)[:, -2]) > ALIKE
    assert near_copies(rows, names(90)) == []


def by_hand(rows, digests):
    """The rule, sample by sample: {(first, second): similarity}."""
    wide = rows.astype(float)
    spread = wide.std(axis=0)
    wide = (wide - wide.mean(axis=0)) / np.where(spread > 0, spread, 1)
    found = {}
    for one, row in enumerate(wide):
        others = [other for other in range(len(wide)) if other != one]
        cosine = {
            other: float(row @ wide[other] / max(np.linalg.norm(row) * np.linalg.norm(wide[other]), 1e-30))
            for other in others
        }
        nearest = sorted(others, key=lambda other: -cosine[other])[:NEIGHBOURS]
        edge = np.sqrt(max(2 - 2 * cosine[nearest[-1]], 0))
        for other in nearest:
            alone = np.sqrt(max(2 - 2 * cosine[other], 0)) <= NEARER * edge
            if cosine[other] >= SAME or (cosine[other] >= ALIKE and alone):
                found[tuple(sorted((digests[one], digests[other])))] = cosine[other]
    return found


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(3, 40), copied=st.integers(0, 12))
def test_the_pairs_are_those_of_the_rule_whatever_the_blocks(seed, count, copied):
    rng = np.random.default_rng(seed)
    rows = with_copies(
        features(count, 24, seed), rng.integers(0, count, copied), rng.uniform(0.01, 0.4), seed
    )
    digests = names(len(rows))
    expected = by_hand(rows, digests)
    before = module.BLOCK
    try:
        module.BLOCK = int(rng.integers(1, 500))
        found = near_copies(rows, digests)
    finally:
        module.BLOCK = before
    assert told(found) == set(expected)
    np.testing.assert_allclose([p.similarity for p in found], sorted(expected.values())[::-1], atol=1e-5)


def test_the_most_alike_come_first():
    rows = np.concatenate(
        [with_copies(features(), of=[3], noise=0.2), with_copies(features(), [9], 0.01)[-1:]]
    )
    assert [(pair.first, pair.second) for pair in near_copies(rows, names(62))] == [
        ("009", "061"),
        ("003", "060"),
    ]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_fewer_than_three_none_stands_out(count):
    assert near_copies(np.ones((count, 4)), names(count)) == []


def test_rows_without_any_difference_do_not_divide_by_zero():
    assert near_copies(np.ones((5, 4), np.float16), names(5)) == []


# Across a split

PAIRS = [
    NearCopy("a", "b", 0.99),
    NearCopy("a", "c", 0.95),
    NearCopy("d", "e", 0.9),
    NearCopy("x", "f", 0.85),
]
LABELLED = list("abcdefgh")


def test_a_pair_counts_where_one_is_tested_and_the_other_trained_on():
    found = across(PAIRS, [["a", "d", "e", "h"]], LABELLED)
    assert found.pairs == [NearCopy("a", "b", 0.99), NearCopy("a", "c", 0.95)]
    assert (found.count, found.share) == (1, 0.25)


def test_the_tested_one_stands_first():
    assert across(PAIRS, [["b", "e"]], LABELLED).pairs == [NearCopy("b", "a", 0.99), NearCopy("e", "d", 0.9)]


def test_figures_are_means_over_the_seeds_and_pairs_are_told_once():
    found = across(PAIRS, [["a", "d"], ["b", "c"], ["g", "h"]], LABELLED)
    assert found.count == pytest.approx((2 + 2 + 0) / 3)
    assert found.share == pytest.approx((1 + 1 + 0) / 3)
    assert [pair.similarity for pair in found.pairs] == [0.99, 0.95, 0.9]


def test_a_sample_that_is_neither_trained_on_nor_tested_does_not_count():
    assert across(PAIRS, [["f"]], LABELLED).pairs == []
    assert across(PAIRS, [["f"]], [*LABELLED, "x"]).count == 1


def test_a_split_that_parts_none_says_so():
    found = across([], [["a"]], LABELLED)
    assert (found.count, found.share, found.pairs) == (0, 0, [])


# Photographs


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


@pytest.mark.slow
def test_copies_of_photographs_are_found_and_no_others():
    import foolbox
    import torch

    from tasks.core.backbones import find_backbone
    from tasks.core.media import pixels
    from tasks.core.networks import load_network

    backbone = find_backbone("lite0")
    network, spec = load_network(backbone), backbone.preprocessing
    folder = Path(foolbox.__file__).parent / "data"
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.glob("imagenet_*.jpg"))]
    changes = [
        lambda image: saved(image, "JPEG", quality=60),
        lambda image: image.resize((image.width * 9 // 10, image.height * 9 // 10)),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: image.crop((2, 2, image.width, image.height)),
        ImageOps.mirror,
    ]
    copied = [changes[number % 5](photo) for number, photo in enumerate(photos[:10])]

    def row(image):
        file = io.BytesIO()
        image.save(file, "PNG")
        x = torch.from_numpy(pixels(file.getvalue(), spec)).float()[None]
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
        with torch.inference_mode():
            return network.forward_features((x - mean) / std).mean((2, 3))[0].numpy()

    rows = np.stack([row(image) for image in photos + copied])
    assert len(photos) == 20
    assert told(near_copies(rows, names(30))) == {(f"{n:03}", f"{n + 20:03}") for n in range(10)}
