"""How much to train, told from what was measured: depths on nested shares of the training part, over seeds.

The depth of a share is chosen by the inner folds. Its score, and how it differs from a head alone and from a
start at random weights, are then read from the test parts, which chose nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.metrics import LOWER_IS_BETTER, ROUNDING, Drawn, intervals, over_seeds, percentiles

HEAD, SUFFIX, EVERYTHING, SCRATCH = "head", "suffix", "everything", "scratch"
"""Kinds of depth."""
CHANCE = 0.025
"""That the truth lies beyond one end of an interval."""


@dataclass(frozen=True)
class Depth:
    """One way to train.

    Attributes:
        name: what tables call it.
        kind: "head", "suffix", "everything" or "scratch".
        cut: of a suffix.
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
        seconds: that it took; None where nobody knows, and
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
    seconds: float | None
    without_cache: float | None
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
        """From the value to the end of the interval that decides: less than the value itself where this is real."""
        below, above = max(0.0, self.value - self.low), max(0.0, self.high - self.value)
        if self.value == 0:
            return max(below, above)
        return below if self.value > 0 else above

    @property
    def reach(self) -> float:
        """How far from nought the interval reaches, to either side."""
        return max(-self.low, self.high)


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

    def chosen(self, share: float, among: Sequence[Depth] | None = None) -> str | None:
        """Name the depth that the inner folds choose for a share, on the seeds that all of them have.

        Of equals the first; None where folds could not be made, or no seed is common to all.
        """
        known, seeds = self._measured(share, among), self.common(share, among)
        scores = {name: [cells[seed].inner for seed in seeds] for name, cells in known.items()}
        means = {name: _mean(inner) for name, inner in scores.items()}
        told = {name: mean for name, mean in means.items() if mean is not None}
        return min(told, key=told.__getitem__) if told else None

    def common(self, share: float, among: Sequence[Depth] | None = None) -> list[int]:
        """The seeds on which every depth was measured that was measured on a share at all."""
        known = self._measured(share, among)
        return sorted(set.intersection(*(set(cells) for cells in known.values()))) if known else []

    def _measured(self, share: float, among: Sequence[Depth] | None) -> dict[str, dict[int, Cell]]:
        depths = self.depths if among is None else among
        return {depth.name: cells for depth in depths if (cells := self.of(depth.name, share))}

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
        low, high = self._ends(both)
        share = first[1]
        return Difference(share, self.train(share), what, first[0], second[0], both.value, low, high)

    def _ends(self, apart: Drawn) -> tuple[float, float]:
        """Find a difference's 95 % interval.

        Where no draw differs from the others the bootstrap knows nothing. Then so many groups are like those
        that were tested as a proportion's exact bound tells (Clopper and Pearson 1934), and the others differ
        by the whole scale, either way. Log loss has no scale; of one group alone nothing is known.
        """
        low, high = percentiles(apart.draws)
        if math.isnan(low) or high - low > ROUNDING:
            return low, high
        if self.sign < 0:
            return (low, high) if len(apart.groups) > 1 else (math.nan, math.nan)
        alike: float = CHANCE ** (1 / len(apart.groups))
        return low * alike - (1 - alike), high * alike + (1 - alike)


def differences(found: Measured) -> list[Difference]:
    """List what the sentence and the report tell of: transfer, depth, and what labels are worth; one of each a share.

    The best that transfers is held against the best from scratch, the best of all against the best head, and
    against the best with fewer samples. The inner folds say what is best.
    """
    told: list[Difference | None] = []
    before: tuple[str, float] | None = None
    for share in found.shares():
        best = found.chosen(share)
        moved = _best(found, share, best, [depth for depth in found.depths if depth.transfers])
        scratch = _best(found, share, best, [depth for depth in found.depths if not depth.transfers])
        head = _best(found, share, best, [depth for depth in found.depths if depth.kind == HEAD])
        if moved is not None and scratch is not None:
            told.append(found.difference("transfer", (moved, share), (scratch, share)))
        if best is None:
            continue
        if head is not None and head != best:
            told.append(found.difference("depth", (best, share), (head, share)))
        if before is not None:
            told.append(found.difference("labels", (best, share), before))
        before = best, share
    return [each for each in told if each is not None]


def _best(found: Measured, share: float, best: str | None, among: Sequence[Depth]) -> str | None:
    """Name the best of some depths: the best of all, if it is one of them."""
    return best if best in {depth.name for depth in among} else found.chosen(share, among)


def as_rows(found: Measured) -> list[dict[str, Any]]:
    """Spell each depth and share, its score the mean over the seeds, for `summary.json`."""
    return [
        row_of(found, depth.name, share)
        for depth in found.depths
        for share in found.shares()
        if found.of(depth.name, share)
    ]


def _row(metric: str, depth: str, share: float, cells: Sequence[Cell]) -> dict[str, Any]:
    found = intervals({metric: over_seeds([cell.score for cell in cells])})[metric]
    seconds = _mean([cell.seconds for cell in cells])
    without = _mean([cell.without_cache for cell in cells])
    return {
        "depth": depth,
        "share": share,
        "train": float(np.mean([cell.train for cell in cells])),
        "seeds": len(cells),
        "value": _known(found.value),
        "ci95": [_known(found.low), _known(found.high)],
        "inner_brier": _mean([cell.inner for cell in cells]),
        "seconds": seconds,
        "seconds_without_cache": None if without == seconds else without,  # nothing is kept for it
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


def row_of(found: Measured, depth: str, share: float, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """Spell one depth and share that was measured, as `as_rows` does; of some seeds alone, if they are given."""
    cells = found.of(depth, share)
    return _row(found.metric, depth, share, [cells[seed] for seed in (cells if seeds is None else seeds)])


def total(numbers: Iterable[float | None]) -> float | None:
    """Sum what is known throughout; None if something is not."""
    told = list(numbers)
    known = [number for number in told if number is not None]
    return sum(known) if len(known) == len(told) else None


def _mean(numbers: Sequence[float | None]) -> float | None:
    told = [number for number in numbers if number is not None and math.isfinite(number)]
    return float(np.mean(told)) if told and len(told) == len(numbers) else None


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
