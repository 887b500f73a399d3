"""Heads or layers trained on one part of a table, asked about its test rows, and kept."""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.errors import RequestError
from tasks.core.files import write_text
from tasks.core.heads import (
    Grid,
    HeadFile,
    Inputs,
    cost_of,
    damage,
    head_key,
    held,
    save_heads,
)
from tasks.core.hyper import Hyper, Network, Softmax, budget, spelled
from tasks.core.store import holdings
from tasks.core.stored import Stored, open_stored
from tasks.core.trials import Part, shelf_of

if TYPE_CHECKING:
    from torch import nn

    from tasks.core.looks import Looks
    from tasks.core.search import Found
    from tasks.core.truth import Known

BYTES_A_PREDICTION = 32
"""A class's probability of a sample is held several times over while heads are trained and kept."""
BYTES_AT_ONCE = 1 << 30
"""Of the predictions of heads that are trained in one go."""
LIBRARIES = ("torch", "numpy", "scikit-learn")

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Filled:
    """The heads of one part: key -> file, and the keys of those that were trained just now."""

    files: dict[str, Path]
    trained: list[str]


@dataclass(frozen=True)
class Source:
    """What is trained on, before it is read.

    Attributes:
        inputs: of the experiments.
        backbone: theirs.
        known: a tap of a view -> its feature set.
        table: labelled samples.
        artifacts: where everything lies.
    """

    inputs: Inputs
    backbone: Backbone
    known: Mapping[str, str]
    table: pd.DataFrame
    artifacts: Artifacts

    @cached_property
    def sets(self) -> list[str]:
        """The feature sets, every tap of the first view, then of the next; the network itself where pictures are."""
        if self.inputs.taps:
            return self.inputs.sets(self.known)
        return [self.backbone.fingerprint(self.artifacts.seen("weights"))]

    @cached_property
    def classes(self) -> list[str]:
        """The labels' names, sorted."""
        return sorted(self.table.label.unique())

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) number of each sample's label."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        labels: np.ndarray = self.table.label.map(numbers).to_numpy()
        return labels

    @cached_property
    def weights(self) -> np.ndarray:
        """(N,) of the samples."""
        weights: np.ndarray = self.table.weight.to_numpy()
        return weights

    def place(self, part: Part) -> Path:
        """Name the shelf of a part."""
        return shelf_of(self.artifacts.heads, self.inputs, self.sets, self.table, part)

    def found(self, part: Part) -> dict[str, Path]:
        """Key -> file of the heads of a part that are there; damaged files are removed."""
        return self.found_at(self.place(part))

    def found_at(self, shelf: Path) -> dict[str, Path]:
        """The same of a shelf that is named already; naming it takes a look at every sample."""
        found, damaged = held(shelf, self.artifacts.seen("head"))
        for path in filter(damage, damaged):  # unless another run has just written it anew
            path.unlink(missing_ok=True)
            cost_of(path).unlink(missing_ok=True)
        return found

    # Heads

    def features(self, rows: np.ndarray) -> "np.ndarray | Stored":
        """The rows where a mask is true, (V * n, D), or a source of them where they do not fit in memory."""
        if not self._stored.fits():
            return replace(self._stored, digests=tuple(self.table.digest.to_numpy()[rows]))
        picked: np.ndarray = self._features[np.tile(rows, len(self._stored.views))]
        return picked

    @cached_property
    def _stored(self) -> Stored:
        return open_stored(self.sets, len(self.inputs.taps), self.table.digest.tolist(), self.artifacts)

    @cached_property
    def _features(self) -> np.ndarray:
        return self._stored.in_memory()

    # Layers

    @cached_property
    def looks(self) -> "Looks":
        """The samples as layers take them."""
        from tasks.core.looks import Kept, Live

        digests = self.table.digest.to_numpy()
        if not self.inputs.taps:
            files = self.table.path.tolist()
            return Live(files, digests.tolist(), self.backbone.preprocessing, self.inputs.views)
        seen = self.artifacts.seen("shard")
        kept = [holdings(self.artifacts.features / name, seen) for name in self.sets]
        return Kept(dict(zip(self.inputs.views, kept, strict=True)), digests)

    @cached_property
    def network(self) -> "nn.Module":
        """The backbone's network, loaded when first needed."""
        from tasks.core.networks import load_network

        return load_network(self.backbone)


def work(source: Source, grids: Iterable[Grid], part: Part) -> int:
    """Count what `fill` tells its `advance` of: heads, or of layers the samples that are learnt from."""
    hypers = {head_key(hyper): hyper for grid in grids for hyper in grid.hypers}
    return sum(_units(source, hyper, part) for hyper in hypers.values())


def fill(source: Source, grids: Iterable[Grid], part: Part, advance: Advance = lambda done: None) -> Filled:
    """Train what is not there yet of experiments with the same inputs on one part.

    Args:
        source: what is trained on.
        grids: experiments.
        part: of the source's table; where it leaves samples unused, what layers say is kept, but not the layers.
        advance: is told how much of the part's work is done, as `work` counts it.

    Raises:
        RequestError: if nothing can be learnt from the part.
    """
    hypers = {head_key(hyper): hyper for grid in grids for hyper in grid.hypers}
    place = source.place(part)
    found = source.found_at(place)
    lacking = {key: hyper for key, hyper in hypers.items() if key not in found}
    if lacking:
        _check_weights(source, part)
    done = sum(_units(source, hyper, part) for key, hyper in hypers.items() if key in found)
    for some in _batches(lacking, source):
        layers = any(isinstance(hyper, Network) for hyper in some.values())
        train = train_network if layers else _train_heads
        started = time.monotonic()
        path = train(source, some, part, place, partial(add_to, advance, done))
        write_text(cost_of(path), f"{time.monotonic() - started:.3f}")
        found |= dict.fromkeys(some, path)
        done += sum(_units(source, hyper, part) for hyper in some.values())
    return Filled({key: found[key] for key in hypers}, list(lacking))


def add_to(advance: Advance, before: int, more: int) -> None:
    """Tell how much is done, given what was done before."""
    advance(before + more)


def _units(source: Source, hyper: Hyper, part: Part) -> int:
    if not isinstance(hyper, Network):
        return 1
    return budget(hyper, int(part.training.sum()))


def _batches(lacking: dict[str, Hyper], source: Source) -> Iterator[dict[str, Hyper]]:
    """Cut heads into batches whose predictions of all samples fit in memory; layers come one by one."""
    each = BYTES_A_PREDICTION * len(source.inputs.views) * len(source.table) * len(source.classes)
    most = max(1, BYTES_AT_ONCE // each)
    heads = [key for key, hyper in lacking.items() if not isinstance(hyper, Network)]
    for first in range(0, len(heads), most):
        yield {key: lacking[key] for key in heads[first : first + most]}
    yield from ({key: lacking[key]} for key in lacking if key not in heads)


def _check_weights(source: Source, part: Part) -> None:
    if not source.weights[part.training].sum() > 0:
        raise RequestError(
            f"split {part.spec.name!r}, seed {part.seed}: no training sample has a weight above zero; "
            "weigh some, or split otherwise"
        )


def check_fit(held: "np.ndarray | Stored", hypers: Iterable[Hyper]) -> None:
    """Refuse heads that need their features in memory where there is no room; softmax streams them."""
    others = {hyper.kind for hyper in hypers} - {Softmax.kind}
    if others and not isinstance(held, np.ndarray):
        rows, columns = held.shape
        raise RequestError(
            f"head {sorted(others)[0]!r}: {rows:,} rows of {columns:,} features do not fit in this machine's memory, "
            'and only head "softmax" is trained from a stream; leave it out, or take fewer taps or views'
        )


def _train_heads(source: Source, hypers: dict[str, Hyper], part: Part, place: Path, advance: Advance) -> Path:
    """Train heads on one part, let each speak of its test rows, and keep them."""
    # Imported here, not above: a run that has nothing to train shall not wait for torch.
    from tasks.core.selection import Rows, said_of, train_heads

    seen, views = part.training, len(source.inputs.views)
    rows = source.features(seen)
    check_fit(rows, hypers.values())
    trained = train_heads(
        Rows(rows, source.labels[seen], source.weights[seen], part.groups[seen], views),
        list(hypers.values()),
        classes=len(source.classes),
        seed=part.seed,
        advance=advance,
    )
    told = said_of([each.predictor for each in trained], source.features(part.test), views)
    story = {"classes": source.classes} | story_of(source, part)
    files = {
        key: HeadFile(
            predictor=each.predictor,
            log_proba=log_proba,
            inner=each.inner,
            story=story | {"hyper": spelled(hypers[key]), **each.facts},
            **_rows(source, part),
        )
        for key, each, log_proba in zip(hypers, trained, told, strict=True)
    }
    return save_heads(place, files)


def train_network(
    source: Source, hypers: dict[str, Hyper], part: Part, place: Path, advance: Advance
) -> Path:
    """Search layers for one part, let them speak of its test rows, and keep them, or what they say alone."""
    from tasks.core.search import Search
    from tasks.core.truth import Known

    [(key, network)] = hypers.items()
    assert isinstance(network, Network)  # noqa: S101
    known = Known(source.labels, source.weights, part.groups, len(source.classes))
    checkpoints = source.artifacts.checkpoints / f"{place.name}-{key}"
    found = Search(
        network,
        maker(source, network, len(source.classes), known),
        source.looks,
        known,
        np.flatnonzero(part.training),
        np.flatnonzero(part.test),
        part.seed,
        checkpoints,
        counted(_units(source, network, part), advance),
    ).run()
    story = told_of(network, found)
    file = HeadFile(
        predictor=found.predictor if _is_whole(part) else found.predictor.without_tensors(),
        log_proba=found.said,
        inner=found.inner,
        story={"classes": source.classes} | story_of(source, part) | story,
        **_rows(source, part),
    )
    path = save_heads(place, {key: file})
    shutil.rmtree(checkpoints, ignore_errors=True)  # after the result is kept
    return path


def told_of(network: Network, found: "Found") -> dict[str, Any]:
    """Tell what a search chose, and what it tried."""
    settings = spelled(network)[1]
    assert isinstance(settings, dict)  # noqa: S101
    chosen = {name: value for name, value in settings.items() if name != "learning_rates"}
    chosen |= {"learning_rate": found.facts["learning_rate"], "epochs": found.facts["epochs"]}
    return {"hyper": [network.kind, chosen], "tried": [vars(each) for each in found.tried], **found.facts}


def _is_whole(part: Part) -> bool:
    """Whether all that is not tested is learnt from; a share may be all, and lies where the whole part does."""
    return bool((part.training | part.test).all())


def maker(
    source: Source, network: Network, classes: int, known: "Known | None" = None
) -> Callable[[int, np.ndarray], "nn.Module"]:
    """Say how layers are built that are to be trained, given a seed and the samples to learn from.

    Args:
        source: whose network it is.
        network: how they start.
        classes: C.
        known: of one target, by which the classifier may start at its optimum.
    """
    from tasks.core.layers import part as part_of
    from tasks.core.networks import build
    from tasks.core.probe import start_at_optimum

    pretrained = network.start == "pretrained"

    def make(seed: int, learnt: np.ndarray) -> "nn.Module":
        if not pretrained:
            fresh = build(source.backbone, classes=classes, seed=seed)
            return part_of(fresh, network.cut, classes=classes, blank=False)
        layers = part_of(source.network, network.cut, classes=classes, blank=True)
        if network.head_first and known is not None:
            start_at_optimum(layers, source.looks, known.labels, known.weights, learnt, classes=classes)
        return layers

    return make


def counted(total: int, advance: Advance) -> Advance:
    """Add up samples that were learnt from; there may be fewer folds, and then more of them, than were counted on."""
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        advance(min(done, total))

    return add


def story_of(source: Source, part: Part) -> dict[str, Any]:
    """Tell what a head was trained on, and with which libraries."""
    return {
        "sets": source.sets[: max(1, len(source.inputs.taps))],
        "views": len(source.inputs.views),
        "train": int(part.training.sum()),
        "test": int(part.test.sum()),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def _rows(source: Source, part: Part) -> dict[str, list[str]]:
    digests = source.table.digest
    return {"test_rows": digests[part.test].tolist(), "train_rows": digests[part.training].tolist()}
