"""How fast heads are trained. `.venv/bin/python tests/benchmarks/bench_heads.py [part ...]`, all parts by default.

Each part runs both sides in one process, with as many threads. scikit-learn gets what suits it best: double
precision, features that were standardised and folds that were cut before its clock started, and its BLAS's
own choice of kernels. Our clock runs from raw features in single precision to certified heads. What both
reached is judged afterwards in numpy, by the formula alone, on the same rows. scikit-learn's seconds are of
one pass over its fits, ours the median of several, run before and after that pass.

softmax  45 strengths x 5 folds, 2,000 x 1,280, on rows drawn with the spectrum of ELPV's features (10 classes)
         and on these features themselves (8 classes: probability of a defect x type of the cell). scikit-learn
         stops at max |grad J| <= 1e-6, which is some 1e-5 in the norm; ours at ||grad J|| <= 1e-5.
classes  9 strengths, 20,000 x 512, 100 classes; to the same gradients.
sigmoid  40 yes/no targets x 20 strengths, 2,000 x 1,280, 30 % of the answers unknown; to the same gradients.
         scikit-learn is timed at every fourth strength, and its seconds multiplied, unless --full.
mlp      many small networks against a torch loop, by bench_mlp.
stream   2,000,000 x 256 in half precision, streamed from shards: seconds and peak memory of a process of its
         own. Then 100,000 of the rows both streamed and held in memory, which must give the same optimum.

About half an hour on 2 cores, nearly all of it scikit-learn's; --quick takes every fifth strength of softmax.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_info

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import find_backbone
from tasks.core.coordinates import InMemory, Source, coordinates, standardisation
from tasks.core.digest import StatCache, digest_bytes
from tasks.core.errors import RequestError
from tasks.core.extraction import SHARD_ROWS
from tasks.core.linear import fit_softmax
from tasks.core.losses import Loss, SigmoidLoss, SoftmaxLoss
from tasks.core.manifest import list_samples
from tasks.core.passes import Passes
from tasks.core.path import Lanes, Problem, certify, standardised
from tasks.core.path import Path as StrengthPath
from tasks.core.recipes import Recipe
from tasks.core.store import holdings, load, write_shard
from tasks.core.stored import Stored
from tasks.core.taps import CENTRE, parse_tap

SLOWED_BY = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""What keeps numpy's and scipy's BLAS from the kernels that it would choose."""
NORM, LARGEST = 1e-5, 1e-6
"""Ours stops at ||grad J|| <= NORM, scikit-learn at max |grad J| <= LARGEST."""
SLACK = 1.01
"""A gradient that was evaluated in another order may be so many times as large."""
SPECTRUM = {
    1: 176.0, 2: 118.0, 3: 71.8, 5: 40.0, 10: 18.5, 20: 10.0, 50: 3.81, 100: 1.83,
    200: 0.799, 400: 0.266, 800: 0.0407, 1000: 0.0139, 1200: 0.00286, 1280: 0.001,
}  # fmt: skip
"""Rank -> variance in that direction, of ELPV's standardised last-layer features (lite0 at 300 pixels)."""
STREAMED, HELD, COMPARED = 2_000_000, 256, 100_000
CLASSES = 10

console = Console(width=110, highlight=False)


def main() -> None:
    """Run the parts that are asked for, each with a table of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="every fifth strength of softmax")
    parser.add_argument("--full", action="store_true", help="every strength of sigmoid")
    parser.add_argument("--repeats", type=int, default=3, help="of ours")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="keeps ELPV's features")
    parser.add_argument("--scale", type=float, default=1.0, help=argparse.SUPPRESS)  # share of the rows
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; choose of {', '.join(PARTS)}")
    choose_kernels()
    if given.child:
        print(json.dumps(streamed(**json.loads(given.child))))
        return
    show_kernels()
    for part in given.parts or PARTS:
        PARTS[part](given)


def choose_kernels() -> None:
    """Begin anew without what would slow scikit-learn down."""
    kept = {name: value for name, value in os.environ.items() if name not in SLOWED_BY}
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)  # noqa: S606 - itself


def show_kernels() -> None:
    """Print how both sides multiply."""
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            owner = Path(pool["filepath"]).parent.name.removesuffix(".libs")
            how = f"{pool['internal_api']} {pool['version']}, kernels for {pool['architecture']}"
            console.print(f"{owner}: {how}, {pool['num_threads']} threads")
    how = f"kernels for {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    console.print(f"torch {torch.__version__}: {how}\n")


# Rows to train on


class Drawn:
    """Draws rows with ELPV's spectrum in a random basis, and scores of them by a linear teacher."""

    def __init__(self, columns: int, scores: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        ranks = np.log(np.arange(1, columns + 1))
        variance = np.exp(np.interp(ranks, np.log(list(SPECTRUM)), np.log(list(SPECTRUM.values()))))
        turn, _ = np.linalg.qr(self.rng.standard_normal((columns, columns)))
        self.spread = (np.sqrt(variance)[:, None] * turn).astype(np.float32)  # (D, D)
        teacher = self.rng.standard_normal((columns, scores))
        deviation = np.linalg.norm(self.spread @ teacher, axis=0)
        self.teacher = (2 * teacher / deviation).astype(np.float32)  # scores deviate by 2

    def rows(self, number: int) -> np.ndarray:
        """(n, D) float32."""
        rows: np.ndarray = self.rng.standard_normal((number, len(self.spread)), np.float32) @ self.spread
        return rows

    def classes(self, rows: np.ndarray) -> np.ndarray:
        """Draw a class from the softmax of the teacher's scores; (n,)."""
        scores = rows @ self.teacher
        drawn: np.ndarray = (scores + self.rng.gumbel(size=scores.shape)).argmax(axis=1)
        return drawn

    def answers(self, rows: np.ndarray, unknown: float) -> np.ndarray:
        """Draw yes or no from the sigmoid of each score; (T, n), -1 where it is unknown."""
        scores = (rows @ self.teacher).T
        truth = (scores + self.rng.logistic(size=scores.shape) > 0).astype(int)
        return np.where(self.rng.random(scores.shape) < unknown, -1, truth)


def elpv(artifacts: Artifacts, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The solar cells' last-layer features (N, D), and type and probability as one class (N,).

    They are extracted as a study would, and kept.

    Raises:
        RequestError: if the cells or the network are not installed.
    """
    cells = list_samples(Path(__file__).parents[2] / "data" / "solar.py", ["probability", "type"])
    cells["digest"] = [digest_bytes(Path(path).read_bytes()) for path in cells["path"]]
    cells = cells.drop_duplicates("digest").sort_values("digest")
    backbone = find_backbone("lite0", resize=300, crop=300)
    recipe = Recipe({CENTRE: (parse_tap("last:mean").at(backbone.last),)}, "float16")
    passes = Passes(backbone, recipe, artifacts, dict(zip(cells["digest"], cells["path"], strict=True)))
    [found] = passes.fill(CENTRE)
    cells = cells.head(most)
    _, labels = np.unique(cells["type"] + " " + cells["probability"], return_inverse=True)
    return load(found.held, cells["digest"].tolist(), "float32"), labels


# Both sides


@dataclass(frozen=True)
class Job:
    """L trainings on the same rows, each at S strengths.

    Attributes:
        features: (N, D) float32.
        answers: (L, N) int.
        parts: L arrays, the rows that each trains on.
        loss: as our side takes it.
        strengths: S.
        timed: the strengths at which scikit-learn is run.
    """

    features: np.ndarray
    answers: np.ndarray
    parts: list[np.ndarray]
    loss: Loss
    strengths: list[float]
    timed: list[float]

    def shares(self) -> torch.Tensor:
        """(L, N) of each row's weight."""
        shares = np.zeros(self.answers.shape)
        for share, part in zip(shares, self.parts, strict=True):
            share[part] = 1 / len(part)
        return torch.from_numpy(shares)


Weights = dict[Problem, np.ndarray]
"""Problem -> (C, D + 1) for standardised features, the bias last."""


def ours(job: Job) -> tuple[Weights, float]:
    """Train all of a job; return the weights, and the seconds from raw features to certificates."""
    started = time.perf_counter()
    source = InMemory(job.features)
    place, lanes = coordinates(source, np.ones(len(job.features))), Lanes(job.loss, job.shares())
    wanted = [(lane, strength) for lane in range(len(job.parts)) for strength in job.strengths]
    found = [each for step in StrengthPath(place, lanes).walk(dict.fromkeys(wanted, NORM)) for each in step]
    weight = standardised(place, found)
    certify(source, place.standard, lanes, found, weight)
    seconds = time.perf_counter() - started
    return {
        (each.lane, each.strength): rows for each, rows in zip(found, weight.numpy(), strict=True)
    }, seconds


def theirs(job: Job, rows: np.ndarray) -> tuple[Weights, float]:
    """Train a job at its timed strengths by scikit-learn; return the weights, and the seconds of its fits."""
    weights, seconds = {}, 0.0
    for lane, part in enumerate(job.parts):
        features, answers = np.ascontiguousarray(rows[part]), job.answers[lane, part]
        for strength in job.timed:
            model = LogisticRegression(C=1 / (strength * len(part)), tol=LARGEST, max_iter=100_000)
            started = time.perf_counter()
            with warnings.catch_warnings(action="ignore"):  # what did not converge is counted below
                model.fit(features, answers)
            seconds += time.perf_counter() - started
            weights[lane, strength] = np.column_stack([model.coef_, model.intercept_])
        print(f"scikit-learn: {lane + 1} of {len(job.parts)}, {seconds:,.0f} s", file=sys.stderr, flush=True)
    return weights, seconds


@dataclass(frozen=True)
class Judged:
    """What a head reached: J, ||grad J||, max |grad J|."""

    objective: float
    norm: float
    largest: float


def judge(job: Job, rows: np.ndarray, weights: Weights) -> dict[Problem, Judged]:
    """Evaluate heads in double precision by the formula, on standardised rows."""
    judged = {}
    for (lane, strength), weight in weights.items():
        part = job.parts[lane]
        x, y = np.column_stack([rows[part], np.ones(len(part))]), job.answers[lane, part]  # (n, D + 1), (n,)
        loss, slope = (_sigmoid if len(weight) == 1 else _softmax)(x @ weight.T, y)
        penalised = np.column_stack([weight[:, :-1], np.zeros(len(weight))])
        gradient = slope.T @ x / len(part) + strength * penalised
        objective = loss.mean() + strength / 2 * np.square(penalised).sum()
        judged[lane, strength] = Judged(
            float(objective), float(np.linalg.norm(gradient)), float(np.abs(gradient).max())
        )
    return judged


def _softmax(scores: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses (n,) and their slopes in the scores (n, C)."""
    log_proba = log_softmax(scores, axis=1)
    slope = np.exp(log_proba)
    slope[np.arange(len(y)), y] -= 1
    return -log_proba[np.arange(len(y)), y], slope


def _sigmoid(scores: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = scores[:, 0]
    return np.logaddexp(0, score) - y * score, (expit(score) - y)[:, None]


def compare(what: str, job: Job, repeats: int, goal: float | None = None) -> None:
    """Run both sides, judge what they reached, print it."""
    rows = standardisation(job.features, np.ones(len(job.features))).apply(job.features)
    mine, first = ours(job)
    other, slow = theirs(job, rows)
    fast = statistics.median([first, *(ours(job)[1] for _ in range(repeats - 1))])
    slow *= len(job.strengths) / len(job.timed)
    reached, reference = judge(job, rows, mine), judge(job, rows, other)
    show(what, job, fast, slow, reached, reference)
    apart = [(reached[each].objective - its.objective) / its.objective for each, its in reference.items()]
    asked = f" (goal: {goal:g})" if goal else ""
    console.print(f"  {slow / fast:.1f} times as fast as scikit-learn{asked}")
    console.print(
        f"  objective beside scikit-learn's: {min(apart):+.1e} to {max(apart):+.1e} (at most +1e-5)\n"
    )


def show(
    what: str,
    job: Job,
    fast: float,
    slow: float,
    reached: dict[Problem, Judged],
    reference: dict[Problem, Judged],
) -> None:
    """Print both sides as a table."""
    rows, columns = job.features.shape
    title = f"{what}: {len(reached):,} heads, N={rows:,} D={columns:,} C={job.loss.scores}"
    if len(reference) < len(reached):
        title += f"; scikit-learn timed on {len(reference)} of them, and scaled"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for heading in ("seconds", "||grad J||, most", "max |grad J|, most", "did not converge"):
        table.add_column(heading, justify="right")
    sides = {"ours": (fast, reached), "scikit-learn": (slow, reference)}
    for name, (seconds, judged) in sides.items():
        norms, largest = ([getattr(each, of) for each in judged.values()] for of in ("norm", "largest"))
        missed = (
            [norm > NORM * SLACK for norm in norms]
            if judged is reached
            else [most > LARGEST * SLACK for most in largest]
        )
        table.add_row(name, f"{seconds:,.2f}", f"{max(norms):.1e}", f"{max(largest):.1e}", str(sum(missed)))
    console.print(table)


# The parts


def softmax(given: argparse.Namespace) -> None:
    """Strengths and folds, on drawn rows and on ELPV's."""
    drawn, number = Drawn(1280, CLASSES), round(2000 * given.scale)
    rows = drawn.rows(number)
    compare("softmax, ELPV's spectrum", folded(rows, drawn.classes(rows), given.quick), given.repeats)
    try:
        rows, labels = elpv(Artifacts(given.artifacts), number)
    except RequestError as error:
        console.print(f"softmax, ELPV: left out, for {error}\n")
        return
    compare("softmax, ELPV", folded(rows, labels, given.quick), given.repeats)


def folded(rows: np.ndarray, labels: np.ndarray, quick: bool) -> Job:
    """Make a job of five folds at 45 strengths."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    parts = [train for train, _ in folds.split(rows, labels)]
    strengths = np.logspace(-6, 5, 45).tolist()
    loss = SoftmaxLoss(torch.from_numpy(labels).long(), int(labels.max()) + 1)
    timed = strengths[2::5] if quick else strengths
    return Job(rows, np.tile(labels, (len(parts), 1)), parts, loss, strengths, timed)


def classes(given: argparse.Namespace) -> None:
    """Many classes, no folds."""
    drawn = Drawn(512, 100)
    rows = drawn.rows(round(20_000 * given.scale))
    labels, strengths = drawn.classes(rows), np.logspace(-4, 0, 9).tolist()
    loss = SoftmaxLoss(torch.from_numpy(labels).long(), 100)
    job = Job(rows, labels[None], [np.arange(len(rows))], loss, strengths, strengths)
    compare("softmax, many classes", job, given.repeats, goal=5)


def sigmoid(given: argparse.Namespace) -> None:
    """Many targets with unknown answers."""
    drawn = Drawn(1280, 40)
    rows = drawn.rows(round(2000 * given.scale))
    answers, strengths = drawn.answers(rows, unknown=0.3), np.logspace(-6, 5, 20).tolist()
    parts = [np.flatnonzero(row >= 0) for row in answers]
    loss = SigmoidLoss(torch.from_numpy(answers.clip(0)).float(), torch.arange(len(answers)))
    job = Job(rows, answers, parts, loss, strengths, strengths if given.full else strengths[2::4])
    compare("sigmoid, 40 targets x 20 strengths", job, given.repeats, goal=20)


def mlp(given: argparse.Namespace) -> None:
    """Small networks, as bench_mlp measures them."""
    try:
        from bench_mlp import figures  # beside this file
    except ImportError as error:
        console.print(f"mlp: left out, for {error}\n")
        return
    table = Table(title="mlp: milliseconds a network and epoch", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    table.add_column("ms", justify="right")
    table.add_column("")
    for what, milliseconds, note in figures(repeats=given.repeats):
        table.add_row(what, f"{milliseconds:.1f}", note)
    console.print(table)


def stream(given: argparse.Namespace) -> None:
    """Rows that are read from shards anew at each pass; each way in a process of its own."""
    number, few = round(STREAMED * given.scale), round(COMPARED * given.scale)
    table = Table(
        title=f"stream: one softmax head, D={HELD} float16 C={CLASSES}, strength 0.1 (goal: under 2 GB)",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("")
    for heading in ("seconds", "passes", "peak MB", "of it before", "||grad J||", "converged"):
        table.add_column(heading, justify="right")
    place = Path(tempfile.mkdtemp(prefix="headstart-bench-"))
    try:
        write_rows(place, number)
        for rows, held in ((number, False), (few, False), (few, True)):
            told = in_a_process(place, rows, held)
            table.add_row(f"{rows:,} rows, {'in memory' if held else 'streamed'}", *told)
        console.print(table)
        console.print(f"  {apart(place, few)}\n")
    finally:
        shutil.rmtree(place)


# Streaming


@dataclass
class Counted:
    """A source, and how often it was read."""

    source: Source
    passes: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.source.shape

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """See `Source`."""
        self.passes += 1
        return self.source.blocks()


def names(number: int) -> list[str]:
    """Digests of as many samples."""
    return [digest_bytes(str(each).encode()) for each in range(number)]


def write_rows(place: Path, number: int) -> None:
    """Draw rows, write them as shards, and their labels beside them."""
    drawn, digests, labels = Drawn(HELD, CLASSES), names(number), []
    for start in range(0, number, SHARD_ROWS):
        some = digests[start : start + SHARD_ROWS]
        rows = drawn.rows(len(some))
        write_shard(place / "set", some, rows.astype(np.float16), {"backbone": "none", "tap": "last:mean"})
        labels.append(drawn.classes(rows))
    np.save(place / "labels.npy", np.concatenate(labels))


def in_a_process(place: Path, rows: int, held: bool) -> list[str]:
    """Train on the first rows in a fresh process; return a row of the table."""
    asked = json.dumps({"place": str(place), "rows": rows, "held": held})
    told = subprocess.run(
        [sys.executable, __file__, "--child", asked], check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(told.stdout)
    return [
        f"{found['seconds']:,.1f}",
        str(found["passes"] or "-"),
        f"{found['peak']:,.0f}",
        f"{found['before']:,.0f}",
        f"{found['norm']:.1e}",
        "yes" if found["converged"] else "no",
    ]


def streamed(place: str, rows: int, held: bool) -> dict[str, float | bool]:
    """Train one head on stored rows, keep it, and tell what it took; runs in the fresh process."""
    root, digests = Path(place), tuple(names(rows))
    found = holdings(root / "set", StatCache(root / "seen.sqlite", "shard"))
    found.rows.find(digests[:1])  # the index is made
    labels, stored = np.load(root / "labels.npy")[:rows], Stored(((found,),), digests)
    before, started, source = peak_megabytes(), time.perf_counter(), Counted(stored)
    features = stored.in_memory() if held else source
    [head] = fit_softmax(features, labels, np.ones(rows), classes=CLASSES, strengths=[0.1])
    seconds = time.perf_counter() - started
    np.savez(
        kept(root, rows, held),
        weight=np.column_stack([head.predictor.weight, head.predictor.bias]),
        objective=head.objective,
    )
    return {
        "seconds": seconds,
        "passes": source.passes,
        "peak": peak_megabytes(),
        "before": before,
        "norm": head.gradient_norm,
        "converged": head.has_converged,
    }


def kept(place: Path, rows: int, held: bool) -> Path:
    """Where a head lies."""
    return place / f"{rows}-{'held' if held else 'streamed'}.npz"


def peak_megabytes() -> float:
    """The most memory that this process held at once.

    As Linux tells it of the program that runs now: getrusage's ru_maxrss would count what the parent held
    when it started this one, too.
    """
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1e3 * 1.024


def apart(place: Path, rows: int) -> str:
    """Say how far the head on streamed rows lies from that on rows in memory."""
    with np.load(kept(place, rows, False)) as one, np.load(kept(place, rows, True)) as other:
        objective = float(one["objective"] / other["objective"] - 1)
        weight = float(np.abs(one["weight"] - other["weight"]).max() / np.abs(other["weight"]).max())
    return (
        f"{rows:,} rows, streamed beside in memory: objective {objective:+.1e}, weights within {weight:.1e}"
    )


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "softmax": softmax,
    "classes": classes,
    "sigmoid": sigmoid,
    "mlp": mlp,
    "stream": stream,
}

if __name__ == "__main__":
    main()
