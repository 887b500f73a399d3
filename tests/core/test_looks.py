"""Looks at samples: found by digest, drawn evenly by a seed alone, and the very numbers that a network is fed."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.engines import PixelsToTaps
from tasks.core.errors import StoreError, Unreachable
from tasks.core.looks import Kept, Live
from tasks.core.media import ImageSpec, pixels
from tasks.core.store import holdings, write_shard

N = 12
VIEWS = ("centre", "hflip", "crop:0")
DIGESTS = np.array([digest_bytes(bytes([number])) for number in range(N)], dtype=object)
NUMBERS = {
    view: np.random.default_rng(seed).normal(size=(N, 3, 2, 2)).astype("float16")
    for seed, view in enumerate(VIEWS)
}


def kept_in(folder: Path, order: np.ndarray, shards: int) -> Kept:
    """Keep the numbers of each view in so many shards, in some order."""
    here = Artifacts(folder)
    held = {}
    for view, rows in NUMBERS.items():
        place = here.features / digest_bytes(view.encode())
        for part in np.array_split(order, shards):
            write_shard(place, DIGESTS[part].tolist(), rows[part], {})
        held[view] = holdings(place, here.seen("shard"))
    return Kept(held, DIGESTS)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Kept:
    return kept_in(tmp_path_factory.mktemp("artifacts"), np.random.default_rng(5).permutation(N), 3)


# Kept activations

rows_of = st.lists(st.integers(0, N - 1), min_size=1, max_size=30).map(np.array)


@settings(max_examples=40, deadline=None)
@given(rows=rows_of, view=st.sampled_from(VIEWS))
def test_what_is_kept_is_read_by_digest_in_single_precision(kept, rows, view):
    found = kept.fixed(rows, view)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), NUMBERS[view][rows].astype("float32"))


@settings(max_examples=60, deadline=None)
@given(rows=rows_of, seed=st.lists(st.integers(0, 2**60), min_size=1, max_size=3))
def test_each_sample_that_is_drawn_is_shown_in_one_of_its_views(kept, rows, seed):
    found = kept.drawn(rows, seed, 0).numpy()
    shown = np.stack([NUMBERS[view][rows].astype("float32") for view in VIEWS])  # (V, n, ...)
    which = (shown == found).all(axis=(2, 3, 4))
    assert (which.sum(axis=0) == 1).all()
    np.testing.assert_array_equal(kept.drawn(rows, seed, 0).numpy(), found)


def test_views_are_drawn_evenly_and_anew_for_every_seed(kept):
    rows = np.arange(N)
    shown = np.stack([NUMBERS[view].astype("float32") for view in VIEWS])
    counts = np.zeros((len(VIEWS), N))
    for step in range(300):
        counts += (shown == kept.drawn(rows, [7, step, 1], 0).numpy()).all(axis=(2, 3, 4))
    assert counts.sum() == 300 * N
    assert (abs(counts - 100) < 5 * np.sqrt(300 * 2 / 9)).all()  # five deviations


def test_what_is_drawn_does_not_hang_on_where_rows_lie(kept, tmp_path):
    other, rows = kept_in(tmp_path, np.arange(N)[::-1], 1), np.array([5, 0, 11, 5])
    for step in range(5):
        assert torch.equal(other.drawn(rows, [1, step, 1], 0), kept.drawn(rows, [1, step, 1], 0))
    turned = replace(other, digests=DIGESTS[::-1])
    assert torch.equal(turned.fixed(N - 1 - rows, "hflip"), kept.fixed(rows, "hflip"))


def test_the_views_of_what_is_kept_are_all_that_are_there(kept):
    assert kept.views == VIEWS
    assert replace(kept, held={"hflip": kept.held["hflip"]}).views == ("hflip",)


def test_a_shard_that_is_gone_or_a_row_that_was_never_there_is_told_in_one_line(tmp_path):
    kept = kept_in(tmp_path, np.arange(N), 2)
    unknown = replace(kept, digests=np.append(DIGESTS, digest_bytes(b"?")))
    with pytest.raises(StoreError, match=r"^1 of 2 rows are not stored.*run the study again$"):
        unknown.fixed(np.array([0, N]), "centre")
    for shard in kept.held["centre"].shards:
        shard.path.unlink()
    with pytest.raises(StoreError, match="cannot be read") as told:
        kept.fixed(np.arange(3), "centre")
    assert len(str(told.value).splitlines()) == 1


# Pictures

SPEC = ImageSpec(24, 20, (120.0, 110.5, 100.0), (60.0, 50.0, 40.25))


def noise(path: Path, seed: int) -> str:
    """Draw a picture of noise; returns its digest."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return digest_bytes(path.read_bytes())


@pytest.fixture
def live(tmp_path) -> Live:
    files = [tmp_path / "pictures" / f"{number}.png" for number in range(6)]
    digests = [noise(file, number) for number, file in enumerate(files)]
    return Live([str(file) for file in files], digests, SPEC, ("centre", "hflip", "crop"))


class AsItIs(nn.Module):
    """A prefix of no layers."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


def fed(live: Live, rows: list[int], views: list[str]) -> Tensor:
    """What the engines feed to a network: their own arithmetic on the pixels."""
    read = [
        pixels(Path(live.files[row]).read_bytes(), live.spec, view, live.digests[row])
        for row, view in zip(rows, views, strict=True)
    ]
    [given] = PixelsToTaps(AsItIs(), live.spec, channels_last=False)(torch.from_numpy(np.stack(read)))
    return given


@pytest.mark.parametrize("view", ["centre", "hflip", "vflip", "rot180", "crop:3"])
def test_pictures_are_what_the_engines_feed_to_a_network_to_the_bit(live, view):
    rows = np.array([4, 0, 4])
    assert torch.equal(live.fixed(rows, view), fed(live, rows.tolist(), [view] * 3))


def test_each_picture_that_is_drawn_is_shown_in_one_of_the_ways(live):
    rows = np.tile(np.arange(6), 40)
    found = live.drawn(rows, [3, 0, 1], 2)
    crop = f"crop:{3 * (1 << 20) + 2}"
    ways = ["centre", "hflip", crop]
    shown = torch.stack([fed(live, list(range(6)), [way] * 6) for way in ways])  # (W, 6, ...)
    which = (shown[:, rows] == found).flatten(2).all(2)  # (W, n)
    assert (which.sum(0) == 1).all()
    assert (abs(which.sum(1).numpy() - 80) < 5 * np.sqrt(240 * 2 / 9)).all()


def test_a_crop_is_another_in_every_epoch_and_the_same_for_the_same_seed_and_epoch(live):
    crops, rows = replace(live, ways=("crop",)), np.arange(6)
    first = crops.drawn(rows, [5, 10, 1], 0)
    assert torch.equal(first, crops.drawn(rows, [5, 10, 1], 0))
    assert torch.equal(first[[2]], crops.drawn(rows[[2]], [5, 99, 1], 0))  # in whichever step it comes
    for other in (crops.drawn(rows, [5, 10, 1], 1), crops.drawn(rows, [6, 10, 1], 0)):
        assert not any(torch.equal(one, another) for one, another in zip(first, other, strict=True))


def test_a_crop_of_a_kept_number_stays_the_same_in_every_epoch(live):
    crops, rows = replace(live, ways=("crop:1",)), np.arange(6)
    expected = fed(live, list(range(6)), ["crop:1"] * 6)
    for epoch in range(3):
        assert torch.equal(crops.drawn(rows, [5, epoch, 1], epoch), expected)


def test_crops_go_by_the_sample_not_by_its_name_or_place(live, tmp_path):
    renamed = [tmp_path / f"{number}.other" for number in range(6)]
    for old, new in zip(live.files, renamed, strict=True):
        Path(old).rename(new)
    crops = replace(live, files=[str(file) for file in renamed], ways=("crop",))
    turned = replace(crops, files=crops.files[::-1], digests=crops.digests[::-1])
    rows = np.array([1, 4])
    assert torch.equal(turned.drawn(5 - rows, [2, 0, 1], 7), crops.drawn(rows, [2, 0, 1], 7))


@pytest.mark.parametrize(
    ("ways", "views"),
    [
        (("centre",), ("centre",)),
        (("crop",), ("centre",)),
        (("crop:0", "crop"), ("centre",)),
        (("hflip", "crop"), ("hflip",)),
        (("centre", "crop", "rot180"), ("centre", "rot180")),
    ],
)
def test_samples_are_judged_by_views_that_stay_the_same(live, ways, views):
    assert replace(live, ways=ways).views == views


# Files that are not what they were


def test_a_picture_that_has_changed_is_told_in_one_line(live):
    noise(Path(live.files[2]), 99)
    with pytest.raises(StoreError, match=r"2\.png: changed while the run was reading it; run again$"):
        live.fixed(np.arange(6), "centre")


def test_a_picture_that_is_gone_is_told_in_one_line(live):
    Path(live.files[2]).unlink()
    with pytest.raises(StoreError, match=r"2\.png: cannot be read \(No such file or directory\); run again$"):
        live.drawn(np.arange(6), [0, 0, 1], 0)


def test_a_folder_that_is_gone_may_come_back(live):
    folder = Path(live.files[0]).parent
    folder.rename(folder.with_name("away"))
    with pytest.raises(Unreachable, match=r"pictures: cannot be reached .*is its share there"):
        live.fixed(np.arange(6), "centre")
    folder.with_name("away").rename(folder)
    assert len(live.fixed(np.arange(6), "centre")) == 6


def test_what_is_no_picture_is_told_in_one_line(live):
    data = b"no picture"
    Path(live.files[1]).write_bytes(data)
    spoilt = replace(live, digests=[live.digests[0], digest_bytes(data), *live.digests[2:]])
    with pytest.raises(StoreError, match=r"1\.png: not a picture.*; run again, which sets it aside$"):
        spoilt.fixed(np.arange(6), "centre")


def test_no_thread_is_left_behind_by_looks_or_by_one_that_failed(live):
    before = threading.active_count()
    for number in range(5):
        other = replace(live, ways=("crop",))
        other.drawn(np.arange(6), [number, 0, 1], 0)
        live.fixed(np.arange(6), "hflip")
    assert threading.active_count() == before
    Path(live.files[0]).unlink()
    with pytest.raises(StoreError):
        live.fixed(np.arange(6), "centre")
    assert threading.active_count() == before
