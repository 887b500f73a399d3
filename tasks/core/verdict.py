"""How much to train, told from what was measured: depths on nested shares of the training part, over seeds.

The depth of a share is chosen by the inner folds. Its score, and how it differs from a head alone and from a
start at random weights, are then read from the test parts, which chose nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.metrics import LOWER_IS_BETTER, Drawn, intervals, percentiles

HEAD, SUFFIX, EVERYTHING, SCRATCH = "head", "suffix", "everything", "scratch"
"""Kinds of depth."""


@dataclass(frozen=True)
class Depth:
    """One way to train.

    Attributes:
        name: what tables call it.
        kind: "head", "suffix", "everything" or "scratch".
        cut: of a suffix.
        transfers: whether anything pretrained is used; not so from scratch.
    """

    name: str
    kind: str
    cut: str = ""

    @property
    def transfers(self) -> bool:
        """Whether it starts from what the backbone learnt."""
        return self.kind != SCRATCH


@dataclass(frozen=True)
class Cell:
    """A depth trained on a share of one seed's training part.

    Attributes:
        depth: its name.
        share: of the training part.
        seed: of the split.
        train: how many samples that is.
        inner: the Brier score on the inner folds, None without folds.
        score: of the test part, with its draws.
        seconds: that it took.
        without_cache: that it would have taken, had the frozen layers run for every experiment and epoch.
        epochs: that its search trained for in all; 0 for a head.
        trainings: that its search made.
        stopped: why training ended early, or "".
    """

    depth: str
    share: float
    seed: int
    train: int
    inner: float | None
    score: Drawn
    seconds: float
    without_cache: float
    epochs: int = 0
    trainings: int = 1
    stopped: str = ""


@dataclass(frozen=True)
class Difference:
    """How much one score is above another: `low` to `high` is the 95 % interval; better is positive.

    Attributes:
        share: of the training part.
        train: how many samples that is.
        what: "transfer", "depth" or "labels".
        first, second: which depths.
        value: how much better the first is.
        real: whether the interval leaves nought out.
    """

    share: float
    train: float
    what: str
    first: str
    second: str
    value: float
    low: float
    high: float

    @property
    def real(self) -> bool:
        """Whether the interval leaves nought out."""
        return self.low > 0 or self.high < 0

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Measured:
    """All cells of a verdict.

    Attributes:
        metric: what scores are.
        depths: what was compared.
        cells: what was measured.
        test: how many samples a test part has.
    """

    metric: str
    depths: Sequence[Depth]
    cells: Sequence[Cell]
    test: int

    @property
    def sign(self) -> int:
        """1 where a larger score is better, else -1."""
        return -1 if self.metric in LOWER_IS_BETTER else 1

    def depth(self, name: str) -> Depth:
        """Find a depth by its name."""
        return next(each for each in self.depths if each.name == name)

    def shares(self) -> list[float]:
        """The shares that were measured, the smallest first."""
        return sorted({cell.share for cell in self.cells})

    def of(self, depth: str, share: float) -> dict[int, Cell]:
        """Seed -> the cell of a depth and share."""
        return {cell.seed: cell for cell in self.cells if (cell.depth, cell.share) == (depth, share)}

    def train(self, share: float) -> float:
        """How many samples a share is, the mean over the seeds."""
        return float(np.mean([cell.train for cell in self.cells if cell.share == share]))

    def chosen(self, share: float, among: Iterable[Depth] | None = None) -> str | None:
        """Name the depth that the inner folds choose for a share, on the seeds that all of them have.

        Of equals the first; None where folds could not be made, or no seed is common to all.
        """
        known = {
            depth.name: cells
            for depth in (self.depths if among is None else among)
            if (cells := self.of(depth.name, share))
        }
        seeds = set.intersection(*(set(cells) for cells in known.values())) if known else set()
        scores = {name: [cells[seed].inner for seed in sorted(seeds)] for name, cells in known.items()}
        means = {name: _mean(inner) for name, inner in scores.items()}
        told = {name: mean for name, mean in means.items() if mean is not None}
        return min(told, key=told.__getitem__) if told else None

    def difference(self, what: str, first: tuple[str, float], second: tuple[str, float]) -> Difference | None:
        """Tell how much better one (depth, share) is than another, on the seeds that both have."""
        ones, others = self.of(*first), self.of(*second)
        seeds = sorted(ones.keys() & others.keys())
        if not seeds:
            return None
        apart = [
            Drawn(
                self.sign * (ones[seed].score.value - others[seed].score.value),
                self.sign * (ones[seed].score.draws - others[seed].score.draws),
                ones[seed].score.groups,
            )
            for seed in seeds
        ]
        both = over_seeds(apart)
        low, high = percentiles(both.draws)
        share = first[1]
        return Difference(share, self.train(share), what, first[0], second[0], both.value, low, high)


def over_seeds(scores: Sequence[Drawn], seed: int = 0) -> Drawn:
    """Take the mean over split seeds; the draws tell of other test samples and of other training parts.

    Each replicate draws the seeds, too, with replacement, so that what the seeds differ by widens the
    interval (two-stage bootstrap, Davison and Hinkley 1997, section 3.8). Of one seed alone nothing is known
    of other training parts.

    Args:
        scores: (S) of the seeds, under the same draws of test samples.
        seed: same seed, same draws.
    """
    draws = np.stack([each.draws for each in scores])  # (S, B)
    count, replicates = draws.shape
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates).T
    drawn = np.where(times > 0, draws * times, 0.0).sum(axis=0) / count  # (B,); NaN only where it was drawn
    groups = np.unique(np.concatenate([each.groups for each in scores]))
    return Drawn(float(np.mean([each.value for each in scores])), drawn, groups)


def differences(found: Measured) -> list[Difference]:
    """List what the sentence and the report tell of: transfer, depth, and what labels are worth."""
    told: list[Difference | None] = []
    before: tuple[str, float] | None = None
    for share in found.shares():
        best = found.chosen(share)
        moved = found.chosen(share, [depth for depth in found.depths if depth.transfers])
        if moved is not None:
            told += [
                found.difference("transfer", (moved, share), (depth.name, share))
                for depth in found.depths
                if not depth.transfers
            ]
        if best is None:
            continue
        told += [
            found.difference("depth", (best, share), (depth.name, share))
            for depth in found.depths
            if depth.kind == HEAD and depth.name != best
        ]
        if before is not None:
            told.append(found.difference("labels", (best, share), before))
        before = best, share
    return [each for each in told if each is not None]


def as_rows(found: Measured) -> list[dict[str, Any]]:
    """Spell each depth and share, its score the mean over the seeds, for `summary.json`."""
    rows = []
    for depth in found.depths:
        for share in found.shares():
            cells = list(found.of(depth.name, share).values())
            if cells:
                rows.append(_row(found.metric, depth.name, share, cells))
    return rows


def _row(metric: str, depth: str, share: float, cells: Sequence[Cell]) -> dict[str, Any]:
    found = intervals({metric: over_seeds([cell.score for cell in cells])})[metric]
    return {
        "depth": depth,
        "share": share,
        "train": float(np.mean([cell.train for cell in cells])),
        "seeds": len(cells),
        "value": _known(found.value),
        "ci95": [_known(found.low), _known(found.high)],
        "inner_brier": _mean([cell.inner for cell in cells]),
        "seconds": float(np.mean([cell.seconds for cell in cells])),
        "seconds_without_cache": float(np.mean([cell.without_cache for cell in cells])),
        "stopped": next((cell.stopped for cell in cells if cell.stopped), ""),
    }


def spelled(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Spell differences for `summary.json`."""
    return [
        {
            "share": each.share,
            "train": each.train,
            "what": each.what,
            "first": each.first,
            "second": each.second,
            "difference": _known(each.value),
            "ci95": [_known(each.low), _known(each.high)],
            "real": each.real,
        }
        for each in differences
    ]


def ends(found: Measured, depth: str, share: float) -> Mapping[str, Any]:
    """The row of a depth and share."""
    return _row(found.metric, depth, share, list(found.of(depth, share).values()))


def _mean(numbers: Sequence[float | None]) -> float | None:
    told = [number for number in numbers if number is not None and math.isfinite(number)]
    return float(np.mean(told)) if told and len(told) == len(numbers) else None


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
