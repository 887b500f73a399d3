"""How much a run would write where nothing is stored yet: the networks tell, without running."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flows.study import Study
from tasks.core.heads import Grid
from tasks.core.hyper import Network
from tasks.core.passes import check_trained
from tasks.core.plan import Plan, SetPlan
from tasks.core.taps import Tap

Shapes = dict[Tap, tuple[int, ...]] | None
"""Tap -> the shape of its row; None if the network cannot tell without running."""


def shapes_of(study: Study, name: str) -> Shapes:
    """Ask a backbone for the shapes of the rows that a study wants of it, and whether its layers can be trained.

    Args:
        study: whose backbone it is.
        name: of the backbone.

    Raises:
        RequestError: if the network has no such tap, or does not fall in two at a cut.
    """
    from tasks.core.estimates import row_shapes  # torch

    backbone, recipe = study.backbone(name), study.recipe(name)
    check_trained(backbone, recipe)
    taps = sorted(set().union(*recipe.views.values()))
    found = row_shapes(backbone, taps)
    return None if found is None else dict(zip(taps, found, strict=True))


def with_sizes(study: Study, plan: Plan, shapes: Callable[[str], Shapes]) -> Plan:
    """Fill in the sizes of what a run would write; torch is loaded only where a plan does not know them.

    Args:
        study: that is planned.
        plan: of it.
        shapes: backbone -> as `shapes_of`.
    """
    sets = [
        replace(each, row_bytes=_row_bytes(study, each, shapes))
        if each.row_bytes is None and plan.rows_to_write(each)
        else each
        for each in plan.sets
    ]
    table = plan.survey.table
    classes = max(2, table.label.nunique()) if "label" in table else 2
    trials = [
        replace(each, bytes=_layer_bytes(study, grid, classes, each.lacking)) if each.lacking else each
        for each, grid in zip(plan.trials, study.grids(), strict=True)
    ]
    if plan.verdict is None:
        return replace(plan, sets=sets, trials=trials)
    depths = [
        replace(each, bytes=_layer_bytes(study, grid, classes, each.kept)) if each.lacking else each
        for each, grid in zip(plan.verdict.depths, study.depths(), strict=True)
    ]
    return replace(plan, sets=sets, trials=trials, verdict=replace(plan.verdict, depths=depths))


def _row_bytes(study: Study, each: SetPlan, shapes: Callable[[str], Shapes]) -> int | None:
    known = shapes(each.wanted.backbone)
    size = np.dtype(study.recipe(each.wanted.backbone).dtype).itemsize
    return None if known is None else math.prod(known[each.wanted.tap]) * size


def _layer_bytes(study: Study, grid: Grid, classes: int, kept: int) -> int | None:
    """Bytes of what searches of layers leave on the disk, `kept` of them their layers; nought of heads."""
    [network, *_] = grid.hypers
    if not isinstance(network, Network):
        return 0
    from tasks.core.layer_estimates import layer_bytes, search_bytes  # torch

    each = layer_bytes(study.backbone(grid.inputs.backbone), network.cut, classes)
    return None if each is None else search_bytes(network, each, kept)
