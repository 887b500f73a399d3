"""Which heads a study needs is told by name, and which are there without training or splitting again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.digest import StatCache, digest_bytes
from tasks.core.heads import Grid, HeadFile, Inputs, head_key, save_heads
from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Ridge, Softmax
from tasks.core.predictors import Linear
from tasks.core.splits import SplitSpec
from tasks.core.trials import (
    Part,
    heads_there,
    labelled,
    list_shelves,
    name_of,
    parts_of,
    shelf_of,
    shelves_identity,
    together,
)

INPUTS = Inputs("net", ("last:mean",))
SETS = ["a" * 40]
SPLITS = (SplitSpec("random", seeds=(0, 1)), SplitSpec("other", test=0.4, seeds=(5,)))
GRID = Grid("linear", INPUTS, (Softmax(0.1), Softmax(1.0), Ridge(1.0)))


def some_table(n: int = 24) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "digest": sorted(digest_bytes(bytes([number])) for number in range(n)),
            "label": ["cat", "dog"] * (n // 2),
            "weight": 1.0,
            "group": [f"g{number // 2}" for number in range(n)],
        }
    )


class Study:
    """Heads of which nothing but the names is true."""

    def __init__(self, root: Path) -> None:
        self.here = Artifacts(root)
        self.table = some_table()
        self.parts = list(parts_of(self.table, SPLITS))
        self.asked = 0

    @property
    def seen(self) -> StatCache:
        return self.here.seen("head")

    def shelves(self, grid: Grid = GRID) -> list[Path]:
        self.asked += 1
        return [shelf_of(self.here.heads, grid.inputs, SETS, self.table, part) for part in self.parts]

    def identity(self, grid: Grid = GRID) -> list[object]:
        return shelves_identity(grid.inputs, SETS, "samples", SPLITS)

    def train(self, hypers: tuple[Hyper, ...] = GRID.hypers, keep_list: bool = True) -> list[Path]:
        head = HeadFile(Linear(np.ones((2, 3)), np.ones(2)), np.ones((1, 2)), ["ab"], None, ["cd"], {})
        files = [
            save_heads(shelf, {head_key(hyper): head for hyper in hypers})
            for shelf in self.shelves(replace(GRID, hypers=hypers))
        ]
        if keep_list:
            list_shelves(self.here.heads, self.identity(), [path.parent for path in files])
        self.asked = 0
        return files

    def there(self, grid: Grid = GRID) -> int:
        return heads_there(self.here.heads, self.identity(grid), grid, self.seen, lambda: self.shelves(grid))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**18))  # however lately a file changed
    return Study(tmp_path / "artifacts")


# Names of shelves


def name(
    table: pd.DataFrame | None = None, inputs: Inputs = INPUTS, sets: list[str] = SETS, **part: object
) -> str:
    given = some_table() if table is None else table
    plain = Part(SPLITS[0], 0, np.array(given.group), np.arange(len(given)) % 4 == 0)
    return shelf_of(Path("heads"), inputs, sets, given, replace(plain, **part)).name


def with_one(column: str, value: object) -> pd.DataFrame:
    table = some_table()
    table.loc[3, column] = value
    return table


def test_a_shelf_lies_in_the_folder_under_a_digest(study):
    [first, *_] = study.shelves()
    assert first.parent == study.here.heads
    assert len(first.name) == 40


def test_sets_views_labels_weights_groups_test_part_and_seed_each_make_another_shelf():
    groups, test = np.array(some_table().group), np.arange(24) % 4 == 0
    names = [
        name(),
        name(sets=["b" * 40]),
        name(sets=["a" * 40, "b" * 40]),
        name(sets=["b" * 40, "a" * 40]),
        name(inputs=replace(INPUTS, views=("centre", "hflip"))),
        name(some_table(22)),
        name(with_one("digest", "f" * 40)),
        name(with_one("label", "cat")),
        name(with_one("weight", 2.0)),
        name(groups=np.where(groups == "g3", "g4", groups)),
        name(test=~test),
        name(test=test | (np.arange(24) == 1)),
        name(seed=1),
    ]
    assert len(set(names)) == len(names)


def test_names_in_the_study_and_what_heads_are_trained_make_no_other_shelf(monkeypatch):
    expected = name()
    assert name(inputs=replace(INPUTS, backbone="renamed", taps=("bn2:mean",))) == expected
    assert name(spec=replace(SPLITS[0], name="renamed", test=0.9)) == expected  # the marks tell
    assert name(some_table().assign(path="elsewhere.png")) == expected
    monkeypatch.setattr(versions, "TRAINER", 99)
    assert name() == expected


def test_every_split_and_seed_has_a_shelf_of_its_own(study):
    assert len({shelf.name for shelf in study.shelves()}) == 3


# The list of shelves


def test_the_identity_of_shelves_changes_with_all_that_decides_which_there_are():
    identities = [
        shelves_identity(INPUTS, SETS, "samples", SPLITS),
        shelves_identity(INPUTS, ["b" * 40], "samples", SPLITS),
        shelves_identity(replace(INPUTS, views=("hflip",)), SETS, "samples", SPLITS),
        shelves_identity(INPUTS, SETS, "others", SPLITS),
        shelves_identity(INPUTS, SETS, "samples", SPLITS[:1]),
        shelves_identity(INPUTS, SETS, "samples", (replace(SPLITS[0], seeds=(0, 2)), SPLITS[1])),
        shelves_identity(INPUTS, SETS, "samples", (replace(SPLITS[0], test=0.3), SPLITS[1])),
    ]
    assert len({json.dumps(each) for each in identities}) == len(identities)
    renamed = replace(INPUTS, backbone="renamed", taps=("bn2:mean",))
    assert shelves_identity(renamed, SETS, "samples", SPLITS) == identities[0]


def test_a_list_spares_asking_for_the_shelves(study):
    study.train()
    assert (study.there(), study.asked) == (9, 0)


@pytest.mark.parametrize("hurt", ["nothing", "a file lost", "a file cut short", "a bit flipped"])
def test_with_and_without_the_list_the_same_is_said(study, hurt):
    first, *_ = study.train()
    data = first.read_bytes()
    if hurt == "a file lost":
        first.unlink()
    elif hurt == "a file cut short":
        first.write_bytes(data[:-1])
    elif hurt == "a bit flipped":
        first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    listed = study.there()
    [place] = study.here.heads.glob("*.json")
    place.unlink()
    assert (study.there(), study.asked) == (listed, 1)
    assert listed == (9 if hurt == "nothing" else 6)


@pytest.mark.parametrize("text", ["", "[", "{}", "[]", "3", "null", '"abc"', '[["a"]]', "[1, 2]", "\xff"])
def test_a_damaged_list_is_passed_over(study, text):
    study.train()
    [place] = study.here.heads.glob("*.json")
    place.write_text(text, encoding="latin-1")
    assert (study.there(), study.asked) == (9, 1)


def test_a_list_of_shelves_that_are_gone_leads_to_nothing(study):
    for path in study.train():
        path.unlink()
        path.parent.rmdir()
    assert (study.there(), study.asked) == (0, 0)


def test_of_nothing_nothing_is_there(study):
    assert (study.there(), study.asked) == (0, 1)
    assert not study.here.heads.exists()


# What is lacking


def test_an_added_strength_is_all_that_is_lacking(study):
    study.train()
    more = replace(GRID, hypers=(*GRID.hypers, Softmax(10.0)))
    assert study.there(more) == 9
    study.train((Softmax(10.0),))
    assert study.there(more) == 12


def test_a_strength_taken_away_leaves_nothing_lacking(study):
    study.train()
    assert study.there(replace(GRID, hypers=GRID.hypers[1:])) == 6


def test_grids_share_equal_heads_whatever_they_are_called_and_in_any_order(study):
    study.train()
    other = Grid("another", replace(INPUTS, backbone="renamed"), (Ridge(1.0), Centroid(), Softmax(1.0)))
    assert study.there(other) == 6
    assert study.there(replace(GRID, name="", hypers=GRID.hypers[::-1])) == 9


def test_heads_of_another_version_are_lacking(study, monkeypatch):
    study.train()
    monkeypatch.setattr(versions, "TRAINER", versions.TRAINER + 1)
    assert study.there() == 0
    study.train()
    assert study.there() == 9
    monkeypatch.undo()
    assert study.there() == 9, "the old ones are still there"


def test_heads_on_other_features_are_lacking(study):
    study.train()
    assert study.there(replace(GRID, inputs=replace(INPUTS, views=("centre", "hflip")))) == 0


def test_looking_again_reads_no_file(study, monkeypatch):
    study.train()
    study.there()
    plain: Callable[..., object] = Path.open

    def guarded(path: Path, *given: object, **options: object) -> object:
        assert path.suffix != ".safetensors"
        return plain(path, *given, **options)

    monkeypatch.setattr(Path, "open", guarded)
    assert study.there() == 9


# Grids that are trained together


def grids_of(letters: str) -> list[Grid]:
    """A grid for each letter, which stands for its inputs."""
    return [
        Grid(f"{letter}{number}", Inputs("net", (f"{letter}:mean",)), (Neighbours(number + 1),))
        for number, letter in enumerate(letters)
    ]


def test_grids_of_the_same_inputs_come_together_in_their_order():
    found = together(grids_of("abacb"))
    assert [[grid.name for grid in some] for some in found] == [["a0", "a2"], ["b1", "b4"], ["c3"]]


@given(st.text("abcd", max_size=12))
def test_together_loses_nothing_and_parts_by_inputs_alone(letters):
    grids = grids_of(letters)
    found = together(grids)
    assert sorted(grid.name for some in found for grid in some) == sorted(grid.name for grid in grids)
    inputs = [{grid.inputs for grid in some} for some in found]
    assert all(len(each) == 1 for each in inputs)
    assert [each.pop() for each in inputs] == list(dict.fromkeys(grid.inputs for grid in grids))
    for some in found:
        assert list(some) == [grid for grid in grids if grid in some]


def test_views_and_backbone_are_inputs_and_hyper_parameters_are_none():
    base = Grid("a", Inputs("net", ("x:mean",)), (Mlp((8,)),))
    others = [
        replace(base, name="b", hypers=(Softmax(1.0),)),
        replace(base, name="c", inputs=replace(base.inputs, views=("hflip",))),
        replace(base, name="d", inputs=replace(base.inputs, backbone="other")),
    ]
    names = [[grid.name for grid in some] for some in together([base, *others])]
    assert names == [["a", "b"], ["c"], ["d"]]


@pytest.mark.parametrize(
    ("letters", "told"), [("a", "a0"), ("ab", "a0 and 1 more"), ("abc", "a0 and 2 more")]
)
def test_grids_are_named_by_the_first(letters, told):
    assert name_of(grids_of(letters)) == told


# Samples and parts


def test_samples_without_a_label_are_left_out():
    table = with_one("label", "")
    left = labelled(table)
    assert list(left.index) == list(range(23))
    assert set(table.digest) - set(left.digest) == {table.digest[3]}


def test_there_is_a_part_for_each_split_and_seed_in_order(study):
    assert [(part.spec.name, part.seed) for part in study.parts] == [
        ("random", 0),
        ("random", 1),
        ("other", 5),
    ]
    for part in study.parts:
        assert part.test.shape == (24,)
        assert 0 < part.test.sum() < 24
