"""What a study would run, and why: told without Prefect, and without running any of it."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from flows.console import WIDTH
from flows.sizes import shapes_of, with_sizes
from flows.study import Study
from tasks.core.artifacts import Artifacts
from tasks.core.checks import OK
from tasks.core.heads import Grid, Inputs
from tasks.core.plan import Plan, SetPlan, Survey, Wanted, decide, survey
from tasks.core.resources import free_bytes, of_space
from tasks.core.store import set_folder
from tasks.core.verdict_plan import VerdictPlan
from tasks.core.words import size

NOWHERE = ""
"""Fingerprint of a backbone whose weights are not on this machine: nothing is stored of it."""


def show_plan(study: Study, artifacts: Path) -> int:
    """Print what a run of a study would read, extract, train and write.

    Args:
        study: what would run.
        artifacts: the folder for all outputs.

    Returns:
        0, the exit code.

    Raises:
        RequestError: if a run would be refused, as far as that is known without loading a network.
    """
    here = Artifacts(artifacts)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.width = max(console.width, WIDTH)
    plan = plan_of(study, survey(study.source(), here), here)
    _show(console, study, with_sizes(study, plan, cache(partial(shapes_of, study))), here)
    return 0


def plan_of(study: Study, found: Survey, here: Artifacts) -> Plan:
    """Decide what a run of a study would add; how large that is where nothing is stored, `with_sizes` tells.

    Args:
        study: what would run.
        found: its samples.
        here: where outputs lie.
    """
    wanted = wanted_sets(study, here)
    names = {(each.backbone, each.name): each.folder.name for each in wanted}
    trials = [(grid, trained_on(study, grid.inputs, names, here)) for grid in study.grids()]
    verdict = None
    if study.verdict is not None:
        depths = [trained_on(study, grid.inputs, names, here) for grid in study.depths()]
        verdict = study.plan_of_verdict(), depths
    return decide(found, wanted, trials, study.split_specs(), here, verdict, study.data.least_known)


def wanted_sets(study: Study, here: Artifacts) -> list[Wanted]:
    """List the feature sets that a study needs, of all its backbones."""
    return [
        Wanted(name, tap, view, set_folder(here.features, recipe.set_identity(fingerprint, tap, view)))
        for name in study.used_backbones()
        for recipe, fingerprint in [(study.recipe(name), _fingerprint(study, name, here))]
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
        return [_fingerprint(study, inputs.backbone, here)]
    return inputs.sets({tap: name for (backbone, tap), name in names.items() if backbone == inputs.backbone})


def _fingerprint(study: Study, name: str, here: Artifacts) -> str:
    backbone = study.backbone(name)
    return NOWHERE if backbone.lacks_weights() else backbone.fingerprint(here.seen("weights"))


def _show(console: Console, study: Study, plan: Plan, here: Artifacts) -> None:
    found = plan.survey
    console.print(
        f"samples: {found.rows:,} listed, {found.unchanged:,} files unchanged, {found.unread:,} to read "
        f"(new or changed), {found.quarantined:,} known to be set aside"
    )
    if far := [name for name in study.used_backbones() if study.backbone(name).lacks_weights()]:
        console.print(f"{', '.join(far)}: weights are not on this machine; a run would download them")
    if plan.sets:
        console.print(_feature_table(plan))
    for name in study.used_backbones():
        if passes := plan.to_extract(name):
            console.print(f"{name}: {_at_most(plan)}{passes:,} passes through the network")
    console.print(_trial_table(study.grids(), plan))
    if plan.verdict is not None:
        console.print(_verdict_table(plan, plan.verdict))
        console.print(_verdict(plan, plan.verdict))
    for line in (*_writing(plan, here), *_end(plan)):
        console.print(line)


def _end(plan: Plan) -> list[str]:
    if plan.is_empty():
        return ["nothing to do"]
    if plan.survey.unread:
        return ["at most: what is in the files to read is not known; copies and touched files cost nothing"]
    return []


# Tables


def _feature_table(plan: Plan) -> Table:
    table = _table(("backbone", "tap"), ("rows held", "to extract", "to write"), "why")
    for each in plan.sets:
        rows = plan.rows_to_write(each)
        table.add_row(
            each.wanted.backbone,
            each.wanted.name,
            f"{each.held:,}",
            _number(plan, rows),
            _size(plan, _bytes(each, rows)),
            each.reason or ("files to read" if rows else ""),
        )
    return table


def _trial_table(grids: Sequence[Grid], plan: Plan) -> Table:
    table = _table(("experiment", "a split"), ("there", "to train", "to write"), "why")
    for grid, each in zip(grids, plan.trials, strict=True):
        heads = len(grid.hypers)
        table.add_row(
            each.name,
            f"{heads:,} search" if each.is_network else f"{heads:,} head{'s' * (heads > 1)}",
            f"{each.there:,}",
            _number(plan, each.lacking),
            _size(plan, each.bytes) if each.is_network else "",
            "new data or settings" if each.lacking else "",
        )
    return table


def _verdict_table(plan: Plan, verdict: VerdictPlan) -> Table:
    table = _table(("verdict",), ("cells there", "to measure", "to write"), "why")
    for each in verdict.depths:
        why = ["not measured yet"] if each.lacking else []
        why += [f"{each.shared:,} more by experiments"] if each.shared else []
        table.add_row(
            each.name,
            f"{each.there:,}",
            _number(plan, each.lacking),
            _size(plan, each.bytes),
            "; ".join(why),
        )
    return table


def _table(names: Sequence[str], numbers: Sequence[str], last: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in names:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(last)
    return table


# Lines


def _verdict(plan: Plan, verdict: VerdictPlan) -> str:
    needed, lacking = (
        sum(each.needed for each in verdict.depths),
        sum(each.lacking for each in verdict.depths),
    )
    told = f"verdict: {needed:,} cells, {_number(plan, lacking)} to measure"
    if lacking:
        told += f"; a run trains them for {verdict.seconds / 60:g} minutes at most, the next one goes on with what fits"
    if verdict.skipped:
        told += f"; {verdict.skipped:,} more are left out, since their share leaves a class too few samples"
    return told


def _writing(plan: Plan, here: Artifacts) -> list[str]:
    """What would be written in all, and the room for it where there may be too little."""
    writes = plan.writes()
    if not writes.total and not writes.unknown:
        return []
    told = f"to write in all: {_at_most(plan)}{size(writes.total)}"
    if writes.unknown:
        told += f", and what {', '.join(writes.unknown)} takes, of unknown size"
    room = of_space(writes.features, writes.layers, free_bytes(here.root), writes.unknown)
    return [told if room.state == OK else f"{told}; {room.found}; {room.todo}"]


def _number(plan: Plan, count: int) -> str:
    return f"{_at_most(plan)}{count:,}" if count else "0"


def _at_most(plan: Plan) -> str:
    return "at most " if plan.survey.unread else ""


def _bytes(each: SetPlan, rows: int) -> int | None:
    return None if rows and each.row_bytes is None else (each.row_bytes or 0) * rows


def _size(plan: Plan, bytes_: int | None) -> str:
    if bytes_ is None:
        return "not known yet"
    return f"{_at_most(plan)}{size(bytes_)}" if bytes_ else "0"
