"""Many problems along their strengths: warm starts save work, and no way of cutting it changes the answer."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as reference

from tasks.core import path as module
from tasks.core.coordinates import Held, InMemory, Source, coordinates
from tasks.core.lbfgs import minimise
from tasks.core.losses import SigmoidLoss, SoftmaxLoss
from tasks.core.path import FARTHEST, SINGLE, Found, Lanes, Path, Problem, certify, standardised

N, D, CLASSES = 90, 8, 3


class Blocks:
    """Rows handed out some at a time, each time anew."""

    def __init__(self, features: np.ndarray, ends: Sequence[int] = (11, 60)) -> None:
        self._features, self._edges, self.shape = features, [0, *ends, len(features)], features.shape

    def blocks(self):
        for first, end in zip(self._edges[:-1], self._edges[1:], strict=True):
            yield slice(first, end), self._features[first:end].copy()


def features_of(rows: int = N, columns: int = D) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) + 3


def lanes_of(rows: int = N, *, penalty: float = 1.0, sigmoid: bool = False) -> Lanes:
    """Two lanes with their own weights (and, if sigmoid, their own questions)."""
    rng = np.random.default_rng(1)
    share = torch.from_numpy(rng.uniform(0.1, 2, (2, rows)) * (rng.random((2, rows)) < 0.8))
    share[:, :CLASSES] += 0.1
    share /= share.sum(1, keepdim=True)
    if sigmoid:
        truth = torch.from_numpy(rng.integers(0, 2, (2, rows))).float()
        return Lanes(SigmoidLoss(truth, torch.tensor([1, 0])), share, penalty)
    labels = torch.from_numpy(np.append(np.arange(CLASSES), rng.integers(0, CLASSES, rows - CLASSES)))
    return Lanes(SoftmaxLoss(labels, CLASSES), share, penalty)


def path_of(source: Source | None = None, lanes: Lanes | None = None) -> Path:
    source = source or InMemory(features_of())
    lanes = lanes or lanes_of(source.shape[0])
    return Path(coordinates(source, np.ones(source.shape[0])), lanes)


def walked(path: Path, wanted: Sequence[Problem], tolerance: float = SINGLE) -> dict[Problem, Found]:
    return {
        (each.lane, each.strength): each
        for some in path.walk(dict.fromkeys(wanted, tolerance))
        for each in some
    }


def assert_near(one: dict[Problem, Found], other: dict[Problem, Found], near: float = 2e-3) -> None:
    assert one.keys() == other.keys()
    for problem, found in one.items():
        torch.testing.assert_close(found.weight, other[problem].weight, rtol=0, atol=near)


def counted(monkeypatch) -> list[tuple[int, int, torch.dtype]]:
    """Note problems, evaluations and precision of each search."""
    searches = []

    def count(objective, start, is_done):
        found = minimise(objective, start, is_done)
        searches.append((len(start), found.steps, start.dtype))
        return found

    monkeypatch.setattr(module, "minimise", count)
    return searches


WANTED = [(0, 0.1), (1, 1.0), (0, 10.0), (1, 0.01), (0, 0.01)]


# The way


def test_strengths_are_solved_from_the_largest_down_all_lanes_of_one_together():
    order = [
        [(each.lane, each.strength) for each in some]
        for some in path_of().walk(dict.fromkeys(WANTED, SINGLE))
    ]
    assert order == [[(0, 10.0)], [(1, 1.0)], [(0, 0.1)], [(0, 0.01), (1, 0.01)]]


def test_a_problem_that_is_asked_twice_is_solved_once(monkeypatch):
    searches = counted(monkeypatch)
    assert set(walked(path_of(), WANTED + WANTED)) == set(WANTED)
    assert sum(problems for problems, _, _ in searches) == len(WANTED)


def test_what_is_streamed_is_read_for_all_strengths_together(monkeypatch):
    searches = counted(monkeypatch)
    assert set(walked(path_of(Blocks(features_of())), WANTED)) == set(WANTED)
    assert [problems for problems, _, _ in searches] == [len(WANTED)]


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_fine_path_takes_far_fewer_steps_than_each_strength_from_scratch(sigmoid, monkeypatch):
    searches = counted(monkeypatch)
    strengths = [float(strength) for strength in np.geomspace(1e-2, 10, 50)]
    path = path_of(InMemory(features_of(200, 40)), lanes_of(200, sigmoid=sigmoid))

    def steps(*parts: Sequence[float]) -> int:
        searches.clear()
        for part in parts:
            found.append(walked(path, [(0, strength) for strength in part]))
        return sum(each for _, each, _ in searches)

    found: list[dict[Problem, Found]] = []
    along, apart = steps(strengths), steps(*([strength] for strength in strengths))
    assert along < 0.65 * apart
    assert_near(found[0], {key: each for some in found[1:] for key, each in some.items()}, 0.03)
    guess = path._start
    monkeypatch.setattr(path, "_start", lambda last, *problem: guess(last[-1:], *problem))
    assert along < 0.85 * steps(strengths), "where two solutions point to is nearer than the last one"


def test_a_start_is_guessed_along_the_logarithm_of_the_strength_but_not_too_far():
    path = path_of()
    one, two = (torch.randn(CLASSES, D + 1, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    last = [Found(0, 100.0, one, True), Found(0, 10.0, two, True)]
    torch.testing.assert_close(path._start(last, 0, 1.0), two + (two - one))
    torch.testing.assert_close(path._start(last, 0, 10**0.5), two + (two - one) / 2)
    torch.testing.assert_close(path._start(last, 0, 1e-9), two + FARTHEST * (two - one))
    assert path._start(last[:1], 0, 1e-9) is one
    nothing = path._start([], 1, 1.0)
    assert (nothing[:, :-1] == 0).all()
    torch.testing.assert_close(nothing[:, -1], path.bias[1].float())


# Bounds of memory


@pytest.mark.parametrize("source", [InMemory, Blocks])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_search_in_small_parts_gives_the_same_answer(source, sigmoid, monkeypatch):
    """One problem at a time, 256 rows at a time."""
    features = features_of(700)
    lanes = lanes_of(700, sigmoid=sigmoid)
    whole = walked(path_of(source(features), lanes), WANTED)
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 1)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 1)
    searches = counted(monkeypatch)
    parts = walked(path_of(source(features), lanes), WANTED)
    assert [problems for problems, _, _ in searches] == [1] * len(WANTED)
    assert_near(parts, whole)


def test_small_parts_of_double_precision_give_the_same_answer(monkeypatch):
    path = path_of()
    found = list(walked(path, WANTED).values())
    whole = path.polish(found, 1e-9)
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 1)
    searches = counted(monkeypatch)
    parts = path.polish(found, 1e-9)
    assert [(problems, precision) for problems, _, precision in searches] == [(1, torch.float64)] * 5
    for one, other, each in zip(whole, parts, found, strict=True):
        assert (one.lane, one.strength) == (other.lane, other.strength) == (each.lane, each.strength)
        torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-6)


def test_a_batch_fills_the_memory_allowed_and_no_more(monkeypatch):
    path = path_of()
    size = 24 * CLASSES * (D + 1)
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 3 * 4 * size + 1)
    assert [len(some) for some in path._batches(list(range(7)), torch.float32)] == [3, 3, 1]
    assert [len(some) for some in path._batches(list(range(7)), torch.float64)] == [1] * 7


# What is found


def naive(features: np.ndarray, lanes: Lanes, lane: int, strength: float):
    """J of weights (C, D + 1) for standardised rows, by the formula; to be differentiated by torch."""
    rows = torch.from_numpy((features - features.mean(0)) / features.std(0))
    share = lanes.share[lane]

    def value(weight: torch.Tensor) -> torch.Tensor:
        scores = rows @ weight[:, :-1].T + weight[:, -1]  # (N, C)
        if isinstance(lanes.loss, SigmoidLoss):
            truth = lanes.loss.truth[lanes.loss.target[lane]].double()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores[:, 0], truth, reduction="none")
        else:
            loss = torch.nn.functional.cross_entropy(scores, lanes.loss.labels, reduction="none")
        return (share * loss).sum() + lanes.penalty * strength / 2 * weight[:, :-1].square().sum()

    return value


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("rows", [90, 6])
@pytest.mark.parametrize("source", [InMemory, Blocks])
def test_the_solutions_are_those_of_a_general_minimiser(sigmoid, rows, source):
    features = features_of(rows)
    lanes = lanes_of(rows, penalty=0.5, sigmoid=sigmoid)
    path = path_of(source(features) if source is InMemory else source(features, (2, 3)), lanes)
    found = path.polish(list(walked(path, [(0, 0.1), (1, 0.1)]).values()), 1e-8)
    weights = standardised(path.place, found)
    for lane in range(2):
        value = naive(features, lanes, lane, 0.1)

        def function(flat, value=value, shape=weights[lane].shape):
            weight = torch.tensor(flat).reshape(shape).requires_grad_()
            (said := value(weight)).backward()
            return said.item(), weight.grad.numpy().ravel()

        expected = reference(function, np.zeros(weights[lane].numel()), jac=True, options={"gtol": 1e-9})
        np.testing.assert_allclose(weights[lane].ravel(), expected.x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("rows", [400, 6])
@pytest.mark.parametrize("source", [InMemory, Blocks])
def test_the_certificate_is_the_gradient_of_the_formula_wherever_it_is_asked(
    sigmoid, rows, source, monkeypatch
):
    """Off the optimum, and outside of the rows' span too; in parts of 256 rows."""
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 1)
    features = features_of(rows)
    lanes = lanes_of(rows, penalty=0.5, sigmoid=sigmoid)
    asked = [
        Found(lane, strength, torch.empty(0), True) for lane, strength in [(1, 0.3), (0, 2.0), (1, 1e-3)]
    ]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, lanes.loss.scores, D + 1, generator=generator, dtype=torch.float64)
    standard = Held(features, np.ones(rows)).standard
    given = source(features) if source is InMemory else source(features, (2, 3))
    values, norms = certify(given, standard, lanes, asked, weight)
    for each, at, value, norm in zip(asked, weight, values, norms, strict=True):
        leaf = at.clone().requires_grad_()
        expected = naive(features, lanes, each.lane, each.strength)(leaf)
        expected.backward()
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(norm, leaf.grad.norm())


# What is said


@pytest.mark.parametrize("rows", [[], [0], [89], [10, 11, 59, 60], [12, 13, 14], list(range(90))])
@pytest.mark.parametrize("source", [InMemory, Blocks])
def test_scores_of_some_rows_are_the_formulas(rows, source):
    features = features_of()
    path = path_of(source(features))
    found = list(walked(path, WANTED).values())
    weights = standardised(path.place, found).numpy()
    standard = (features - features.mean(0)) / features.std(0)
    expected = standard[rows] @ weights[:, :, :-1].transpose(0, 2, 1) + weights[:, None, :, -1]  # (A, n, C)
    said = path.say(found, np.array(rows, dtype=np.int64))
    np.testing.assert_allclose(said, expected, rtol=0, atol=1e-4)


def test_nothing_is_said_by_no_problems():
    assert path_of().say([], np.arange(4)).shape == (0, 4, CLASSES)


def test_what_ended_short_of_its_tolerance_is_told(monkeypatch):
    assert all(found.done for found in walked(path_of(), WANTED).values())
    monkeypatch.setattr(module, "minimise", lambda *of: minimise(*of, most=1))
    assert not any(found.done for found in walked(path_of(), WANTED).values())
