"""Which of a verdict's cells are there is told from the shelves alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.core.artifacts import Artifacts
from tasks.core.digest import digest_bytes
from tasks.core.heads import Grid, HeadFile, Inputs, head_key, save_heads
from tasks.core.hyper import Network, Ridge, Softmax
from tasks.core.ladder import Ladder, rungs
from tasks.core.predictors import Linear
from tasks.core.splits import SplitSpec
from tasks.core.trials import parts_of, shelf_of
from tasks.core.verdict_plan import VerdictPlan, plan_verdict

LAYERS = Network("cut", "pretrained", (1e-3,), (2,))
HEADS = Grid("head", Inputs("net", ("last:mean",)), (Softmax(0.1), Softmax(1.0)))
SUFFIX = Grid("behind cut", Inputs("net", ("cut:none",)), (LAYERS,))
SETS = [["a" * 40], ["b" * 40]]


@pytest.fixture
def here(tmp_path) -> Artifacts:
    return Artifacts(tmp_path)


@pytest.fixture
def ladder() -> Ladder:
    """Two depths, two shares, two seeds: eight cells."""
    split = SplitSpec("random", seeds=(0, 1))
    return Ladder((HEADS, SUFFIX), ("head", "suffix"), split, (0.5, 1.0), 60.0, {"net": ("", None)})


@pytest.fixture
def table() -> pd.DataFrame:
    """Sixteen samples of each of two classes."""
    digests = sorted(digest_bytes(bytes([number])) for number in range(32))
    return pd.DataFrame({"digest": digests, "label": ["a", "b"] * 16, "weight": 1.0})


def measure(
    table: pd.DataFrame, ladder: Ladder, here: Artifacts, cells: slice, keys: slice = slice(None)
) -> None:
    """Keep heads of some of the cells, in their order."""
    labels = (table.label == "b").to_numpy().astype(int)
    parts = list(parts_of(table, [ladder.split]))
    for cell in list(rungs(ladder, parts, labels, table.weight.to_numpy()))[cells]:
        grid, sets = ladder.depths[cell.depth], SETS[cell.depth]
        head = HeadFile(
            predictor=Linear(np.zeros((2, 3)), np.zeros(2)),
            log_proba=np.zeros((1, 2)),
            test_rows=table.digest[:1].tolist(),
            inner=None,
            train_rows=table.digest[1:].tolist(),
            story={},
        )
        shelf = shelf_of(here.heads, grid.inputs, sets, table, cell.part)
        save_heads(shelf, {head_key(hyper): head for hyper in grid.hypers[keys]})


def counts(plan: VerdictPlan) -> list[tuple[int, int, int, int]]:
    """Cells of each depth: needed, there, shared, to measure."""
    return [(each.needed, each.there, each.shared, each.lacking) for each in plan.depths]


def test_at_first_all_cells_lack_the_whole_training_part_first(table, ladder, here):
    plan = plan_verdict(table, ladder, SETS, [], here)
    assert counts(plan) == [(4, 0, 0, 4), (4, 0, 0, 4)]
    assert [(cell.part.seed, cell.share, cell.depth) for cell in plan.lacking[:4]] == [
        (0, 1.0, 0),
        (0, 1.0, 1),
        (0, 0.5, 0),
        (0, 0.5, 1),
    ]
    assert [each.kept for each in plan.depths] == [2, 2]


def test_cells_that_were_measured_are_there_and_a_run_goes_on_behind_them(table, ladder, here):
    measure(table, ladder, here, slice(3))
    plan = plan_verdict(table, ladder, SETS, [], here)
    assert counts(plan) == [(4, 2, 0, 2), (4, 1, 0, 3)]
    assert [each.kept for each in plan.depths] == [1, 1]
    assert (plan.lacking[0].part.seed, plan.lacking[0].share, plan.lacking[0].depth) == (0, 0.5, 1)


def test_a_cell_of_which_a_head_lacks_is_not_there(table, ladder, here):
    measure(table, ladder, here, slice(None), slice(1))
    assert counts(plan_verdict(table, ladder, SETS, [], here)) == [(4, 0, 0, 4), (4, 4, 0, 0)]


def test_what_an_experiment_trains_the_verdict_does_not(table, ladder, here):
    same = replace(HEADS, name="another name", hypers=(*HEADS.hypers, Ridge(1.0)))
    other = replace(SUFFIX, hypers=(replace(LAYERS, batch=1),))
    plan = plan_verdict(table, ladder, SETS, [same, other], here)
    assert counts(plan) == [(4, 0, 2, 2), (4, 0, 0, 4)]
    assert len(plan.lacking) == 6
    assert [each.kept for each in plan.depths] == [0, 2]


def test_shares_that_leave_a_class_too_few_samples_are_skipped(table, ladder, here):
    plan = plan_verdict(table, replace(ladder, shares=(0.05, 0.5, 1.0)), SETS, [], here)
    assert (sum(each.needed for each in plan.depths), plan.skipped) == (8, 4)


def test_other_labels_are_other_cells(table, ladder, here):
    measure(table, ladder, here, slice(None))
    assert counts(plan_verdict(table, ladder, SETS, [], here)) == [(4, 4, 0, 0)] * 2
    swapped = table.assign(label=["b", "a", *table.label[2:]])
    assert counts(plan_verdict(swapped, ladder, SETS, [], here)) == [(4, 0, 0, 4)] * 2


def test_while_files_are_to_be_read_all_cells_may_lack(ladder, here):
    plan = plan_verdict(None, ladder, SETS, [HEADS], here)
    assert counts(plan) == [(4, 0, 2, 2), (4, 0, 0, 4)]
    assert [each.kept for each in plan.depths] == [0, 2]
    assert plan.lacking == []


def test_planning_changes_nothing(table, ladder, here):
    measure(table, ladder, here, slice(1))
    [path] = here.heads.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert counts(plan_verdict(table, ladder, SETS, [], here))[0] == (4, 0, 0, 4)
    assert path.exists()
