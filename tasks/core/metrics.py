"""Scores with intervals: the bootstrap draws groups, and each score is a weighted count.

A bootstrap replicate counts each row so many times; a score under a replicate is the score with each
row's weight multiplied by its count. So a score under all replicates is had at once: rates are ratios
of matrix products, and average precision is a running sum down the rows.

Values are computed in double precision. Replicates are counted in single precision, where whole
numbers are exact: accuracy and balanced accuracy are what double precision gives, the other scores are
within a millionth of it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from tasks.core.ranking import Ranking, average_precision, average_precisions, ranking, ratio

REPLICATES = 2000
METRICS = ("weighted accuracy", "accuracy", "balanced accuracy", "average precision", "log loss")
LOWER_IS_BETTER = frozenset({"log loss"})

COUNTS_AT_ONCE = 1 << 24
"""Rows times replicates that are held at once; 64 MB in single precision."""

ROUNDING = 1e-6
"""Draws that lie no further apart than this differ by rounding alone."""

LARGEST_LOSS = -math.log(np.finfo(np.float64).tiny)
"""Of a row whose class was given the probability nought; about 708."""


@dataclass(frozen=True)
class TestPart:
    """What a head said of one split's test rows.

    Attributes:
        rows: (n,) each row's place in the table of all samples.
        labels: (n,) int.
        weights: (n,) sample weights.
        log_proba: (n, C).
    """

    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    log_proba: np.ndarray


@dataclass(frozen=True)
class Draws:
    """Groups of a table of N rows, drawn with replacement B times over.

    Attributes:
        counts: (G, B) uint8, how often each group is drawn.
        members: (N,) the group of each row.
    """

    counts: np.ndarray
    members: np.ndarray

    def times(self, rows: np.ndarray, replicates: slice = slice(None)) -> np.ndarray:
        """Return how often each of some rows is drawn; (n,) -> (n, B) float32."""
        return self.counts[self.members[rows], replicates].astype(np.float32)


@dataclass(frozen=True)
class Drawn:
    """A score, and what it would be under each replicate.

    Attributes:
        value: the score itself.
        draws: (B,) float64, NaN where the replicate lacks what the score needs.
        groups: the groups that decide the score, each once, as `Draws.members` numbers them: of a recall, those
            with a row of the class.
    """

    value: float
    draws: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Score:
    """A score and its 95 % interval (percentile bootstrap)."""

    value: float
    low: float
    high: float


def draw_groups(groups: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0) -> Draws:
    """Draw groups with replacement, as many as there are (Davison & Hinkley 1997, section 3.8).

    Args:
        groups: (N,) one id a row; rows of a group are drawn together.
        replicates: B.
        seed: same seed and same groups give the same draws.
    """
    names, members = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    shares, random = np.full(len(names), 1 / len(names)), np.random.default_rng(seed)
    # a byte will do: that one group of many is drawn 256 times does not happen
    counts = np.empty((len(names), replicates), dtype=np.uint8)
    for block in replicate_blocks(replicates, len(names)):
        counts[:, block] = random.multinomial(len(names), shares, size=block.stop - block.start).T
    return Draws(counts, members)


def draw_scores(part: TestPart, draws: Draws) -> dict[str, Drawn]:
    """Score one part, and score it again under each replicate.

    Returns:
        metric -> its value and draws, for each of `METRICS`.
    """
    sheet = _sheet(part)
    value, groups = _value(sheet), _deciding(part, draws)
    drawn = np.empty((len(METRICS), draws.counts.shape[1]))
    for block in replicate_blocks(draws.counts.shape[1], len(part.rows)):
        drawn[:, block] = _under(sheet, draws.times(part.rows, block))
    return {metric: Drawn(float(value[m]), drawn[m], groups[metric]) for m, metric in enumerate(METRICS)}


def _deciding(part: TestPart, draws: Draws) -> dict[str, np.ndarray]:
    """Find the groups that decide each metric; of a mean over classes, those of the rarest class."""
    members = draws.members[part.rows]
    of_class = [np.unique(members[part.labels == label]) for label in np.unique(part.labels)]
    rarest = min(of_class, key=len)
    ranked = np.unique(members[part.labels == 1]) if part.log_proba.shape[1] == 2 else rarest
    decided = {"balanced accuracy": rarest, "average precision": ranked}
    return dict.fromkeys(METRICS, np.unique(members)) | decided


def mean_scores(scored: Sequence[dict[str, Drawn]]) -> dict[str, Drawn]:
    """Take each metric's mean over an experiment's splits.

    The splits' test parts share samples, so one draw of samples serves them all. The draws tell how
    much the mean would move with other test samples; they do not tell how much it would move with
    other training samples.
    """
    return {metric: _mean_drawn([each[metric] for each in scored]) for metric in scored[0]}


def over_seeds(scores: Sequence[Drawn], seed: int = 0) -> Drawn:
    """Take the mean over split seeds; the draws tell of other test samples and of other training parts.

    Each replicate draws the seeds, too, with replacement, so that what the seeds differ by widens the
    interval (two-stage bootstrap, Davison and Hinkley 1997, section 3.8). Of one seed alone nothing is known
    of other training parts, and two or three tell of them enough only where test samples move a score no less.
    Where one seed's score cannot be had, nor can the mean.

    Args:
        scores: (S) of the seeds, under the same draws of test samples.
        seed: same seed, same draws.
    """
    draws = np.stack([each.draws for each in scores])  # (S, B)
    count, replicates = draws.shape
    random = np.random.default_rng([seed, 1])  # other numbers than those by which groups are drawn
    times = random.multinomial(count, np.full(count, 1 / count), size=replicates).T  # (S, B)
    drawn = np.where(times > 0, draws * times, 0.0).sum(axis=0) / count  # (B,); NaN only where it was drawn
    value = float(np.mean([each.value for each in scores]))
    groups = np.unique(np.concatenate([each.groups for each in scores]))
    return Drawn(value, np.full(replicates, math.nan) if math.isnan(value) else drawn, groups)


def intervals(scored: dict[str, Drawn]) -> dict[str, Score]:
    """Give each metric its 95 % interval.

    Where no draw differs from the others (nothing in the test part is wrong, say) the bootstrap knows
    nothing; then the exact bound of a proportion is given, for as many trials as groups decide the score
    (Clopper & Pearson 1934). Log loss is no proportion, and its interval is then a point.
    """
    found = {}
    for metric, drawn in scored.items():
        low, high = percentiles(drawn.draws)
        if high - low <= ROUNDING and metric not in LOWER_IS_BETTER:
            low, high = _exact_interval(drawn.value, len(drawn.groups))
        found[metric] = Score(drawn.value, low, high)
    return found


def differences(a: dict[str, Drawn], b: dict[str, Drawn]) -> dict[str, Score]:
    """Tell how much two experiments differ in each metric: a less b, with a 95 % interval.

    Both are scored under the same draws, so what a draw does to both cancels: the interval is that of
    the difference, and far narrower than the two scores' own suggest. Draws in which either score
    cannot be had are left out. Where no draw differs from the others the interval is a point.

    Args:
        a: of `mean_scores`.
        b: likewise, under the same draws of the same table.

    Returns:
        metric -> a less b; for log loss a negative one is an improvement.
    """
    return {
        metric: Score(a[metric].value - b[metric].value, *percentiles(a[metric].draws - b[metric].draws))
        for metric in METRICS
    }


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """Find between which values the middle 95 % of the draws lie; NaN draws are left out."""
    told = draws[~np.isnan(draws)]
    if not len(told):
        return math.nan, math.nan
    low, high = np.percentile(told, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class _Sheet:
    """A part, made ready to be counted.

    Attributes:
        summed: (2 C + 3, n) what is summed over rows: rows of each class, right rows of each class,
            weight of right rows, weight of wrong rows, and loss.
        rankings: by the second class of two, or by each of more.
    """

    summed: np.ndarray
    rankings: list[Ranking]


def _sheet(part: TestPart) -> _Sheet:
    classes = part.log_proba.shape[1]
    of_class = np.equal.outer(np.arange(classes), part.labels)  # (C, n)
    right = part.log_proba.argmax(axis=1) == part.labels
    weights = np.stack([part.weights * right, part.weights * ~right])
    loss = np.minimum(-part.log_proba[np.arange(len(right)), part.labels], LARGEST_LOSS)
    odds = margins(part.log_proba)
    return _Sheet(
        np.concatenate([of_class, of_class & right, weights, loss[None]]),
        [ranking(of_class[c], odds[:, c]) for c in (range(1, 2) if classes == 2 else range(classes))],
    )


def _value(sheet: _Sheet) -> np.ndarray:
    """Each metric, (M,), with every row counted once."""
    precisions = [[average_precision(ranked)] for ranked in sheet.rankings]
    return _scores(sheet.summed.sum(axis=1, keepdims=True), np.array(precisions))[:, 0]


def _under(sheet: _Sheet, times: np.ndarray) -> np.ndarray:
    """Each metric, (M, B), with rows counted so many times, (n, B)."""
    sums = (sheet.summed.astype(times.dtype) @ times).astype(np.float64)
    return _scores(sums, np.stack([average_precisions(ranked, times) for ranked in sheet.rankings]))


def _scores(sums: np.ndarray, precisions: np.ndarray) -> np.ndarray:
    """Make scores, in `METRICS`' order, of sums and average precisions; (2 C + 3, B), (P, B) -> (M, B)."""
    classes = len(sums) // 2 - 1
    count, hits, (weight_right, weight_wrong, loss) = np.split(sums, [classes, 2 * classes])
    rows = count.sum(axis=0)
    return np.stack(
        [
            ratio(weight_right, weight_right + weight_wrong),  # so made, all right is 1 to the bit
            ratio(hits.sum(axis=0), rows),
            _mean(ratio(hits, count)),
            _mean(precisions),
            ratio(loss, rows),
        ]
    )


def margins(log_proba: np.ndarray) -> np.ndarray:
    """Log odds of each class, which order as probabilities do but do not saturate at 1; (n, C)."""
    top = log_proba.argmax(axis=1)[:, None] == np.arange(log_proba.shape[1])
    others = np.empty_like(log_proba)  # log of what the others have; half or more, but for the top class
    others[~top] = np.log1p(-np.exp(log_proba[~top]))
    others[top] = np.logaddexp.reduce(np.where(top, -np.inf, log_proba), axis=1)
    margins: np.ndarray = log_proba - others
    return margins


def _mean_drawn(scores: Sequence[Drawn]) -> Drawn:
    return Drawn(
        float(np.mean([each.value for each in scores])),
        np.mean([each.draws for each in scores], axis=0),
        np.unique(np.concatenate([each.groups for each in scores])),
    )


def _exact_interval(value: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion by the beta distribution's quantiles."""
    hits = value * trials
    low = beta.ppf(0.025, hits, trials - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, trials - hits) if hits < trials else 1.0
    return float(low), float(high)


def replicate_blocks(replicates: int, rows: int) -> Iterator[slice]:
    """Cut the replicates so that no more than `COUNTS_AT_ONCE` are held at once."""
    width = max(1, COUNTS_AT_ONCE // rows)
    for first in range(0, replicates, width):
        yield slice(first, min(first + width, replicates))


def _mean(scores: np.ndarray) -> np.ndarray:
    """Mean over the classes that were drawn, (C, B) -> (B,)."""
    known = ~np.isnan(scores)
    return ratio(np.where(known, scores, 0).sum(axis=0), known.sum(axis=0))
