"""Many convex problems at once: each ends at its own optimum, and none goes on for ever."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize as reference

from tasks.core.lbfgs import MEMORY, PATIENCE, Minimum, minimise


class Quadratics:
    """S functions (x - least) H (x - least) / 2 + above, which note how they are asked."""

    def __init__(
        self, problems: int, size: int, seed: int, *, condition: float = 1e3, above: float = 0.0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        turn = torch.linalg.qr(torch.randn(problems, size, size, generator=generator, dtype=torch.float64))[0]
        curvature = torch.logspace(0, -np.log10(condition), size, dtype=torch.float64)
        self.hessian = (turn * curvature) @ turn.mT  # (S, P, P)
        self.least = torch.randn(problems, size, generator=generator, dtype=torch.float64)  # (S, P)
        self.above, self.asked = above, []

    def __call__(self, x: torch.Tensor, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(which.tolist())
        away = x - self.least[which].to(x.dtype)
        gradient = torch.einsum("apq,aq->ap", self.hessian[which].to(x.dtype), away)
        return (away * gradient).sum(1) / 2 + self.above, gradient


def flat(below: float):
    return lambda gradient, value, which: gradient.norm(dim=1) < below


def start_of(function: Quadratics, precision: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.zeros_like(function.least, dtype=precision)


# The optimum


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 1000))
def test_quadratic_functions_are_minimised_each_for_itself(problems, size, seed):
    function = Quadratics(problems, size, seed, condition=100)
    found = minimise(function, start_of(function), flat(1e-9))
    torch.testing.assert_close(found.x, function.least, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.value, function(found.x, torch.arange(problems))[0])
    assert found.done.all()


def test_a_function_that_is_no_quadratic_ends_where_scipy_ends():
    rng = np.random.default_rng(0)
    rows, signs = torch.from_numpy(rng.normal(size=(50, 4))), torch.from_numpy(rng.choice([-1.0, 1.0], 50))

    def objective(x, which):
        margin = (x @ rows.T) * signs
        value = torch.nn.functional.softplus(-margin).mean(1) + 0.005 * x.square().sum(1)
        return value, -(torch.sigmoid(-margin) * signs) @ rows / 50 + 0.01 * x

    def alone(x):
        value, gradient = objective(torch.from_numpy(x)[None], torch.zeros(1, dtype=torch.int64))
        return float(value[0]), gradient[0].numpy()

    found = minimise(objective, torch.zeros(1, 4, dtype=torch.float64), flat(1e-9))
    expected = reference(alone, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(found.x[0], expected.x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("size", [1, MEMORY - 1, MEMORY, 3 * MEMORY])
def test_problems_together_end_where_each_ends_alone(size):
    function = Quadratics(7, size, 0)
    together = minimise(function, start_of(function), flat(1e-8))
    for number in range(7):

        def one(x, which, number=number):
            return function(x, torch.full_like(which, number))

        alone = minimise(one, start_of(function)[:1], flat(1e-8))
        torch.testing.assert_close(together.x[number], alone.x[0], rtol=0, atol=1e-4)


def test_the_start_is_left_as_it_was():
    function = Quadratics(2, 3, 0)
    start = start_of(function)
    minimise(function, start, flat(1e-9))
    assert (start == 0).all()


# The end


def test_a_start_at_the_optimum_costs_one_evaluation():
    function = Quadratics(4, 5, 0)
    found = minimise(function, function.least.clone(), flat(1e-9))
    assert len(function.asked) == found.steps == 1
    assert torch.equal(found.x, function.least)


def test_problems_that_are_done_keep_their_point_and_leave_the_batch():
    """Half start next to their optimum; the others take many steps more."""
    function = Quadratics(8, 20, 0, condition=1e4)
    start = start_of(function)
    near = torch.arange(8) % 2 == 0
    start[near] = function.least[near] + 1e-3 * torch.randn(
        4, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    below = torch.where(near, 2e-2, 1e-8)
    found = minimise(function, start, lambda gradient, value, which: gradient.norm(dim=1) < below[which])
    assert torch.equal(found.x[near], start[near])
    assert function.asked[0] == list(range(8))
    assert function.asked[-1] and all(number % 2 for asked in function.asked[1:] for number in asked)
    assert found.done.all()


def test_the_evaluations_are_counted():
    function = Quadratics(3, 10, 0)
    found = minimise(function, start_of(function), flat(1e-8))
    assert found.steps == len(function.asked)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_search_that_rounding_stops_ends_there_and_says_that_it_is_not_done(condition, precision):
    """The rule can never hold; the value is large beside what is left to gain."""
    function = Quadratics(3, 10, 0, condition=condition, above=1.0)
    found = minimise(function, start_of(function, precision), flat(0.0))
    assert found.steps < 2000
    assert not found.done.any()
    gradient = function(found.x, torch.arange(3))[1]
    assert gradient.norm(dim=1).max() < 1e3 * torch.finfo(precision).eps


def test_what_is_done_and_what_is_not_are_told_apart():
    function = Quadratics(4, 10, 0, above=1.0)
    below = torch.tensor([1e-3, 0.0, 1e-3, 0.0])
    found = minimise(
        function,
        start_of(function, torch.float32),
        lambda gradient, value, which: gradient.norm(dim=1) < below[which],
    )
    assert found.done.tolist() == [True, False, True, False]


@pytest.mark.parametrize("most", [1, 3, 20])
def test_no_more_evaluations_are_made_than_allowed_and_the_best_point_is_given(most):
    function = Quadratics(3, 30, 0, condition=1e6)
    found = minimise(function, start_of(function), flat(1e-12), most=most)
    assert found.steps == most
    assert len(function.asked) == most + 1  # and that of the start
    first, value = function(start_of(function), torch.arange(3))[0], function(found.x, torch.arange(3))[0]
    torch.testing.assert_close(found.value, value)
    assert (value < first).all()
    assert not found.done.any()


def test_a_function_that_gets_no_lower_anywhere_ends_after_the_patience_for_it():
    def level(x, which):
        return torch.ones(len(x)), torch.ones_like(x)

    found = minimise(level, torch.zeros(2, 3), flat(0.1))
    assert found.steps <= PATIENCE + 2
    assert not found.done.any()


# Numbers that go wrong


def test_a_step_that_overflows_is_cut_and_forgotten():
    """Beside the optimum is a wall: exp overflows in single precision beyond 88."""
    overflown = []

    def objective(x, which):
        grown = torch.exp(x)
        overflown.append(bool(grown.isinf().any()))
        return grown.sum(1) - 10 * x.sum(1), grown - 10

    found = minimise(objective, torch.tensor([[-30.0, -20.0], [-90.0, 1.0], [2.0, 2.0]]), flat(1e-4))
    assert any(overflown), "or nothing is tested"
    torch.testing.assert_close(found.x, torch.full((3, 2), float(np.log(10))), rtol=0, atol=1e-4)


def test_a_problem_without_numbers_does_not_spoil_the_others():
    function = Quadratics(4, 5, 0)

    def objective(x, which):
        value, gradient = function(x, which)
        nothing = (which == 2) & (x != 0).any(1)  # wherever it goes from its start
        return torch.where(nothing, torch.nan, value), torch.where(nothing[:, None], torch.nan, gradient)

    found = minimise(objective, start_of(function), flat(1e-8))
    others = [0, 1, 3]
    torch.testing.assert_close(found.x[others], function.least[others], rtol=0, atol=1e-4)
    assert found.done.tolist() == [True, True, False, True]
    assert (found.x[2] == 0).all()


def test_the_same_search_gives_the_same_bits():
    def once() -> Minimum:
        function = Quadratics(5, 12, 3)
        return minimise(function, start_of(function, torch.float32), flat(1e-4))

    assert torch.equal(once().x, once().x)
