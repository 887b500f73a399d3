"""Which depths are measured on which shares of the training part, in which order, within a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np

from tasks.core.heads import Grid
from tasks.core.hyper import Network, spelled
from tasks.core.shares import keeps_every_class, nested
from tasks.core.splits import SplitSpec
from tasks.core.trials import Part


@dataclass(frozen=True)
class Ladder:
    """What a verdict measures.

    Attributes:
        depths: one experiment each.
        kinds: of the depths: "head", "suffix", "everything" or "scratch".
        split: with the seeds that are used.
        shares: of each training part, ascending; the last is 1.
        seconds: that training may take in one run.
        sources: backbone -> the name of what it learnt from, and how many samples that was.
    """

    depths: tuple[Grid, ...]
    kinds: tuple[str, ...]
    split: SplitSpec
    shares: tuple[float, ...]
    seconds: float
    sources: Mapping[str, tuple[str, int | None]]

    def identity(self) -> list[object]:
        """Say what is measured, as plain values."""
        depths = [
            [
                grid.name,
                kind,
                grid.inputs.backbone,
                grid.inputs.taps,
                grid.inputs.views,
                *map(spelled, grid.hypers),
            ]
            for grid, kind in zip(self.depths, self.kinds, strict=True)
        ]
        sources = {name: list(source) for name, source in self.sources.items()}
        return [depths, asdict(self.split), self.shares, self.seconds, sources]


def unfair(ladder: Ladder) -> list[str]:
    """Say which depths were not given a search of their own, so that the comparison is not fair to them."""
    told = []
    for grid in ladder.depths:
        for hyper in grid.hypers:
            if isinstance(hyper, Network) and len(hyper.learning_rates) == 1:
                rate, epochs = hyper.learning_rates[0], ", ".join(map(str, hyper.epochs))
                told.append(
                    f"{grid.name}: trained with one learning rate alone ({rate:g}, epochs {epochs}), which was not "
                    "chosen on these samples; the comparison is not fair to it"
                )
    return told


@dataclass(frozen=True)
class Rung:
    """One cell to measure.

    Attributes:
        depth: number of the depth.
        share: of the training part.
        part: the training part's share, and the test part.
    """

    depth: int
    share: float
    part: Part


def rungs(ladder: Ladder, parts: Sequence[Part], labels: np.ndarray, weights: np.ndarray) -> Iterator[Rung]:
    """List all cells, the most telling first: seed by seed, the whole training part before its shares.

    A share that leaves a class too few samples is left out.

    Args:
        ladder: what is measured.
        parts: one for each seed.
        labels: (N,) int.
        weights: (N,).
    """
    for part in parts:
        for share, some in reversed(shares_of(ladder, part, labels, weights)):
            yield from (Rung(depth, share, some) for depth in range(len(ladder.depths)))


def shares_of(
    ladder: Ladder, part: Part, labels: np.ndarray, weights: np.ndarray
) -> list[tuple[float, Part]]:
    """Cut a part to its shares, ascending; the whole is the part as it is, so that experiments share its cells."""
    less = [share for share in reversed(ladder.shares) if share < 1]
    found = [
        (share, replace(part, share=some))
        for share, some in zip(less, _taken(part, labels, less), strict=False)
        if keeps_every_class(labels, weights, part.training, some)
    ]
    return [*reversed(found), (1.0, part)]


def _taken(part: Part, labels: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """Take shares, descending, of a training part.

    Each is taken by itself, so that a share which is added to a study moves no other. So they are nested where
    every sample is a group of its own; where groups hinder that, each is taken of the one before.
    """

    def take(shares: Sequence[float]) -> list[np.ndarray]:
        return nested(part.training, part.groups, labels, shares, seed=part.seed)

    alone = [some for share in shares for some in take([share])]
    are_nested = all((small <= large).all() for large, small in pairwise(alone))
    return alone if are_nested else take(shares)
