"""Filling sets: what is lacking is decided first, then exactly that is written."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import extraction, versions
from tasks.core.digest import Stamp, StatCache, digest_bytes
from tasks.core.errors import StoreError
from tasks.core.extraction import Filler, TapSet, missing_rows, open_set, refresh_views, tap_folder
from tasks.core.store import Holdings, holdings, load, provenance, view_is_current, write_shard
from tasks.core.taps import Tap

TAPS = (Tap("stem", "mean"), Tap("last", "none"))


def digests_of(*numbers: int) -> list[str]:
    return [digest_bytes(str(number).encode()) for number in numbers]


def rows_of(tap: int, *numbers: int) -> np.ndarray:
    """Give each tap and sample a row of its own, in each tap's shape."""
    shape = [(3,), (2, 2)][tap]
    size = int(np.prod(shape))
    return np.array([np.arange(size) + 100 * tap + 10 * n for n in numbers], "float32").reshape(-1, *shape)


@pytest.fixture
def seen(tmp_path: Path) -> StatCache:
    return StatCache(tmp_path / "seen.sqlite", "shard")


def opened(root: Path, seen: StatCache) -> list[TapSet]:
    return [open_set(tap, tap_folder(root, "f" * 40, tap, "float32"), seen) for tap in TAPS]


def fill(sets: list[TapSet], *batches: tuple[int, ...]) -> Filler:
    filler = Filler(sets, "float32", {"backbone": "tiny"})
    for numbers in batches:
        filler.add(digests_of(*numbers), [rows_of(tap, *numbers) for tap in range(len(sets))])
    return filler


def assert_holds(sets: list[TapSet], *numbers: int) -> None:
    for tap, each in enumerate(sets):
        assert set(each.held.rows) == set(digests_of(*numbers))
        np.testing.assert_array_equal(load(each.held, digests_of(*numbers)), rows_of(tap, *numbers))


def stamps(root: Path, pattern: str) -> dict[Path, Stamp]:
    return {path: Stamp.of(path) for path in root.rglob(pattern)}


# Deciding


@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.sets(st.integers(0, 9)), max_size=3))
def test_a_row_is_missing_when_any_set_lacks_it(wanted, held):
    expected = [str(n) for n in wanted if any(n not in each for each in held)]
    found = missing_rows([str(n) for n in wanted], ({str(n) for n in each} for each in held))
    assert found == expected


def test_a_set_is_named_by_backbone_tap_type_and_extractor(tmp_path, monkeypatch):
    names = [
        tap_folder(tmp_path, backbone, tap, dtype)
        for backbone in ("a" * 40, "b" * 40)
        for tap in (Tap("stem", "mean"), Tap("stem", "max"), Tap("last", "mean"))
        for dtype in ("float16", "float32")
    ]
    monkeypatch.setattr(versions, "EXTRACTOR", versions.EXTRACTOR + 1)
    names.append(tap_folder(tmp_path, "a" * 40, Tap("stem", "mean"), "float16"))
    assert len(set(names)) == len(names)
    assert {name.parent for name in names} == {tmp_path}


# Acting


def test_every_set_gets_every_row(tmp_path, seen):
    fill(opened(tmp_path, seen), (3, 1, 2), (5,), (4, 0)).flush()
    assert_holds(opened(tmp_path, seen), 0, 1, 2, 3, 4, 5)


def test_a_set_gets_only_the_rows_that_it_lacks(tmp_path, seen):
    stem = opened(tmp_path, seen)[0]
    first = write_shard(stem.folder, digests_of(1, 2), rows_of(0, 1, 2), {})
    before = first.read_bytes()
    fill(opened(tmp_path, seen), (1, 2, 3)).flush()
    written = [path for path in (stem.folder / "shards").iterdir() if path != first]
    with h5py.File(written[0]) as file:
        assert [name.decode() for name in file["digests"][:]] == digests_of(3)
    assert len(written) == 1
    assert first.read_bytes() == before
    assert_holds(opened(tmp_path, seen), 1, 2, 3)


def test_a_set_that_lacks_nothing_is_not_written(tmp_path, seen):
    fill(opened(tmp_path, seen), (1, 2)).flush()
    before = stamps(tmp_path, "*.h5")
    fill(opened(tmp_path, seen), (2, 1)).flush()
    assert stamps(tmp_path, "*.h5") == before


def test_batches_in_which_nothing_could_be_read_leave_no_trace(tmp_path, seen):
    filler = fill(opened(tmp_path, seen), (1,))
    filler.add([], [])
    filler.add(digests_of(2), [rows_of(0, 2), rows_of(1, 2)])
    filler.flush()
    assert_holds(opened(tmp_path, seen), 1, 2)
    filler.add([], [])
    filler.flush()
    assert_holds(opened(tmp_path, seen), 1, 2)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=9))
def test_a_killed_run_loses_less_than_a_shard(sizes):
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "SHARD_ROWS", 5)
        patch.setattr(extraction, "write_shard", lambda folder, names, rows, story: written.extend(names))
        filler = Filler([TapSet(TAPS[0], Path("set"), Holdings({}))], "float32", {})
        given = []
        for size in sizes:
            numbers = range(len(given), len(given) + size)
            given += digests_of(*numbers)
            filler.add(digests_of(*numbers), [rows_of(0, *numbers)])
            assert written == given[: len(written)]  # in order, none twice
            assert len(given) - len(written) < 5
        filler.flush()
    assert written == given


def test_provenance_tells_the_tap(tmp_path, seen):
    fill(opened(tmp_path, seen), (1,)).flush()
    for each in opened(tmp_path, seen):
        [(shard, _)] = each.held.rows.values()
        assert provenance(shard) == {"backbone": "tiny", "tap": str(each.tap)}


def test_rows_beyond_the_stored_type_are_refused_before_anything_is_written(tmp_path, seen):
    filler = Filler(opened(tmp_path, seen), "float16", {})
    with pytest.raises(StoreError, match="float32"):
        filler.add(digests_of(1), [np.full((1, 3), 1e6, "float32"), rows_of(1, 1)])
    assert not list(tmp_path.rglob("*.h5"))


def test_opening_a_set_drops_its_damaged_shards_and_their_rows_are_missing_again(tmp_path, seen):
    fill(opened(tmp_path, seen), (1, 2)).flush()
    fill(opened(tmp_path, seen), (3,)).flush()
    hurt, _ = opened(tmp_path, seen)[0].held.rows[digests_of(1)[0]]
    hurt.write_bytes(hurt.read_bytes()[:-1])
    sets = opened(tmp_path, seen)
    assert not hurt.exists()
    assert missing_rows(digests_of(1, 2, 3), [each.held.rows for each in sets]) == digests_of(1, 2)
    fill(sets, (1, 2)).flush()
    assert_holds(opened(tmp_path, seen), 1, 2, 3)


def test_views_follow_their_sets(tmp_path, seen):
    sets = opened(tmp_path, seen)
    refresh_views(sets, seen)
    assert not list(tmp_path.rglob("features.h5"))  # there is nothing to show
    for numbers in ((1, 2), (3,)):
        fill(opened(tmp_path, seen), numbers).flush()
        refresh_views(sets, seen)
        assert all(view_is_current(each.folder, holdings(each.folder, seen)) for each in sets)


def test_a_current_view_is_left_alone(tmp_path, seen):
    fill(opened(tmp_path, seen), (1, 2)).flush()
    refresh_views(opened(tmp_path, seen), seen)
    before = stamps(tmp_path, "features.h5")
    refresh_views(opened(tmp_path, seen), seen)
    assert stamps(tmp_path, "features.h5") == before
    assert len(before) == 2
