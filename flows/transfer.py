"""Transfer learning on one page: samples -> features -> experiments -> scores -> report."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled, Completed

from flows.console import ran_something, what_ran
from flows.server import report_link
from flows.several import count, planned_targets, run_targets
from flows.stages import Stages
from flows.story import story_of
from flows.study import Study, check_study
from tasks.copies import find_copies
from tasks.core.artifacts import Artifacts
from tasks.core.trials import name_of, together
from tasks.core.wishes import check_wishes
from tasks.curve import learning_curve
from tasks.features import extract
from tasks.heads import train
from tasks.publish import publish
from tasks.references import Curve, Features, Heads, Samples, Verdict
from tasks.report import write_report
from tasks.samples import read_samples, set_aside
from tasks.scores import score_all
from tasks.tracking import track
from tasks.verdict import judge


@flow(name="transfer", flow_run_name="{study.name}", persist_result=False)
def transfer(study: Study, artifacts: Path) -> dict[str, Any]:
    """Run a study: every stage whose inputs did not change is answered from the cache.

    Args:
        study: what to run.
        artifacts: the folder for all outputs.

    Returns:
        What `summary.json` holds.

    Raises:
        RequestError: if the study or its data are not fit for a run.
        CancelledRun: if somebody cancelled the run.
    """
    check_study(study)
    with Stages(study.name, planned(study), Artifacts(artifacts).results) as stages:
        try:
            summary = _run(study, Artifacts(artifacts), stages)
        except CancelledRun as wish:
            return Cancelled(message=str(wish))  # type: ignore[return-value] # Prefect takes a state for the run's own
    name = "Unchanged" if is_unchanged(summary) else "Completed"
    return Completed(name=name, message=what_ran(summary), data=summary)  # type: ignore[return-value]


def planned(study: Study) -> list[str]:
    """Name the stages of a run, in order."""
    if study.data.targets:
        return planned_targets(study)
    return [
        "samples",
        *(f"features {name}" for name in study.used_backbones()),
        *(f"train {name_of(some)}" for some in together(study.grids())),
        "scores",
        "learning curve",
        "near copies",
        *(["verdict"] if study.verdict else []),
        "report",
        "publish",
        *(["tracking"] if study.tracking == "mlflow" else []),
    ]


def is_unchanged(summary: dict[str, Any]) -> bool:
    """Whether a run found everything done."""
    return not ran_something(summary)


def _run(study: Study, here: Artifacts, stages: Stages) -> dict[str, Any]:
    splits = study.split_specs()
    samples: Samples = stages.run("samples", read_samples, study.name, study.source(), here)
    if study.data.targets:
        listed, targets = samples, count(study, samples, stages)  # a study that asks too much is refused here
        samples, features = _extract(study, samples, stages, here)
        if samples.identity != listed.identity:
            targets = count(study, samples, stages)
        return run_targets(study, samples, targets, features, stages, here)
    check_wishes(study.wishes(), samples.classes)
    samples, features = _extract(study, samples, stages, here)
    trained = [
        stages.run(
            f"train {name_of(some)}",
            train,
            study.name,
            name_of(some),
            some,
            study.backbone(some[0].inputs.backbone),
            features[some[0].inputs.backbone],
            samples,
            splits,
            here,
        )
        for some in together(study.grids())
    ]
    scores = stages.run("scores", score_all, study.name, samples, splits, study.wishes(), trained)
    curve: Curve = stages.run(
        "learning curve",
        learning_curve,
        study.name,
        samples,
        features,
        study.grids(),
        splits,
        scores,
        _headline(study),
        here,
    )
    seen = study.looked_at()
    copies = stages.run("near copies", find_copies, study.name, samples, features[seen.backbone], seen, here)
    verdict = _judge(study, samples, features, stages, here)
    story = story_of(study, samples, features, counted(study, trained, stages), stages, _headline(study))
    summary: dict[str, Any] = stages.run(
        "report",
        write_report,
        study.name,
        samples,
        trained,
        scores,
        copies,
        story,
        here,
        curve.as_summary(),
        verdict,
    )
    stages.run("publish", publish, study.name, summary, report_link(here.study(study.name)))
    if study.tracking == "mlflow":
        summary = stages.run("tracking", track, study.name, tuple(study.grids()), scores, summary, here)
    return summary


def _extract(
    study: Study, samples: Samples, stages: Stages, here: Artifacts
) -> tuple[Samples, dict[str, Features]]:
    """Have every backbone's features; samples that fail on the way are set aside."""
    features: dict[str, Features] = {}
    for name in study.used_backbones():
        backbone, recipe = study.backbone(name), study.recipe(name)
        had = stages.run(f"features {name}", extract, study.name, samples, backbone, recipe, here)
        if had.failed:
            samples = stages.run(
                "set aside", set_aside, study.name, samples, had.failed, study.source(), here
            )
        features[name] = had
    return samples, features


def _judge(
    study: Study, samples: Samples, features: dict[str, Features], stages: Stages, here: Artifacts
) -> dict[str, Any] | None:
    """Measure how much to train, where the study asks for it."""
    if study.verdict is None:
        return None
    ladder = study.plan_of_verdict()
    backbones = {name: study.backbone(name) for name in ladder.sources}
    seen = {name: features[name] for name in backbones}
    told: Verdict = stages.run(
        "verdict", judge, study.name, samples, ladder, backbones, seen, _headline(study), here
    )
    return told.as_summary() | ({"trained": 0} if stages.was_cached("verdict") else {})


def counted(study: Study, trained: list[Heads], stages: Stages) -> tuple[int, int]:
    """How many heads there are, and how many of them were trained just now."""
    total = sum(len(keys) * len(heads.shelves) for heads in trained for keys in heads.grids.values())
    fresh = sum(
        len(shelf.trained)
        for some, heads in zip(together(study.grids()), trained, strict=True)
        for shelf in heads.shelves
        if not stages.was_cached(f"train {name_of(some)}")
    )
    return total, fresh


def _headline(study: Study) -> str:
    """The score that is told first."""
    return "weighted accuracy" if study.data.weight else "accuracy"
