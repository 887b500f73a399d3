"""Which of a verdict's cells are there, and which a run would measure: decided without training any."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, Inputs, head_key, held
from tasks.core.ladder import Ladder, Rung, rungs
from tasks.core.trials import labelled, parts_of, shelf_of


@dataclass(frozen=True)
class DepthPlan:
    """What becomes of one depth.

    Attributes:
        name: its own.
        needed: how many cells.
        there: how many of them are there.
        shared: how many of the others are trained for an experiment before.
        kept: how many of those left are of the whole training part, so that their layers are kept.
        bytes: that these layers take, and their checkpoints; None where nobody knows.
    """

    name: str
    needed: int
    there: int
    shared: int
    kept: int
    bytes: int | None = 0

    @property
    def lacking(self) -> int:
        """How many cells are to be measured."""
        return self.needed - self.there - self.shared


@dataclass(frozen=True)
class VerdictPlan:
    """What becomes of a verdict.

    Attributes:
        depths: one for each.
        lacking: the cells to measure, the most telling first; none are known while files are to be read.
        skipped: how many cells a run would not measure at all, since their share leaves a class too few samples.
        seconds: that training may take in one run.
    """

    depths: list[DepthPlan]
    lacking: list[Rung]
    skipped: int
    seconds: float


def plan_verdict(
    table: pd.DataFrame | None,
    ladder: Ladder,
    sets: Sequence[Sequence[str]],
    experiments: Sequence[Grid],
    artifacts: Artifacts,
) -> VerdictPlan:
    """Say which cells are there and which a run would add.

    Args:
        table: the usable samples; None while files are to be read, and all cells may be lacking.
        ladder: what is measured.
        sets: for each depth the names of its feature sets, in order.
        experiments: of the study. Those like a depth train its cells of the whole training part.
        artifacts: where to look.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    trained = {(grid.inputs, hyper) for grid in experiments for hyper in grid.hypers}
    alike = [{(grid.inputs, hyper) for hyper in grid.hypers} <= trained for grid in ladder.depths]
    seeds, each = len(ladder.split.seeds), len(ladder.split.seeds) * len(ladder.shares)
    if table is None:
        depths = [
            DepthPlan(grid.name, each, 0, seeds * shared, seeds * (not shared))
            for grid, shared in zip(ladder.depths, alike, strict=True)
        ]
        return VerdictPlan(depths, [], 0, ladder.seconds)
    cells, there = _cells(table, ladder, sets, artifacts)
    lacking = [cell for cell, is_there in zip(cells, there, strict=True) if not is_there]
    mine = [cell for cell in lacking if not (alike[cell.depth] and cell.share == 1)]
    counts = [
        Counter(cell.depth for cell in some)
        for some in (cells, lacking, mine, [cell for cell in mine if cell.share == 1])
    ]
    depths = [
        DepthPlan(grid.name, needed, needed - lack, lack - own, kept)
        for grid, (needed, lack, own, kept) in zip(
            ladder.depths,
            ([count[depth] for count in counts] for depth in range(len(ladder.depths))),
            strict=True,
        )
    ]
    return VerdictPlan(depths, mine, each * len(ladder.depths) - len(cells), ladder.seconds)


def _cells(
    table: pd.DataFrame, ladder: Ladder, sets: Sequence[Sequence[str]], artifacts: Artifacts
) -> tuple[list[Rung], list[bool]]:
    """List all cells, and whether each is there."""
    known = labelled(table)
    labels = np.unique(known.label.to_numpy(dtype=str), return_inverse=True)[1]
    parts = list(parts_of(known, [ladder.split]))
    cells = list(rungs(ladder, parts, labels, known.weight.to_numpy()))
    seen, keys = artifacts.seen("head"), [set(map(head_key, grid.hypers)) for grid in ladder.depths]
    shelves: dict[tuple[Inputs, float, int], set[str]] = {}  # depths that see the same share one
    there = []
    for cell in cells:
        inputs = ladder.depths[cell.depth].inputs
        place = (inputs, cell.share, cell.part.seed)
        if place not in shelves:
            shelf = shelf_of(artifacts.heads, inputs, sets[cell.depth], known, cell.part)
            shelves[place] = set(held(shelf, seen)[0])
        there.append(keys[cell.depth] <= shelves[place])
    return cells, there
