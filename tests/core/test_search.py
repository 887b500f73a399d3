"""The search: what is tried in which order, who sees which rows, and what becomes of a run that goes wrong."""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import layered
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import CUTS, Given, Killed, killed_after, tiny
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from tasks.core import finetune
from tasks.core.cuts import Prefix
from tasks.core.finetune import Course, Samples, Training, ask
from tasks.core.hyper import Network, budget
from tasks.core.layers import part
from tasks.core.search import Found, Search, course_of, middle
from tasks.core.selection import inner_folds
from tasks.core.taps import Tap
from tasks.core.truth import Known

on_the_processor = layered.on_the_processor

CLASSES, WIDTH = 3, 6


def network_of(**changes: object) -> Network:
    """Settings for a quick search."""
    settled = Network("", "pretrained", (0.01, 0.1), (2, 3), batch=8, weight_decay=0.01)
    return replace(settled, **changes)


class Small(nn.Module):
    """A layer, batch norm, dropout and a classifier; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer, self.norm = nn.Linear(WIDTH, 8), nn.BatchNorm1d(8)
            self.drop, self.head = nn.Dropout(0.2), nn.Linear(8, CLASSES)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.layer(x)).relu()))


def made(seed: int, learnt: np.ndarray) -> nn.Module:
    return Small(seed)


@dataclass
class Case:
    """Samples of which some are learnt from and some asked about.

    Attributes:
        n: how many there are.
        views: of each.
        members: samples of a group.
    """

    n: int = 48
    views: int = 2
    members: int = 1
    network: Network = field(default_factory=network_of)
    make: Callable[[int, np.ndarray], nn.Module] = made
    told: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(3)
        labels = np.arange(self.n) // self.members % CLASSES
        x = random.normal(size=(self.views, self.n, WIDTH)) + 2 * np.eye(WIDTH)[labels]
        self.looks = Given(torch.from_numpy(x).float())
        groups = np.array([f"g{row // self.members}" for row in range(self.n)], dtype=object)
        self.known = Known(labels, random.uniform(0.5, 1.5, self.n), groups, CLASSES)
        asked = np.arange(self.n) // self.members % 4 == 3
        order = random.permutation(self.n)
        self.training, self.asked = order[~asked[order]], np.flatnonzero(asked)

    def search(self, place: Path | None = None, advance: Callable[[int], None] | None = None) -> Search:
        return Search(
            self.network,
            self.make,
            self.looks,
            self.known,
            self.training,
            self.asked,
            1,
            place,
            advance or self.told.append,
        )

    def run(self) -> Found:
        return self.search().run()

    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(learnt, left out) numbers of samples."""
        rows = self.training
        cut = inner_folds(self.known.labels[rows], self.known.groups[rows], seed=1, most=self.network.folds)
        return [(rows[learnt], rows[left_out]) for learnt, left_out in cut]

    def trained(self, course: Course, learnt: np.ndarray) -> nn.Module:
        layers = self.make(course.seed, learnt)
        known = self.known
        samples = Samples(self.looks, learnt, known)
        Training(layers, samples, course).run()
        return layers


def proba(log_proba: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax at a temperature, row by row."""
    rows = np.exp(log_proba / temperature)
    return rows / rows.sum(axis=-1, keepdims=True)


def brier(case: Case, said: np.ndarray, rows: np.ndarray) -> float:
    """The weighted mean of squared distances, sample by sample; said: (V, n, C) log probabilities."""
    scores = [
        sum(
            (said_of_class - (number == case.known.labels[row])) ** 2
            for number, said_of_class in enumerate(p)
        )
        for row, p in zip(rows, proba(said).mean(axis=0), strict=True)
    ]
    return float(np.average(scores, weights=case.known.weights[rows]))


def tempered(case: Case, said: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What is said of rows, (V, n, C), at the temperature that has the lowest log loss on them."""
    labels, weights = case.known.labels[rows], case.known.weights[rows]

    def loss(log_temperature: float) -> float:
        told = np.log(proba(said, math.exp(log_temperature)))[:, np.arange(len(rows)), labels]
        return float(-(told * weights).sum())

    return np.log(proba(said, math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)))


def same_bits(one: Found, other: Found) -> bool:
    """Whether all but the time it took is the same."""
    facts = [{key: value for key, value in each.facts.items() if key != "seconds"} for each in (one, other)]
    tried = [[replace(each, seconds=0) for each in found.tried] for found in (one, other)]
    tensors = [found.predictor.arrays() for found in (one, other)]
    return (
        facts[0] == facts[1]
        and tried[0] == tried[1]
        and tensors[0].keys() == tensors[1].keys()
        and all(np.array_equal(array, tensors[1][name]) for name, array in tensors[0].items())
        and np.array_equal(one.said, other.said)
        and (one.inner is None) == (other.inner is None)
        and (one.inner is None or np.array_equal(one.inner, other.inner))
    )


# What is tried, and what is said


def naive_search(case: Case) -> tuple[list[tuple[float, int, int, float]], Course, list[nn.Module]]:
    """Every training with its fold and Brier score, the choice, and the folds' networks; one after the other."""
    network, folds, tried = case.network, case.folds(), []

    def attempt(rate: float, epochs: int, number: int) -> tuple[float, nn.Module]:
        learnt, left_out = folds[number]
        layers = case.trained(course_of(network, rate, epochs), learnt)
        score = brier(case, tempered(case, ask(layers, case.looks, left_out), left_out), left_out)
        tried.append((rate, epochs, number, score))
        return score, layers

    best: tuple[float, float, int, nn.Module] | None = None
    for rate in network.learning_rates:
        score, layers = attempt(rate, network.epochs[0], 0)
        if best is None or score < best[0]:
            best = score, rate, network.epochs[0], layers
    assert best is not None
    for epochs in network.epochs[1:]:
        score, layers = attempt(best[1], epochs, 0)
        if score < best[0]:
            best = score, best[1], epochs, layers
    _, rate, epochs, first = best
    others = [attempt(rate, epochs, number)[1] for number in range(1, len(folds))]
    return tried, course_of(network, rate, epochs), [first, *others]


CASES = {
    "two rates, two lengths": Case(),
    "the shorter is best": Case(network=network_of(learning_rates=(0.3, 0.03, 0.1), epochs=(4, 1, 2))),
    "one candidate": Case(network=network_of(learning_rates=(0.05,), epochs=(3,), folds=2), views=1),
    "live norms, mixup, groups": Case(
        network=network_of(batch_norm="live", mixup=0.3, earlier=1.0, seed=5), members=2
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_search_is_the_documented_one_by_a_plain_loop(name):
    case = CASES[name]
    found = case.run()
    tried, course, networks = naive_search(case)
    assert [(each.learning_rate, each.epochs, each.fold) for each in found.tried] == [
        each[:3] for each in tried
    ]
    np.testing.assert_allclose([each.brier for each in found.tried], [each[3] for each in tried], rtol=1e-4)
    assert (found.facts["learning_rate"], found.facts["epochs"]) == (course.learning_rate, course.epochs)
    assert found.facts["trainings"] == len(tried)
    assert found.facts["epochs_in_all"] == sum(each[1] for each in tried)
    assert found.facts["converged"] is True
    assert found.facts["stopped"] == ""

    warmth = found.facts["temperature"]
    assert found.predictor.temperature == warmth
    for (learnt, left_out), layers in zip(case.folds(), networks, strict=True):
        assert not set(learnt) & set(left_out)
        here = [case.training.tolist().index(row) for row in left_out]
        expected = proba(ask(layers, case.looks, left_out), warmth).mean(axis=0)
        np.testing.assert_allclose(np.exp(found.inner[here]), expected, atol=1e-9)
    said = np.concatenate([proba(ask(layers, case.looks, case.asked), warmth) for layers in networks])
    assert len(said) == len(networks) * case.views
    np.testing.assert_allclose(np.exp(found.said), said.mean(axis=0), atol=1e-9)

    states = found.predictor.states()
    assert len(states) == len(networks)
    for state, layers in zip(states, networks, strict=True):
        assert state.keys() == layers.state_dict().keys()
        assert all(np.array_equal(state[key], each.numpy()) for key, each in layers.state_dict().items())


def test_inner_scores_are_those_of_what_is_said_of_rows_that_were_left_out():
    case = CASES["two rates, two lengths"]
    found = case.run()
    rows, weights = case.training, case.known.weights[case.training]
    truth = np.exp(found.inner)[np.arange(len(rows)), case.known.labels[rows]]
    assert found.facts["inner_log_loss"] == pytest.approx(np.average(-np.log(truth), weights=weights))
    assert found.facts["inner_brier"] == pytest.approx(brier(case, found.inner[None], rows))
    right = found.inner.argmax(axis=1) == case.known.labels[rows]
    assert found.facts["inner_accuracy"] == pytest.approx(np.average(right, weights=weights))
    assert found.facts["inner_accuracy"] > 0.5  # it did learn


def test_the_temperature_is_the_best_for_the_rows_left_out_of_all_views():
    case = CASES["two rates, two lengths"]
    found = case.run()
    _, _, networks = naive_search(case)
    folds = case.folds()
    raw = [ask(layers, case.looks, left_out) for layers, (_, left_out) in zip(networks, folds, strict=True)]
    labels = np.concatenate([case.known.labels[left_out] for _, left_out in folds])
    weights = np.concatenate([case.known.weights[left_out] for _, left_out in folds])

    def loss(temperature: float) -> float:
        told = np.concatenate([proba(each, temperature) for each in raw], axis=1)  # (V, n, C)
        true = told[:, np.arange(len(labels)), labels]
        return float(np.average(-np.log(true).mean(axis=0), weights=weights))

    warmth = found.facts["temperature"]
    assert loss(warmth) <= min(loss(warmth * 1.01), loss(warmth / 1.01), loss(1.0))


class Deaf(nn.Module):
    """Says the same whatever it is shown, and learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), CLASSES) + 0 * self.weight


def test_of_candidates_that_do_equally_well_the_first_is_chosen():
    network = network_of(learning_rates=(0.1, 0.3, 0.01), epochs=(2, 1, 3))
    found = Case(network=network, make=lambda seed, learnt: Deaf()).run()
    assert (found.facts["learning_rate"], found.facts["epochs"]) == (0.1, 2)
    tried = [(each.learning_rate, each.epochs, each.fold) for each in found.tried]
    first, other = (
        [(0.1, 2, 0), (0.3, 2, 0), (0.01, 2, 0), (0.1, 1, 0), (0.1, 3, 0)],
        [(0.1, 2, 1), (0.1, 2, 2)],
    )
    assert tried == first + other
    np.testing.assert_allclose(np.exp(found.said), 1 / CLASSES)


def test_a_folds_start_is_sought_once_since_its_candidates_start_alike():
    asked: list[tuple[int, bytes]] = []

    def make(seed: int, learnt: np.ndarray) -> nn.Module:
        asked.append((seed, learnt.tobytes()))
        return Small(seed)

    case = Case(network=network_of(seed=4), make=make)
    case.run()
    assert asked == [(4, learnt.tobytes()) for learnt, _ in case.folds()]


class Counted(Small):
    """Knows how many of its kind there are."""

    alive: ClassVar[weakref.WeakSet[nn.Module]] = weakref.WeakSet()

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.alive.add(self)

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)  # a copy
        self.alive.add(self)


@pytest.mark.parametrize("rates", [(0.3, 0.2, 0.1, 0.05, 0.03, 0.01), (1e30, 1e31, 1e32, 0.1, 1e33, 1e34)])
def test_few_networks_are_held_at_once_however_many_are_tried(rates):
    """Their start, the best for the first number of epochs, the best yet, and the next; then the folds' own."""
    most: list[int] = []
    network = network_of(learning_rates=rates, epochs=(2, 1, 3, 4, 5), folds=2)
    case = Case(network=network, make=lambda seed, learnt: Counted(seed))
    case.search(advance=lambda more: most.append(len(Counted.alive))).run()
    assert max(most) <= 4


# Who sees what


class Watched(Given):
    """Notes which samples are looked at to learn from them."""

    def __init__(self, looks: Tensor) -> None:
        super().__init__(looks)
        self.learnt: set[int] = set()

    def drawn(self, rows: np.ndarray, seed: Sequence[int], epoch: int) -> Tensor:
        self.learnt |= set(rows.tolist())
        return super().drawn(rows, seed, epoch)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_no_group_stands_on_both_sides_and_nothing_is_learnt_from_what_is_asked(data):
    n = 30
    groups = np.array(data.draw(st.lists(st.integers(0, 14), min_size=n, max_size=n)))
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    parts: list[np.ndarray] = []

    def make(seed: int, learnt: np.ndarray) -> nn.Module:
        parts.append(learnt)
        return Small(seed)

    case = Case(n=n, network=network_of(learning_rates=(0.1,), epochs=(1,)), make=make)
    case.known = Known(labels, np.ones(n), groups.astype(str).astype(object), CLASSES)
    case.looks = Watched(case.looks.looks)
    found = case.run()
    assert case.looks.learnt <= set(case.training.tolist())
    if found.inner is None:
        [learnt] = parts
        np.testing.assert_array_equal(learnt, case.training)
        return
    left_out = [set(case.training) - set(learnt) for learnt in parts]
    assert sorted(row for some in left_out for row in some) == sorted(case.training)
    for learnt, others in zip(parts, left_out, strict=True):
        assert not set(groups[learnt]) & set(groups[list(others)])
    assert np.isfinite(found.inner).all()


def test_the_rows_asked_about_decide_nothing_but_what_is_said_of_them():
    case, other = Case(), Case()
    asked = other.asked
    other.looks.looks[:, asked] = torch.randn(
        2, len(asked), WIDTH, generator=torch.Generator().manual_seed(9)
    )
    other.known.labels[asked] = 0
    other.known.weights[asked] = 77
    other.known.groups[asked] = other.known.groups[other.training[0]]
    found, changed = case.run(), other.run()
    assert not np.array_equal(found.said, changed.said)
    assert same_bits(found, replace(changed, said=found.said))
    fewer = Case()
    fewer.asked = fewer.asked[:2]
    assert same_bits(found, replace(fewer.run(), said=found.said))


# Losses that are no number


def test_a_candidate_whose_loss_is_no_number_loses():
    case = Case(network=network_of(learning_rates=(1e30, 0.1), epochs=(3, 4)))
    found = case.run()
    first, second, *_ = found.tried
    assert first.stopped.startswith("the loss was not finite at step")
    assert math.isfinite(first.brier)
    assert second.stopped == ""
    assert found.facts["learning_rate"] == 0.1
    assert found.facts["converged"] is True
    assert found.facts["stopped"] == ""
    assert len(found.predictor.states()) == 3


def prior(case: Case, learnt: np.ndarray) -> np.ndarray:
    """(C,) the weighted share of each class, all with one sample more between them."""
    counts = np.bincount(case.known.labels[learnt], case.known.weights[learnt], CLASSES)
    return (counts + 1 / CLASSES) / (counts.sum() + 1)


@pytest.mark.parametrize("epochs", [(1,), (3,)])
@pytest.mark.parametrize("rates", [(1e30,), (1e30, 1e32)])
def test_where_no_candidate_learns_the_prior_is_said(epochs, rates):
    """In one epoch of one batch the loss is a number, and what the layers say after it is none."""
    case = Case(network=network_of(learning_rates=rates, epochs=epochs, batch=64))
    found = case.run()
    assert found.facts["converged"] is False
    assert "not finite" in found.facts["stopped"]
    assert len(found.facts["stopped"].splitlines()) == 1
    assert all(each.stopped for each in found.tried)
    assert (found.facts["learning_rate"], found.facts["epochs"]) == (1e30, epochs[0])
    assert not found.predictor.tensors
    assert found.facts["temperature"] == 1
    priors = [prior(case, learnt) for learnt, _ in case.folds()]
    np.testing.assert_allclose(np.exp(found.said), np.tile(np.mean(priors, axis=0), (len(case.asked), 1)))
    for (_, left_out), expected in zip(case.folds(), priors, strict=True):
        here = [case.training.tolist().index(row) for row in left_out]
        np.testing.assert_allclose(np.exp(found.inner[here]), np.tile(expected, (len(left_out), 1)))
    assert all(math.isfinite(found.facts[fact]) for fact in ("inner_brier", "inner_log_loss"))


def test_layers_that_say_no_number_after_their_last_step_are_not_taken():
    """Their loss was a number at every step, and so their fold's score would be none."""
    case = Case(network=network_of(learning_rates=(1e30, 0.1), epochs=(1,), batch=64))
    found = case.run()
    assert [each.stopped for each in found.tried[:2]] == [
        "after the last step what the layers say was not finite",
        "",
    ]
    assert found.facts["learning_rate"] == 0.1
    assert np.isfinite(found.said).all()


class Broken(Small):
    """Gives no number while it learns."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (math.nan if self.training else 1.0)


def test_a_fold_whose_training_fails_has_no_say_beside_those_that_learnt():
    """So what is said is what the kept networks say, and the fold's own rows are judged by the prior."""
    plain = Case()
    failing = plain.folds()[1][0]

    def make(seed: int, learnt: np.ndarray) -> nn.Module:
        return Broken(seed) if np.array_equal(learnt, failing) else Small(seed)

    case = Case(make=make)
    found, (_, _, networks) = case.run(), naive_search(plain)
    assert [bool(each.stopped) for each in found.tried if each.fold] == [True, False]
    assert found.facts["converged"] is False
    assert "not finite" in found.facts["stopped"]
    assert len(found.predictor.states()) == 2
    warmth = found.facts["temperature"]
    said = [proba(ask(layers, case.looks, case.asked), warmth) for layers in (networks[0], networks[2])]
    np.testing.assert_allclose(np.exp(found.said), np.concatenate(said).mean(axis=0), atol=1e-9)
    _, left_out = case.folds()[1]
    here = [case.training.tolist().index(row) for row in left_out]
    np.testing.assert_allclose(np.exp(found.inner[here]), np.tile(prior(case, failing), (len(here), 1)))


# No folds


def test_without_folds_the_middle_candidate_learns_from_all_rows():
    case = Case(network=network_of(learning_rates=(0.3, 0.01, 0.1), epochs=(5, 1, 2)))
    case.known.groups[:] = np.array([f"g{label}" for label in case.known.labels], dtype=object)
    found = case.run()
    assert found.inner is None
    assert [(each.learning_rate, each.epochs, each.fold, each.brier) for each in found.tried] == [
        (0.1, 2, -1, None)
    ]
    assert (
        found.facts["inner_brier"] is found.facts["inner_log_loss"] is found.facts["inner_accuracy"] is None
    )
    assert found.facts["temperature"] == 1
    layers = case.trained(course_of(case.network, 0.1, 2), case.training)
    np.testing.assert_allclose(
        np.exp(found.said), proba(ask(layers, case.looks, case.asked)).mean(axis=0), atol=1e-9
    )
    assert sum(case.told) == 2 * len(case.training)


@pytest.mark.parametrize("epochs", [(1,), (2,)])
def test_without_folds_and_without_learning_the_prior_is_said(epochs):
    case = Case(network=network_of(learning_rates=(1e30,), epochs=epochs, batch=64))
    case.known.groups[:] = np.array([f"g{label}" for label in case.known.labels], dtype=object)
    found = case.run()
    assert found.facts["converged"] is False
    expected = prior(case, case.training)
    np.testing.assert_allclose(np.exp(found.said), np.tile(expected, (len(case.asked), 1)))


def test_a_fold_without_weight_is_no_fold():
    case = Case(network=network_of(folds=2))
    case.known.weights[case.folds()[1][1]] = 0
    found = case.run()
    assert found.inner is None
    assert np.isfinite(found.said).all()


@given(
    rates=st.lists(st.floats(1e-5, 1), min_size=1, max_size=6, unique=True),
    epochs=st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True),
)
def test_the_middle_candidate_has_as_many_below_as_above_or_one_more(rates, epochs):
    course = middle(network_of(learning_rates=tuple(rates), epochs=tuple(epochs)))
    for value, among in ((course.learning_rate, rates), (course.epochs, epochs)):
        assert sum(each < value for each in among) - sum(each > value for each in among) in (0, 1)
        assert value in among


def test_a_course_has_all_that_the_network_says_of_training():
    network = network_of(earlier=0.7, weight_decay=0.2, mixup=0.1, batch=5, batch_norm="live", seed=8)
    assert course_of(network, 0.5, 9) == Course(
        0.5, 9, earlier=0.7, weight_decay=0.2, mixup=0.1, batch=5, batch_norm="live", seed=8
    )


# Runs that are killed


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """The samples of each step that was taken."""
    taken: list[int] = []
    take = Training._take

    def count(training: Training, step: finetune.Step, *given: object) -> None:
        taken.append(len(step.rows))
        take(training, step, *given)

    monkeypatch.setattr(Training, "_take", count)
    return taken


@pytest.mark.parametrize("killed_at", [1, 47, 48, 49, 120, 200, 310])
@pytest.mark.parametrize("every_step", [True, False])
def test_a_search_that_was_killed_ends_with_the_same_bits(
    tmp_path, monkeypatch, steps, killed_at, every_step
):
    """With checkpoints at every step nothing is learnt twice; without, no training that was finished."""
    if every_step:
        monkeypatch.setattr(finetune, "EVERY", -1.0)
    case = Case()
    expected, whole = case.run(), sum(steps)
    steps.clear()
    with pytest.raises(Killed):
        case.search(tmp_path, killed_after(killed_at)).run()
    told: list[int] = []
    found = case.search(tmp_path, told.append).run()
    assert same_bits(found, expected)
    assert sum(told) == whole  # what was done before is told, too
    longest = max(each.epochs for each in found.tried) * len(case.training)
    assert sum(steps) <= whole + (case.network.batch + 2 if every_step else longest)


def test_a_search_that_was_killed_again_and_again_ends_and_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "EVERY", -1.0)
    case, deaths = Case(), 0
    expected = case.run()
    samples = 37
    while True:
        try:
            found = case.search(tmp_path, killed_after(samples)).run()
        except Killed:
            deaths, samples = deaths + 1, samples + 37  # what was done is told at once
            continue
        break
    assert deaths > 5
    assert same_bits(found, expected)


def test_a_search_that_is_done_learns_nothing_again(tmp_path, steps):
    case = Case()
    found = case.search(tmp_path).run()
    steps.clear()
    told: list[int] = []
    assert same_bits(case.search(tmp_path, told.append).run(), found)
    assert not steps
    assert sum(told) == sum(case.told)


def test_searches_without_a_place_keep_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CASES["one candidate"].run()
    assert not list(tmp_path.iterdir())


# How much there is to do


@settings(max_examples=10, deadline=None)
@given(
    rates=st.lists(st.sampled_from([0.01, 0.03, 0.1, 0.3]), min_size=1, max_size=3, unique=True),
    epochs=st.lists(st.integers(1, 3), min_size=1, max_size=2, unique=True),
    folds=st.sampled_from([2, 3, 4]),
)
def test_the_budget_is_what_advance_is_told_of_where_the_longest_is_best(rates, epochs, folds):
    """A shorter one that is best is also trained on the other folds: then there is less to do."""
    network = network_of(learning_rates=tuple(rates), epochs=tuple(epochs), folds=folds)
    case = Case(n=96, views=1, network=network, make=lambda seed, learnt: Small(seed).eval())
    case.training, case.asked = np.arange(72), np.arange(72, 96)  # as many in each fold, and of each class
    found = case.run()
    each = len(case.training) * (folds - 1) // folds
    left = (max(epochs) - found.facts["epochs"]) * (folds - 1) * each
    assert sum(case.told) == budget(network, len(case.training)) - left
    assert sum(case.told) == each * found.facts["epochs_in_all"]


# Real layers


def test_layers_behind_a_cut_are_searched_and_the_random_numbers_of_others_left_alone():
    network, name = tiny("test_resnet"), "test_resnet"
    random = np.random.default_rng(2)
    labels = np.arange(30) % 2
    x = torch.from_numpy(random.normal(size=(30, 3, 32, 32)) + labels[:, None, None, None]).float()
    [kept] = Prefix(network, [Tap(CUTS[name], "none")])(x)
    known = Known(labels, np.ones(30), np.arange(30).astype(str).astype(object), 2)
    settled = network_of(cut=CUTS[name], learning_rates=(3e-3,), epochs=(3,), folds=2)

    def make(seed: int, learnt: np.ndarray) -> nn.Module:
        return part(network, CUTS[name], classes=2, blank=True)

    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    search = Search(settled, make, Given(kept[None].clone()), known, np.arange(20), np.arange(20, 30), 0)
    found = search.run()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert (found.said.argmax(axis=1) == labels[20:]).mean() > 0.7
    again = Search(settled, make, Given(kept[None].clone()), known, np.arange(20), np.arange(20, 30), 0).run()
    assert same_bits(found, again)
