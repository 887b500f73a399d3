"""Stage 3: experiments are trained, those that see the same features together, a head each for every split."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.cells import Source, fill, work
from tasks.core.heads import Grid, head_key
from tasks.core.hyper import spelled
from tasks.core.splits import SplitSpec
from tasks.core.tables import read_table
from tasks.core.trials import Part, labelled, list_shelves, parts_of, shelves_identity
from tasks.limits import gpu_slot
from tasks.progress import Progress
from tasks.references import Features, Heads, Samples, Shelf


def _identity(inputs: dict[str, Any]) -> object:
    grids: tuple[Grid, ...] = inputs["grids"]
    backbone: Backbone = inputs["backbone"]
    shared = grids[0].inputs
    return [
        [versions.FINETUNER, backbone.fingerprint(inputs["artifacts"].seen("weights"))]
        if grids[0].is_network
        else versions.TRAINER,
        [[grid.name, [spelled(hyper) for hyper in grid.hypers]] for grid in grids],
        *shelves_identity(
            shared,
            shared.sets(inputs["features"].sets),
            inputs["samples"].identity,
            inputs["splits"],
        ),
    ]


@stage("heads", _identity)
def train(
    study: str,
    what: str,
    grids: tuple[Grid, ...],
    backbone: Backbone,
    features: Features,
    samples: Samples,
    splits: tuple[SplitSpec, ...],
    artifacts: Artifacts,
) -> Heads:
    """Train what is not there yet of experiments with the same inputs, for each split and seed.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    table = labelled(read_table(samples.table))
    source = Source(grids[0].inputs, backbone, features.sets, table, artifacts)
    parts, shelves, before = list(parts_of(table, splits)), [], 0
    sizes = [work(source, grids, part) for part in parts]
    with Progress(f"{study}: train {what}", sum(sizes)) as progress:
        for part, size in zip(parts, sizes, strict=True):
            with gpu_slot() if _trains_layers(source, grids, part) else nullcontext():
                filled = fill(source, grids, part, partial(_advance, progress, before))
            shelves.append(Shelf.of(part, filled))
            before += size
            progress.advance_to(before)
    identity = shelves_identity(source.inputs, source.sets, samples.identity, splits)
    list_shelves(artifacts.heads, identity, [Path(shelf.folder) for shelf in shelves])
    names = {grid.name: [head_key(hyper) for hyper in grid.hypers] for grid in grids}
    return Heads.model_construct(artifacts=artifacts.root, grids=names, shelves=shelves)


def _advance(progress: Progress, before: int, done: int) -> None:
    progress.advance_to(before + done)


def _trains_layers(source: Source, grids: tuple[Grid, ...], part: Part) -> bool:
    keys = {head_key(hyper) for grid in grids for hyper in grid.hypers}
    return grids[0].is_network and not keys <= set(source.found(part))
