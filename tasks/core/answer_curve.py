"""Would more answers help, and to which question? Heads trained again on halves of what is known of each target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.answer_scores import draw_question, mean_of, questions_of
from tasks.core.answers import UNKNOWN, Answers
from tasks.core.curve import Known, Lesson, shorter
from tasks.core.fits import Folds
from tasks.core.hyper import Hyper, Mlp
from tasks.core.joint import Asked, train_separately
from tasks.core.metrics import Drawn, Draws, TestPart
from tasks.core.selection import inner_folds, said_of


@dataclass(frozen=True)
class Classroom:
    """Where heads for several targets learn from less than there is, and are tested.

    Attributes:
        answers: (N, T) of answered samples.
        features: (V * N, D) theirs.
        weights: (N,) theirs.
        groups: (N,) ids; samples that share one stay together.
        places: (N,) each sample's row in the table whose groups are drawn anew.
        draws: of these groups.
        views: V.
    """

    answers: Answers
    features: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    places: np.ndarray
    draws: Draws
    views: int = 1

    def lesson(self, target: str, hyper: Hyper, test: np.ndarray, seed: int) -> Lesson:
        """Take all that is known of a target to test on, and what of it has weight to learn from.

        Args:
            target: its name.
            hyper: the head.
            test: (N,) bool, who is tested.
            seed: of the split.
        """
        known = self.answers.known[:, self._number(target)]
        return Lesson(hyper, ~test & known & (self.weights > 0), test & known, seed)

    def shorter(self, target: str, lessons: Sequence[Lesson]) -> dict[float, list[Lesson]]:
        """Cut a target's lessons, one for each seed, down to shares; as `tasks.core.curve.shorter`."""
        labels = self.answers.labels[:, self._number(target)]
        return shorter(Known(labels, self.weights, self.groups, self.views), lessons)

    def score(self, lessons: Mapping[str, Lesson], training: np.ndarray) -> dict[str, dict[str, Drawn]]:
        """Train a head for each target, alike ones in one go, and score what they say of the samples asked about.

        Args:
            lessons: target -> its lesson, all of the same seed.
            training: (N,) bool, who is not tested. Features are standardised over all of them, as where more is
                known: it is answers that are fewer, not pictures.

        Returns:
            target -> metric -> score and draws; F1 at one half.
        """
        alike: dict[tuple[Hyper, str], dict[str, Lesson]] = {}
        for target, lesson in lessons.items():
            alone = target if self._needs_folds(lesson) else ""  # its folds are its own
            alike.setdefault((lesson.hyper, alone), {})[target] = lesson
        return {
            target: self.scored(target, lessons[target], said)
            for some in alike.values()
            for target, said in self._learnt(some, training).items()
        }

    def _learnt(self, lessons: Mapping[str, Lesson], training: np.ndarray) -> dict[str, np.ndarray]:
        """Train heads with the same hyper-parameters; target -> (n, C) log probabilities of the samples asked about."""
        some, one = self.answers.only(tuple(lessons)), next(iter(lessons.values()))
        taken = np.column_stack([lesson.taken for lesson in lessons.values()])  # (N, T)
        less = Answers(some.targets, some.classes, np.where(taken, some.labels, UNKNOWN)).take(training)
        folds = self._folds(some.targets[0], one, training) if self._needs_folds(one) else []
        asked = Asked(self._seen(training), less, self.weights[training], folds, self.views)
        trained = train_separately(asked, [one.hyper], seed=one.seed)
        said = {}
        for (target, lesson), [head] in zip(lessons.items(), trained, strict=True):
            [said[target]] = said_of([head.predictor], self._seen(lesson.asked), self.views)
        return said

    def _needs_folds(self, lesson: Lesson) -> bool:
        """Whether inner folds move what is likeliest; elsewhere they are not made, as in `tasks.core.curve.learn`."""
        return isinstance(lesson.hyper, Mlp) or self.views > 1

    def _folds(self, target: str, lesson: Lesson, training: np.ndarray) -> Folds:
        """Cut what a lesson takes into inner folds, whose samples are numbered among those that are not tested.

        The first fold holds out all others, too, of which nothing is known.
        """
        taken, place = np.flatnonzero(lesson.taken), np.cumsum(training) - 1
        labels = self.answers.labels[taken, self._number(target)]
        folds = inner_folds(labels, self.groups[taken], seed=lesson.seed)
        rest = [np.flatnonzero(training & ~lesson.taken), *([np.empty(0, dtype=int)] * len(folds))]
        return [
            (place[taken[learnt]], place[np.concatenate([taken[held], others])])
            for (learnt, held), others in zip(folds, rest, strict=False)
        ]

    def scored(self, target: str, lesson: Lesson, said: np.ndarray) -> dict[str, Drawn]:
        """Score what a head says, (n, C) log probabilities, of the samples that a lesson asks about."""
        labels, rows = self.answers.labels[:, self._number(target)], lesson.asked
        part = TestPart(self.places[rows], labels[rows], self.weights[rows], said)
        return mean_of([draw_question(each, self.draws) for each in questions_of(part, None)])

    def _seen(self, rows: np.ndarray) -> np.ndarray:
        picked: np.ndarray = self.features[np.tile(rows, self.views)]
        return picked

    def _number(self, target: str) -> int:
        return self.answers.targets.index(target)
