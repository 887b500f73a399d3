"""What a study would run, and why: told without Prefect, and without running any of it."""

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from flows.console import WIDTH
from flows.study import Study
from tasks.core.artifacts import Artifacts
from tasks.core.heads import Inputs
from tasks.core.plan import Plan, SetPlan, Wanted, decide, survey
from tasks.core.store import set_folder
from tasks.core.taps import spell


def show_plan(study: Study, artifacts: Path) -> int:
    """Print what a run of a study would read, extract and train.

    Args:
        study: what would run.
        artifacts: the folder for all outputs.

    Returns:
        0, the exit code.

    Raises:
        RequestError: if a run would be refused, as far as that is known without loading a network.
    """
    here = Artifacts(artifacts)
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    far = [name for name in study.used_backbones() if study.backbone(name).lacks_weights()]
    if far:
        console.print(
            f"{', '.join(far)}: weights are not on this machine; a run would download them and extract everything"
        )
        return 0
    wanted = wanted_sets(study, here)
    names = {(each.backbone, each.tap): each.folder.name for each in wanted}
    trials = [(trial, trained_on(study, trial.inputs, names, here)) for trial in study.grids()]
    plan = decide(survey(study.source(), here), wanted, trials, study.split_specs(), here)
    _show(console, study, plan)
    return 0


def wanted_sets(study: Study, here: Artifacts) -> list[Wanted]:
    """List the feature sets that a study needs, of all its backbones."""
    return [
        Wanted(
            name,
            spell(tap, view),
            view,
            set_folder(here.features, recipe.set_identity(fingerprint, tap, view)),
        )
        for name in study.used_backbones()
        for recipe, fingerprint in [
            (study.recipe(name), study.backbone(name).fingerprint(here.seen("weights")))
        ]
        for view, taps in recipe.views.items()
        for tap in taps
    ]


def trained_on(
    study: Study, inputs: Inputs, names: Mapping[tuple[str, str], str], here: Artifacts
) -> list[str]:
    """Name what an experiment is trained on, as it stands in its shelves' names.

    Args:
        study: whose experiment it is.
        inputs: of the experiment.
        names: (backbone, tap of a view) -> feature set.
        here: where outputs lie.
    """
    if not inputs.taps:
        return [study.backbone(inputs.backbone).fingerprint(here.seen("weights"))]
    return inputs.sets({tap: name for (backbone, tap), name in names.items() if backbone == inputs.backbone})


def _show(console: Console, study: Study, plan: Plan) -> None:
    found = plan.survey
    console.print(
        f"samples: {found.rows:,} listed, {found.unchanged:,} files unchanged, {found.unread:,} to read "
        f"(new or changed), {found.quarantined:,} known to be set aside"
    )
    console.print(_feature_table(plan))
    for name in study.used_backbones():
        if passes := plan.to_extract(name):
            console.print(f"{name}: {_at_most(plan)}{passes:,} passes through the network")
    console.print(_trial_table(plan))
    if plan.is_empty():
        console.print("nothing to do")
    elif found.unread:
        console.print(
            "at most: what is in the files to read is not known; copies and touched files cost nothing"
        )


def _feature_table(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("backbone", "tap"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rows held", "to extract", "to write"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why")
    for each in plan.sets:
        rows = len(each.missing) + plan.survey.unread
        table.add_row(
            each.wanted.backbone,
            each.wanted.tap,
            f"{each.held:,}",
            f"{_at_most(plan)}{rows:,}" if rows else "0",
            _size(each, rows),
            each.reason or ("files to read" if rows else ""),
        )
    return table


def _trial_table(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("experiment", no_wrap=True)
    for heading in ("heads there", "to train"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why")
    for each in plan.trials:
        lacking = each.needed - each.there
        table.add_row(
            each.name,
            f"{each.there:,}",
            f"{_at_most(plan)}{lacking:,}" if lacking else "0",
            "not trained on these samples, labels, splits and settings" if lacking else "",
        )
    return table


def _at_most(plan: Plan) -> str:
    return "at most " if plan.survey.unread else ""


def _size(each: SetPlan, rows: int) -> str:
    if not rows:
        return "0"
    return "not known yet" if each.row_bytes is None else f"{each.row_bytes * rows / 1e6:,.1f} MB"
