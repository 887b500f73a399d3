"""Training layers of a network: AdamW, one cycle of the learning rate, and a checkpoint to go on from.

Every step's batch, its looks and what dropout leaves out are told by the seed and the step's number alone. So
a run that was killed goes on from its last checkpoint with the same numbers, to the bit on a CPU.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tasks.core.checkpoints import Checkpoint, Done
from tasks.core.layers import grouped, seed_of, set_mode
from tasks.core.looks import Looks
from tasks.core.memory import keep_freed_memory
from tasks.core.truth import Truth

WARM_UP = 0.2
"""Share of the steps in which the learning rate rises; then it falls to nought as a cosine does."""
EVERY = 60.0
"""Seconds between two checkpoints."""
ASKED_AT_ONCE = 64
"""Samples of a batch from which nothing is learnt."""


@dataclass(frozen=True)
class Course:
    """How layers are trained; attributes as `tasks.core.hyper.Network` has them."""

    learning_rate: float
    epochs: int
    earlier: float = 0.3
    weight_decay: float = 0.05
    mixup: float = 0.0
    batch: int = 32
    batch_norm: str = "frozen"
    seed: int = 0


@dataclass(frozen=True)
class Samples:
    """What is learnt from.

    Attributes:
        looks: at all samples.
        rows: (n,) numbers of those to learn from.
        known: of all.
    """

    looks: Looks
    rows: np.ndarray
    known: Truth


@dataclass(frozen=True)
class Step:
    """One step: which samples it takes, and the numbers that are drawn for it."""

    number: int
    epoch: int
    rows: np.ndarray


class Diverged(Exception):  # noqa: N818 - an outcome, told in the results
    """The loss was no longer a number; the text says when."""


@dataclass
class Training:
    """Trains layers on samples.

    Attributes:
        layers: as `tasks.core.layers.trainable` gives them; trained in place.
        samples: what they learn from.
        course: how.
        checkpoint: where to keep what is done, or None.
        advance: is told how many more samples were learnt from.
        losses: of each step, as far as this process made them.
        before: seconds that it took in processes that were killed.
    """

    layers: nn.Module
    samples: Samples
    course: Course
    checkpoint: Checkpoint | None = None
    advance: Callable[[int], None] = lambda more: None
    losses: list[float] = field(default_factory=list)
    before: float = 0.0

    def __post_init__(self) -> None:
        keep_freed_memory()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.layers.to(self.device).to(memory_format=torch.channels_last)
        groups = grouped(
            self.layers,
            self.course.learning_rate,
            earlier=self.course.earlier,
            weight_decay=self.course.weight_decay,
        )
        self.optimizer = torch.optim.AdamW(groups)
        self.targets = self.samples.known.targets(self.samples.rows)
        self.micro = len(self.samples.rows)
        """Samples that may go through the layers at once; the gradients of a step's parts are added up."""

    def run(self) -> None:
        """Train to the end.

        Raises:
            Diverged: if the loss is no longer a number.
        """
        steps = list(self._steps())
        done = self._resume()
        self.advance(sum(len(step.rows) for step in steps[:done]))
        set_mode(self.layers, batch_norm=self.course.batch_norm)
        started = kept = time.monotonic()
        with torch.random.fork_rng(), _ahead(self._look, steps[done:]) as looked:
            for step, x in zip(steps[done:], looked, strict=True):
                self._set_rates(shape(step.number, len(steps)))
                self._take(step, x, len(steps))
                self.advance(len(step.rows))
                if self.checkpoint is not None and time.monotonic() - kept > EVERY:
                    self._keep(self.checkpoint, step.number + 1, started)
                    kept = time.monotonic()
        if self.checkpoint is not None and done < len(steps):
            # a search that is killed goes on behind it
            self._keep(self.checkpoint, len(steps), started)
        self.layers.eval()

    def _steps(self) -> Iterator[Step]:
        """Cut the samples, shuffled anew in every epoch, into batches of nearly the same size."""
        rows, number = self.samples.rows, 0
        batches = max(1, round(len(rows) / self.course.batch))
        for epoch in range(self.course.epochs):
            order = np.random.default_rng([self.course.seed, epoch]).permutation(rows)
            for some in np.array_split(order, batches):
                yield Step(number, epoch, some)
                number += 1

    def _resume(self) -> int:
        """Go on from the checkpoint, if there is one; return how many steps are done."""
        found = Done() if self.checkpoint is None else self.checkpoint.restore(self.layers, self.optimizer)
        self.before = found.seconds
        return found.steps

    def _keep(self, checkpoint: Checkpoint, steps: int, started: float) -> None:
        seconds = self.before + time.monotonic() - started
        checkpoint.keep(Done(steps, seconds), self.layers, self.optimizer)

    def _look(self, step: Step) -> Tensor:
        return self.samples.looks.drawn(step.rows, [self.course.seed, step.number, 1], step.epoch)

    def _set_rates(self, height: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * height

    def _take(self, step: Step, x: Tensor, steps: int) -> None:
        """Take one step down the gradient of the batch's weighted mean of cross entropy.

        Of several targets it is the mean over the answers that are known, by what they weigh.
        """
        target = self.targets[torch.from_numpy(step.rows)]  # (n, C)
        if self.course.mixup:
            x, target = mixed(x, target, self.course.mixup, [self.course.seed, step.number, 2])
        torch.manual_seed(seed_of(self.course.seed, step.number))  # of dropout
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradient(x, target)
        if not math.isfinite(loss):
            raise Diverged(f"the loss was not finite at step {step.number + 1} of {steps}")
        self.losses.append(loss)
        self.optimizer.step()

    def _gradient(self, x: Tensor, target: Tensor) -> float:
        """Add up the gradients of a batch's parts, as large as fit in memory; return the batch's loss."""
        whole = float(len(x)) if len(self.samples.known.blocks) == 1 else float(target.sum())
        while True:
            count = -(-len(x) // self.micro)  # of nearly the same size: batch norm cannot live on one sample
            parts = zip(torch.tensor_split(x, count), torch.tensor_split(target, count), strict=True)
            try:
                return sum(self._backward(*part, whole) for part in parts)
            except torch.OutOfMemoryError:
                if self.micro == 1:
                    raise
                self.micro = -(-min(self.micro, len(x)) // 2)
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()

    def _backward(self, x: Tensor, target: Tensor, whole: float) -> float:
        x, target = on_device(x, self.device), target.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.layers(x)
        loss = -(target * log_proba(logits.float(), self.samples.known.blocks)).sum() / whole
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())


def shape(step: int, steps: int) -> float:
    """Height of the learning rate in a step, 0 to 1 (one cycle, Smith 2018; its fall as Loshchilov and Hutter 2017)."""
    rise = WARM_UP * steps
    if step + 1 <= rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - rise) / max(1.0, steps + 1 - rise)))


def mixed(x: Tensor, target: Tensor, strength: float, seed: list[int]) -> tuple[Tensor, Tensor]:
    """Mix each sample with another of the batch (Zhang et al. 2018).

    Args:
        x: (n, ...).
        target: (n, C).
        strength: of the Beta distribution from which the first one's share is drawn, the larger taken.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    share = float(random.beta(strength, strength))
    share = max(share, 1 - share)
    other = torch.from_numpy(random.permutation(len(x)))
    return share * x + (1 - share) * x[other], share * target + (1 - share) * target[other]


def log_proba(logits: Tensor, blocks: Sequence[int]) -> Tensor:
    """Logarithm of the softmax within each target's block of classes; (n, C) -> (n, C)."""
    parts = torch.split(logits, list(blocks), dim=1)
    return torch.cat([torch.log_softmax(part, dim=1) for part in parts], dim=1)


def ask(layers: nn.Module, looks: Looks, rows: np.ndarray, blocks: Sequence[int] = ()) -> np.ndarray:
    """Ask layers about samples.

    Args:
        layers: from a look to (n, C).
        looks: at all samples.
        rows: (n,) numbers of those asked about.
        blocks: how many classes each target has; one target if not given.

    Returns:
        (V, n, C) float64 log probabilities of each view.
    """
    device = next(layers.parameters()).device
    layers.eval()
    batches = [rows[start : start + ASKED_AT_ONCE] for start in range(0, len(rows), ASKED_AT_ONCE)]
    said = []
    with torch.inference_mode():
        for view in looks.views:
            with _ahead(lambda some: looks.fixed(some, view), batches) as looked:  # noqa: B023 - used at once
                logits = torch.cat([layers(on_device(x, device)).double().cpu() for x in looked])
            said.append(log_proba(logits, blocks or logits.shape[1:]).numpy())
    return np.stack(said)


def on_device(x: Tensor, device: torch.device) -> Tensor:
    """Move a batch to where it is used, maps with the channels innermost."""
    if device.type == "cuda":
        x = x.pin_memory().to(device, non_blocking=True)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


@contextmanager
def _ahead(look: Callable[..., Tensor], items: list[Step] | list[np.ndarray]) -> Iterator[Iterator[Tensor]]:
    """Look at the next samples while the last are learnt from."""
    with ThreadPoolExecutor(1, thread_name_prefix="look") as pool:

        def looked() -> Iterator[Tensor]:
            waiting = pool.submit(look, items[0]) if items else None
            for item in items[1:]:
                assert waiting is not None  # noqa: S101
                ready, waiting = waiting, pool.submit(look, item)
                yield ready.result()
            if waiting is not None:
                yield waiting.result()

        try:
            yield looked()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
