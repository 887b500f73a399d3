"""Stage of several targets: would more answers help? The chosen heads on shares of what is known."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_parts import answer_parts
from tasks.core.answer_scores import HEADLINE, less, with_mean
from tasks.core.answers import MACRO
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, head_key, load_heads
from tasks.core.metrics import Drawn, draw_groups, intervals, mean_scores
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.standings import find_chosen, rows_of_chosen
from tasks.core.stored import Stored, open_stored
from tasks.core.summary import with_ends
from tasks.core.tables import read_table
from tasks.core.targets import answered, answers_of
from tasks.core.trials import Part
from tasks.progress import Progress
from tasks.references import AnswerCurve, AnswerScores, Features, Gain, Point, Samples

if TYPE_CHECKING:
    from tasks.core.answer_curve import Classroom
    from tasks.core.curve import Lesson

Lessons = dict[str, list["Lesson"]]
"""Target -> its lesson for each seed."""


def _identity(inputs: dict[str, Any]) -> object:
    scores: AnswerScores = inputs["scores"]
    best, grid, spec = find_chosen(scores.macro(), inputs["grids"], inputs["splits"])
    return [
        [versions.CURVE, versions.SCORER, versions.ANSWERS, versions.TRAINER],
        inputs["samples"].identity,
        [grid.name, grid.inputs.identity(grid.inputs.sets(inputs["features"][grid.inputs.backbone].sets))],
        asdict(spec),
        [
            [row["target"], row["seed"], row["key"], row["file"]]
            for row in rows_of_chosen(scores.splits, best)
        ],
    ]


@stage("answer-curve", _identity)
def answer_curve(
    study: str,
    samples: Samples,
    features: dict[str, Features],
    grids: list[Grid],
    splits: tuple[SplitSpec, ...],
    scores: AnswerScores,
    artifacts: Artifacts,
) -> AnswerCurve:
    """Train each target's chosen heads on ever smaller shares of what they learn from, and score them alike.

    Nothing is chosen by it. Only the split counts by which the experiment was chosen. There are no points where
    targets share a network or layers are trained, where every share is too small, or where the features do not fit
    in memory.
    """
    best, grid, spec = find_chosen(scores.macro(), grids, splits)
    told = AnswerCurve(experiment=grid.name, split=spec.name, metric=HEADLINE, points={}, gains={})
    if grid.is_network or grid.is_joint:
        return told
    table = read_table(samples.table)
    known, sets = answered(table), grid.inputs.sets(features[grid.inputs.backbone].sets)
    stored = open_stored(sets, len(grid.inputs.taps), known.digest.tolist(), artifacts)
    if not stored.fits():
        return told
    heads = rows_of_chosen(scores.splits, best)
    classroom = _classroom(table, known, stored, spec, list(dict.fromkeys(row["target"] for row in heads)))
    parts = list(answer_parts(known, [spec]))
    whole = _lessons(classroom, parts, grid, heads)
    points, halves = _of_less(study, classroom, parts, whole)
    train = _taken(whole)
    for row in scores.means:
        mine = (row["experiment"], row["split"]) == (grid.name, spec.name)
        if mine and row["target"] in points:
            name = row["target"]
            points[name].append(Point(share=1.0, train=train[name], **with_ends(row, HEADLINE)))
    known_scores = _scored(classroom, parts, heads, whole, artifacts)
    gains = {name: less(known_scores[name], half) for name, half in halves.items()}
    spelled = {name: Gain.of(each.value, each.low, each.high) for name, each in gains.items()}
    return told.model_copy(update={"points": points, "gains": spelled})


def _classroom(
    table: pd.DataFrame, known: pd.DataFrame, stored: Stored, spec: SplitSpec, targets: Sequence[str]
) -> "Classroom":
    # Imported here, not above: a run that has nothing to train shall not wait for torch.
    from tasks.core.answer_curve import Classroom

    return Classroom(
        answers_of(known, targets),
        stored.in_memory(),
        known.weight.to_numpy(),
        groups_of(known, spec),
        pd.Index(table.digest).get_indexer(pd.Index(known.digest)),
        draw_groups(groups_of(table, spec).tolist()),
        len(stored.views),
    )


def _lessons(
    classroom: "Classroom", parts: Sequence[Part], grid: Grid, heads: Sequence[Mapping[str, Any]]
) -> "Lessons":
    """Target -> its lesson for each seed, of all that is known."""
    hypers = {head_key(hyper): hyper for hyper in grid.hypers}
    key = {(row["target"], row["seed"]): row["key"] for row in heads}
    return {
        target: [
            classroom.lesson(target, hypers[key[target, part.seed]], part.test, part.seed) for part in parts
        ]
        for target in classroom.answers.targets
    }


def _taken(lessons: "Lessons") -> dict[str, float]:
    """How many answers to each target are learnt from, the mean over the seeds; and the mean over targets."""
    train = {name: float(np.mean([each.taken.sum() for each in of])) for name, of in lessons.items()}
    return train | {MACRO: float(np.mean(list(train.values())))}


def _of_less(
    study: str, classroom: "Classroom", parts: Sequence[Part], whole: "Lessons"
) -> tuple[dict[str, list[Point]], dict[str, list[Drawn]]]:
    """Score heads that learn from less than there is; for each target and, where all have a share, for their mean.

    Returns:
        Name -> its points, and its score on the largest share for each seed.
    """
    cut = {target: classroom.shorter(target, lessons) for target, lessons in whole.items()}
    shares = sorted({share for each in cut.values() for share in each})
    points: dict[str, list[Point]] = {}
    largest: dict[str, list[Drawn]] = {}
    with Progress(f"{study}: learning curve", len(shares)) as progress:
        for number, share in enumerate(shares):
            some = {target: each[share] for target, each in cut.items() if share in each}
            seeds = [
                with_mean(classroom.score(dict(zip(some, alike, strict=True)), part.training))
                for part, *alike in zip(parts, *some.values(), strict=True)
            ]
            for name, train in _taken(some).items():
                if name != MACRO or len(some) == len(cut):
                    points.setdefault(name, []).append(_point(share, train, [seed[name] for seed in seeds]))
                    largest[name] = [seed[name][HEADLINE] for seed in seeds]
            progress.advance_to(number + 1)
    return points, largest


def _scored(
    classroom: "Classroom",
    parts: Sequence[Part],
    heads: Sequence[Mapping[str, Any]],
    whole: "Lessons",
    artifacts: Artifacts,
) -> dict[str, list[Drawn]]:
    """Score, for each seed, what the chosen heads said, which learnt from all that is known."""
    seeds: list[dict[str, dict[str, Drawn]]] = [{} for _ in parts]
    place = {part.seed: number for number, part in enumerate(parts)}
    for row in heads:
        number, target = place[row["seed"]], row["target"]
        said = load_heads(artifacts.root / row["file"])[row["key"]].log_proba
        seeds[number][target] = classroom.scored(target, whole[target][number], said)
    means = [with_mean(seed) for seed in seeds]
    return {name: [seed[name][HEADLINE] for seed in means] for name in means[0]}


def _point(share: float, train: float, seeds: Sequence[dict[str, Drawn]]) -> Point:
    found = intervals(mean_scores(seeds))[HEADLINE]
    return Point.of(share, train, found.value, found.low, found.high)
