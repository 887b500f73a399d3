"""What is told of a run, as plain values."""

import math
from typing import Any

from tasks.core.heads import Grid, Inputs, head_key
from tasks.core.hyper import Hyper, Mlp, Softmax
from tasks.core.taps import parse_tap, spell
from tasks.core.tracked import results_identity, told_of_experiments, told_of_run

TAP = parse_tap("last:mean")
SETS = {"small": {spell(TAP, "centre"): "s0", spell(TAP, "hflip"): "s1"}}
WEAK, STRONG = Softmax(0.1), Softmax(10.0)
NETWORK = Mlp(hidden=(8, 4), seed=3)


def row(name: str, seed: int, hyper: Hyper, accuracy: float | None, *, chosen: bool = True) -> dict[str, Any]:
    return {
        "experiment": name,
        "split": "random",
        "seed": seed,
        "train": 18,
        "test": 6,
        "accuracy": accuracy,
        "key": head_key(hyper),
        "file": "heads/a/b.safetensors",
        "chosen": chosen,
    }


def summary_of(*names: str, **changes: Any) -> dict[str, Any]:
    score = {"accuracy": {"value": 0.75, "ci95": [0.5, None], "sd": None}}
    return {
        "study": "s",
        "target": "kind",
        "samples": {"total": 24},
        "experiments": {"total": 3},
        "features": SETS,
        "versions": {"headstart": "1.2"},
        "scores": [{"experiment": name, "split": "random", "metrics": score} for name in names],
    } | changes


def grid(name: str, *hypers: Hyper, views: tuple[str, ...] = ("centre",)) -> Grid:
    return Grid(name, Inputs("small", ("last:mean",), views), hypers)


def test_hyper_parameters_are_those_of_the_chosen_heads_of_each_seed_where_they_differ():
    rows = [row("a", 0, WEAK, 0.5), row("a", 0, STRONG, None, chosen=False), row("a", 1, STRONG, 1.0)]
    told = told_of_experiments([grid("a", WEAK, STRONG)], rows, summary_of("a"))["a", "random"]
    assert told.params["strength"] == "0.1, 10.0"
    assert (told.params["class_weight"], told.params["head"], told.params["tried"]) == (
        "none",
        "softmax",
        "2",
    )
    assert told.by_seed == {"accuracy_of_seed": {0: 0.5, 1: 1.0}}


def test_a_small_networks_seed_does_not_pass_for_the_splits():
    told = told_of_experiments([grid("net", NETWORK)], [row("net", 0, NETWORK, 0.5)], summary_of("net"))
    params = told["net", "random"].params
    assert (params["seeds"], params["first_seed"], params["hidden"]) == ("0", "3", "8x4")
    assert "seed" not in params


def test_scores_that_nobody_knows_are_left_out():
    rows = [row("a", 0, WEAK, None), row("a", 1, WEAK, math.nan)]
    told = told_of_experiments([grid("a", WEAK)], rows, summary_of("a"))["a", "random"]
    assert told.metrics == {"accuracy": 0.75, "accuracy_low": 0.5}
    assert told.by_seed == {}


def test_features_are_known_by_their_sets_of_every_view():
    two = grid("a", WEAK, views=("centre", "hflip"))
    told = told_of_experiments([two], [row("a", 0, WEAK, 1.0)], summary_of("a"))["a", "random"]
    assert told.tags["headstart.features"] == "s0, s1"


def test_a_whole_run_tells_counts_and_what_made_it():
    summary = summary_of("a", made={"commit": "abc"})
    best = told_of_experiments([grid("a", WEAK)], [row("a", 0, WEAK, 1.0)], summary)["a", "random"]
    told = told_of_run(summary, best)
    assert told.metrics == best.metrics | {"samples_total": 24, "heads_total": 3}
    assert told.tags["headstart.version"] == "1.2"
    assert told.tags["mlflow.source.git.commit"] == "abc"
    assert "mlflow.source.git.commit" not in told_of_run(summary_of("a"), best).tags


def test_results_have_one_name_whatever_was_reused_for_them():
    first = results_identity(summary_of("a"))
    assert first == results_identity(summary_of("a", samples={"total": 24, "reused": 24}, stages=[1]))
    assert first != results_identity(summary_of("a", "b"))
