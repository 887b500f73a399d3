"""A learning rate and a number of epochs for layers, chosen on inner folds; the folds' networks speak together.

The search is short, and its budget is told beforehand: every learning rate is tried for the first number of
epochs, then the best of them for the other numbers. All that is tried on the first fold alone, and what did best
there is trained on the other folds. Each of these networks has learnt from all folds but one, and together they
say the mean of what each says (cross-validation ensemble, Krogh and Vedelsby 1995), which errs no more than they
do on average. It costs nothing: they had to be trained to be judged.
"""

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from torch import nn

from tasks.core.checkpoints import Checkpoint
from tasks.core.digest import digest_value
from tasks.core.finetune import Course, Diverged, Samples, Training, ask
from tasks.core.fits import Fact, Folds
from tasks.core.hyper import Network
from tasks.core.looks import Looks
from tasks.core.predictors import Networks
from tasks.core.selection import mean_log_proba
from tasks.core.truth import SCORES, Judged, Truth, warmed

SHARED = ("earlier", "weight_decay", "mixup", "batch", "batch_norm", "seed")
"""What all candidates of a network have in common."""

Make = Callable[[int, np.ndarray], nn.Module]
"""(seed, numbers of the samples to learn from) -> layers to train."""


@dataclass(frozen=True)
class Tried:
    """One training: with what, on which fold, and what came of it.

    Attributes:
        fold: number of the fold that was left out; -1 if none was.
        brier: of the fold's samples, None without folds.
        seconds: that it took, in all processes that had a part in it.
        stopped: why it ended early, or "".
    """

    learning_rate: float
    epochs: int
    fold: int
    brier: float | None
    seconds: float
    stopped: str = ""


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        predictor: the networks' weights.
        inner: (n, C) log probabilities of each training row by the network that did not see it; None
            without folds.
        said: (m, C) log probabilities of the rows asked about.
        facts: as `tasks.core.selection.Trained`, and what was chosen ("learning_rate", "epochs"), what it took
            ("trainings", "epochs_in_all", "seconds"), and why a network of the chosen ended early ("stopped").
        tried: every training.
        judged: the same of each target; `predictor` and `facts` tell the first one's temperature and scores.
    """

    predictor: Networks
    inner: np.ndarray | None
    said: np.ndarray
    facts: dict[str, Fact]
    tried: list[Tried]
    judged: Judged


@dataclass
class Search:
    """Searches for one training part.

    Attributes:
        network: what to train, and what to choose from.
        make: builds the layers.
        looks: at all samples.
        known: of all samples.
        training: (n,) numbers of those to learn from.
        asked: (m,) numbers of those to ask about.
        seed: shuffles the folds.
        place: a folder for checkpoints, of this search's own; None for none.
        advance: is told how many more samples were learnt from.
    """

    network: Network
    make: Make
    looks: Looks
    known: Truth
    training: np.ndarray
    asked: np.ndarray
    seed: int
    place: Path | None = None
    advance: Callable[[int], None] = lambda more: None
    tried: list[Tried] = field(default_factory=list)
    _start: tuple[int, nn.Module] | None = field(default=None, init=False, repr=False)

    def run(self) -> Found:
        """Choose, train, and ask."""
        folds = self.known.folds(self.training, seed=self.seed, most=self.network.folds)
        if folds:
            fits = [self._choose(folds[0])]
            fits += [
                self._attempt(fits[0].course, fold, number) for number, fold in enumerate(folds) if number
            ]
        else:
            everything = np.arange(len(self.training))
            fits = [self._attempt(middle(self.network), (everything, everything[:0]), -1)]
        return self._found(fits, folds)

    def _choose(self, fold: tuple[np.ndarray, np.ndarray]) -> "_Fitted":
        """Try every learning rate, then with the best of them every number of epochs; of equals the first."""
        first, *more = self.network.epochs
        rates = self.network.learning_rates
        best = min(
            (self._attempt(course_of(self.network, rate, first), fold, 0) for rate in rates), key=_loss
        )
        rate = best.course.learning_rate
        longer = (self._attempt(course_of(self.network, rate, epochs), fold, 0) for epochs in more)
        return min(chain([best], longer), key=_loss)  # one by one: networks are large

    def _attempt(self, course: Course, fold: tuple[np.ndarray, np.ndarray], number: int) -> "_Fitted":
        """Train once, and ask about the rows left out."""
        learnt, left_out = (self.training[part] for part in fold)
        started = time.perf_counter()
        samples = Samples(self.looks, learnt, self.known)
        speak, stopped = self._started(course.seed, learnt, number), ""
        heard = left_out if len(left_out) else learnt
        training = Training(speak, samples, course, self._checkpoint(course, number), self.advance)
        try:
            training.run()
            said = self._heard(speak, heard)
        except Diverged as reason:
            speak, stopped = _Prior(self.known.prior(learnt)), str(reason)
            said = self._ask(speak, heard)
        brier = self.known.brier(said, left_out) if len(left_out) else None
        seconds = training.before + time.perf_counter() - started
        told = Tried(course.learning_rate, course.epochs, number, brier, seconds, stopped)
        self.tried.append(told)
        return _Fitted(course, told, speak, said)

    def _started(self, seed: int, learnt: np.ndarray, number: int) -> nn.Module:
        """Copy a fold's layers as they start: all candidates start alike, and their optimum is sought once."""
        if self._start is None or self._start[0] != number:
            self._start = number, self.make(seed, learnt)
        return deepcopy(self._start[1])

    def _checkpoint(self, course: Course, number: int) -> Checkpoint | None:
        if self.place is None:
            return None
        return Checkpoint(self.place / f"{digest_value([asdict(course), number])}.checkpoint")

    def _ask(self, layers: nn.Module, rows: np.ndarray) -> np.ndarray:
        """(V, n, C) log probabilities."""
        if isinstance(layers, _Prior):
            return np.tile(layers.log_proba, (len(self.looks.views), len(rows), 1))
        return ask(layers, self.looks, rows, self.known.blocks)

    def _heard(self, layers: nn.Module, rows: np.ndarray) -> np.ndarray:
        """Ask layers whose training has just ended.

        Raises:
            Diverged: if the last step made them say what is no number.
        """
        said = self._ask(layers, rows)
        if not np.isfinite(said).all():
            raise Diverged("after the last step what the layers say was not finite")
        return said

    def _found(self, fits: Sequence["_Fitted"], folds: Folds) -> Found:
        """Put together what the folds' networks say, at a temperature that suits what they did not learn from.

        A network whose training failed has no say, unless all did.
        """
        judged = self._judged(fits, folds)
        able = [fit for fit in fits if not fit.tried.stopped]
        said = np.concatenate([self._ask(fit.layers, self.asked) for fit in able or fits])
        return Found(
            Networks(_tensors([fit.layers for fit in able]), judged.warmth[0]),
            judged.inner if folds else None,
            mean_log_proba(list(warmed(said, self.known.blocks, judged.warmth))),
            {**judged.facts[0], **self._facts(fits), "temperature": judged.warmth[0]},
            self.tried,
            judged,
        )

    def _judged(self, fits: Sequence["_Fitted"], folds: Folds) -> Judged:
        """Judge what is said of the training rows by the networks that did not see them."""
        targets = len(self.known.blocks)
        if not folds:
            blank = dict.fromkeys(SCORES)
            return Judged(np.empty((0, 0)), (1.0,) * targets, (blank,) * targets)
        raw = np.empty((len(self.looks.views), len(self.training), sum(self.known.blocks)))
        able = np.zeros(len(self.training), dtype=bool)
        for fit, (_, left_out) in zip(fits, folds, strict=True):
            raw[:, left_out], able[left_out] = fit.said, not fit.tried.stopped
        return self.known.judged(raw, able, self.training)

    def _facts(self, fits: Sequence["_Fitted"]) -> dict[str, Fact]:
        stopped = [fit.tried.stopped for fit in fits if fit.tried.stopped]
        return {
            "converged": not stopped,
            "stopped": stopped[0] if stopped else "",
            "learning_rate": fits[0].course.learning_rate,
            "epochs": fits[0].course.epochs,
            "trainings": len(self.tried),
            "epochs_in_all": sum(tried.epochs for tried in self.tried),
            "seconds": sum(tried.seconds for tried in self.tried),
        }


@dataclass(frozen=True)
class _Fitted:
    """Layers that were trained, and what they say of the rows left out, or learnt from if there are none: (V, n, C)."""

    course: Course
    tried: Tried
    layers: nn.Module
    said: np.ndarray


class _Prior(nn.Module):
    """Says of every sample how frequent the classes were; what speaks where training failed."""

    def __init__(self, log_proba: np.ndarray) -> None:
        super().__init__()
        self.log_proba = log_proba


def _tensors(networks: Sequence[nn.Module]) -> dict[str, np.ndarray]:
    return {
        f"{number} {name}": tensor.detach().cpu().contiguous().numpy()
        for number, layers in enumerate(networks)
        for name, tensor in layers.state_dict().items()
    }


def _loss(fitted: _Fitted) -> float:
    """What a fit is chosen by; one that stopped early comes last."""
    brier = fitted.tried.brier
    return math.inf if fitted.tried.stopped or brier is None else brier


def course_of(network: Network, learning_rate: float, epochs: int) -> Course:
    """Say how layers are trained with one of the candidates."""
    shared = {name: getattr(network, name) for name in SHARED}
    return Course(learning_rate=learning_rate, epochs=epochs, **shared)


def middle(network: Network) -> Course:
    """The candidate that is taken where no folds can tell."""
    rates, epochs = sorted(network.learning_rates), sorted(network.epochs)
    return course_of(network, rates[len(rates) // 2], epochs[len(epochs) // 2])
