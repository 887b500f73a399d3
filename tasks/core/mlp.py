"""Small networks on kept features: one or two hidden layers, hundreds of them trained at once.

ReLU, dropout, AdamW, and the weighted mean of softmax cross entropy, on standardised features. For each fold
a network is trained on the other rows until its log loss on the fold has not fallen for PATIENCE epochs; its
best state speaks for the fold, which flatters, since the fold found the epoch. The network that is
kept is trained on all rows, for the median of the best epochs.

Networks that agree in shape, seed and training rows see the same batches and are trained side by side
(`tasks.core.stacks`), a few to a stack, so that a stack stays in the processor's cache; every core has a
stack of its own and waits for no other. A network's first weights, batches and dropout come from its own
seed, so it does not matter who else is trained, but for rounding: a larger stack may add up in another order.

A network may answer several targets at once (multi-task learning, Caruana 1997): the hidden layers are shared, every
target has outputs of its own, and the loss is the mean over the known answers of a batch by their weights, so that a
batch of which little is known is not the quieter for it. An unknown answer has no part in it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from math import inf, isfinite

import numpy as np
import torch
from torch import Tensor

from tasks.core.answers import Answers
from tasks.core.coordinates import Standardisation, standardisation
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Mlp
from tasks.core.predictors import Layers
from tasks.core.stacks import Stack, within

BATCH = 64
"""Rows of a step."""

PATIENCE = 10
"""Epochs without a lower loss on the held-out rows, after which a network stops."""

EPOCHS = 50
"""How long to train where no folds tell, if so many are allowed."""

CACHED = 12 * 2**20
"""Bytes for a stack's numbers, gradients and moments: what a core has of the cache."""

CHECKED = 64
"""Training rows on which a network that is kept must say something finite after each epoch."""

BLOCK = 512
"""Rows that are looked at together when nothing is learnt from them."""


@dataclass(frozen=True)
class _Table:
    """What is learnt from, all float32.

    Attributes:
        rows: (N, D) standardised.
        hot: (N, C) one-hot labels, a block of classes for each target; none of an answer that is unknown.
        weights: (N, C) what the answer to a class's target weighs, or (N, 1) where there is one target.
        blocks: how many classes each target has.
    """

    rows: Tensor
    hot: Tensor
    weights: Tensor
    blocks: tuple[int, ...]

    def per_answer(self, rows: Tensor) -> Tensor:
        """(n, C) what each class of some rows weighs: that of the row's answer, else nought."""
        return self.weights[rows] * self.hot[rows]


@dataclass(frozen=True)
class _Member:
    """A network to train: the number of its hyper, and for how many epochs at most."""

    number: int
    hyper: Mlp
    epochs: int


@dataclass(frozen=True)
class _Job:
    """Networks of one stack.

    Attributes:
        members: they agree in shape and seed.
        rows: numbers of the rows to learn from.
        judged: numbers of the rows that tell how good a state is.
        fold: None if the last state that is sound is wanted, else the one that says most of the judged rows.
    """

    members: list[_Member]
    rows: Tensor
    judged: Tensor
    fold: int | None


@dataclass
class _State:
    """A network as it was after some epoch, 0 being the start.

    Attributes:
        weights, biases: from the first layer to the last; empty if only what it says is wanted.
        said: (C, R) log probabilities of the judged rows.
        loss: the weighted log loss on them; infinite at the start, which anything finite is better than.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    said: Tensor
    loss: float
    epoch: int


def fit_mlp(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    *,
    classes: int,
    hypers: Sequence[Mlp],
    folds: Folds,
    epochs: int = 100,
    advance: Callable[[int], None] | None = None,
) -> list[Fit]:
    """Train one network for each hyper-parameter set.

    A network whose numbers are no longer finite stops there, speaks by its last sound state, and says
    that it did not converge.

    Args:
        features: (N, D) any float type.
        labels: (N,) int, 0 <= label < classes; a class may have no row.
        weights: (N,) sample weights, at least zero, some above; rows that weigh nothing are left out.
        classes: C.
        hypers: what to train.
        folds: K of them, or none.
        epochs: the most to train for; a fold that was still improving there has not converged.
        advance: is told how many more networks are trained; there are len(hypers) * (K + 1) in all.

    Returns:
        Fits in the order of `hypers`; their facts have "epochs", how long the predictor was trained.
    """
    hot = np.zeros((len(labels), classes), dtype=bool)
    hot[np.arange(len(labels)), labels] = True
    standard = standardisation(features, weights)
    table = _table(standard, features, hot, weights[:, None], (classes,))
    return _fit(table, standard, hypers, folds, epochs, advance)


def fit_shared(
    features: np.ndarray,
    answers: Answers,
    weights: np.ndarray,
    *,
    hypers: Sequence[Mlp],
    folds: Folds,
    epochs: int = 100,
    advance: Callable[[int], None] | None = None,
) -> list[list[Fit]]:
    """Train one network for each hyper-parameter set that answers every target, likewise.

    Args:
        features: (N, D) any float type.
        answers: (N, T), of which some may be unknown; a row of which nothing is known is left out.
        weights: (N, T) of the answers, as `label_weights` gives them.
        hypers, folds, epochs, advance: as `fit_mlp`.

    Returns:
        For each hyper T fits. The predictor of each is the shared layers with that target's outputs; its `inner`,
        (N, C_t), speaks of rows whose answer is unknown, too.
    """
    weights = np.where(answers.known, weights, 0.0)
    standard = standardisation(features, weights.sum(axis=1))
    spread = np.repeat(weights, answers.sizes, axis=1)  # (N, C)
    table = _table(standard, features, answers.hot, spread, answers.sizes)
    fits = _fit(table, standard, hypers, folds, epochs, advance)
    return [[_about(fit, block) for block in answers.blocks] for fit in fits]


def _about(fit: Fit, block: slice) -> Fit:
    """Leave what a network says of one target."""
    assert isinstance(fit.predictor, Layers)  # noqa: S101
    inner = None if fit.inner is None else fit.inner[:, block]
    return replace(fit, predictor=fit.predictor.only(block), inner=inner)


def _fit(
    table: _Table,
    standard: Standardisation,
    hypers: Sequence[Mlp],
    folds: Folds,
    epochs: int,
    advance: Callable[[int], None] | None,
) -> list[Fit]:
    """Train without each fold until it says most of it, then on all rows for as long as that took."""
    everything = np.arange(len(table.rows))
    weighed = np.flatnonzero(table.per_answer(torch.from_numpy(everything)).sum(dim=1).numpy() > 0)
    jobs = [
        job
        for fold, (rows, held) in enumerate(folds)
        for job in _jobs(table, hypers, [epochs] * len(hypers), rows, held, fold)
    ]
    states = _run(table, jobs, advance)
    best = [[states[fold, number] for fold in range(len(folds))] for number in range(len(hypers))]
    lengths = [_length([state.epoch for state in each], epochs) for each in best]
    jobs = _jobs(table, hypers, lengths, everything, weighed[:CHECKED], None)
    kept = _run(table, jobs, advance)
    fits = []
    for number, (each, length) in enumerate(zip(best, lengths, strict=True)):
        state = kept[None, number]
        converged = state.epoch == length and all(0 < fold.epoch < epochs for fold in each)
        inner = _inner(each, folds, table) if folds else None
        fits.append(Fit(_predictor(state, standard), inner, converged, {"epochs": float(state.epoch)}))
    return fits


def _table(
    standard: Standardisation,
    features: np.ndarray,
    hot: np.ndarray,
    weights: np.ndarray,
    blocks: tuple[int, ...],
) -> _Table:
    rows = torch.from_numpy(standard.apply(features).astype(np.float32))
    numbers = torch.from_numpy(hot.astype(np.float32)), torch.from_numpy(weights.astype(np.float32))
    return _Table(rows, *numbers, blocks)


def _length(best: Sequence[int], epochs: int) -> int:
    """Epochs for the network that is kept."""
    return max(1, round(float(np.median(best)))) if best else min(EPOCHS, epochs)


def _jobs(
    table: _Table,
    hypers: Sequence[Mlp],
    epochs: Sequence[int],
    rows: np.ndarray,
    judged: np.ndarray,
    fold: int | None,
) -> list[_Job]:
    """Put networks that agree in shape and seed into stacks, those that train equally long together."""
    members = [_Member(n, hyper, most) for n, (hyper, most) in enumerate(zip(hypers, epochs, strict=True))]
    members.sort(
        key=lambda m: (m.hyper.hidden, m.hyper.seed, m.epochs, m.hyper.dropout, m.hyper.learning_rate)
    )
    numbers = torch.from_numpy(rows)
    numbers = numbers[table.per_answer(numbers).sum(dim=1) > 0]
    jobs = []
    for (hidden, _), alike in groupby(members, key=lambda member: (member.hyper.hidden, member.hyper.seed)):
        widths = [table.rows.shape[1], *hidden, table.hot.shape[1]]
        each = 4 * 4 * sum(a * b for a, b in pairwise(widths))  # bytes a network
        size = max(1, CACHED // each)
        some = list(alike)
        jobs += [
            _Job(some[start : start + size], numbers, torch.from_numpy(judged), fold)
            for start in range(0, len(some), size)
        ]
    return jobs


def _run(
    table: _Table, jobs: Sequence[_Job], advance: Callable[[int], None] | None
) -> dict[tuple[int | None, int], _State]:
    """Train all stacks; returns states by fold and number of the hyper."""
    threads = torch.get_num_threads()
    workers = max(1, min(threads, len(jobs)))
    pool = ThreadPoolExecutor(workers, "stack", partial(_prepare, threads // workers))
    states: dict[tuple[int | None, int], _State] = {}
    try:
        for done in as_completed([pool.submit(_train, table, job) for job in jobs]):
            states |= done.result()
            if advance is not None:
                advance(len(done.result()))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
    return states


def _prepare(threads: int) -> None:
    """Make a worker's thread ready: its share of the cores, and no time lost with tiny numbers or memory.

    Moments of units that no longer learn fade for ever into numbers for which processors are slow. And a
    gradient is a new block of memory in each step; once so large a block has been freed, glibc keeps
    them, instead of asking the kernel for pages each time.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.empty(31 * 2**20, dtype=torch.uint8)


@torch.inference_mode()
def _train(table: _Table, job: _Job) -> dict[tuple[int | None, int], _State]:
    """Train a stack; networks that are done leave it."""
    hypers = [member.hyper for member in job.members]
    stack = Stack(table.rows.shape[1], table.blocks, hypers)
    order = torch.Generator().manual_seed(3 * hypers[0].seed)
    share = table.weights / table.weights[job.rows].mean()
    said, _ = _judge(stack, table, job.judged)
    states = [_copy(stack, place, job, said[place], inf, 0) for place in range(len(stack))]
    going, epoch = list(range(len(states))), 0
    while going:
        epoch += 1
        _learn(stack, table, share, job.rows[torch.randperm(len(job.rows), generator=order)])
        said, losses = _judge(stack, table, job.judged)
        for place, number in enumerate(going):
            if losses[place] < states[number].loss or (job.fold is None and isfinite(losses[place])):
                states[number] = _copy(stack, place, job, said[place], losses[place], epoch)
        stays = [
            _goes_on(job, number, states[number], epoch, loss)
            for number, loss in zip(going, losses, strict=True)
        ]
        if not all(stays):
            stack.keep([place for place, stay in enumerate(stays) if stay])
            going = [number for number, stay in zip(going, stays, strict=True) if stay]
    return {(job.fold, member.number): state for member, state in zip(job.members, states, strict=True)}


def _learn(stack: Stack, table: _Table, share: Tensor, order: Tensor) -> None:
    """Go through the rows once, in this order."""
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        hot, weights = table.hot.index_select(0, some), share.index_select(0, some)
        known = len(some) if len(table.blocks) == 1 else (weights * hot).sum()
        stack.learn(table.rows.index_select(0, some), hot, weights.div_(known))


def _goes_on(job: _Job, number: int, best: _State, epoch: int, loss: float) -> bool:
    """Whether a network has something to gain from another epoch."""
    patient = job.fold is None or epoch < best.epoch + PATIENCE
    return isfinite(loss) and epoch < job.members[number].epochs and patient


def _judge(stack: Stack, table: _Table, judged: Tensor) -> tuple[Tensor, list[float]]:
    """What the networks say of some rows, (G, C, R) float64 log probabilities, and their log losses."""
    blocks = [table.rows[judged[start : start + BLOCK]] for start in range(0, len(judged), BLOCK)]
    said = torch.cat(
        [within(table.blocks, stack.logits(rows).double(), Tensor.log_softmax) for rows in blocks], dim=2
    )
    weights = table.per_answer(judged).double()  # (R, C)
    share = weights / weights.sum().clamp_min(1e-30)
    losses: list[float] = torch.einsum("gcr,rc->g", said, share).neg().tolist()
    return said, losses


def _copy(stack: Stack, place: int, job: _Job, said: Tensor, loss: float, epoch: int) -> _State:
    weights, biases = stack.of(place) if job.fold is None else ([], [])
    return _State([w.clone() for w in weights], [b.clone() for b in biases], said.clone(), loss, epoch)


def _inner(best: Sequence[_State], folds: Folds, table: _Table) -> np.ndarray:
    """Each row's log probabilities by the network that did not see it; (N, C)."""
    inner = np.empty(table.hot.shape)
    for state, (_, held) in zip(best, folds, strict=True):
        inner[held] = state.said.T.numpy()
    return inner


def _predictor(state: _State, standard: Standardisation) -> Layers:
    """Fold the standardisation into the first layer."""
    first = state.weights[0].double().numpy() / standard.scale  # (H1, D)
    shift = state.biases[0].double().numpy() - first @ standard.mean  # (H1,)
    return Layers(
        (first.astype(np.float32), *(weight.numpy() for weight in state.weights[1:])),
        (shift.astype(np.float32), *(bias.numpy() for bias in state.biases[1:])),
    )
