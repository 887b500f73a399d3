"""Tidying removes what it says, nothing that lives, and nothing that a run could not make again."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.artifacts import Artifacts
from tasks.core.checkpoints import Checkpoint, Done
from tasks.core.digest import Stamp, digest_bytes
from tasks.core.errors import RequestError
from tasks.core.files import replacing, write_text
from tasks.core.heads import COST, HeadFile, cost_of, held, save_heads
from tasks.core.housekeeping import (
    Kind,
    find_all_damage,
    list_sets,
    parse_age,
    parse_size,
    plan_removals,
    remove,
    size_of,
)
from tasks.core.predictors import Linear
from tasks.core.store import holdings, load, write_shard, write_view

DAY = 86_400
STORY = {
    "backbone": "tiny",
    "tap": "last:mean",
    "view": "centre",
    "engine": "eager",
    "versions": {"torch": "1"},
}

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from tasks.core.files import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""

WRITES_UNTIL_TOLD = """
import sys
from pathlib import Path
from tasks.core.files import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_bytes(bytes(1000))
    print("there", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def here(tmp_path: Path) -> Artifacts:
    (tmp_path / "artifacts" / "features").mkdir(parents=True)
    (tmp_path / "artifacts" / "features" / ".claims").touch()
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are remembered however lately they changed."""
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**18))


def digests_of(numbers: range) -> list[str]:
    return [digest_bytes(str(number).encode()) for number in numbers]


def fill(here: Artifacts, name: str, numbers: range = range(6), age: float = 0, **story: object) -> Path:
    """Write a set of two shards and its view, used `age` seconds ago."""
    folder = here.features / (name * 40)
    half = numbers.start + len(numbers) // 2
    for part in (range(numbers.start, half), range(half, numbers.stop)):
        rows = np.array([[number, number / 2] for number in part], "float16")
        write_shard(folder, digests_of(part), rows, {**STORY, **story})
    write_view(folder, holdings(folder, here.seen("shard")))
    used = time.time() - age
    os.utime(folder, (used, used))
    return folder


def fill_heads(here: Artifacts, shelf: str, *keys: str) -> Path:
    """Write heads in one file on a shelf."""
    head = HeadFile(
        predictor=Linear(np.ones((2, 3)), np.ones(2)),
        log_proba=np.ones((1, 2)),
        test_rows=digests_of(range(1)),
        inner=None,
        train_rows=digests_of(range(1, 3)),
        story={"classes": ["a", "b"]},
    )
    return save_heads(here.heads / (shelf * 40), dict.fromkeys(keys, head))


def shards_of(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*.h5"))


def flip(path: Path, place: int = -1) -> None:
    """Turn one bit round without a trace in size or time of change."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def everything(here: Artifacts) -> dict[str, bytes]:
    files = (path for path in here.root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(here.root)): path.read_bytes() for path in files if path.name != "seen.sqlite"
    }


def tidy(here: Artifacts, **options: float) -> list[Path]:
    """Remove what is planned; return what is gone."""
    return [each.path for each in plan_removals(here, time.time(), **options) if remove(here, each)]


# Ages and sizes


@pytest.mark.parametrize(
    ("text", "seconds"), [("1h", 3600), ("30d", 30 * DAY), ("2w", 14 * DAY), ("0.5 D", DAY / 2), (" 0d ", 0)]
)
def test_ages_are_read(text, seconds):
    assert parse_age(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("10GB", 10**10), ("1.5 kb", 1500), ("0B", 0), ("2TB", 2 * 10**12), ("7mb", 7 * 10**6)]
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "30 days", "1e3d", "3m", "nan d", "10GB"])
def test_what_is_no_age_is_refused_on_one_line(text):
    with pytest.raises(RequestError, match="30d") as refused:
        parse_age(text)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=6))
def test_any_text_is_a_size_or_is_refused(text):
    try:
        assert parse_size(text) >= 0
    except RequestError as refused:
        assert "10GB" in str(refused)


# Listing


def test_sets_are_listed_with_their_story_the_most_lately_used_first(here):
    old = fill(here, "a", age=2 * DAY, engine="openvino", backbone="resnet50", view="hflip")
    new = fill(here, "b", range(10), age=DAY)
    write_shard(new, digests_of(range(9, 12)), np.ones((3, 2), "float16"), {**STORY, "engine": "compiled"})
    first, second = list_sets(here)
    assert (first.folder, second.folder) == (new, old)
    assert (first.samples, second.samples) == (12, 6)
    assert (first.engines, second.engines) == (("compiled", "eager"), ("openvino",))
    assert (second.backbone, second.tap, second.view, second.dtype) == (
        "resnet50",
        "last:mean",
        "hflip",
        "float16",
    )
    assert first.bytes == sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
    assert abs(second.used - (time.time() - 2 * DAY)) < 60


def test_a_set_whose_story_is_short_and_an_empty_one_are_listed_too(here):
    folder = here.features / ("a" * 40)
    write_shard(folder, digests_of(range(2)), np.ones((2, 2), "float32"), {})
    (here.features / ("b" * 40)).mkdir()
    listed = {each.folder.name[0]: each for each in list_sets(here)}
    assert (listed["a"].backbone, listed["a"].engines, listed["a"].dtype) == ("?", ("?",), "float32")
    assert (listed["b"].samples, listed["b"].bytes) == (0, 0)


def test_where_nothing_was_ever_stored_nothing_is_listed_damaged_or_removed(tmp_path):
    nothing = Artifacts(tmp_path / "nowhere")
    assert (list_sets(nothing), find_all_damage(nothing), plan_removals(nothing, time.time(), 0, 0)) == (
        [],
        [],
        [],
    )


def test_listing_changes_nothing(here):
    fill(here, "a", age=DAY)
    before, used = everything(here), (here.features / ("a" * 40)).stat().st_mtime_ns
    list_sets(here)
    assert everything(here) == before
    assert (here.features / ("a" * 40)).stat().st_mtime_ns == used


# Damage


def test_what_is_whole_is_not_called_damaged(here):
    fill(here, "a"), fill_heads(here, "a", "one", "two"), fill_heads(here, "b", "one")
    assert find_all_damage(here) == []


def test_every_kind_of_damage_is_found_though_size_and_time_are_the_same(here, monkeypatch):
    monkeypatch.setattr(Stamp, "of", lambda path: Stamp(path.stat().st_size, 0, 0, 0, 2**62))
    folder, other = fill(here, "a"), fill(here, "b")
    head, sound = fill_heads(here, "c", "one", "more"), fill_heads(here, "c", "two")
    list_sets(here)
    assert held(head.parent, here.seen("head"))[0] == {"one": head, "more": head, "two": sound}
    hurt, cut = shards_of(folder)[0], shards_of(other)[0]
    flip(hurt), flip(folder / "features.h5"), flip(head)
    with cut.open("r+b") as file:
        file.truncate(1500)
    assert hurt in here.seen("shard").recall([hurt])[0], "a flipped bit should leave no trace"
    assert head in here.seen("head").recall([head])[0], "a flipped bit should leave no trace"
    found = {damage.path: damage for damage in find_all_damage(here)}
    assert set(found) == {hurt, cut, folder / "features.h5", head}
    assert all(damage.reason and damage.mend for damage in found.values())
    assert here.seen("shard").recall([hurt])[0] == {}
    assert found[head].mend == "a run trains its heads again"
    assert "\n" not in found[head].reason
    assert set(here.seen("head").recall([head, sound])[0]) == {sound}
    assert held(head.parent, here.seen("head")) == ({"two": sound}, [head])
    assert set(holdings(folder, here.seen("shard")).damaged) == {hurt}


def test_shards_exchanged_within_a_set_and_between_sets_are_found(here):
    folder, other = fill(here, "a"), fill(here, "b", range(10, 16))
    one, two = shards_of(folder)
    three = shards_of(other)[0]
    aside = one.with_name("aside")
    shutil.copy(one, aside), shutil.copy(two, one), shutil.copy(aside, two), aside.unlink()
    shutil.copy(one, three)
    damaged = {damage.path for damage in find_all_damage(here)}
    assert damaged == {one, two, three}


@pytest.mark.parametrize("place", range(0, 2000, 61))
def test_a_bit_flipped_anywhere_in_a_shard_is_found(here, place):
    folder = here.features / ("a" * 40)
    shard = write_shard(folder, digests_of(range(5)), np.ones((5, 2), "float16"), STORY)
    list_sets(here)
    flip(shard, place)
    assert [damage.path for damage in find_all_damage(here)] == [shard]


# Tidying


def test_there_is_nothing_to_tidy_after_a_good_run(here):
    fill(here, "a", age=400 * DAY), fill_heads(here, "a", "one", "two")
    write_text(here.heads / "a list of shelves.json", "[]")
    before = everything(here)
    assert tidy(here) == []
    assert everything(here) == before


def test_what_dead_writers_left_goes_and_what_living_ones_write_stays(here):
    folder = fill(here, "a")
    shelf = fill_heads(here, "a", "one").parent
    places = [folder / "shards" / "x.h5", shelf / "x.safetensors", here.root / "studies" / "s" / "x.csv"]
    for place in places:
        subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(place)], check=False)
    before = len(everything(here))
    command = [sys.executable, "-c", WRITES_UNTIL_TOLD, str(folder / "shards" / "y.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout.readline() == "there\n"
        planned = plan_removals(here, time.time(), older_than=0, keep=0)
        assert [each.kind for each in planned] == [Kind.REST] * 3, "a set that is written to stays"
        assert [each.bytes for each in planned] == [1000] * 3
        gone = tidy(here)
        living.communicate("go\n")
    assert living.returncode == 0
    assert {path.parent for path in gone} == {place.parent for place in places}
    assert (folder / "shards" / "y.h5").read_bytes() == bytes(1000)
    assert len(everything(here)) == before - 3 + 1


def test_damaged_shards_go_with_their_view_and_the_other_rows_stay(here):
    folder = fill(here, "a", age=5 * DAY)
    hurt, sound = shards_of(folder)
    with h5py.File(sound) as file:
        kept = dict(zip(file["digests"].asstr()[:], file["features"][:], strict=True))
    flip(hurt)
    assert tidy(here) == [hurt]
    assert not (folder / "features.h5").exists()
    held = holdings(folder, here.seen("shard"))
    assert set(held.rows) == set(kept)
    np.testing.assert_array_equal(load(held, list(kept)), list(kept.values()))
    assert abs(list_sets(here)[0].used - (time.time() - 5 * DAY)) < 60, "tidying is no use of a set"
    assert tidy(here) == []


def test_a_shard_mended_between_the_plan_and_the_deed_stays(here):
    folder = fill(here, "a")
    shard = shards_of(folder)[0]
    whole = shard.read_bytes()
    flip(shard)
    [planned] = plan_removals(here, time.time())
    shard.write_bytes(whole)
    assert not remove(here, planned)
    assert shard.read_bytes() == whole


def test_a_damaged_view_goes(here):
    folder = fill(here, "a")
    flip(folder / "features.h5")
    assert tidy(here) == [folder / "features.h5"]
    assert len(holdings(folder, here.seen("shard")).rows) == 6


def test_a_set_of_which_nothing_is_left_goes_altogether(here):
    folder = fill(here, "a")
    for shard in shards_of(folder):
        flip(shard)
    (here.features / ("b" * 40) / "shards").mkdir(parents=True)
    tidy(here)
    assert [path.name for path in here.features.iterdir()] == [".claims"]


def test_an_empty_set_that_was_filled_after_the_plan_stays(here):
    folder = here.features / ("a" * 40)
    (folder / "shards").mkdir(parents=True)
    [planned] = plan_removals(here, time.time())
    fill(here, "a")
    assert not remove(here, planned)
    assert len(holdings(folder, here.seen("shard")).rows) == 6


def test_damaged_heads_go_and_the_other_heads_of_their_shelf_stay(here):
    hurt, cut, sound = (fill_heads(here, "a", key) for key in ("one", "two", "three"))
    flip(hurt), cut.write_bytes(cut.read_bytes()[:-1])
    planned = plan_removals(here, time.time())
    assert {each.path: each.bytes for each in planned} == {path: path.stat().st_size for path in (hurt, cut)}
    assert all(each.reason.startswith("damaged: ") for each in planned)
    assert set(tidy(here)) == {hurt, cut}
    assert list(sound.parent.iterdir()) == [sound]
    assert held(sound.parent, here.seen("head")) == ({"three": sound}, [])
    assert tidy(here) == []


def test_damage_that_left_no_trace_goes_once_it_was_found(here, monkeypatch):
    """Tidying trusts what is remembered; looking for damage does not."""
    monkeypatch.setattr(Stamp, "of", lambda path: Stamp(path.stat().st_size, 0, 0, 0, 2**62))
    path = fill_heads(here, "a", "one")
    held(path.parent, here.seen("head"))
    flip(path)
    assert tidy(here) == []
    assert [each.path for each in find_all_damage(here)] == [path]
    assert tidy(here) == [path, path.parent]


def test_heads_mended_between_the_plan_and_the_deed_stay(here):
    path, other = fill_heads(here, "a", "one"), fill_heads(here, "a", "two")
    whole = path.read_bytes()
    flip(path)
    [planned] = plan_removals(here, time.time())
    path.write_bytes(whole)
    assert not remove(here, planned)
    assert held(path.parent, here.seen("head")) == ({"one": path, "two": other}, [])


def test_a_shelf_of_which_nothing_is_left_goes_altogether_and_can_be_filled_again(here):
    hurt, sound = fill_heads(here, "a", "one"), fill_heads(here, "b", "one")
    (here.heads / ("c" * 40)).mkdir()
    flip(hurt)
    assert set(tidy(here)) == {hurt, hurt.parent, here.heads / ("c" * 40)}
    assert list(here.heads.iterdir()) == [sound.parent]
    assert fill_heads(here, "a", "one") == hurt
    assert find_all_damage(here) == []


def test_what_heads_took_goes_with_them(here):
    hurt, sound = fill_heads(here, "a", "one"), fill_heads(here, "b", "one")
    old = sound.with_name("of another version").with_suffix(COST)
    for place in (cost_of(hurt), cost_of(sound), old):
        place.write_text("1.0")
    flip(hurt)
    assert set(tidy(here)) == {hurt, cost_of(hurt), hurt.parent, old}
    assert tidy(here) == []
    assert sorted(sound.parent.iterdir()) == sorted([sound, cost_of(sound)])


def test_an_empty_shelf_that_was_filled_after_the_plan_stays(here):
    (here.heads / ("a" * 40)).mkdir(parents=True)
    [planned] = plan_removals(here, time.time())
    path = fill_heads(here, "a", "one")
    assert not remove(here, planned)
    assert path.exists()


def test_a_shelf_that_a_living_process_writes_its_first_heads_to_stays(here):
    place = here.heads / ("a" * 40) / "x.safetensors"
    command = [sys.executable, "-c", WRITES_UNTIL_TOLD, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout.readline() == "there\n"
        assert tidy(here, older_than=0, keep=0) == []
        living.communicate("go\n")
    assert place.read_bytes() == bytes(1000)


def test_heads_as_earlier_versions_kept_them_are_called_damaged_and_go(here):
    """They lay beside each other, named by what they were made from; no run looks for them any more."""
    old = here.heads / f"{'0' * 40}.safetensors"
    fill_heads(here, "a", "one").rename(old)
    assert [each.path for each in find_all_damage(here)] == [old]
    assert old in tidy(here)
    assert list(here.heads.iterdir()) == []


@pytest.mark.parametrize("place", range(0, 700, 41))
def test_a_bit_flipped_anywhere_among_heads_is_found(here, place):
    path = fill_heads(here, "a", "one")
    held(path.parent, here.seen("head"))
    flip(path, place % path.stat().st_size)
    assert [each.path for each in find_all_damage(here)] == [path]


@pytest.mark.parametrize(("days", "left"), [(0, ""), (2, "a"), (4, "ab"), (6, "abc")])
def test_sets_not_used_for_long_go(here, days, left):
    for name, age in (("a", 1), ("b", 3), ("c", 5)):
        fill(here, name, age=age * DAY)
    tidy(here, older_than=days * DAY)
    assert sorted(path.name[0] for path in here.features.iterdir()) == [".", *left]
    assert len(list_sets(here)) == len(left)


@pytest.mark.parametrize(
    ("sets", "left"), [(0, ""), (0.9, ""), (1, "a"), (2.5, "ab"), (3, "abc"), (99, "abc")]
)
def test_the_least_lately_used_sets_go_until_the_others_fit(here, sets, left):
    for name, age in (("c", 5), ("a", 1), ("b", 3)):
        folder = fill(here, name, age=age * DAY)
    tidy(here, keep=int(sets * size_of(folder)))
    assert sorted(path.name[0] for path in here.features.iterdir()) == [".", *left]


def test_after_any_removal_rows_are_written_and_read_again(here):
    folder = fill(here, "a")
    tidy(here, keep=0)
    assert not folder.exists()
    assert fill(here, "a") == folder
    held = holdings(folder, here.seen("shard"))
    np.testing.assert_array_equal(load(held, digests_of(range(6)))[:, 0], range(6))


def test_engines_not_used_for_long_go_whole_and_the_others_stay(here):
    for name, ages in (("old", (9, 8)), ("mixed", (9, 1))):
        for number, age in enumerate(ages):
            write_text(here.engines / name / f"{number}.bin", "network")
            os.utime(here.engines / name / f"{number}.bin", (time.time() - age * DAY,) * 2)
    write_text(here.engines / "choice.json", "{}")
    assert tidy(here) == []
    assert tidy(here, older_than=5 * DAY) == [here.engines / "old"]
    assert sorted(path.name for path in here.engines.rglob("*")) == ["0.bin", "1.bin", "choice.json", "mixed"]


def test_a_plan_removes_nothing(here):
    folder = fill(here, "a", age=9 * DAY)
    flip(shards_of(folder)[0])
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(here.heads / "x")], check=False)
    before = everything(here)
    assert len(plan_removals(here, time.time(), older_than=DAY, keep=0)) == 3
    assert everything(here) == before


# Checkpoints


def checkpoint(here: Artifacts, shelf: str, key: str, name: str = "x", age: float = 0) -> Path:
    """Write what a training of a search had come to, so long ago."""
    path = here.checkpoints / f"{shelf * 40}-{key}" / f"{name}.checkpoint"
    with replacing(path) as partial:
        partial.write_bytes(digest_bytes(b"moments").encode() + b"moments")
    for place in (path, path.parent):
        os.utime(place, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize(
    ("hours", "older_than", "stays"),
    [
        (0, None, True),
        (6 * 24, None, True),
        (8 * 24, None, False),
        (8 * 24, 30 * DAY, False),  # asking for more to go does not let more stay
        (3, DAY, True),
        (25, DAY, False),
        (0.5, 0, True),  # its training may be under way
        (2, 0, False),
    ],
)
def test_checkpoints_go_a_week_after_their_training_was_stopped_or_sooner_if_asked_for(
    here, hours, older_than, stays
):
    path = checkpoint(here, "a", "one", age=hours * 3600)
    checkpoint(here, "a", "one", "newer", age=hours * 3600)
    planned = plan_removals(here, time.time(), older_than)
    assert [each.bytes for each in planned] == ([] if stays else [2 * 47])
    assert tidy(here, **({} if older_than is None else {"older_than": older_than})) == (
        [] if stays else [path.parent]
    )
    assert path.exists() == path.parent.exists() == stays


def test_a_search_is_of_use_as_long_as_one_of_its_trainings_is(here):
    old, new = checkpoint(here, "a", "one", "old", 9 * DAY), checkpoint(here, "a", "one", "new", DAY)
    assert tidy(here) == []
    assert old.exists()
    assert new.exists()


def test_checkpoints_of_a_search_that_is_done_go_at_once(here):
    done, other = checkpoint(here, "a", "one"), checkpoint(here, "a", "two")
    elsewhere = checkpoint(here, "b", "one")
    fill_heads(here, "a", "one")
    assert tidy(here) == [done.parent]
    assert other.exists()
    assert elsewhere.exists()


def test_a_search_that_somebody_goes_on_with_after_the_plan_keeps_its_checkpoints(here):
    old = checkpoint(here, "a", "one", age=9 * DAY)
    [planned] = plan_removals(here, time.time())
    new = checkpoint(here, "a", "one", "again")
    assert not remove(here, planned)
    assert old.exists()
    assert new.exists()


def test_a_damaged_checkpoint_is_found_and_a_whole_one_is_not(here):
    hurt, _ = checkpoint(here, "a", "one"), checkpoint(here, "a", "two")
    flip(hurt)
    [found] = find_all_damage(here)
    assert (found.path, found.mend) == (hurt, "a run trains from the start again")
    hurt.write_bytes(b"")
    assert [each.path for each in find_all_damage(here)] == [hurt]


def test_what_a_training_really_keeps_is_whole(here):
    layers = torch.nn.Linear(2, 2)
    path = here.checkpoints / f"{'a' * 40}-one" / "x.checkpoint"
    Checkpoint(path).keep(Done(3), layers, torch.optim.AdamW(layers.parameters()))
    assert find_all_damage(here) == []
    flip(path)
    assert [each.path for each in find_all_damage(here)] == [path]
