"""How fast kept features are read. `make bench-store` runs this; it takes about two minutes and 4 GB of disk.

A set of ROWS x WIDTH float16 in shards of 512 rows is compared, in one run and with all files in the page
cache, with what else one could do: read the same bytes from one plain file, or let h5py pick rows.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from tasks.core import digest
from tasks.core.digest import StatCache, digest_bytes
from tasks.core.store import blocks, extend, holdings, load, view_is_current, write_shard, write_view

SHARD = 512
PICKED = 10_000
PLAIN, RAW = "plain.h5", "raw.bin"


def main() -> None:
    """Make the files, time both sides turn by turn, print the table, remove the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="headstart-bench-"))
    try:
        names = [digest_bytes(str(number).encode()) for number in range(given.rows)]
        make(place, names, given.width)
        compare(place, names, given.repeats)
    finally:
        shutil.rmtree(place)


def make(place: Path, names: list[str], width: int) -> None:
    """Write the set, and the same rows as one plain file and one plain HDF5 file."""
    rng = np.random.default_rng(0)
    with (place / RAW).open("wb") as raw, h5py.File(place / PLAIN, "w") as plain:
        rows = plain.create_dataset("features", (len(names), width), "float16")
        for start in range(0, len(names), SHARD):
            some = names[start : start + SHARD]
            block = rng.standard_normal((len(some), width), np.float32).astype(np.float16)
            write_shard(place / "set", some, block, {"backbone": "none", "tap": "last:mean"})
            raw.write(block.tobytes())
            rows[start : start + len(some)] = block
    os.sync()


def compare(place: Path, names: list[str], repeats: int) -> None:
    """Time every way to read, and print medians."""
    folder, seen = place / "set", StatCache(place / "seen.sqlite", "shard")
    digest.RACY_NS = -(10**18)  # the shards are remembered though they are new
    held = holdings(folder, seen)
    write_view(folder, held)
    rng = np.random.default_rng(1)
    shuffled = [names[number] for number in rng.permutation(len(names))]
    picked = np.sort(rng.choice(len(names), min(PICKED, len(names)), replace=False))
    wanted = [names[number] for number in picked]
    held.rows.find(names[:1])
    ways: dict[str, Callable[[], Any]] = {
        "raw file, converted": lambda: raw_rows(place / RAW, len(names)),
        "all rows": lambda: torch.from_numpy(load(held, names, "float32")),
        "all rows, set opened first": lambda: load(holdings(folder, seen), names, "float32"),
        "all rows, shuffled": lambda: load(held, shuffled, "float32"),
        "all rows, in blocks of 65536": lambda: sum(len(block) for block in blocks(held, names, 65536)),
        "picked rows": lambda: load(held, wanted, "float32"),
        "picked rows, any order": lambda: load(held, shuffled[: len(picked)], "float32"),
        "h5py, plain file": partial(by_h5py, place / PLAIN, picked),
        "h5py, features.h5": partial(by_h5py, folder / "features.h5", picked),
        "open the set": lambda: holdings(folder, seen),
        "open it and index it": lambda: len(holdings(folder, seen).rows),
        "look for new shards": lambda: extend(held, folder, seen),
        "is features.h5 current?": lambda: view_is_current(folder, held),
    }
    assert torch.equal(ways["raw file, converted"](), ways["all rows"]())
    assert np.array_equal(ways["picked rows"](), by_h5py(place / PLAIN, picked))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            answer = way()
            times[name].append(time.perf_counter() - start)
            del answer
    medians = {name: statistics.median(each) for name, each in times.items()}
    show(medians, f"{len(names):,} rows, {len(held.shards):,} shards; {len(picked):,} picked")


def raw_rows(path: Path, rows: int) -> torch.Tensor:
    """Read one plain file and convert it."""
    return torch.from_numpy(np.fromfile(path, np.float16).reshape(rows, -1)).float()


def by_h5py(path: Path, rows: np.ndarray) -> np.ndarray:
    """Let h5py pick rows, which must ascend."""
    with h5py.File(path) as file:
        picked: np.ndarray = file["features"][rows].astype(np.float32)
        return picked


def show(medians: dict[str, float], title: str) -> None:
    """Print the table."""
    table = Table(title=f"{title}; medians", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("what")
    for heading in ("ms", "times as fast as"):
        table.add_column(heading, justify="right")
    raw, plain, view = (
        medians[key] for key in ("raw file, converted", "h5py, plain file", "h5py, features.h5")
    )
    notes = {name: f"{raw / medians[name]:.2f} raw" for name in medians if name.startswith("all rows")} | {
        name: f"{plain / medians[name]:.0f} plain h5py, {view / medians[name]:.0f} features.h5"
        for name in medians
        if name.startswith("picked")
    }
    for name, seconds in medians.items():
        table.add_row(name, f"{seconds * 1e3:,.1f}", notes.get(name, ""))
    Console(width=100, highlight=False).print(table)


if __name__ == "__main__":
    main()
