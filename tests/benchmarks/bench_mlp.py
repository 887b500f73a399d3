"""How fast many small networks are trained. `python tests/benchmarks/bench_mlp.py`; it takes about two minutes.

On one side all networks of a grid, by `fit_mlp`; on the other what one would write: a plain torch loop that
trains one network after the other, with the same batches, steps and numbers of epochs. Training takes as long
for one network or epoch as for another, so the loop trains some of the networks, both sides train for a
few epochs, and what is compared is the time for one network and epoch.
"""

import argparse
import statistics
import time
from itertools import product

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from tasks.core.hyper import Mlp
from tasks.core.mlp import BATCH, fit_mlp

ROWS, FEATURES, CLASSES = 2000, 1280, 10
HIDDEN = (256,)
GRID = [
    Mlp(HIDDEN, rate, decay, dropout, seed)
    for rate, decay, dropout, seed in product(
        np.geomspace(1e-4, 1e-2, 8).tolist(), (0.0, 0.01, 0.1, 1.0), (0.0, 0.3), range(4)
    )
]


def main() -> None:
    """Time both sides turn by turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--loop", type=int, default=8, help="how many networks the loop trains")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    title = (
        f"{len(GRID)} networks {FEATURES}-{HIDDEN[0]}-{CLASSES}, {ROWS:,} rows in batches of {BATCH}, "
        f"{torch.get_num_threads()} threads; {given.epochs} epochs, medians of {given.repeats}"
    )
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("what")
    table.add_column("ms a network and epoch", justify="right")
    table.add_column("", justify="right")
    for what, milliseconds, note in figures(given.epochs, given.loop, given.repeats):
        table.add_row(what, f"{milliseconds:.1f}", note)
    Console(width=120, highlight=False).print(table)


def figures(epochs: int = 10, loop: int = 8, repeats: int = 3) -> list[tuple[str, float, str]]:
    """Rows of the table: what, median milliseconds for a network and epoch, how they compare."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    labels = rng.integers(CLASSES, size=ROWS)
    some = GRID[:: len(GRID) // loop][:loop]
    one_by_one(features, labels, some[:2], 1)
    fit_mlp(features, labels, np.ones(ROWS), classes=CLASSES, hypers=GRID[:16], folds=[], epochs=1)
    loops, stacks = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        one_by_one(features, labels, some, epochs)
        middle = time.perf_counter()
        fit_mlp(features, labels, np.ones(ROWS), classes=CLASSES, hypers=GRID, folds=[], epochs=epochs)
        loops.append((middle - start) / len(some) / epochs * 1e3)
        stacks.append((time.perf_counter() - middle) / len(GRID) / epochs * 1e3)
    slow, fast = statistics.median(loops), statistics.median(stacks)
    note = (
        f"{slow / fast:.1f} times as fast ({min(loops) / max(stacks):.1f} to {max(loops) / min(stacks):.1f})"
    )
    return [("torch, one by one", slow, ""), ("fit_mlp, all at once", fast, note)]


def one_by_one(features: np.ndarray, labels: np.ndarray, hypers: list[Mlp], epochs: int) -> None:
    """Train each network by itself, with what torch has for that."""
    rows, targets = torch.from_numpy(features), torch.from_numpy(labels)
    rows = (rows - rows.mean(0)) / rows.std(0)
    for hyper in hypers:
        torch.manual_seed(hyper.seed)
        network = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, HIDDEN[0]),
            torch.nn.ReLU(),
            torch.nn.Dropout(hyper.dropout),
            torch.nn.Linear(HIDDEN[0], CLASSES),
        )
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=hyper.learning_rate, weight_decay=hyper.weight_decay
        )
        for _ in range(epochs):
            for some in torch.randperm(ROWS).split(BATCH):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(network(rows[some]), targets[some]).backward()
                optimiser.step()


if __name__ == "__main__":
    main()
