"""Stage of several targets: would more answers help? The chosen heads on shares of what is known."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tasks.caching import stage
from tasks.core import versions
from tasks.core.answer_parts import answer_parts
from tasks.core.answer_scores import HEADLINE, less, mean_of
from tasks.core.answers import MACRO
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid, head_key, load_heads
from tasks.core.metrics import Drawn, draw_groups, intervals, mean_scores
from tasks.core.splits import SplitSpec, groups_of
from tasks.core.standings import choose_name
from tasks.core.stored import Stored, open_stored
from tasks.core.tables import read_table
from tasks.core.targets import answered, answers_of
from tasks.core.trials import Part
from tasks.progress import Progress
from tasks.references import AnswerCurve, AnswerScores, Features, Gain, Point, Samples

if TYPE_CHECKING:
    from tasks.core.answer_curve import Classroom
    from tasks.core.curve import Lesson

Row = Mapping[str, Any]
Drawns = dict[str, dict[str, Drawn]]
"""Target -> metric -> score and draws."""


def _identity(inputs: dict[str, Any]) -> object:
    scores: AnswerScores = inputs["scores"]
    grid, spec = _chosen(scores, inputs["grids"], inputs["splits"])
    return [
        [versions.CURVE, versions.SCORER, versions.ANSWERS, versions.TRAINER],
        inputs["samples"].identity,
        [grid.name, grid.inputs.identity(grid.inputs.sets(inputs["features"][grid.inputs.backbone].sets))],
        asdict(spec),
        [[row["target"], row["seed"], row["key"], row["file"]] for row in _heads(scores, grid, spec)],
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
    grid, spec = _chosen(scores, grids, splits)
    told = AnswerCurve(experiment=grid.name, split=spec.name, metric=HEADLINE, points={}, gains={})
    if grid.is_network or grid.is_joint:
        return told
    table = read_table(samples.table)
    known, sets = answered(table), grid.inputs.sets(features[grid.inputs.backbone].sets)
    stored = open_stored(sets, len(grid.inputs.taps), known.digest.tolist(), artifacts)
    if not stored.fits():
        return told
    heads = _heads(scores, grid, spec)
    classroom = _classroom(table, known, stored, spec, list(dict.fromkeys(row["target"] for row in heads)))
    parts = list(answer_parts(known, [spec]))
    lessons = _lessons(classroom, parts, grid, heads)
    points, halves = _of_less(study, classroom, parts, lessons)
    whole = _of_all(scores, grid, spec, _learnt_from(classroom, parts))
    known_scores = _scored(classroom, parts, heads, lessons, artifacts)
    gains = {name: less(known_scores[name], half) for name, half in halves.items()}
    return told.model_copy(
        update={
            "points": {name: [*each, whole[name]] for name, each in points.items()},
            "gains": {name: Gain.of(each.value, each.low, each.high) for name, each in gains.items()},
        }
    )


def _chosen(
    scores: AnswerScores, grids: Sequence[Grid], splits: Sequence[SplitSpec]
) -> tuple[Grid, SplitSpec]:
    """Find the experiment that the inner folds chose, and the split on which they did."""
    best = choose_name([row for row in scores.means if row["target"] == MACRO])
    [grid] = [each for each in grids if each.name == best["experiment"]]
    [spec] = [each for each in splits if each.name == best["split"]]
    return grid, spec


def _heads(scores: AnswerScores, grid: Grid, spec: SplitSpec) -> list[Row]:
    """Tell of the heads that were chosen for the targets and seeds of a split, seed by seed."""
    named = (row for row in scores.splits if (row["experiment"], row["split"]) == (grid.name, spec.name))
    return [row for row in named if row["chosen"]]


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
    classroom: "Classroom", parts: Sequence[Part], grid: Grid, heads: Sequence[Row]
) -> "dict[str, dict[float, list[Lesson]]]":
    """Target -> share -> its lesson for each seed; the smallest share first."""
    hypers = {head_key(hyper): hyper for hyper in grid.hypers}
    key = {(row["target"], row["seed"]): row["key"] for row in heads}
    return {
        target: classroom.shorter(
            target,
            [
                classroom.lesson(target, hypers[key[target, part.seed]], part.test, part.seed)
                for part in parts
            ],
        )
        for target in classroom.answers.targets
    }


def _of_less(
    study: str,
    classroom: "Classroom",
    parts: Sequence[Part],
    lessons: "Mapping[str, Mapping[float, Sequence[Lesson]]]",
) -> tuple[dict[str, list[Point]], dict[str, list[Drawn]]]:
    """Score heads that learn from less than there is; for each target and, where all have a share, for their mean.

    Returns:
        Name -> its points, and its score on the largest share for each seed.
    """
    shares = sorted({share for each in lessons.values() for share in each})
    points: dict[str, list[Point]] = {name: [] for name in (*lessons, MACRO)}
    largest: dict[str, list[Drawn]] = {}
    with Progress(f"{study}: learning curve", len(shares)) as progress:
        for number, share in enumerate(shares):
            some = {name: each[share] for name, each in lessons.items() if share in each}
            seeds = [
                classroom.score(dict(zip(some, alike, strict=True)), part.training)
                for part, *alike in zip(parts, *some.values(), strict=True)
            ]
            train = {name: float(np.mean([each.taken.sum() for each in of])) for name, of in some.items()}
            if len(some) == len(lessons):
                seeds = [seed | {MACRO: mean_of(list(seed.values()))} for seed in seeds]
                train[MACRO] = float(np.mean(list(train.values())))
            for name in train:
                points[name].append(_point(share, train[name], [seed[name] for seed in seeds]))
                largest[name] = [seed[name][HEADLINE] for seed in seeds]
            progress.advance_to(number + 1)
    return {name: each for name, each in points.items() if each}, largest


def _scored(
    classroom: "Classroom",
    parts: Sequence[Part],
    heads: Sequence[Row],
    lessons: "Mapping[str, Mapping[float, Sequence[Lesson]]]",
    artifacts: Artifacts,
) -> dict[str, list[Drawn]]:
    """Score, for each seed, what the chosen heads said, which learnt from all that is known."""
    told: dict[str, list[Drawn]] = {}
    for part in parts:
        scored: dict[str, dict[str, Drawn]] = {}
        for row in (row for row in heads if row["seed"] == part.seed):
            alike = [
                lesson for of in lessons[row["target"]].values() for lesson in of if lesson.seed == part.seed
            ]
            if alike:  # they ask about the same samples
                said = load_heads(artifacts.root / row["file"])[row["key"]].log_proba
                scored[row["target"]] = classroom.scored(row["target"], alike[0], said)
        for name, found in (scored | {MACRO: mean_of(list(scored.values()))} if scored else {}).items():
            told.setdefault(name, []).append(found[HEADLINE])
    return told


def _point(share: float, train: float, seeds: Sequence[dict[str, Drawn]]) -> Point:
    found = intervals(mean_scores(seeds))[HEADLINE]
    return Point.of(share, train, found.value, found.low, found.high)


def _learnt_from(classroom: "Classroom", parts: Sequence[Part]) -> dict[str, float]:
    """How many answers to each target are learnt from, the mean over the seeds; and the mean over targets."""
    weighs = classroom.answers.known & (classroom.weights > 0)[:, None]
    counts = np.mean([weighs[part.training].sum(axis=0) for part in parts], axis=0).tolist()
    return {**dict(zip(classroom.answers.targets, counts, strict=True)), MACRO: float(np.mean(counts))}


def _of_all(
    scores: AnswerScores, grid: Grid, spec: SplitSpec, train: Mapping[str, float]
) -> dict[str, Point]:
    """The scores that are known already: of the chosen heads, which learnt from all that is known."""
    name = HEADLINE.replace(" ", "_")
    return {
        row["target"]: Point.of(
            1.0, train[row["target"]], *(row[column] for column in (name, f"{name}_low", f"{name}_high"))
        )
        for row in scores.means
        if (row["experiment"], row["split"]) == (grid.name, spec.name) and row["target"] in train
    }
