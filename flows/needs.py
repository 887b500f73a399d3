"""What training takes of memory: features that heads are trained on, and steps of layers."""

from flows.forecast import Forecast, network_of
from tasks.core.resources import Need, Step
from tasks.core.targets import answered, targets_of
from tasks.core.trials import together


def needs_of(forecast: Forecast) -> list[Need]:
    """What training heads takes, for each combination of features whose size is known."""
    several, needs = bool(targets_of(forecast.table)), []
    samples = answered(forecast.table) if several else forecast.known
    many = _many(forecast) if several else ()
    for some in together(forecast.heads):
        columns, rows = forecast.columns(some[0].inputs), len(some[0].inputs.views) * len(samples)
        kinds = frozenset(hyper.kind for grid in some for hyper in grid.hypers)
        if columns is not None:
            needs.append(Need(some[0].name, kinds, rows, columns, many))
    return needs


def steps_of(forecast: Forecast) -> list[Step]:
    """What a step of training takes, for all layers of which that is known."""
    from tasks.core.layer_estimates import step_bytes  # torch

    steps = []
    for grid in forecast.layers:
        shape, network = forecast.sample_shape(grid), network_of(grid)
        backbone = forecast.backbones[grid.inputs.backbone]
        taken = None if shape is None else step_bytes(backbone, network, shape, len(forecast.classes))
        if taken is not None:
            steps.append(Step(grid.name, network.batch, taken))
    return list(dict.fromkeys(steps))


def _many(forecast: Forecast) -> tuple[str, ...]:
    """The targets with more answers than are learnt from a stream."""
    from tasks.core.answer_checks import beyond_two

    study = forecast.study
    return beyond_two(forecast.table, study.split_specs(), study.data.least_known)
