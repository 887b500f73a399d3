"""Stage of several targets: experiments are trained, a head for every target, split and seed."""

from functools import partial
from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_cells import Asking, cut_of, fill_answers, heads_of
from tasks.core.answer_parts import answer_parts
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.cells import Source
from tasks.core.heads import Grid, head_key
from tasks.core.hyper import spelled
from tasks.core.splits import SplitSpec
from tasks.core.tables import read_table
from tasks.core.targets import answered
from tasks.core.trials import shelves_identity
from tasks.progress import Progress
from tasks.references import AnswerHeads, Features, Heads, Samples, Shelf


def _identity(inputs: dict[str, Any]) -> object:
    grids: tuple[Grid, ...] = inputs["grids"]
    shared = grids[0].inputs
    return [
        [versions.TRAINER, versions.ANSWERS],
        [[grid.name, [spelled(hyper) for hyper in grid.hypers]] for grid in grids],
        inputs["targets"],
        *shelves_identity(
            shared, shared.sets(inputs["features"].sets), inputs["samples"].identity, inputs["splits"]
        ),
    ]


@stage("answers", _identity)
def train_answers(
    study: str,
    what: str,
    grids: tuple[Grid, ...],
    backbone: Backbone,
    features: Features,
    samples: Samples,
    splits: tuple[SplitSpec, ...],
    targets: list[str],
    artifacts: Artifacts,
) -> AnswerHeads:
    """Train what is not there yet of experiments with the same inputs, all of them joint or none.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    table = answered(read_table(samples.table))
    asking = Asking(Source(grids[0].inputs, backbone, features.sets, table, artifacts), tuple(targets))
    parts, each = list(answer_parts(table, splits)), heads_of(asking, grids)
    shelves: dict[str, list[Shelf]] = {name: [] for name in targets}
    with Progress(f"{study}: train {what}", each * len(parts)) as progress:
        for number, part in enumerate(parts):
            filled = fill_answers(
                asking, grids, cut_of(table, part), partial(_advance, progress, number * each)
            )
            for name, found in filled.items():
                shelves[name].append(Shelf.of(part, found))
            progress.advance_to((number + 1) * each)
    names = {grid.name: [head_key(hyper) for hyper in grid.hypers] for grid in grids}
    return AnswerHeads.model_construct(
        heads={
            name: Heads.model_construct(artifacts=artifacts.root, grids=names, shelves=each)
            for name, each in shelves.items()
        }
    )


def _advance(progress: Progress, before: int, done: int) -> None:
    progress.advance_to(before + done)
