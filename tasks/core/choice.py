"""Which engine to run: decided from what was measured, with its start-up counted against the work to do.

Deciding is pure (`next_step`); `choose` acts on it: builds an engine, holds its rows against eager's,
times it, and remembers both for the next run with the same network on the same machine.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from tasks.core.engines import Engine, Forward, Unavailable
from tasks.core.errors import HeadstartError
from tasks.core.files import write_text

T = TypeVar("T")

MOST_ERROR = 1e-3
"""Relative error against eager, above which an engine is not used."""

FALLBACK = "eager"
"""What the others are held against."""

EXPECTED = {"eager": (0.0, 0.6), "openvino": (10.0, 2.5), "compiled": (30.0, 1.5)}
"""What to expect of an engine that was never tried here: seconds of start-up, and how many times as fast as
"channels_last" it is. Rounded from EfficientNet-Lite0 and ResNet-50 on two cores."""

TRIAL_SHARE = 0.02
"""An engine that promises nothing is tried all the same if that costs no more than this share of the work."""

TRIAL_BATCHES = 4
"""One to warm up, three to time."""

FEW = 64
"""So few samples are done sooner than anything is measured: they run in plain eager."""

KEEP_WITHIN = 60.0
"""Seconds that a run spends rather than mix rows of two engines in one set."""


@dataclass(frozen=True)
class Measured:
    """What is known of an engine for one prefix on this machine.

    Attributes:
        startup: seconds to make it ready when it was tried.
        rate: samples a second, forward pass alone; 0 if it cannot be used.
        error: relative error against eager.
        problem: why it cannot be used, or "".
    """

    startup: float
    rate: float
    error: float = 0.0
    problem: str = ""

    def seconds(self, samples: int) -> float:
        """Time that so many samples take, start-up included."""
        return self.startup + samples / self.rate if self.rate else float("inf")


@dataclass(frozen=True)
class Step:
    """What to do next: try an engine, or take one."""

    engine: str
    is_trial: bool


def next_step(known: Mapping[str, Measured], engines: Sequence[str], samples: int, begun: str = "") -> Step:
    """Decide from what is known.

    Args:
        known: engine -> what was measured.
        engines: those that there are, in the order of trying; the first is the safe one.
        samples: how many are to be run.
        begun: the engine that made the rows already stored, kept unless another spares `KEEP_WITHIN`.
    """
    first = engines[0]
    if first not in known:
        return Step(FALLBACK, is_trial=False) if samples <= FEW else Step(first, is_trial=True)
    hoped = {name: known.get(name) or _expected(name, known[first]) for name in engines}
    seconds = {name: each.seconds(samples) for name, each in hoped.items()}
    best = min(seconds, key=lambda name: seconds[name])
    if begun in engines and seconds[begun] <= seconds[best] + KEEP_WITHIN:
        return Step(begun, is_trial=begun not in known)
    for name in engines:
        trial = hoped[name].seconds(FEW)
        if name not in known and (name == best or trial <= TRIAL_SHARE * seconds[best]):
            return Step(name, is_trial=True)
    return Step(best, is_trial=False)


def _expected(name: str, first: Measured) -> Measured:
    """Guess what an engine would do from what the first one does."""
    startup, times = EXPECTED[name]
    return Measured(startup, times * first.rate)


@dataclass
class Memory:
    """What was measured of one prefix on this machine, kept as JSON; a cache alone."""

    path: Path

    def recall(self) -> dict[str, Measured]:
        """Read what is known; nothing if the file is missing or not ours."""
        try:
            return {name: Measured(**found) for name, found in json.loads(self.path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def remember(self, known: Mapping[str, Measured]) -> None:
        """Write what is known."""
        write_text(self.path, json.dumps({name: asdict(each) for name, each in known.items()}, indent=2))


def choose(
    build: Callable[[str], Engine],
    probe: Callable[[int], np.ndarray],
    engines: Sequence[str],
    samples: int,
    memory: Memory,
    begun: str = "",
) -> Engine:
    """Build the engine that finishes first, trying what is worth a trial.

    Args:
        build: name -> engine; raises `Unavailable`.
        probe: n -> (n, ...) input of the usual kind, for checking and timing.
        engines: as `next_step`.
        samples: how many are to be run.
        memory: where measurements are kept.
        begun: as `next_step`.
    """
    known, ready = memory.recall(), dict[str, Engine]()
    absent: dict[str, Measured] = {}  # not remembered: it may be here next time
    while True:
        step = next_step(known | absent, engines, samples, begun)
        if not step.is_trial and step.engine in ready:
            return ready[step.engine]
        started = time.perf_counter()
        try:
            ready[step.engine] = attempt(partial(build, step.engine))
            if step.is_trial:
                known[step.engine] = _measure(ready, step.engine, build, probe, started)
                memory.remember(known)
        except Unavailable as reason:
            if step.engine == FALLBACK:
                raise
            absent[step.engine] = Measured(0.0, 0.0, problem=str(reason))


def _measure(
    ready: dict[str, Engine],
    name: str,
    build: Callable[[str], Engine],
    probe: Callable[[int], np.ndarray],
    started: float,
) -> Measured:
    """Check an engine against eager, then time it."""
    engine = ready[name]
    x = probe(engine.batch)
    rows = attempt(partial(engine.forward, x))  # the first pass may finish making it ready
    startup = time.perf_counter() - started
    if name != FALLBACK and FALLBACK not in ready:
        ready[FALLBACK] = build(FALLBACK)
    error = relative_error(rows, ready[FALLBACK].forward(x))
    if not error <= MOST_ERROR:
        return Measured(startup, 0.0, error, f"off by {error:.2g} from eager")
    seconds = [_seconds(engine.forward, x) for _ in range(TRIAL_BATCHES - 1)]
    return Measured(startup, engine.batch / float(np.median(seconds)), error)


def attempt(work: Callable[[], T]) -> T:
    """Do what a compiler or converter may fail at.

    Raises:
        Unavailable: if it does; the text says how.
        HeadstartError: what our own code has to say goes through.
    """
    try:
        return work()
    except (HeadstartError, Unavailable):
        raise
    except Exception as error:  # a compiler or converter may fail in its own ways
        raise Unavailable(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


def relative_error(rows: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Largest distance of a row from the reference's, as a share of that row's length.

    Args:
        rows: one (n, ...) for each tap.
        reference: the same.
    """
    worst = np.float64(0)
    for found, wanted in zip(rows, reference, strict=True):
        flat, true = found.reshape(len(found), -1), wanted.reshape(len(wanted), -1)
        size = np.maximum(np.linalg.norm(true, axis=1), np.finfo(np.float32).tiny)
        worst = np.maximum(worst, (np.linalg.norm(flat - true, axis=1) / size).max())  # which keeps NaN
    return float(worst)


def _seconds(forward: Forward, x: np.ndarray) -> float:
    started = time.perf_counter()
    forward(x)
    return time.perf_counter() - started
