"""What stages of several targets hand on; see `tasks.references`."""

from typing import Any

from pydantic import BaseModel

from tasks.core.answers import MACRO
from tasks.references import Gain, Heads, Point


class AnswerCurve(BaseModel, frozen=True):
    """How the chosen experiment's score of each target grows with the answers to learn from.

    Attributes:
        experiment: its name.
        split: the one that it was chosen on.
        metric: what is scored.
        points: target, or "macro average" -> from the smallest share to all; none where no smaller share can be
            trained on.
        gains: likewise, what the last step gained: a paired difference with its interval, which draws test samples
            and seeds anew.
    """

    experiment: str
    split: str
    metric: str
    points: dict[str, list[Point]]
    gains: dict[str, Gain]

    def as_summary(self) -> dict[str, Any] | None:
        """Spell it for `summary.json`, the mean's points as those of a study of one target; None without any."""
        if not self.points:
            return None
        spelled = self.model_dump()
        curves = [
            {"target": name, "points": points, "gain": spelled["gains"][name]}
            for name, points in spelled["points"].items()
        ]
        mean = [each for each in curves if each["target"] == MACRO]
        return {
            **{name: spelled[name] for name in ("experiment", "split", "metric")},
            "points": mean[0]["points"] if mean else [],
            "gain": mean[0]["gain"] if mean else None,
            "targets": [each for each in curves if each["target"] != MACRO],
        }


class Targets(BaseModel, frozen=True):
    """What is known of several targets before anything is trained; small enough to be the result itself.

    Attributes:
        kept: those that are learnt, in the study's order.
        left_out: the others -> why not.
        counts: of each target, as `tasks.core.answers.Answers.counts`.
        answers: (S) every answer to every target, as "car = 1".
        together: (S, S) how many samples give each two of them.
        silent: how many samples answer nothing.
    """

    kept: list[str]
    left_out: dict[str, str]
    counts: list[dict[str, Any]]
    answers: list[str]
    together: list[list[int]]
    silent: int


class AnswerHeads(BaseModel, frozen=True):
    """References to the heads of grids with the same inputs, for each target."""

    heads: dict[str, Heads]


class AnswerScores(BaseModel, frozen=True):
    """Scores of every experiment on every target; small enough to be the result itself.

    Attributes:
        splits: one row for each experiment, target, split, seed and head; test scores stand with the chosen.
        means: one row for each experiment, split and target, and for "macro average" and "micro average": the mean
            over the seeds of what was chosen for each.
        differences: one row for each experiment, split and metric: its macro average less the chosen one's.
        gains: one row for each pair of a joint experiment and its separate twin, split, target and metric: joint
            less separate.
        widths: one row for each such pair, split and width: what inner folds say of both.
    """

    splits: list[dict[str, Any]]
    means: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    gains: list[dict[str, Any]]
    widths: list[dict[str, Any]]

    def macro(self) -> list[dict[str, Any]]:
        """The rows of `means` that are over all targets."""
        return [row for row in self.means if row["target"] == MACRO]
