"""Filling sets: what is lacking is decided first, then exactly that is written, by whoever is at it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import extraction, versions
from tasks.core.claims import Claims
from tasks.core.digest import Stamp, StatCache, digest_bytes
from tasks.core.errors import StoreError
from tasks.core.extraction import Batch, Extraction, TapSet, engine_of, missing_rows, open_set, refresh_view
from tasks.core.recipes import Recipe
from tasks.core.store import Holdings, load, provenance, view_is_current, write_shard
from tasks.core.taps import Tap

TAPS = (Tap("stem", "mean"), Tap("last", "none"))
RECIPE = Recipe({"centre": TAPS}, "float32")

Run = Callable[[Iterator[str]], Iterator[Batch]]


def digest(number: int) -> str:
    return digest_bytes(str(number).encode())


NUMBERS = {digest(number): number for number in range(100)}


def digests_of(*numbers: int) -> list[str]:
    return [digest(number) for number in numbers]


def rows_of(tap: int, *numbers: int) -> np.ndarray:
    """Give each tap and sample a row of its own, in each tap's shape."""
    shape = [(3,), (2, 2)][tap]
    size = int(np.prod(shape))
    return np.array([np.arange(size) + 100 * tap + 10 * n for n in numbers], "float32").reshape(-1, *shape)


class Network:
    """Gives each sample its rows, in batches of two, and keeps who ran."""

    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.ran, self.bad = list[int](), set(bad)

    def __call__(self, digests: Iterator[str]) -> Iterator[Batch]:
        while pair := [NUMBERS[name] for _, name in zip(range(2), digests, strict=False)]:
            good = [number for number in pair if number not in self.bad]
            self.ran += good
            rows = [rows_of(tap, *good) for tap in range(2)] if good else []
            failed = {digest(number): "cannot be read" for number in pair if number in self.bad}
            yield Batch(digests_of(*good), rows, failed)


@pytest.fixture
def seen(tmp_path: Path) -> StatCache:
    return StatCache(tmp_path / "seen.sqlite", "shard")


def opened(root: Path, seen: StatCache) -> list[TapSet]:
    return [open_set(root, tap, RECIPE.set_identity("f" * 40, tap, "centre"), seen) for tap in TAPS]


def extraction_of(root: Path, seen: StatCache, dtype: str = "float32") -> Extraction:
    claims = Claims(root / ".claims", "tiny centre")
    return Extraction(opened(root, seen), dtype, {"backbone": "tiny", "engine": "eager"}, claims, seen)


def fill(root: Path, seen: StatCache, *numbers: int, run: Run | None = None) -> Extraction:
    work = extraction_of(root, seen)
    work.fill(digests_of(*numbers), run or Network())
    return work


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


def test_a_set_is_named_by_backbone_tap_view_type_extractor_and_a_pinned_engine(monkeypatch):
    identities = [
        Recipe({}, dtype, engine).set_identity(backbone, tap, view)
        for backbone in ("a" * 40, "b" * 40)
        for tap in (Tap("stem", "mean"), Tap("stem", "max"), Tap("last", "mean"))
        for view in ("centre", "hflip")
        for dtype in ("float16", "float32")
        for engine in ("auto", "eager", "openvino")
    ]
    monkeypatch.setattr(versions, "EXTRACTOR", versions.EXTRACTOR + 1)
    identities.append(Recipe({}, "float16").set_identity("a" * 40, Tap("stem", "mean"), "centre"))
    assert len({str(sorted(each.items())) for each in identities}) == len(identities)


def test_the_engine_of_a_begun_set_is_known(tmp_path, seen):
    assert engine_of(opened(tmp_path, seen)) == ""
    fill(tmp_path, seen, 1)
    assert engine_of(opened(tmp_path, seen)) == "eager"


# Acting


def test_every_set_gets_every_row(tmp_path, seen):
    work = fill(tmp_path, seen, 3, 1, 2, 5, 4, 0)
    assert_holds(opened(tmp_path, seen), 0, 1, 2, 3, 4, 5)
    assert work.ran == digests_of(3, 1, 2, 5, 4, 0)


def test_nothing_wanted_runs_nothing(tmp_path, seen):
    network = Network()
    fill(tmp_path, seen, run=network)
    assert network.ran == []


def test_a_set_gets_only_the_rows_that_it_lacks(tmp_path, seen):
    stem = opened(tmp_path, seen)[0]
    first = write_shard(stem.folder, digests_of(1, 2), rows_of(0, 1, 2), {})
    before = first.read_bytes()
    fill(tmp_path, seen, 1, 2, 3)
    written = [path for path in (stem.folder / "shards").iterdir() if path != first]
    with h5py.File(written[0]) as file:
        assert [name.decode() for name in file["digests"][:]] == digests_of(3)
    assert len(written) == 1
    assert first.read_bytes() == before
    assert_holds(opened(tmp_path, seen), 1, 2, 3)


def test_what_is_held_does_not_run_again(tmp_path, seen):
    fill(tmp_path, seen, 1, 2)
    before, network = stamps(tmp_path, "*.h5"), Network()
    fill(tmp_path, seen, 2, 1, 7, run=network)
    assert network.ran == [7]
    assert before.items() <= stamps(tmp_path, "*.h5").items()


def test_samples_that_cannot_be_read_are_told_and_leave_no_trace(tmp_path, seen):
    work = fill(tmp_path, seen, 1, 2, 3, 4, 5, run=Network(bad=(1, 2, 5)))
    assert_holds(opened(tmp_path, seen), 3, 4)
    assert work.failed == dict.fromkeys(digests_of(1, 2, 5), "cannot be read")
    assert fill(tmp_path, seen, 1, 3, run=Network()).ran == digests_of(1)


@given(st.integers(0, 30), st.integers(1, 7))
def test_a_killed_run_loses_less_than_two_shards(samples, most):
    """What was claimed and is not yet stored never exceeds a shard beyond what one batch adds."""
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "SHARD_ROWS", most)
        patch.setattr(extraction, "write_shard", lambda folder, names, rows, story: written.extend(names))
        patch.setattr(Extraction, "missing", lambda self, wanted: [d for d in wanted if d not in written])
        work = Extraction([TapSet(TAPS[0], Path("set"), Holdings())], "float32", {}, Free(), None)
        network = Network()

        def watched(digests: Iterator[str]) -> Iterator[Batch]:
            for batch in network(digests):
                yield Batch(batch.digests, batch.rows[:1], {})
                assert len(network.ran) - len(written) < most
                assert written == digests_of(*network.ran)[: len(written)]  # in order, none twice

        work.fill(digests_of(*range(samples)), watched)
    assert written == digests_of(*range(samples))


class Free(Claims):
    """Claims that nobody disputes."""

    def __init__(self) -> None:
        self.held = set()

    def take(self, names, most=None):
        return [name for _, name in zip(range(most or 10**9), names, strict=False)]

    def release(self, names):
        pass


def test_provenance_tells_the_tap(tmp_path, seen):
    fill(tmp_path, seen, 1)
    for each in opened(tmp_path, seen):
        [shard] = (each.folder / "shards").iterdir()
        assert provenance(shard) == {"backbone": "tiny", "engine": "eager", "tap": str(each.tap)}


def test_rows_beyond_the_stored_type_are_refused_before_anything_is_written(tmp_path, seen):
    def huge(digests: Iterator[str]) -> Iterator[Batch]:
        yield Batch([next(digests)], [np.full((1, 3), 1e6, "float32"), rows_of(1, 1)], {})

    with pytest.raises(StoreError, match="float32"):
        extraction_of(tmp_path, seen, "float16").fill(digests_of(1), huge)
    assert not list(tmp_path.rglob("*.h5"))


def test_a_run_that_fails_keeps_its_shards_and_gives_its_claims_back(tmp_path, seen, monkeypatch):
    monkeypatch.setattr(extraction, "SHARD_ROWS", 2)

    def failing(digests: Iterator[str]) -> Iterator[Batch]:
        for number, batch in enumerate(Network()(digests)):
            if number == 2:
                raise MemoryError
            yield batch

    with pytest.raises(MemoryError):
        fill(tmp_path, seen, *range(8), run=failing)
    assert_holds(opened(tmp_path, seen), 0, 1, 2, 3)
    assert fill(tmp_path, seen, *range(8)).ran == digests_of(4, 5, 6, 7)


def test_progress_counts_to_the_number_that_was_missing(tmp_path, seen):
    fill(tmp_path, seen, 0, 1)
    told: list[int] = []
    extraction_of(tmp_path, seen).fill(digests_of(*range(9)), Network(bad=(4,)), told.append)
    assert told == sorted(told)
    assert told[-1] == 7


def test_opening_a_set_drops_its_damaged_shards_and_their_rows_are_missing_again(tmp_path, seen):
    fill(tmp_path, seen, 1, 2)
    fill(tmp_path, seen, 3)
    hurt, _ = opened(tmp_path, seen)[0].held.rows[digest(1)]
    hurt.write_bytes(hurt.read_bytes()[:-1])
    sets = opened(tmp_path, seen)
    assert not hurt.exists()
    assert missing_rows(digests_of(1, 2, 3), [each.held.rows for each in sets]) == digests_of(1, 2)
    assert fill(tmp_path, seen, 1, 2, 3).ran == digests_of(1, 2)
    assert_holds(opened(tmp_path, seen), 1, 2, 3)


# Others at the same work


def test_what_another_claimed_is_left_to_it_and_waited_for(tmp_path, seen):
    """The other stores two of its three and dies with the third."""
    other = Claims(tmp_path / ".claims", "tiny centre")
    assert other.take(digests_of(1, 2, 3)) == digests_of(1, 2, 3)
    network = Network()

    def while_the_other_works(digests: Iterator[str]) -> Iterator[Batch]:
        yield from network(digests)
        for tap, each in enumerate(opened(tmp_path, seen)):
            write_shard(each.folder, digests_of(1, 2), rows_of(tap, 1, 2), {})
        other.release(digests_of(1, 2, 3))

    fill(tmp_path, seen, *range(6), run=while_the_other_works)
    assert network.ran == [0, 4, 5, 3]
    assert_holds(opened(tmp_path, seen), *range(6))


def test_what_another_stored_just_before_the_claim_does_not_run(tmp_path, seen, monkeypatch):
    monkeypatch.setattr(extraction, "SHARD_ROWS", 2)
    network = Network()

    def beside(digests: Iterator[str]) -> Iterator[Batch]:
        for batch in network(digests):
            if network.ran == [0, 1]:  # the second shard's worth is not claimed yet
                for tap, each in enumerate(opened(tmp_path, seen)):
                    write_shard(each.folder, digests_of(2, 5), rows_of(tap, 2, 5), {})
            yield batch

    fill(tmp_path, seen, *range(6), run=beside)
    assert network.ran == [0, 1, 3, 4]
    assert_holds(opened(tmp_path, seen), *range(6))


# Views


def views_shown(root: Path, seen: StatCache) -> None:
    for each in opened(root, seen):
        refresh_view(each, Claims(root / ".claims", "tiny centre"), seen)


def test_views_follow_their_sets(tmp_path, seen):
    views_shown(tmp_path, seen)
    assert not list(tmp_path.rglob("features.h5"))  # there is nothing to show
    for number in (1, 3):
        fill(tmp_path, seen, number)
        views_shown(tmp_path, seen)
        assert all(view_is_current(each.folder, each.held) for each in opened(tmp_path, seen))


def test_a_current_view_is_left_alone(tmp_path, seen):
    fill(tmp_path, seen, 1, 2)
    views_shown(tmp_path, seen)
    before = stamps(tmp_path, "features.h5")
    views_shown(tmp_path, seen)
    assert stamps(tmp_path, "features.h5") == before
    assert len(before) == 2
