"""Heads for several targets trained on one part of a table, asked about its test rows, and kept.

Every target has a shelf of its own, so that a changed answer to one question trains that question's heads alone, as
long as it moves no sample to another part or fold. What was trained jointly lies on a shelf that is named by all
answers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core import versions
from tasks.core.answer_layers import asked_of, samples_of, train_layers
from tasks.core.answer_splits import inner_folds_of
from tasks.core.answers import Answers
from tasks.core.cells import (
    BYTES_A_PREDICTION,
    BYTES_AT_ONCE,
    Advance,
    Filled,
    Source,
    add_to,
    check_fit,
    story_of,
)
from tasks.core.digest import digest_value
from tasks.core.errors import RequestError
from tasks.core.heads import Grid, HeadFile, Inputs, head_key, save_heads
from tasks.core.hyper import Hyper, Network, Shared, Softmax, spelled
from tasks.core.targets import answers_of
from tasks.core.trials import Part


@dataclass(frozen=True)
class Asking:
    """What is trained on, and what is asked.

    Attributes:
        source: of answered samples.
        targets: the questions.
    """

    source: Source
    targets: tuple[str, ...]

    @cached_property
    def answers(self) -> Answers:
        """(N, T) to the questions."""
        return answers_of(self.source.table, self.targets)


@dataclass(frozen=True)
class Cut:
    """A part, and the inner folds of its training samples, numbered among these."""

    part: Part
    folds: Sequence[tuple[np.ndarray, np.ndarray]]

    @property
    def numbers(self) -> np.ndarray:
        """(N,) the fold that holds each sample out; -1 in the test part, and without folds."""
        training = np.flatnonzero(self.part.training)
        numbers = np.full(len(self.part.test), -1)
        for number, (_, held) in enumerate(self.folds):
            numbers[training[held]] = number
        return numbers


def cut_of(table: pd.DataFrame, part: Part) -> Cut:
    """Cut a part's training samples into folds in which every answer to any question has its share.

    Args:
        table: answered samples.
        part: how they are cut.
    """
    training = np.flatnonzero(part.training)
    folds = inner_folds_of(answers_of(table).take(training), part.groups[training], seed=part.seed)
    return Cut(part, folds)


def shelves(
    folder: Path, inputs: Inputs, sets: Sequence[str], table: pd.DataFrame, answers: Answers, cut: Cut
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Name the folder of each target's heads on a part.

    Args:
        folder: of all heads.
        inputs: of the heads.
        sets: the identities of their feature sets, in order.
        table: (N) answered samples.
        answers: (N, T) to the questions.
        cut: how the samples are cut.

    Returns:
        Target -> folder of what is trained by itself, and of what is trained jointly.
    """
    part = cut.part
    columns = (table.digest, table.weight, part.groups, cut.numbers.tolist(), part.test.tolist())
    rows = list(zip(*columns, strict=True))
    shared = digest_value([versions.ANSWERS, inputs.identity(sets), rows, part.seed])
    own = {
        name: digest_value([shared, name, list(answers.classes[t]), answers.labels[:, t].tolist()])
        for t, name in enumerate(answers.targets)
    }
    # in order, for that is the order of the outputs
    company = digest_value([[name, digest] for name, digest in own.items()])
    return (
        {name: folder / digest for name, digest in own.items()},
        {name: folder / digest_value([digest, company]) for name, digest in own.items()},
    )


def work(asking: Asking, grids: Iterable[Grid], part: Part) -> int:
    """Count what `fill_answers` tells its `advance` of: heads, or of layers the samples that are learnt from."""
    hypers = {head_key(hyper): hyper for grid in grids for hyper in grid.hypers}
    return sum(_units(asking, hyper, part) for hyper in hypers.values())


def _units(asking: Asking, hyper: Hyper, part: Part) -> int:
    if isinstance(hyper, Network):
        return samples_of(hyper, asking.answers, part)
    return len(asking.targets)


def fill_answers(
    asking: Asking, grids: Sequence[Grid], cut: Cut, advance: Advance = lambda done: None
) -> dict[str, Filled]:
    """Train what is not there yet of experiments with the same inputs on one part, for every target.

    Args:
        asking: what is trained on, and asked.
        grids: experiments, all of them joint or none.
        cut: of the source's table.
        advance: is told how much of the part's work is done, as `work` counts it.

    Raises:
        RequestError: if heads need features in memory that do not fit there.
    """
    hypers = {head_key(hyper): hyper for grid in grids for hyper in grid.hypers}
    jointly = any(grid.is_joint for grid in grids)
    source = asking.source
    alone, together = shelves(
        source.artifacts.heads, source.inputs, source.sets, source.table, asking.answers, cut
    )
    places = together if jointly else alone
    found = {name: source.found_at(place) for name, place in places.items()}
    lacking = {name: tuple(key for key in hypers if key not in found[name]) for name in asking.targets}
    if jointly:  # what one target lacks is trained for all
        lacks = tuple(key for key in hypers if any(key in keys for keys in lacking.values()))
        lacking = dict.fromkeys(asking.targets, lacks)
    whole = work(asking, grids, cut.part)
    done = whole - sum(_share(asking, hypers, keys, cut.part) for keys in lacking.values())
    for keys in dict.fromkeys(lacking.values()):
        targets = tuple(name for name in asking.targets if lacking[name] == keys)
        for some in _batches({key: hypers[key] for key in keys}, asking, targets):
            train = _train_layers if any(isinstance(each, Network) for each in some.values()) else _train
            files = train(asking, targets, some, cut, places, partial(add_to, advance, done))
            for name in targets:
                found[name] |= dict.fromkeys(some, files[name])
            done += sum(_share(asking, hypers, some, cut.part) for _ in targets)
    return {
        name: Filled({key: found[name][key] for key in hypers}, list(lacking[name]))
        for name in asking.targets
    }


def _batches(
    hypers: Mapping[str, Hyper], asking: Asking, targets: Sequence[str]
) -> Iterator[dict[str, Hyper]]:
    """Cut heads into batches whose predictions of all samples fit in memory; layers come one by one."""
    classes = sum(asking.answers.only(targets).sizes)
    each = BYTES_A_PREDICTION * len(asking.source.inputs.views) * len(asking.source.table) * classes
    most = (
        1 if any(isinstance(hyper, Network) for hyper in hypers.values()) else max(1, BYTES_AT_ONCE // each)
    )
    keys = list(hypers)
    for first in range(0, len(keys), most):
        yield {key: hypers[key] for key in keys[first : first + most]}


def _share(asking: Asking, hypers: Mapping[str, Hyper], keys: Iterable[str], part: Part) -> int:
    """A target's share of the work of some heads."""
    return sum(_units(asking, hypers[key], part) for key in keys) // len(asking.targets)


def _train(
    asking: Asking,
    targets: Sequence[str],
    hypers: Mapping[str, Hyper],
    cut: Cut,
    places: Mapping[str, Path],
    advance: Advance,
) -> dict[str, Path]:
    """Train heads for some targets, let each speak of its test rows, and keep them."""
    # Imported here, not above: a run that has nothing to train shall not wait for torch.
    from tasks.core.joint import Asked, train_jointly, train_separately
    from tasks.core.selection import said_of

    source, part = asking.source, cut.part
    views, answers = len(source.inputs.views), asking.answers.only(targets)
    rows = source.features(part.training)
    _check_stream(rows, hypers.values(), answers)
    asked = Asked(rows, answers.take(part.training), source.weights[part.training], cut.folds, views)
    joint = [hyper for hyper in hypers.values() if isinstance(hyper, Shared)]
    trained = (
        train_jointly(asked, joint, advance=advance)
        if joint
        else train_separately(asked, list(hypers.values()), seed=part.seed, advance=advance)
    )
    told = iter(
        said_of([each.predictor for heads in trained for each in heads], source.features(part.test), views)
    )
    files = {}
    for target, (name, heads) in enumerate(zip(targets, trained, strict=True)):
        known = answers.known[:, target]
        story = story_of(source, part) | asked_of(answers, target, part)
        kept = {
            key: HeadFile(
                predictor=each.predictor,
                log_proba=next(told)[known[part.test]],
                inner=each.inner,
                story=story | {"hyper": spelled(hyper), **each.facts},
                test_rows=source.table.digest[part.test & known].tolist(),
                train_rows=source.table.digest[part.training & known].tolist(),
            )
            for (key, hyper), each in zip(hypers.items(), heads, strict=True)
        }
        files[name] = save_heads(places[name], kept)
    return files


def _train_layers(
    asking: Asking,
    targets: Sequence[str],
    hypers: Mapping[str, Hyper],
    cut: Cut,
    places: Mapping[str, Path],
    advance: Advance,
) -> dict[str, Path]:
    [(key, network)] = hypers.items()  # layers come one by one
    assert isinstance(network, Network)  # noqa: S101
    answers = asking.answers.only(targets)
    return train_layers(asking.source, answers, key, network, cut.part, places, advance)


def _check_stream(rows: object, hypers: Iterable[Hyper], answers: Answers) -> None:
    """Refuse what cannot be trained from a stream, where the features do not fit in memory."""
    if isinstance(rows, np.ndarray):
        return
    check_fit(rows, hypers)  # type: ignore[arg-type]
    several = [name for name, size in zip(answers.targets, answers.sizes, strict=True) if size != 2]
    if several and any(isinstance(hyper, Softmax) for hyper in hypers):
        raise RequestError(
            f"target {several[0]!r}: the features do not fit in this machine's memory, and only questions of two "
            "answers are learnt from a stream; leave it out, or take fewer taps or views"
        )
