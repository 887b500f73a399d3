"""What is told of a run where runs are tracked: parameters, scores and tags as plain values."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.digest import digest_value
from tasks.core.heads import Grid, head_key
from tasks.core.hyper import spelled

RESULTS = ("study", "target", "best", "scores", "calibration", "operating_points", "features")
"""What a summary says of results; the rest tells what one run of many did for them, and names files."""


@dataclass(frozen=True)
class Told:
    """One entry of a tracker.

    Attributes:
        name: for people.
        params: what was set.
        metrics: name -> score; those that are not known are left out.
        by_seed: name -> a score for each seed of the split.
        tags: what it is known by.
    """

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    by_seed: dict[str, dict[int, float]]
    tags: dict[str, str]


def results_identity(summary: Mapping[str, Any]) -> str:
    """Name a run by its results: two runs of the same study on the same samples have one name."""
    return digest_value([[key, summary.get(key)] for key in RESULTS])


def told_of_run(summary: Mapping[str, Any], chosen: Told) -> Told:
    """Tell of a whole run: what the inner folds chose, its scores, and how much was run for it."""
    counts = {
        f"{what}_{name}": float(count)
        for what, counted in (("samples", summary["samples"]), ("heads", summary["experiments"]))
        for name, count in counted.items()
    }
    return Told(
        name=summary["study"],
        params={"target": summary["target"]} | chosen.params,
        metrics=chosen.metrics | counts,
        by_seed=chosen.by_seed,
        tags=chosen.tags | _made(summary),
    )


def told_of_experiments(
    grids: Sequence[Grid],
    rows: Iterable[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> dict[tuple[str, str], Told]:
    """Tell of each experiment on each split what was chosen there, and its scores.

    Args:
        grids: of the study.
        rows: of each head, as results.csv has them.
        summary: as `summary.json` holds it.

    Returns:
        (experiment, split) -> what to tell, in the summary's order.
    """
    named, chosen = {grid.name: grid for grid in grids}, _by_name(rows)
    return {
        (name, split): _told(named[name], split, chosen[name, split], scored["metrics"], summary["features"])
        for scored in summary["scores"]
        for name, split in [(scored["experiment"], scored["split"])]
    }


def _by_name(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Sort the chosen heads by experiment and split, a head for each seed."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["chosen"]:
            found.setdefault((row["experiment"], row["split"]), []).append(row)
    return found


def _told(
    grid: Grid,
    split: str,
    chosen: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    features: Mapping[str, Mapping[str, str]],
) -> Told:
    sets = grid.inputs.sets(features[grid.inputs.backbone])
    return Told(
        name=f"{grid.name}, {split}",
        params={
            "experiment": grid.name,
            "split": split,
            "seeds": _listed(row["seed"] for row in chosen),
            "backbone": grid.inputs.backbone,
            "taps": _listed(grid.inputs.taps),
            "views": _listed(grid.inputs.views),
            "tried": str(len(grid.hypers)),
            **_hypers(grid, chosen),
            "train": _same(row["train"] for row in chosen),
            "test": _same(row["test"] for row in chosen),
        },
        metrics=_metrics(scores),
        by_seed={
            f"{name}_of_seed": known
            for name in map(_named, scores)
            if (known := {row["seed"]: row[name] for row in chosen if _is_number(row[name])})
        },
        tags={
            "headstart.features": _listed(sets),
            "headstart.heads": _listed(dict.fromkeys(f"{row['file']}#{row['key']}" for row in chosen)),
        },
    )


def _hypers(grid: Grid, chosen: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Spell the chosen heads' hyper-parameters; where the seeds chose differently, those of each."""
    known = {head_key(hyper): spelled(hyper) for hyper in grid.hypers}
    each: list[Any] = [known[row["key"]] for row in chosen]
    names = {name: "first_seed" if name == "seed" else name for name in each[0][1]}  # as in results.csv
    return {"head": each[0][0]} | {
        told: _same(_width(values[name]) for _, values in each) for name, told in names.items()
    }


def _width(value: object) -> object:
    """Spell the widths of hidden layers as results.csv does."""
    return "x".join(map(str, value)) if isinstance(value, list) else value


def _metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    spread: dict[str, float | None] = {}
    for name, score in scores.items():
        low, high = score["ci95"]
        ends = {"": score["value"], "_low": low, "_high": high, "_sd": score["sd"]}
        spread |= {f"{_named(name)}{end}": value for end, value in ends.items()}
    return {name: value for name, value in spread.items() if value is not None}


def _made(summary: Mapping[str, Any]) -> dict[str, str]:
    """Tell what made the run: the version, and the commit where one is known."""
    commit = (summary.get("made") or {}).get("commit")
    return {"headstart.version": summary["versions"]["headstart"]} | (
        {"mlflow.source.git.commit": str(commit)} if commit else {}
    )


def _named(metric: str) -> str:
    return metric.replace(" ", "_")


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _same(values: Iterable[object]) -> str:
    """One value if all are the same, else each of them."""
    found = [str(value) for value in values]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
