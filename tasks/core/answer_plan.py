"""Which heads a study of several targets needs, and which of them are there: decided without training any."""

from collections.abc import Sequence

import pandas as pd

from tasks.core.answer_cells import cut_of, shelves
from tasks.core.answer_parts import able_targets, answer_parts
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, head_key, held
from tasks.core.splits import SplitSpec
from tasks.core.targets import answered, answers_of


def count_there(
    table: pd.DataFrame,
    trials: Sequence[tuple[Grid, Sequence[str]]],
    splits: Sequence[SplitSpec],
    least: int,
    artifacts: Artifacts,
) -> tuple[int, list[int]]:
    """Count the targets that are learnt, and for each experiment the heads that are there, of all targets and parts.

    Args:
        table: the usable samples.
        trials: the experiments, each with the names of its feature sets, in order.
        splits: with their seeds.
        least: as `able_targets`.
        artifacts: where to look.

    Raises:
        RequestError: if no target can be learnt, or the samples cannot be split as asked.
    """
    known, seen = answered(table), artifacts.seen("head")
    kept = able_targets(known, splits, least).kept
    answers = answers_of(known, kept)
    counts = [0] * len(trials)
    for cut in (cut_of(known, part) for part in answer_parts(known, splits)):
        for number, (grid, sets) in enumerate(trials):
            alone, together = shelves(artifacts.heads, grid.inputs, sets, known, answers, cut)
            for place in (together if grid.is_joint else alone).values():
                found, _ = held(place, seen)
                counts[number] += sum(head_key(hyper) in found for hyper in grid.hypers)
    return len(kept), counts
