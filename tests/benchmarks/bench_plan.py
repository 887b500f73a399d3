"""How long `headstart plan` takes over an unchanged study of 100,000 files (`make bench-plan`).

The files are real, and were read and checked once; the rows and heads are zeros, written by the store's
own functions, so that no network runs. What is timed is the whole process, from a warm stat cache.
"""

import argparse
import io
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.table import Table

from flows.plan import wanted_sets
from flows.study import Study, load_study
from tasks.core.artifacts import Artifacts
from tasks.core.heads import HeadFile, head_key, save_heads
from tasks.core.manifest import list_samples, locate
from tasks.core.plan import survey
from tasks.core.predictors import Linear
from tasks.core.samples import examine, table_identity
from tasks.core.store import write_shard
from tasks.core.trials import Part, list_shelves, parts_of, shelf_of, shelves_identity

CLASSES, SHARD, WIDTH = 10, 512, 64
TARGET = 3.0  # seconds
STUDY = """
name = "many"
[data]
folder = "files"
[[experiments]]
name = "last layer"
[[experiments]]
name = "three depths"
taps = ["last:mean", "blocks.4:mean+std", "blocks.5:mean+std"]
"""


def main() -> int:
    """Make the study, time the plan, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-plan-") as folder:
        place, artifacts = Path(folder) / "many.toml", Artifacts(Path(folder) / "artifacts")
        place.write_text(STUDY)
        _make_files(Path(folder) / "files", given.files)
        study = load_study(place)
        time.sleep(3)  # a file that changed just now is not remembered
        frame = list_samples(study.source().place, [])
        examine(*locate(frame["path"].tolist(), study.source().root), artifacts)
        _make_rows_and_heads(study, artifacts)
        command = [sys.executable, "-m", "flows", "plan", str(place), "--artifacts", str(artifacts.root)]
        seconds, text = _time(command, given.times)
    _print(given.files, seconds)
    if "nothing to do" not in text:
        print(text)
        return 1
    return int(statistics.median(seconds) > TARGET)


def _make_files(folder: Path, files: int) -> None:
    """Write 1 x 1 pictures with a number behind each, so that no two have the same bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    for kind in range(CLASSES):
        (folder / f"class {kind}").mkdir(parents=True)
    for number in range(files):
        place = folder / f"class {number % CLASSES}" / f"{number:06}.png"
        place.write_bytes(buffer.getvalue() + b"%d" % number)


def _make_rows_and_heads(study: Study, artifacts: Artifacts) -> None:
    found = survey(study.source(), artifacts)
    digests, sets = found.table.digest.tolist(), wanted_sets(study, artifacts)
    for each in sets:
        for start in range(0, len(digests), SHARD):
            names = digests[start : start + SHARD]
            write_shard(each.folder, names, np.zeros((len(names), WIDTH), np.float16), {})
    parts = list(parts_of(found.table, study.split_specs()))
    for grid in study.grids():
        names = grid.inputs.sets({each.name: each.folder.name for each in sets})
        shelves = []
        for part in parts:
            shelves.append(shelf_of(artifacts.heads, grid.inputs, names, found.table, part))
            save_heads(
                shelves[-1], {head_key(hyper): _zeros(found.table, part, len(names)) for hyper in grid.hypers}
            )
        identity = shelves_identity(grid.inputs, names, table_identity(found.table), study.split_specs())
        list_shelves(artifacts.heads, identity, shelves)


def _zeros(table: pd.DataFrame, part: Part, taps: int) -> HeadFile:
    test, train = table.digest[part.test].tolist(), table.digest[~part.test].tolist()
    weight = np.zeros((CLASSES, WIDTH * taps))
    said = np.zeros((len(test), CLASSES), np.float32)
    return HeadFile(Linear(weight, weight[:, 0]), said, test, None, train, {})


def _time(command: list[str], times: int) -> tuple[list[float], str]:
    """Run a command once to warm it up, then some times more."""
    seconds, text = [], ""
    for _ in range(times + 1):
        started = time.perf_counter()
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds.append(time.perf_counter() - started)
    return seconds[1:], text


def _print(files: int, seconds: list[float]) -> None:
    table = Table("files", "times", "median", "least", "most", "target", title="headstart plan, unchanged")
    least, most = min(seconds), max(seconds)
    table.add_row(
        f"{files:,}",
        str(len(seconds)),
        *(f"{value:.2f} s" for value in (statistics.median(seconds), least, most)),
        f"{TARGET:g} s",
    )
    console = Console(width=100)
    console.print(table)
    console.print(f"{platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    sys.exit(main())
