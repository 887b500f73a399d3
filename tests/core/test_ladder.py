"""Which cells are measured: the most telling first, on nested shares, and named by all that decides them."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.digest import digest_value
from tasks.core.heads import Grid, Inputs
from tasks.core.hyper import Network, Ridge, Softmax
from tasks.core.ladder import Ladder, Rung, rungs, shares_of
from tasks.core.shares import nested
from tasks.core.splits import SplitSpec
from tasks.core.tables import told
from tasks.core.trials import Part, parts_of, shelf_of

NETWORK = Network("blocks.3", "pretrained", (1e-4, 1e-3), (5, 10))
DEPTHS = (
    Grid("head", Inputs("lite0", ("last:mean",)), (Softmax(0.1), Softmax(1.0))),
    Grid("blocks.3", Inputs("lite0", ("blocks.3",)), (NETWORK,)),
    Grid("scratch", Inputs("lite0", ()), (replace(NETWORK, cut="", start="random"),)),
)
SOURCES: Mapping[str, tuple[str, int | None]] = {"lite0": ("ImageNet-1k", 1281167)}
LADDER = Ladder(
    DEPTHS, ("head", "suffix", "scratch"), SplitSpec("random", seeds=(0, 1)), (0.1, 0.25, 1.0), 60.0, SOURCES
)


def table(n: int = 200, *, members: int = 1, classes: int = 2) -> pd.DataFrame:
    rows = np.arange(n)
    return pd.DataFrame(
        {
            "digest": [digest_value([int(row)]) for row in rows],
            "label": [str(row // members * 5 % 7 % classes) for row in rows],
            "weight": 1.0,
            told("group"): [f"g{row // members}" for row in rows],
        }
    )


def listed(
    ladder: Ladder = LADDER, samples: pd.DataFrame | None = None, weights: np.ndarray | None = None
) -> tuple[list[Rung], list[Part], np.ndarray]:
    """The rungs of a table, its parts, and its labels."""
    samples = table() if samples is None else samples
    parts = list(parts_of(samples, [ladder.split]))
    labels = samples.label.astype(int).to_numpy()
    weights = np.ones(len(labels)) if weights is None else weights
    return list(rungs(ladder, parts, labels, weights)), parts, labels


# Order


def test_cells_are_listed_seed_by_seed_the_whole_part_before_its_shares():
    found, _, _ = listed()
    assert [(each.part.seed, each.share, each.depth) for each in found] == list(
        product((0, 1), (1.0, 0.25, 0.1), range(3))
    )


@given(st.sets(st.sampled_from([0.05, 0.1, 0.25, 0.4, 0.5, 0.9])), st.integers(1, 3), st.integers(1, 3))
def test_every_depth_is_measured_on_every_share_of_every_seed_once(shares, seeds, depths):
    ladder = replace(
        LADDER,
        depths=DEPTHS[:depths],
        kinds=LADDER.kinds[:depths],
        shares=(*sorted(shares), 1.0),
        split=SplitSpec("random", seeds=tuple(range(seeds))),
    )
    found, _, _ = listed(ladder)
    assert [(each.part.seed, each.share, each.depth) for each in found] == list(
        product(range(seeds), (1.0, *sorted(shares, reverse=True)), range(depths))
    )


# Shares


def test_the_whole_share_is_the_part_itself_so_that_experiments_share_its_cells():
    samples = table()
    found, parts, _ = listed(samples=samples)
    for rung in found:
        if rung.share == 1.0:
            assert rung.part is parts[rung.part.seed]
            assert rung.part.share is None

    def shelves(some: list[Part]) -> list[Path]:
        return [shelf_of(Path("heads"), DEPTHS[0].inputs, ["a set"], samples, part) for part in some]

    whole = [rung.part for rung in found if (rung.share, rung.depth) == (1.0, 0)]
    assert shelves(whole) == shelves(list(parts_of(samples, [SplitSpec("another name", seeds=(0, 1))])))
    every = [rung.part for rung in found if rung.depth == 0]
    assert len(set(shelves(every))) == len(every)


@pytest.mark.parametrize("members", [1, 3])
def test_shares_are_nested_in_the_training_part_and_keep_the_test_part(members):
    split = SplitSpec("grouped", seeds=(0, 1, 2), group="group" if members > 1 else None)
    found, parts, labels = listed(
        replace(LADDER, split=split, shares=(0.1, 0.25, 0.5, 1.0)), table(240, members=members)
    )
    for part in parts:
        mine = [each.part for each in found if each.part.seed == part.seed and each.depth == 0]
        assert len(mine) == 4
        for larger, smaller in pairwise(mine):
            assert (smaller.training <= larger.training).all()
            assert smaller.training.sum() < larger.training.sum()
        for each in mine:
            assert (each.test == part.test).all()
            assert not (each.training & each.test).any()
            assert set(part.groups[each.training]).isdisjoint(part.groups[part.training & ~each.training])
            assert set(labels[each.training]) == set(labels)


@given(
    st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.7]),
    st.sets(st.floats(0.02, 0.98), max_size=3),
    st.integers(9, 60),
)
def test_a_share_that_is_added_moves_no_other(share, others, n):
    """Cells on shares that are measured already need not be trained again."""
    samples = table(4 * n)
    one, many = (
        {each.share: each.part.training for each in listed(replace(LADDER, shares=shares), samples)[0]}
        for shares in ((share, 1.0), (*sorted({share, *others}), 1.0))
    )
    for taken, training in one.items():
        assert (many[taken] == training).all()


def test_where_groups_hinder_nesting_each_share_is_taken_of_the_one_before():
    """Of a fifth the large group is too much, so that others are taken; of a half they would be too much beside it."""
    sizes = [12, 4, 4, 4, 2, 2]
    groups = np.repeat([f"class {label}, {n}" for label in (0, 1) for n in range(6)], sizes * 2).astype(
        object
    )
    labels, hindered = np.repeat([0, 1], sum(sizes)), 0
    for seed in range(20):
        part = Part(SplitSpec("s"), seed, groups, np.zeros(len(labels), dtype=bool))
        half, fifth = (nested(part.training, groups, labels, [share], seed=seed)[0] for share in (0.5, 0.2))
        hindered += not (fifth <= half).all()
        found = dict(shares_of(replace(LADDER, shares=(0.2, 0.5, 1.0)), part, labels, np.ones(len(labels))))
        assert list(found) == [0.2, 0.5, 1.0]
        assert (found[0.2].training <= found[0.5].training).all()
        assert (found[0.5].training == half).all()
    assert 0 < hindered < 20


def test_a_share_that_leaves_a_class_too_few_samples_is_left_out():
    samples = table(40)
    found, _, labels = listed(replace(LADDER, shares=(0.01, 0.1, 0.5, 1.0)), samples)
    assert {each.share for each in found} == {0.5, 1.0}
    weights = np.where(labels == 1, 0.0, 1.0)
    weights[np.flatnonzero(labels == 1)[:4]] = 1.0
    weighed, _, _ = listed(replace(LADDER, shares=(0.1, 0.5, 1.0)), samples, weights)
    assert len(weighed) < len(found)


def test_where_a_class_lies_in_one_group_the_whole_part_alone_is_measured():
    groups = np.array(["a"] * 4 + ["b"] * 4 + ["c"] * 4, dtype=object)
    part = Part(SplitSpec("s"), 0, groups, np.zeros(12, dtype=bool))
    labels = np.array([0] * 8 + [1] * 4)
    assert shares_of(LADDER, part, labels, np.ones(12)) == [(1.0, part)]


# Identity

GRID = DEPTHS[0]
OTHERS = {
    "a depth less": replace(LADDER, depths=DEPTHS[:2], kinds=LADDER.kinds[:2]),
    "another order, which of equals decides": replace(
        LADDER, depths=(DEPTHS[1], DEPTHS[0], DEPTHS[2]), kinds=("suffix", "head", "scratch")
    ),
    "a name, which tables and the sentence show": replace(
        LADDER, depths=(replace(GRID, name="other"), *DEPTHS[1:])
    ),
    "a kind": replace(LADDER, kinds=("head", "everything", "scratch")),
    "a tap": replace(
        LADDER, depths=(replace(GRID, inputs=replace(GRID.inputs, taps=("last:max",))), *DEPTHS[1:])
    ),
    "a view": replace(
        LADDER, depths=(replace(GRID, inputs=replace(GRID.inputs, views=("flipped",))), *DEPTHS[1:])
    ),
    "a backbone": replace(
        LADDER, depths=(replace(GRID, inputs=replace(GRID.inputs, backbone="lite1")), *DEPTHS[1:])
    ),
    "a strength": replace(LADDER, depths=(replace(GRID, hypers=(Softmax(0.1), Softmax(2.0))), *DEPTHS[1:])),
    "a head less": replace(LADDER, depths=(replace(GRID, hypers=(Softmax(0.1),)), *DEPTHS[1:])),
    "another kind of head": replace(
        LADDER, depths=(replace(GRID, hypers=(Softmax(0.1), Ridge(1.0))), *DEPTHS[1:])
    ),
    **{
        f"a network's {name}": replace(
            LADDER, depths=(GRID, replace(DEPTHS[1], hypers=(replace(NETWORK, **{name: value}),)), DEPTHS[2])
        )
        for name, value in {
            "cut": "blocks.4",
            "start": "random",
            "learning_rates": (1e-4,),
            "epochs": (5,),
            "head_first": True,
            "earlier": 1.0,
            "weight_decay": 0.0,
            "mixup": 0.2,
            "batch": 16,
            "batch_norm": "live",
            "folds": 2,
            "seed": 1,
        }.items()
    },
    **{
        f"the split's {name}": replace(LADDER, split=replace(LADDER.split, **{name: value}))
        for name, value in {
            "name": "by group",
            "test": 0.3,
            "seeds": (0,),
            "stratify": ("place",),
            "group": "place",
            "column": "part",
        }.items()
    },
    "a share": replace(LADDER, shares=(0.1, 0.5, 1.0)),
    "the time": replace(LADDER, seconds=61.0),
    "what a backbone learnt from": replace(LADDER, sources={"lite0": ("ImageNet-22k", 1281167)}),
    "how much that was": replace(LADDER, sources={"lite0": ("ImageNet-1k", None)}),
}


@pytest.mark.parametrize("change", OTHERS)
def test_whatever_decides_changes_the_identity(change):
    assert digest_value(OTHERS[change].identity()) != digest_value(LADDER.identity())


def test_no_two_ladders_share_an_identity():
    assert len({digest_value(each.identity()) for each in (LADDER, *OTHERS.values())}) == 1 + len(OTHERS)


def test_the_same_ladder_made_again_has_the_same_identity():
    """Whatever order the backbones' sources are told in."""
    sources = {"lite0": ("ImageNet-1k", 1281167), "lite1": ("mine", None)}
    one = replace(LADDER, sources=sources)
    other = Ladder(
        depths=tuple(replace(grid, inputs=replace(grid.inputs)) for grid in DEPTHS),
        kinds=("head", "suffix", "scratch"),
        split=SplitSpec("random", seeds=(0, 1)),
        shares=(0.1, 0.25, 1.0),
        seconds=60.0,
        sources=dict(reversed(sources.items())),
    )
    assert digest_value(one.identity()) == digest_value(other.identity())


def test_every_depth_needs_its_kind():
    with pytest.raises(ValueError, match="zip"):
        replace(LADDER, kinds=("head",)).identity()
