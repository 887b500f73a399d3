"""Many convex problems on the same rows, solved along their strengths; see `tasks.core.linear`.

A lane is one training (its loss and its share of each row's weight), and a problem is a lane at a strength.
Weights are (C, R + 1): R coordinates of the features and the bias.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tasks.core.coordinates import Coordinates, Source, Standardisation
from tasks.core.lbfgs import MEMORY, IsDone, minimise
from tasks.core.losses import Loss
from tasks.core.products import times_transposed

SINGLE = 1e-5
"""The gradient norm that single precision reaches; double precision goes on from there."""
SCORES_AT_ONCE = 1 << 22
"""Scores that are held at once: 16 MB in single precision, which stay in the cache."""
BYTES_AT_ONCE = 1 << 29
"""Of the search's memory, for the problems that are searched at once."""
FARTHEST = 2.0
"""A start is guessed from the last two solutions at most so many times as far as these lie apart."""

Problem = tuple[int, float]
"""Lane and strength."""

T = TypeVar("T")


@dataclass(frozen=True)
class Lanes:
    """L trainings on the same rows.

    Attributes:
        loss: what is minimised.
        share: (L, N) float64 of each row's weight; a lane's sum is 1.
        penalty: of a strength s the penalty is penalty * s / 2 * ||W||^2.
    """

    loss: Loss
    share: Tensor
    penalty: float = 1.0


@dataclass(frozen=True)
class Found:
    """Where a problem's search ended.

    Attributes:
        lane: its number.
        strength: of the penalty.
        weight: (C, R + 1).
        done: whether the gradient there, in the search's own precision, is as small as it was to be.
    """

    lane: int
    strength: float
    weight: Tensor
    done: bool


class Path:
    """Solves problems from the largest strength down; each starts where its lane's last two point to."""

    def __init__(self, place: Coordinates, lanes: Lanes) -> None:
        self.place, self.lanes = place, lanes
        self.bias, self.spread = lanes.loss.prior(lanes.share)

    def walk(self, wanted: Mapping[Problem, float]) -> Iterator[list[Found]]:
        """Solve problems in single precision, some at a time.

        Where each pass is dear because rows are streamed, all strengths are solved together.

        Args:
            wanted: problem -> the gradient norm to reach, at least `SINGLE`.
        """
        last: dict[int, list[Found]] = {}
        ordered = sorted(wanted, key=lambda problem: (-problem[1], problem[0]))
        for _, steps in groupby(ordered, key=lambda problem: self.place.held and problem[1]):
            for some in self._batches(list(steps), torch.float32):
                starts = [self._start(last.get(lane, []), lane, strength) for lane, strength in some]
                solved = self._solve(some, torch.stack(starts), [wanted[problem] for problem in some])
                for each in solved:
                    last[each.lane] = [*last.get(each.lane, [])[-1:], each]
                yield solved

    def polish(self, found: Sequence[Found], tolerance: float) -> list[Found]:
        """Go on from where single precision ended, in double precision."""
        kept: list[Found] = []
        for some in self._batches(list(found), torch.float64):
            starts = torch.stack([each.weight for each in some]).double()
            problems = [(each.lane, each.strength) for each in some]
            kept += self._solve(problems, starts, [tolerance] * len(some))
        return kept

    def say(self, found: Sequence[Found], rows: np.ndarray) -> np.ndarray:
        """Give the scores of some rows, whose numbers ascend; (n,) -> (A, n, C) float32."""
        if not found:
            return np.empty((0, len(rows), self.lanes.loss.scores), dtype=np.float32)
        weight = torch.stack([each.weight for each in found]).float()
        problems, scores, _ = weight.shape
        lifted = self.place.lift(weight[:, :, :-1].reshape(problems * scores, -1))
        said = np.empty((problems, len(rows), scores), dtype=np.float32)
        for block_rows, block in self.place.blocks(torch.float32):
            first, end = np.searchsorted(rows, [block_rows.start, block_rows.stop])
            picked = block[torch.from_numpy(rows[first:end] - block_rows.start)]
            logits = times_transposed(lifted, picked).view(problems, scores, -1) + weight[:, :, -1:]
            said[:, first:end] = logits.transpose(1, 2).numpy()
        return said

    def _batches(self, some: list[T], precision: torch.dtype) -> Iterator[list[T]]:
        """Cut a list of problems so that the search's memory stays within bounds."""
        size = self.lanes.loss.scores * (len(self.place.variance) + 1) * precision.itemsize * (2 * MEMORY + 8)
        most = max(1, BYTES_AT_ONCE // size)
        for first in range(0, len(some), most):
            yield some[first : first + most]

    def _start(self, last: Sequence[Found], lane: int, strength: float) -> Tensor:
        """Guess a solution (C, R + 1): along the line through the last two, in the logarithm of strength."""
        if not last:
            start = torch.zeros(self.lanes.loss.scores, len(self.place.variance) + 1)
            start[:, -1] = self.bias[lane]
            return start
        if len(last) == 1:
            return last[0].weight
        before, newest = last
        way = np.log(newest.strength / strength) / np.log(before.strength / newest.strength)
        return newest.weight + min(float(way), FARTHEST) * (newest.weight - before.weight)

    def _solve(self, problems: Sequence[Problem], start: Tensor, tolerances: Sequence[float]) -> list[Found]:
        lanes = torch.tensor([lane for lane, _ in problems])
        strengths = torch.tensor([strength for _, strength in problems], dtype=torch.float64)
        search = _Search(self.place, self.lanes, lanes, strengths, self.spread[lanes], start.dtype)
        reached = minimise(search.objective, search.scaled(start), search.is_done(tolerances))
        weight = search.unscaled(reached.x, torch.arange(len(problems)))
        ended = zip(problems, weight, reached.done.tolist(), strict=True)
        return [Found(lane, strength, each, done) for (lane, strength), each, done in ended]


class _Search:
    """The objective in scaled coordinates u = W * sqrt(curvature), P = C * (R + 1) numbers a problem."""

    def __init__(
        self,
        place: Coordinates,
        lanes: Lanes,
        which: Tensor,
        strengths: Tensor,
        spread: Tensor,
        precision: torch.dtype,
    ) -> None:
        self.place, self.loss, self.lane, self.precision = place, lanes.loss, which, precision
        self.share = lanes.share[which].to(precision)  # (S, N)
        penalty = lanes.penalty * strengths  # (S,)
        curvature = spread[:, None] * place.variance + penalty[:, None]  # (S, R)
        self.scale = torch.cat([curvature, spread[:, None]], dim=1).rsqrt().to(precision)  # (S, R + 1)
        self.penalty = penalty.to(precision)

    def scaled(self, weight: Tensor) -> Tensor:
        """(S, C, R + 1) -> (S, P)."""
        return (weight / self.scale[:, None]).flatten(1)

    def unscaled(self, u: Tensor, which: Tensor) -> Tensor:
        """(A, P) -> (A, C, R + 1)."""
        return u.view(len(u), self.loss.scores, -1) * self.scale[which, None]

    def objective(self, u: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate J and its gradient in u; each block of rows is read twice for all problems together."""
        whole = self.unscaled(u, which)
        weight, bias = whole[:, :, :-1], whole[:, :, -1:]
        problems, scores, rank = weight.shape
        lifted = self.place.lift(weight.reshape(problems * scores, rank))  # (A * C, K)
        share, lanes = self.share[which], self.lane[which]
        value = self.penalty[which] / 2 * weight.square().sum((1, 2))
        by_column, by_bias = torch.zeros_like(lifted), torch.zeros_like(bias)
        for rows, block in self._blocks(problems * scores):
            logits = times_transposed(lifted, block).view(problems, scores, -1).add_(bias)
            value += self.loss.slope(logits, share[:, rows], lanes, rows)
            by_column += times_transposed(logits.view(problems * scores, -1), block.T)
            by_bias += logits.sum(2, keepdim=True)
        by_weight = self.place.drop(by_column).view(problems, scores, rank)
        by_weight = by_weight + self.penalty[which, None, None] * weight
        gradient = torch.cat([by_weight, by_bias], dim=2) * self.scale[which, None]
        return value, gradient.flatten(1)

    def is_done(self, tolerances: Sequence[float]) -> IsDone:
        """Make the rule that stops each problem below its certificate, with room for rounding."""
        enough = torch.tensor(tolerances) / 2

        def rule(gradient: Tensor, value: Tensor, which: Tensor) -> Tensor:
            in_weights = gradient.view(len(gradient), self.loss.scores, -1) / self.scale[which, None]
            norms: Tensor = torch.linalg.vector_norm(in_weights, dim=(1, 2))
            return norms <= enough[which]

        return rule

    def _blocks(self, columns: int) -> Iterator[tuple[slice, Tensor]]:
        """Cut blocks further, so that the scores of one stay in the cache."""
        most = max(256, SCORES_AT_ONCE // columns)
        for rows, block in self.place.blocks(self.precision):
            for first in range(0, len(block), most):
                some = block[first : first + most]
                yield slice(rows.start + first, rows.start + first + len(some)), some


def standardised(place: Coordinates, found: Sequence[Found]) -> Tensor:
    """Turn weights back to standardised features, the bias last; (A, C, D + 1) float64."""
    weight = torch.stack([each.weight for each in found]).double()
    return torch.cat([weight[:, :, :-1] @ place.basis.T, weight[:, :, -1:]], dim=2)


def certify(
    source: Source, standard: Standardisation, lanes: Lanes, found: Sequence[Found], weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Evaluate J and ||grad J|| afresh, in double precision and all D directions: no basis is trusted.

    Args:
        source: the raw rows.
        standard: centre and scale of the features.
        lanes: of the problems.
        found: A problems, of which the lanes and strengths are taken.
        weight: (A, C, D + 1) for standardised features, the bias last.

    Returns:
        (A,) J, (A,) ||grad J||.
    """
    problems, scores, _ = weight.shape
    which = torch.tensor([each.lane for each in found])
    penalty = lanes.penalty * torch.tensor([each.strength for each in found], dtype=torch.float64)
    mean, scale = torch.from_numpy(standard.mean), torch.from_numpy(standard.scale)
    share = lanes.share[which]
    value = penalty / 2 * weight[:, :, :-1].square().sum((1, 2))
    gradient = torch.zeros_like(weight)
    gradient[:, :, :-1] = penalty[:, None, None] * weight[:, :, :-1]
    for rows, raw in source.blocks():
        for first in range(0, len(raw), most := max(256, SCORES_AT_ONCE // (problems * scores))):
            block = (torch.from_numpy(raw[first : first + most].astype(np.float64)) - mean) / scale
            here = slice(rows.start + first, rows.start + first + len(block))
            logits = weight[:, :, :-1] @ block.T + weight[:, :, -1:]  # (A, C, n)
            value += lanes.loss.slope(logits, share[:, here], which, here)
            gradient[:, :, :-1] += logits @ block
            gradient[:, :, -1] += logits.sum(2)
    return value, torch.linalg.vector_norm(gradient, dim=(1, 2))
