"""Stage of several targets: experiments are trained, a head for every target, split and seed."""

from contextlib import nullcontext
from functools import partial
from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_cells import Asking, cut_of, fill_answers, work
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
from tasks.limits import gpu_slot
from tasks.progress import Progress
from tasks.references import AnswerHeads, Features, Heads, Samples, Shelf


def _identity(inputs: dict[str, Any]) -> object:
    grids: tuple[Grid, ...] = inputs["grids"]
    backbone: Backbone = inputs["backbone"]
    shared = grids[0].inputs
    return [
        [versions.TRAINER, versions.ANSWERS],
        [versions.FINETUNER, backbone.fingerprint(inputs["artifacts"].seen("weights"))]
        if grids[0].is_network
        else [],
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
    parts = list(answer_parts(table, splits))
    sizes, before = [work(asking, grids, part) for part in parts], 0
    shelves: dict[str, list[Shelf]] = {name: [] for name in targets}
    with Progress(f"{study}: train {what}", sum(sizes)) as progress:
        for part, size in zip(parts, sizes, strict=True):
            with gpu_slot() if grids[0].is_network else nullcontext():
                filled = fill_answers(asking, grids, cut_of(table, part), partial(_advance, progress, before))
            for name, found in filled.items():
                shelves[name].append(Shelf.of(part, found))
            before += size
            progress.advance_to(before)
    names = {grid.name: [head_key(hyper) for hyper in grid.hypers] for grid in grids}
    return AnswerHeads.model_construct(
        heads={
            name: Heads.model_construct(artifacts=artifacts.root, grids=names, shelves=each)
            for name, each in shelves.items()
        }
    )


def _advance(progress: Progress, before: int, done: int) -> None:
    progress.advance_to(before + done)
