"""The method for several targets: samples -> features -> targets -> experiments -> scores -> report."""

from itertools import groupby
from operator import attrgetter
from typing import Any

from flows.server import report_link
from flows.stages import Stages
from flows.story import story_of
from flows.study import Study
from tasks.answer_curve import answer_curve
from tasks.answer_report import write_answer_report
from tasks.answer_scores import score_answers
from tasks.answers import train_answers
from tasks.copies import find_copies
from tasks.core.answer_scores import HEADLINE
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Grid
from tasks.core.trials import name_of, together
from tasks.publish import publish
from tasks.references import AnswerCurve, AnswerHeads, AnswerScores, Features, Samples, Targets
from tasks.targets import count_answers


def batches(grids: list[Grid]) -> list[tuple[Grid, ...]]:
    """Put the grids together that are trained together: of the same inputs, all of them joint or none."""
    joint = attrgetter("is_joint")
    return [
        tuple(alike) for some in together(grids) for _, alike in groupby(sorted(some, key=joint), key=joint)
    ]


def count(study: Study, samples: Samples, stages: Stages) -> Targets:
    """Count the answers, and tell which targets can be learnt."""
    names = [target.name for target in study.targets()]
    told: Targets = stages.run(
        "targets", count_answers, study.name, samples, names, study.split_specs(), study.data.least_known
    )
    return told


def run_targets(
    study: Study,
    samples: Samples,
    targets: Targets,
    features: dict[str, Features],
    stages: Stages,
    here: Artifacts,
) -> dict[str, Any]:
    """Run what comes after extraction; see `flows.transfer`."""
    splits = study.split_specs()
    trained: list[AnswerHeads] = [
        stages.run(
            f"train {name_of(some)}",
            train_answers,
            study.name,
            name_of(some),
            some,
            study.backbone(some[0].inputs.backbone),
            features[some[0].inputs.backbone],
            samples,
            splits,
            targets.kept,
            here,
        )
        for some in batches(study.grids())
    ]
    scores: AnswerScores = stages.run(
        "scores", score_answers, study.name, samples, splits, study.pairs(), trained
    )
    curve: AnswerCurve = stages.run(
        "learning curve",
        answer_curve,
        study.name,
        samples,
        features,
        study.grids(),
        splits,
        scores,
        here,
    )
    seen = study.looked_at()
    copies = stages.run("near copies", find_copies, study.name, samples, features[seen.backbone], seen, here)
    story = story_of(study, samples, features, _counted(study, trained, stages), stages, HEADLINE)
    summary: dict[str, Any] = stages.run(
        "report",
        write_answer_report,
        study.name,
        samples,
        targets,
        splits,
        scores,
        copies,
        story,
        here,
        curve.as_summary(),
    )
    stages.run("publish", publish, study.name, summary, report_link(here.study(study.name)))
    return summary


def planned_targets(study: Study) -> list[str]:
    """Name the stages of a run, in order."""
    return [
        "samples",
        "targets",
        *(f"features {name}" for name in study.used_backbones()),
        *(f"train {name_of(some)}" for some in batches(study.grids())),
        "scores",
        "learning curve",
        "near copies",
        "report",
        "publish",
    ]


def _counted(study: Study, trained: list[AnswerHeads], stages: Stages) -> tuple[int, int]:
    """How many heads there are, each target's by itself, and how many of them were trained just now."""
    heads = [heads for each in trained for heads in each.heads.values()]
    total = sum(len(keys) * len(each.shelves) for each in heads for keys in each.grids.values())
    fresh = sum(
        len(shelf.trained)
        for some, each in zip(batches(study.grids()), trained, strict=True)
        for heads_of_target in each.heads.values()
        for shelf in heads_of_target.shelves
        if not stages.was_cached(f"train {name_of(some)}")
    )
    return total, fresh
