"""Stage 3: experiments that see the same features are trained together, a head each for every split."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.caching import stage
from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.errors import RequestError
from tasks.core.heads import Grid, HeadFile, damage, head_key, held, save_heads
from tasks.core.hyper import Hyper, Softmax, spelled
from tasks.core.splits import SplitSpec
from tasks.core.stored import Stored, open_stored
from tasks.core.tables import read_table
from tasks.core.trials import Part, labelled, list_shelves, parts_of, shelf_of, shelves_identity
from tasks.progress import Progress
from tasks.references import Features, Heads, Samples, Shelf

BYTES_A_PREDICTION = 32
"""A class's probability of a sample is held several times over while heads are trained and kept."""
BYTES_AT_ONCE = 1 << 30
"""Of the predictions of heads that are trained in one go."""


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


@stage("heads", _identity)
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
            for path in filter(damage, damaged):  # unless another run has just written it anew
                path.unlink(missing_ok=True)
            done = (number + 1) * len(hypers) - len(lacking)
            for some in _batches(lacking, table, len(sets) // len(inputs.taps)):
                found |= dict.fromkeys(some, _train(place, some, table, rows, part, progress, done))
                done += len(some)
            shelves.append(_shelf(part, found, hypers, lacking))
            progress.advance_to((number + 1) * len(hypers))
    identity = shelves_identity(inputs, sets, samples.identity, splits)
    list_shelves(artifacts.heads, identity, [Path(shelf.folder) for shelf in shelves])
    names = {grid.name: [head_key(hyper) for hyper in grid.hypers] for grid in grids}
    return Heads.model_construct(artifacts=artifacts.root, grids=names, shelves=shelves)


def _batches(lacking: dict[str, Hyper], table: pd.DataFrame, views: int) -> Iterator[dict[str, Hyper]]:
    """Cut heads into batches whose predictions of all samples fit in memory; most often there is one."""
    each = BYTES_A_PREDICTION * views * len(table) * table.label.nunique()
    most, keys = max(1, BYTES_AT_ONCE // each), list(lacking)
    for first in range(0, len(keys), most):
        yield {key: lacking[key] for key in keys[first : first + most]}


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

    def of(self, rows: np.ndarray) -> "np.ndarray | Stored":
        """The rows where a mask is true, (V * n, D), or a source of them where they do not fit in memory."""
        if not self._stored.fits():
            return replace(self._stored, digests=tuple(self.digests[rows]))
        picked: np.ndarray = self._held[np.tile(rows, len(self._stored.views))]
        return picked

    @cached_property
    def _stored(self) -> Stored:
        return open_stored(self.sets, self.taps, self.digests.tolist(), self.artifacts)

    @cached_property
    def _held(self) -> np.ndarray:
        return self._stored.in_memory()


def _check_fit(held: "np.ndarray | Stored", hypers: Iterable[Hyper]) -> None:
    """Refuse heads that need their features in memory where there is no room; softmax streams them."""
    others = {hyper.kind for hyper in hypers} - {Softmax.kind}
    if others and not isinstance(held, np.ndarray):
        rows, columns = held.shape
        raise RequestError(
            f"head {sorted(others)[0]!r}: {rows:,} rows of {columns:,} features do not fit in this machine's memory, "
            'and only head "softmax" is trained from a stream; leave it out, or take fewer taps or views'
        )


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
    if not table.weight[seen].sum() > 0:
        raise RequestError(
            f"split {part.spec.name!r}, seed {part.seed}: no training sample has a weight above zero; "
            "weigh some, or split otherwise"
        )
    held = features.of(seen)
    _check_fit(held, hypers.values())
    training = Rows(held, labels[seen], table.weight.to_numpy()[seen], part.groups[seen], views)
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
        "sets": features.sets[: features.taps],
        "views": views,
        "train": len(train_rows),
        "test": len(test_rows),
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
