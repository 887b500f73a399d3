"""Many smooth convex problems minimised at once by L-BFGS.

Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 7.5. All problems share each
evaluation, so that a function which multiplies the same matrix for all of them does it once.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 12
SUFFICIENT_DECREASE = 1e-4
ROUNDING = 100
"""A difference of so many units in the last place of the value is rounding, not ascent."""

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Minimum:
    """Where the search for each of S problems ended.

    Attributes:
        x: (S, P) the points.
        value: (S,) the objective there.
        steps: how many evaluations the slowest problem took.
    """

    x: Tensor
    value: Tensor
    steps: int


@dataclass
class _Pair:
    """One remembered step; problems whose last step failed hold zeros and so are left unchanged."""

    step: Tensor  # (A, P)
    change: Tensor  # (A, P) of the gradient
    inverse: Tensor  # (A,) 1 / <step, change>, or 0


def minimise(
    objective: Objective,
    start: Tensor,
    is_done: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    most: int = 2000,
) -> Minimum:
    """Minimise S strictly convex functions of P numbers.

    A problem that is done leaves the batch. Steps that do not descend enough are halved, each
    problem for itself; a strictly convex function needs no further condition.

    Args:
        objective: takes points (A, P) and the problems' numbers (A,), gives values (A,) and
            gradients (A, P).
        start: (S, P); its type is the search's precision.
        is_done: takes gradients (A, P), values (A,) and numbers (A,), gives (A,) bool.
        most: evaluations after which to give up; the caller's certificate tells what converged.

    Returns:
        The points reached.
    """
    best_x = start.clone()
    best_value = torch.full((len(start),), torch.inf, dtype=start.dtype)
    which = torch.arange(len(start))
    x = start.clone()
    value, gradient = objective(x, which)
    history: deque[_Pair] = deque(maxlen=MEMORY)
    direction = -gradient
    rate = 1 / gradient.norm(dim=1).clamp_min(1)  # (A,) the first step has no curvature to go by
    rounding = ROUNDING * torch.finfo(start.dtype).eps
    for steps in range(1, most + 1):
        done = is_done(gradient, value, which)
        best_x[which], best_value[which] = x, value
        if bool(done.all()):
            return Minimum(best_x, best_value, steps)
        if bool(done.any()):
            keep = ~done
            which, x, value, gradient = which[keep], x[keep], value[keep], gradient[keep]
            direction, rate = direction[keep], rate[keep]
            history = deque((_select(pair, keep) for pair in history), maxlen=MEMORY)
        slope = (gradient * direction).sum(1)
        trial = x + rate[:, None] * direction
        new_value, new_gradient = objective(trial, which)
        limit = value + SUFFICIENT_DECREASE * rate * slope + rounding * value.abs()
        accepted = new_value <= limit
        history.append(_pair(trial - x, new_gradient - gradient, accepted))
        x = torch.where(accepted[:, None], trial, x)
        value = torch.where(accepted, new_value, value)
        gradient = torch.where(accepted[:, None], new_gradient, gradient)
        newton = _descend(gradient, history)
        direction = torch.where(accepted[:, None], newton, direction)
        rate = torch.where(accepted, torch.ones_like(rate), rate / 2)
    return Minimum(best_x, best_value, most)


def _pair(step: Tensor, change: Tensor, accepted: Tensor) -> _Pair:
    curvature = (step * change).sum(1)
    least = 10 * torch.finfo(step.dtype).eps
    usable = accepted & (curvature > least * step.norm(dim=1) * change.norm(dim=1))
    inverse = torch.where(
        usable, 1 / curvature.where(usable, torch.ones_like(curvature)), torch.zeros_like(curvature)
    )
    return _Pair(step, change, inverse)


def _select(pair: _Pair, keep: Tensor) -> _Pair:
    return _Pair(pair.step[keep], pair.change[keep], pair.inverse[keep])


def _descend(gradient: Tensor, history: deque[_Pair]) -> Tensor:
    """Multiply minus the gradient by the inverse Hessian that the remembered steps suggest."""
    direction = -gradient
    shares = []
    for pair in reversed(history):
        share = pair.inverse * (pair.step * direction).sum(1)
        direction = direction - share[:, None] * pair.change
        shares.append(share)
    direction = direction * _curvature(history, len(gradient))[:, None]
    for pair, share in zip(history, reversed(shares), strict=True):
        back = pair.inverse * (pair.change * direction).sum(1)
        direction = direction + (share - back)[:, None] * pair.step
    return direction


def _curvature(history: deque[_Pair], problems: int) -> Tensor:
    """Scale of the first guess: <step, change> / <change, change> of each problem's newest usable pair."""
    scale = history[-1].inverse.new_ones(problems)
    for pair in history:
        usable = pair.inverse > 0
        newest = 1 / (pair.inverse * pair.change.square().sum(1)).where(usable, torch.ones_like(scale))
        scale = torch.where(usable, newest, scale)
    return scale
