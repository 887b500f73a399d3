"""Losses of many linear problems on the same rows: values, and slopes in the scores, in place.

A lane is one training of a head: its own share of each row's weight (a fold's held-out rows and unknown
labels have none) and its own target. Scores are (A, C, n): A problems, C scores for each of n rows.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LEAST_SHARE = 1e-7
"""Of a class that has no row: its bias has no optimum, and starts where its gradient is below notice."""


class Loss(Protocol):
    """A loss of C scores a row.

    Attributes:
        scores: C.
    """

    scores: int

    def slope(self, scores: Tensor, share: Tensor, lanes: Tensor, rows: slice) -> Tensor:
        """Turn scores (A, C, n) into the loss's slopes in them, in place.

        Args:
            scores: overwritten.
            share: (A, n) of each row's weight.
            lanes: (A,) the problems' lanes.
            rows: which rows these are.

        Returns:
            (A,) each problem's part of the loss.
        """
        ...

    def prior(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Say where a head without features lies, and the loss's mean curvature in a score there.

        Args:
            share: (L, N) of each lane.

        Returns:
            (L, C) biases, (L,) curvatures.
        """
        ...


class SoftmaxLoss:
    """Cross entropy of one of C classes; every lane has the same labels.

    Args:
        labels: (N,) int64.
        classes: C.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        self.labels, self.scores = labels, classes

    def slope(self, scores: Tensor, share: Tensor, lanes: Tensor, rows: slice) -> Tensor:
        """See `Loss`."""
        true = self.labels[rows].expand(len(scores), 1, -1)  # (A, 1, n)
        scores -= scores.amax(1, keepdim=True)
        at_true = scores.gather(1, true)[:, 0]  # (A, n)
        total = scores.exp_().sum(1)
        loss = ((total.log() - at_true) * share).sum(1)
        scores *= (share / total)[:, None]
        scores.scatter_add_(1, true, -share[:, None])
        return loss

    def prior(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        held = torch.zeros(len(share), self.scores, dtype=share.dtype)
        held.index_add_(1, self.labels, share)  # (L, C) the classes' shares
        bias = held.clamp_min(LEAST_SHARE).log()
        spread = (held * (1 - held)).sum(1) / (self.scores - 1)
        return bias - bias.mean(1, keepdim=True), spread.clamp_min(LEAST_SHARE)


class SigmoidLoss:
    """Cross entropy of one yes/no question; every lane has its own.

    Args:
        truth: (T, N) 0 or 1; what stands where the answer is unknown plays no part, for the share is zero.
        target: (L,) which of the T questions each lane is about.
    """

    scores = 1

    def __init__(self, truth: Tensor, target: Tensor) -> None:
        self.truth, self.target = truth, target

    def slope(self, scores: Tensor, share: Tensor, lanes: Tensor, rows: slice) -> Tensor:
        """See `Loss`."""
        truth = self.truth[self.target[lanes], rows].to(scores.dtype)  # (A, n)
        score = scores[:, 0]
        loss = -(logsigmoid((2 * truth - 1) * score) * share).sum(1)
        score.sigmoid_().sub_(truth).mul_(share)
        return loss

    def prior(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        chance = torch.stack(
            [(each * self.truth[target]).sum() for each, target in zip(share, self.target, strict=True)]
        )
        chance = chance.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
        return torch.logit(chance)[:, None], (chance * (1 - chance)).clamp_min(LEAST_SHARE)
