"""Scores of several targets, each by itself and together, with intervals; and what joint training changes.

A target of two answers is one question, answered by the second; one of more is a question for each of its answers,
this one or another, and its score is their mean. Macro is the mean over targets. Micro puts all questions' rows on one
list, so that a question counts by how much is known of it, and a target of three or more answers once for each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from tasks.core.answers import MACRO, MICRO
from tasks.core.calibration import recall_curve
from tasks.core.metrics import (
    Drawn,
    Draws,
    Score,
    TestPart,
    margins,
    over_seeds,
    percentiles,
    replicate_blocks,
)
from tasks.core.ranking import average_precision, average_precisions, ranking, ratio

ANSWER_METRICS = ("average precision", "AUROC", "F1")


@dataclass(frozen=True)
class Question:
    """What a head says of one question on the rows whose answer is known.

    Attributes:
        rows: (n,) each row's place in the table of all samples.
        truth: (n,) bool.
        margin: (n,) log odds of yes.
        called: (n,) bool, where yes is said.
    """

    rows: np.ndarray
    truth: np.ndarray
    margin: np.ndarray
    called: np.ndarray


def questions_of(part: TestPart, threshold: float | None) -> list[Question]:
    """Make questions of what a head says of a target's test rows.

    Args:
        part: the rows whose answer is known.
        threshold: of the second answer's probability, where there are two; None for one half. Of more answers the
            likeliest is said.
    """
    odds = margins(part.log_proba)
    if part.log_proba.shape[1] == 2:
        called = expit(odds[:, 1]) >= (0.5 if threshold is None else threshold)
        return [Question(part.rows, part.labels == 1, odds[:, 1], called)]
    said = part.log_proba.argmax(axis=1)
    return [
        Question(part.rows, part.labels == number, odds[:, number], said == number)
        for number in range(part.log_proba.shape[1])
    ]


def best_threshold(log_proba: np.ndarray, labels: np.ndarray) -> float | None:
    """Find the threshold of the second answer's probability with the highest F1, on rows that the fits have not seen.

    Of equals the highest; rows count alike.

    Args:
        log_proba: (N, 2).
        labels: (N,) int.

    Returns:
        The threshold; None where nobody answered yes, or there are more than two answers.
    """
    if log_proba.shape[1] != 2 or not (labels == 1).any():
        return None
    thresholds, recalls, precisions = recall_curve(
        margins(log_proba)[:, 1], labels == 1, np.ones(len(labels))
    )
    scores = 2 * recalls * precisions / np.maximum(recalls + precisions, np.finfo(float).tiny)
    return float(thresholds[int(scores.argmax())])


def draw_question(question: Question, draws: Draws) -> dict[str, Drawn]:
    """Score a question, and again under each replicate; rows count alike.

    Returns:
        metric -> its value and draws, for each of `ANSWER_METRICS`; NaN where yes, or for AUROC either answer, is
        given by no row.
    """
    ranked, rows = ranking(question.truth, question.margin), question.rows
    counted = np.stack([question.truth & question.called, question.truth, question.called]).astype(np.float32)
    areas = _Areas(question.truth, question.margin)
    replicates = draws.counts.shape[1]
    drawn = np.empty((3, replicates))
    for block in replicate_blocks(replicates, len(rows)):
        times = draws.times(rows, block)
        drawn[0, block] = average_precisions(ranked, times)
        drawn[1, block] = areas.under(times)
        drawn[2, block] = _f1((counted @ times).astype(np.float64))
    once = np.ones((len(rows), 1), dtype=np.float64)
    value = average_precision(ranked), areas.under(once)[0], _f1(counted.astype(np.float64) @ once)[0]
    yes, no = (np.unique(draws.members[rows[some]]) for some in (question.truth, ~question.truth))
    groups = yes, min(yes, no, key=len), yes  # each metric's, that decide it
    return {metric: Drawn(float(value[m]), drawn[m], groups[m]) for m, metric in enumerate(ANSWER_METRICS)}


def _f1(sums: np.ndarray) -> np.ndarray:
    """F1 of hits, true and called rows; (3, B) -> (B,)."""
    hits, true, called = sums
    found = ratio(2 * hits, true + called)
    return np.where(true > 0, found, np.nan)


class _Areas:
    """The area under the ROC curve: how often a yes ranks above a no, ties half (Hanley & McNeil 1982)."""

    def __init__(self, truth: np.ndarray, margin: np.ndarray) -> None:
        self.order = np.argsort(margin, kind="stable")
        ranked = margin[self.order]
        self.truth = truth[self.order]
        self.starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))

    def under(self, times: np.ndarray) -> np.ndarray:
        """Under each replicate; (n, B) counts -> (B,)."""
        counts = times[self.order].astype(np.float64)
        yes = np.add.reduceat(np.where(self.truth[:, None], counts, 0.0), self.starts)  # (ties, B)
        no = np.add.reduceat(np.where(self.truth[:, None], 0.0, counts), self.starts)
        below = np.cumsum(no, axis=0) - no
        return ratio((yes * (below + no / 2)).sum(axis=0), yes.sum(axis=0) * no.sum(axis=0))


def mean_of(scored: Sequence[Mapping[str, Drawn]]) -> dict[str, Drawn]:
    """Take each metric's mean over questions or targets; a draw that lacks one is the mean of the others."""
    return {metric: _mean([each[metric] for each in scored]) for metric in ANSWER_METRICS}


def with_mean(scored: Mapping[str, dict[str, Drawn]]) -> dict[str, dict[str, Drawn]]:
    """Put "macro average" beside targets' scores."""
    return {**scored, MACRO: mean_of(list(scored.values()))}


def _mean(scores: Sequence[Drawn]) -> Drawn:
    draws, values = np.stack([each.draws for each in scores]), np.array([each.value for each in scores])
    decided = [each.groups for each in scores if not np.isnan(each.value)]
    # a mean is decided by what the fewest decide
    rarest = min(decided, key=len) if decided else np.empty(0, dtype=int)
    return Drawn(float(_known_mean(values[:, None])[0]), _known_mean(draws), rarest)


def _known_mean(scores: np.ndarray) -> np.ndarray:
    """(K, B) -> (B,), NaN only where all are."""
    known = ~np.isnan(scores)
    return ratio(np.where(known, scores, 0.0).sum(axis=0), known.sum(axis=0))


def pooled(questions: Sequence[Question]) -> Question:
    """Put questions on one list."""
    return Question(
        *(
            np.concatenate([getattr(each, name) for each in questions])
            for name in ("rows", "truth", "margin", "called")
        )
    )


def draw_targets(
    asked: Mapping[str, Sequence[Question]], draws: Draws, *, micro: bool = True
) -> dict[str, dict[str, Drawn]]:
    """Score the targets of one test part by name, and "macro average" and, if wanted, "micro average" over them."""
    told = with_mean(
        {name: mean_of([draw_question(each, draws) for each in of]) for name, of in asked.items()}
    )
    if not micro:
        return told
    return told | {MICRO: draw_question(pooled([each for of in asked.values() for each in of]), draws)}


HEADLINE = "average precision"
"""Of the scores, the one that is told first."""


def less(ones: Sequence[Drawn], others: Sequence[Drawn]) -> Score:
    """How far one experiment's score lies above another's: the mean over seeds of paired differences.

    The interval draws test samples, the same for both, and seeds, and with these training parts, anew (`over_seeds`).

    Args:
        ones: a score for each seed.
        others: likewise, under the same draws.
    """
    apart = [
        Drawn(one.value - other.value, one.draws - other.draws, one.groups)
        for one, other in zip(ones, others, strict=True)
    ]
    both = over_seeds(apart)
    return Score(both.value, *percentiles(both.draws))
