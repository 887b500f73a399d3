"""Features read for training: at once or anew at each pass, they are the same numbers in the same order."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core import stored
from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.errors import StoreError
from tasks.core.selection import _read
from tasks.core.store import Holdings, holdings, write_shard
from tasks.core.stored import BYTES_A_NUMBER, SHARE, Stored, machine_memory

N = 23
DIGESTS = [digest_bytes(bytes([n])) for n in range(N)]
SHAPES = {"wide": (5,), "map": (2, 3, 2), "one": (1,), "flip wide": (5,), "flip map": (2, 3, 2)}
NUMBERS = {
    name: np.random.default_rng(seed)
    .normal(size=(N, *shape))
    .astype("float16" if "wide" in name else "float32")
    for seed, (name, shape) in enumerate(SHAPES.items())
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Holdings]:
    """Feature sets of several shards each, their rows in no order."""
    here = Artifacts(tmp_path_factory.mktemp("artifacts"))
    found = {}
    for number, (name, rows) in enumerate(NUMBERS.items()):
        order = np.random.default_rng(number).permutation(N)
        folder = here.features / digest_bytes(name.encode())
        for part in np.array_split(order, number + 2):
            write_shard(folder, [DIGESTS[row] for row in part], rows[part], {})
        found[name] = holdings(folder, here.seen("shard"))
        assert len(found[name].shards) == number + 2
    return found


def source(sets: dict[str, Holdings], views: list[list[str]], rows: list[int]) -> Stored:
    return Stored(
        tuple(tuple(sets[name] for name in taps) for taps in views), tuple(DIGESTS[row] for row in rows)
    )


def expected(views: list[list[str]], rows: list[int]) -> np.ndarray:
    """(V * n, D) by a plain loop."""
    return np.array(
        [np.concatenate([NUMBERS[name][row].ravel() for name in taps]) for taps in views for row in rows]
    )


VIEWS = [
    [["wide"]],
    [["map"]],
    [["wide", "map", "one"]],
    [["map", "wide"]],
    [["wide"], ["flip wide"]],
    [["wide", "map"], ["flip wide", "flip map"]],
]


@settings(max_examples=60, deadline=None)
@given(
    views=st.sampled_from(VIEWS),
    rows=st.lists(st.integers(0, N - 1), min_size=1, max_size=40),
    at_once=st.sampled_from([1, 2, 7, 1000]),
)
def test_in_memory_and_in_blocks_rows_are_those_written(sets, views, rows, at_once):
    """Of any samples in any order, some perhaps twice."""
    given = source(sets, views, rows)
    told = expected(views, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "NUMBERS_AT_ONCE", at_once * given.shape[1])
        blocks = list(given.blocks())
    whole = given.in_memory()
    assert given.shape == told.shape == whole.shape
    np.testing.assert_array_equal(whole, told)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), told)
    assert {block.dtype for _, block in blocks} == {whole.dtype}


@pytest.mark.parametrize("at_once", [1, 4, N, N + 1])
@pytest.mark.parametrize("views", [VIEWS[2], VIEWS[5]])
def test_blocks_follow_each_other_and_no_block_is_larger_than_allowed(sets, views, at_once, monkeypatch):
    given, start = source(sets, views, list(range(N))), 0
    monkeypatch.setattr(stored, "NUMBERS_AT_ONCE", at_once * given.shape[1])
    for place, block in given.blocks():
        assert (place.start, place.stop - place.start) == (start, len(block))
        assert 0 < len(block) <= at_once
        start = place.stop
    assert start == given.shape[0] == len(views) * N


def test_every_pass_reads_the_same(sets):
    given = source(sets, VIEWS[5], [3, 1, 20])
    np.testing.assert_array_equal(_read(given), _read(given))


def test_halves_alone_stay_halves_and_beside_singles_become_singles(sets):
    assert source(sets, [["wide"]], [0]).in_memory().dtype == np.float16
    assert source(sets, [["wide", "map"]], [0]).in_memory().dtype == np.float32


def test_of_no_samples_there_are_no_rows(sets):
    given = source(sets, VIEWS[5], [])
    assert given.shape == given.in_memory().shape == (0, 17)
    assert list(given.blocks()) == []


def test_a_row_that_is_not_stored_is_told_before_the_first_block(sets):
    given = Stored(((sets["wide"],),), (DIGESTS[0], "f" * 40))
    for read in (given.in_memory, lambda: next(given.blocks())):
        with pytest.raises(StoreError, match="1 of 2 rows are not stored"):
            read()


def test_a_shard_lost_meanwhile_is_told(tmp_path):
    here = Artifacts(tmp_path)
    folder: Path = here.features / ("a" * 40)
    path = write_shard(folder, DIGESTS, NUMBERS["wide"], {})
    given = Stored(((holdings(folder, here.seen("shard")),),), tuple(DIGESTS))
    path.unlink()
    for read in (given.in_memory, lambda: list(given.blocks())):
        with pytest.raises(StoreError, match="run the study again"):
            read()


# What fits


def test_a_machine_has_memory():
    assert 2**28 < machine_memory() < 2**50


@pytest.mark.parametrize("views", [VIEWS[0], VIEWS[2], VIEWS[5]])
def test_what_takes_more_than_its_share_of_the_memory_does_not_fit(sets, views, monkeypatch):
    given = source(sets, views, list(range(N)))
    least = expected(views, list(range(N))).size * BYTES_A_NUMBER / SHARE
    for memory, fits in ((least * 1.01, True), (least * 0.99, False), (0, False)):
        monkeypatch.setattr(stored, "machine_memory", lambda memory=memory: memory)
        assert given.fits() is fits


def test_whether_it_fits_is_told_without_reading(sets, monkeypatch):
    monkeypatch.setattr(stored, "load", None)
    monkeypatch.setattr(stored, "blocks", None)
    given = source(sets, VIEWS[2], list(range(N)))
    assert given.fits()
    assert given.shape == (N, 18)
