"""Training and test parts of samples with several targets, and which targets can be learnt and scored on all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.answer_splits import inner_folds_of, split_by_answers
from tasks.core.answers import Answers
from tasks.core.errors import RequestError
from tasks.core.splits import SplitSpec, combinations, groups_of, written_down
from tasks.core.tables import readable
from tasks.core.targets import answer_column, answers_of, targets_of
from tasks.core.trials import Part

MANIFEST = "the manifest's own columns"
"""Stands beside the targets where columns of the manifest keep their shares, too."""


def answer_parts(table: pd.DataFrame, splits: Sequence[SplitSpec]) -> Iterator[Part]:
    """Cut a table of answered samples once for each split and seed, so that every answer gives each side its share.

    Raises:
        RequestError: if a column says who is tested, and says something else.
    """
    for spec in splits:
        groups = groups_of(table, spec)
        for seed in spec.seeds:
            yield Part(spec, seed, groups, _test(table, spec, groups, seed))


def _test(table: pd.DataFrame, spec: SplitSpec, groups: np.ndarray, seed: int) -> np.ndarray:
    if spec.column is not None:
        return written_down(table, spec.column)
    written = {name: table[answer_column(name)].tolist() for name in targets_of(table)}
    if spec.stratify:
        written[MANIFEST] = combinations(table, spec.stratify)
    return split_by_answers(groups.tolist(), Answers.of(written), test=spec.test, seed=seed)


@dataclass(frozen=True)
class Able:
    """Which targets can be learnt and scored on all parts.

    Attributes:
        kept: their names.
        left_out: the others -> why not.
    """

    kept: tuple[str, ...]
    left_out: dict[str, str]


def able_targets(table: pd.DataFrame, splits: Sequence[SplitSpec], least: int) -> Able:
    """Tell the targets of which enough is known from the others.

    Args:
        table: answered samples.
        splits: how they are cut.
        least: how many samples of weight every inner fold of a training part, and every test part, must have of
            each answer.

    Raises:
        RequestError: if none is left, or the samples cannot be split as asked, or all fall on one side.
    """
    answers, weights = answers_of(table), table.weight.to_numpy()
    left_out = {
        name: f"one answer alone is known: {classes[0]}" if classes else "no answer is known"
        for name, classes in zip(answers.targets, answers.classes, strict=True)
        if len(classes) < 2
    }
    hopeless = set(left_out)
    for part in answer_parts(table, splits):
        _check_sides(part)
        training = np.flatnonzero(part.training)
        folds = [
            training[held]
            for _, held in inner_folds_of(answers.take(training), part.groups[training], seed=part.seed)
        ]
        for name in answers.targets:
            if name not in left_out and (reason := _lacks(answers.only([name]), weights, part, least, folds)):
                left_out[name] = reason
    kept = tuple(name for name in answers.targets if name not in left_out)
    if not kept:
        first = next((name for name in answers.targets if name not in hopeless), answers.targets[0])
        more = "label more" if (weights > 0).all() else "label more, weigh more samples above 0"
        raise RequestError(
            f"no target can be learnt (first: {first}: {left_out[first]}); {more}, or lower data.least_known"
        )
    return Able(kept, left_out)


def _check_sides(part: Part) -> None:
    """Refuse a part where a column leaves no sample to train on, or none to test on."""
    spec = part.spec
    if part.test.any() == part.training.any() or not (spec.column or spec.group):  # both sides, or no samples
        return
    side, other = ("test", "train") if part.test.any() else ("train", "test")
    everyone = f"all {len(part.test):,} answered samples"
    if spec.column:
        why, todo = f"column {spec.column!r} says {side!r} of {everyone}", f"write {other!r} for some of them"
    else:
        why = f"column {spec.group!r} has {everyone} in one group ({readable(part.groups[0])})"
        todo = "name a finer group"
    raise RequestError(
        f"split {spec.name!r}: no sample is left to {other} on, since {why}; {todo}, or split otherwise"
    )


def _lacks(one: Answers, weights: np.ndarray, part: Part, least: int, folds: Sequence[np.ndarray]) -> str:
    """Say which answer to one question is too rare on a part; "" if none is."""
    some = "samples" if (weights > 0).all() else "samples with a weight above 0"
    places = [("an inner fold", held) for held in folds] or [
        ("the training part", np.flatnonzero(part.training))
    ]
    for where, rows in (*places, ("the test part", np.flatnonzero(part.test))):
        counts = (one.hot[rows] & (weights[rows] > 0)[:, None]).sum(axis=0)
        rarest = int(counts.argmin())
        if counts[rarest] < least:
            return (
                f"split {part.spec.name!r}, seed {part.seed}: {where} has {counts[rarest]} {some} of answer "
                f"{one.classes[0][rarest]}, and data.least_known asks for {least}"
            )
    return ""
