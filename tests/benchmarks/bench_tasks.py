"""A hundred related tasks of a thousand examples each: `make bench-tasks`.

2,000 rows of 64 numbers, and a hundred questions about them, each of half of the rows. The questions are related: each
asks for the sign of a mixture of the same eight bent directions, with noise. Told is the mean average precision over
the questions, on 4,000 other rows, of one network that all share and of a network and a linear head for each; then how
long the hundred linear heads take in one go and one after another, by ours and by scikit-learn, in turn.
"""

import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from tasks.core.answer_splits import inner_folds_of
from tasks.core.answers import UNKNOWN, Answers
from tasks.core.hyper import Mlp, Shared, Softmax
from tasks.core.joint import Asked, train_jointly, train_separately
from tasks.core.linear import train_answers
from tasks.core.selection import Trained

TASKS, EACH, KNOWN, TEST, WIDTH, DIRECTIONS = 100, 1000, 0.5, 4000, 64, 8
STRENGTH, TURNS, REPLICATES = 0.1, 5, 2000
WIDTHS = (8, 32, 128)


def main() -> None:
    """Make the tasks, learn them jointly and separately, and time what is batched."""
    features, answers, test, truth = tasks()
    folds = inner_folds_of(answers, np.arange(len(features)).astype(str), seed=0)
    asked = Asked(features, answers, np.ones(len(features)), folds)
    print(
        f"{TASKS} tasks of {answers.known.sum(axis=0).mean():,.0f} examples each, {len(features):,} rows in all\n"
    )
    joint = [Shared((width,), 3e-3) for width in WIDTHS]
    alone = [Mlp((width,), 3e-3) for width in WIDTHS]
    together = train_jointly(asked, joint)
    apart = train_separately(asked, [*alone, Softmax(STRENGTH)], seed=0)
    linear = scores([heads[-1] for heads in apart], test, truth)
    print("hidden units   joint   separate   joint less separate, points")
    for number, width in enumerate(WIDTHS):
        ones = scores([heads[number] for heads in together], test, truth)
        others = scores([heads[number] for heads in apart], test, truth)
        print(f"{width:12}   {100 * ones.mean():5.1f}   {100 * others.mean():8.1f}   {told(ones - others)}")
    print(f"{'linear':>12}           {100 * linear.mean():8.1f}\n")
    times(features, answers)


def tasks() -> tuple[np.ndarray, Answers, np.ndarray, np.ndarray]:
    """Rows and answers to learn from, rows and answers to test on."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(round(EACH / KNOWN) + TEST, WIDTH))
    bent = np.tanh(1.5 * rows @ random.normal(size=(WIDTH, DIRECTIONS)) / WIDTH**0.5)
    scores = bent @ random.normal(size=(DIRECTIONS, TASKS)) + 0.5 * random.normal(size=(len(rows), TASKS))
    labels = (scores > 0).astype(np.int64)
    learnt = labels[:-TEST].copy()
    learnt[random.random(learnt.shape) >= KNOWN] = UNKNOWN
    names = tuple(f"task {n}" for n in range(TASKS))
    return rows[:-TEST], Answers(names, (("0", "1"),) * TASKS, learnt), rows[-TEST:], labels[-TEST:]


def scores(heads: list[Trained], rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision of each task; (T,)."""
    said = [head.predictor.log_proba(rows)[:, 1] for head in heads]
    return np.array([average_precision_score(truth[:, t], each) for t, each in enumerate(said)])


def told(apart: np.ndarray) -> str:
    """The mean over tasks, and its interval over draws of tasks."""
    random = np.random.default_rng(0)
    drawn = apart[random.integers(0, len(apart), (REPLICATES, len(apart)))].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    ends = f"({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * apart.mean():+.1f} {ends}, better in {(apart > 0).sum()} of {len(apart)}"


def times(features: np.ndarray, answers: Answers) -> None:
    """Time a linear head for each task: in one go, one after another, and by scikit-learn."""
    ways = {"in one go": batched, "one after another": one_by_one, "scikit-learn": by_sklearn}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            started = time.perf_counter()
            way(features, answers)
            seconds[name].append(time.perf_counter() - started)
    first = float(np.median(seconds["in one go"]))
    for name, each in seconds.items():
        print(
            f"{TASKS} linear heads {name:18} {np.median(each):7.3f} s   {np.median(each) / first:5.1f} times"
        )


def batched(features: np.ndarray, answers: Answers) -> None:
    train_answers(features, answers, np.ones(len(features)), hypers=[Softmax(STRENGTH)], folds=[])


def one_by_one(features: np.ndarray, answers: Answers) -> None:
    for name in answers.targets:
        known = answers.only([name]).known[:, 0]
        batched(features[known], answers.only([name]).take(known))


def by_sklearn(features: np.ndarray, answers: Answers) -> None:
    for task in range(TASKS):
        known = answers.known[:, task]
        rows = StandardScaler().fit_transform(features[known])
        head = LogisticRegression(C=2 / (STRENGTH * known.sum()), tol=1e-6, max_iter=1000)
        head.fit(rows, answers.labels[known, task])


if __name__ == "__main__":
    main()
