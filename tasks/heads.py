"""Stage 3: experiments that see the same features are trained together, a head each for every split."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import cached_stage
from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, HeadFile, head_key, held, save_heads
from tasks.core.hyper import Hyper, spelled
from tasks.core.splits import SplitSpec
from tasks.core.store import holdings
from tasks.core.stored import Stored
from tasks.core.tables import read_table
from tasks.core.trials import Part, labelled, list_shelves, parts_of, shelf_of, shelves_identity
from tasks.progress import Progress
from tasks.references import Features, Heads, Samples, Shelf


def _identity(inputs: dict[str, Any]) -> object:
    grids: tuple[Grid, ...] = inputs["grids"]
    shared = grids[0].inputs
    return [
        versions.TRAINER,
        [[grid.name, [spelled(hyper) for hyper in grid.hypers]] for grid in grids],
        *shelves_identity(
            shared,
            shared.sets(inputs["features"].sets),
            inputs["samples"].identity,
            inputs["splits"],
        ),
    ]


@cached_stage("heads", "{study}: train {what}", _identity)
def train(
    study: str,
    what: str,
    grids: tuple[Grid, ...],
    features: Features,
    samples: Samples,
    splits: tuple[SplitSpec, ...],
    artifacts: Artifacts,
) -> Heads:
    """Train what is not there yet of experiments with the same inputs, for each split and seed.

    Raises:
        RequestError: if the samples cannot be split as asked.
    """
    table, inputs = labelled(read_table(samples.table)), grids[0].inputs
    sets = inputs.sets(features.sets)
    hypers = {head_key(hyper): hyper for grid in grids for hyper in grid.hypers}
    shelves, rows = [], _Features(sets, len(inputs.taps), table.digest.to_numpy(), artifacts)
    total = len(hypers) * sum(len(spec.seeds) for spec in splits)
    with Progress(f"{study}: train {what}", total) as progress:
        for number, part in enumerate(parts_of(table, splits)):
            place = shelf_of(artifacts.heads, inputs, sets, table, part)
            found, damaged = held(place, artifacts.seen("head"))
            lacking = {key: hyper for key, hyper in hypers.items() if key not in found}
            for path in damaged:
                path.unlink(missing_ok=True)
            if lacking:
                before = number * len(hypers) + len(hypers) - len(lacking)
                path = _train(place, lacking, table, rows, part, progress, before)
                found |= dict.fromkeys(lacking, path)
            shelves.append(_shelf(part, found, hypers, lacking))
            progress.advance_to((number + 1) * len(hypers))
    identity = shelves_identity(inputs, sets, samples.identity, splits)
    list_shelves(artifacts.heads, identity, [Path(shelf.folder) for shelf in shelves])
    names = {grid.name: [head_key(hyper) for hyper in grid.hypers] for grid in grids}
    return Heads.model_construct(artifacts=artifacts.root, grids=names, shelves=shelves)


def _shelf(part: Part, found: dict[str, Path], hypers: dict[str, Hyper], lacking: dict[str, Hyper]) -> Shelf:
    files = list(dict.fromkeys(found[key] for key in hypers))
    return Shelf(
        split=part.spec.name,
        seed=part.seed,
        folder=files[0].parent,
        files=[path.name for path in files],
        heads={key: files.index(found[key]) for key in hypers},
        trained=list(lacking),
    )


class _Features:
    """The features of the labelled samples, read when they are first asked for.

    A run that has nothing to train shall not wait for them.
    """

    def __init__(self, sets: list[str], taps: int, digests: np.ndarray, artifacts: Artifacts) -> None:
        self.sets, self.taps, self.digests, self.artifacts = sets, taps, digests, artifacts
        self._whole: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> "np.ndarray | Stored":
        """The rows where a mask is true, (V * n, D), or a source of them where they do not fit in memory."""
        seen = self.artifacts.seen("shard")
        each = [holdings(self.artifacts.features / name, seen) for name in self.sets]
        views = tuple(tuple(each[start : start + self.taps]) for start in range(0, len(each), self.taps))
        if not Stored(views, tuple(self.digests)).fits():
            return Stored(views, tuple(self.digests[rows]))
        if self._whole is None:
            self._whole = Stored(views, tuple(self.digests)).in_memory()
        picked: np.ndarray = self._whole[np.tile(rows, len(views))]
        return picked


def _train(
    place: Path,
    hypers: dict[str, Hyper],
    table: pd.DataFrame,
    features: _Features,
    part: Part,
    progress: Progress,
    before: int,
) -> Path:
    """Train heads on one part, let each speak of its test rows, and keep them."""
    # Imported here, not above: a run that has nothing to train shall not wait for torch.
    from tasks.core.selection import Rows, said_of, train_heads

    classes = sorted(table.label.unique())
    labels = table.label.map({name: number for number, name in enumerate(classes)}).to_numpy()
    seen, views = ~part.test, len(features.sets) // features.taps
    training = Rows(features.of(seen), labels[seen], table.weight.to_numpy()[seen], part.groups[seen], views)
    trained = train_heads(
        training,
        list(hypers.values()),
        classes=len(classes),
        seed=part.seed,
        advance=lambda done: progress.advance_to(before + done),
    )
    told = said_of([each.predictor for each in trained], features.of(part.test), views)
    test_rows, train_rows = table.digest[part.test].tolist(), table.digest[seen].tolist()
    shared = {
        "classes": classes,
        "sets": features.sets,
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }
    return save_heads(
        place,
        {
            key: HeadFile(
                predictor=each.predictor,
                log_proba=log_proba,
                test_rows=test_rows,
                inner=each.inner,
                train_rows=train_rows,
                story=shared | {"hyper": spelled(hypers[key]), **each.facts},
            )
            for key, each, log_proba in zip(hypers, trained, told, strict=True)
        },
    )
