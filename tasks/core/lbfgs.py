"""Many smooth convex problems minimised at once by L-BFGS.

Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 7.5, in the form that needs only the
inner products of the remembered vectors (Chen, Wang & Zhou 2014, Large-scale L-BFGS using MapReduce,
section 3): each step reads the memory twice, whatever its length. All problems share each evaluation, so
that a function which multiplies the same matrix for all of them does it once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MEMORY = 8
SUFFICIENT_DECREASE = 1e-4
ROUNDING = 100
"""A difference of so many units in the last place of the value is rounding, not ascent."""
SHORTEST = 2.0**-30
"""A step that must be cut so short does not descend for rounding alone: the problem ends where it is."""
PATIENCE = 100
"""So many steps that bring neither less value, beyond rounding, nor a flatter place are the end."""
FLATTER = 0.9
"""Of the flattest gradient so far: what counts as a flatter place."""
CROWDED = 0.8
"""Problems that are done leave the batch when no more than this share is left: leaving costs a copy."""

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
IsDone = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Minimum:
    """Where the search for each of S problems ended.

    Attributes:
        x: (S, P) the points.
        value: (S,) the objective there.
        done: (S,) bool, whether the rule that was asked for holds there.
        steps: how many evaluations the slowest problem took.
    """

    x: Tensor
    value: Tensor
    done: Tensor
    steps: int


@dataclass
class _State:
    """The A problems that are still in the batch.

    Attributes:
        which: (A,) their numbers.
        alive: (A,) bool, those that are not done.
        x: (A, P) points.
        value: (A,).
        gradient: (A, P).
        direction: (A, P).
        rate: (A,) of the next step.
        memory: (A, 2 M + 1, P) M steps, M changes of the gradient, and the gradient.
        products: (A, 2 M + 1, 2 M + 1) float64, inner products of the memory.
        usable: (A, M) bool, pairs that show curvature.
        least: (A,) the least value, where it fell by more than rounding.
        flattest: (A,) the least norm of the gradient, where it fell much.
        idle: (A,) steps since either fell.
    """

    which: Tensor
    alive: Tensor
    x: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    rate: Tensor
    memory: Tensor
    products: Tensor
    usable: Tensor
    least: Tensor
    flattest: Tensor
    idle: Tensor

    def only(self, kept: Tensor) -> "_State":
        return _State(*(field[kept] for field in vars(self).values()))


def minimise(objective: Objective, start: Tensor, is_done: IsDone, *, most: int = 2000) -> Minimum:
    """Minimise S strictly convex functions of P numbers.

    Steps that do not descend enough are halved, each problem for itself; a strictly convex function needs
    no further condition. A problem that gets no further for rounding ends where it is.

    Args:
        objective: takes points (A, P) and the problems' numbers (A,), gives values (A,) and
            gradients (A, P).
        start: (S, P); its type is the search's precision.
        is_done: takes gradients (A, P), values (A,) and numbers (A,), gives (A,) bool.
        most: evaluations after which to give up; the caller's certificate tells what converged.

    Returns:
        The points reached.
    """
    state = _begin(objective, start)
    reached = Minimum(start.clone(), state.value.clone(), torch.zeros(len(start), dtype=torch.bool), 0)
    for steps in range(1, most + 1):
        done = is_done(state.gradient, state.value, state.which)
        state.alive &= ~done & (state.rate > SHORTEST) & (state.idle < PATIENCE)
        alive = int(state.alive.sum())
        if alive <= CROWDED * len(state.which):
            _keep(reached, state, done)
            if not alive:
                return replace(reached, steps=steps)
            state = state.only(state.alive)
        _step(objective, state, (steps - 1) % MEMORY)
    _keep(reached, state, is_done(state.gradient, state.value, state.which))
    return replace(reached, steps=most)


def _keep(reached: Minimum, state: _State, done: Tensor) -> None:
    reached.x[state.which], reached.value[state.which] = state.x, state.value
    reached.done[state.which] = done


def _begin(objective: Objective, start: Tensor) -> _State:
    problems, length = start.shape
    which = torch.arange(problems)
    value, gradient = objective(start, which)
    size = 2 * MEMORY + 1
    return _State(
        which=which,
        alive=torch.ones(problems, dtype=torch.bool),
        x=start.clone(),
        value=value,
        gradient=gradient,
        direction=-gradient,
        rate=1 / gradient.norm(dim=1).clamp_min(1),  # the first step has no curvature to go by
        memory=start.new_zeros(problems, size, length),
        products=torch.zeros(problems, size, size, dtype=torch.float64),
        usable=torch.zeros(problems, MEMORY, dtype=torch.bool),
        least=value,
        flattest=gradient.norm(dim=1),
        idle=torch.zeros(problems, dtype=torch.int64),
    )


def _step(objective: Objective, state: _State, slot: int) -> None:
    """Try one step of each problem, remember it in a slot, and find the next direction.

    A step that is refused is remembered as none, so that what overflows there does not spread.
    """
    slope = (state.gradient * state.direction).sum(1)
    trial = torch.addcmul(state.x, state.rate[:, None], state.direction)
    value, gradient = objective(trial, state.which)
    rounding = ROUNDING * torch.finfo(trial.dtype).eps
    limit = state.value + SUFFICIENT_DECREASE * state.rate * slope + rounding * state.value.abs()
    accepted = (value <= limit) & state.alive
    trial = torch.where(accepted[:, None], trial, state.x)
    gradient = torch.where(accepted[:, None], gradient, state.gradient)
    _remember(state, slot, trial - state.x, gradient - state.gradient, accepted)
    state.x, state.gradient = trial, gradient
    state.value = torch.where(accepted, value, state.value)
    _count_idle(state)
    state.memory[:, -1] = state.gradient
    _multiply(state, slot)
    weights = _coefficients(state, slot).to(trial.dtype)
    onward = torch.bmm(weights[:, None], state.memory)[:, 0]
    state.direction = torch.where(accepted[:, None], onward, state.direction)
    state.rate = torch.where(accepted, torch.ones_like(state.rate), state.rate / 2)


def _count_idle(state: _State) -> None:
    norm = state.gradient.norm(dim=1)
    lower = state.least - state.value > torch.finfo(norm.dtype).eps * state.value.abs()
    flatter = norm < FLATTER * state.flattest
    state.least = torch.where(lower, state.value, state.least)
    state.flattest = torch.where(flatter, norm, state.flattest)
    state.idle = torch.where(lower | flatter, 0, state.idle + 1)


def _remember(state: _State, slot: int, step: Tensor, change: Tensor, accepted: Tensor) -> None:
    curvature = (step * change).sum(1)
    least = 10 * torch.finfo(step.dtype).eps * step.norm(dim=1) * change.norm(dim=1)
    state.usable[:, slot] = accepted & (curvature > least)
    state.memory[:, slot] = step
    state.memory[:, MEMORY + slot] = change


def _multiply(state: _State, slot: int) -> None:
    """Bring the inner products up to date with the new pair and gradient."""
    new = [slot, MEMORY + slot, 2 * MEMORY]
    products = torch.bmm(state.memory, state.memory[:, new].transpose(1, 2)).double()  # (A, 2 M + 1, 3)
    state.products[:, :, new] = products
    state.products[:, new, :] = products.transpose(1, 2)


def _coefficients(state: _State, slot: int) -> Tensor:
    """Weights of the memory's vectors in the direction, (A, 2 M + 1), by the two-loop recursion.

    A pair that shows no curvature takes no part.
    """
    products, usable = state.products, state.usable
    newest_first = [(slot - back) % MEMORY for back in range(MEMORY)]
    weights = products.new_zeros(products.shape[:2])
    weights[:, -1] = -1
    curvature = torch.diagonal(products, offset=MEMORY, dim1=1, dim2=2)[:, :MEMORY]  # <step, change>
    inverse = torch.where(usable, 1 / curvature.where(usable, curvature.new_ones(())), 0.0)  # (A, M)
    shares = {}
    for pair in newest_first:
        shares[pair] = inverse[:, pair] * (weights * products[:, pair]).sum(1)
        weights[:, MEMORY + pair] -= shares[pair]
    weights *= _first_guess(products, usable, newest_first)[:, None]
    for pair in reversed(newest_first):
        back = inverse[:, pair] * (weights * products[:, MEMORY + pair]).sum(1)
        weights[:, pair] += shares[pair] - back
    return weights


def _first_guess(products: Tensor, usable: Tensor, newest_first: list[int]) -> Tensor:
    """Scale of the inverse Hessian: <step, change> / <change, change> of the newest usable pair, (A,)."""
    scale = products.new_ones(len(products))
    for pair in reversed(newest_first):
        other = MEMORY + pair
        found = products[:, pair, other] / products[:, other, other].clamp_min(1e-300)
        scale = torch.where(usable[:, pair], found, scale)
    return scale
