"""Extraction that is killed, and extraction by several processes at once: the real thing, on disk.

A process is killed by SIGKILL at a random moment while it extracts. The next run must end with the
features of an undisturbed run, to the bit, having computed no more than what was in flight again.
"""

import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tasks.core.engine
import tasks.core.networks
from flows.cache import cache_gc
from tasks.core import extraction
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import find_backbone
from tasks.core.digest import digest_bytes
from tasks.core.engines import CPU_BATCH
from tasks.core.networks import freeze
from tasks.core.passes import Passes
from tasks.core.recipes import Recipe
from tasks.core.taps import Tap

SAMPLES, ROWS = 200, 16
"""So many samples in shards of so many rows: thirteen for each of two taps."""
TAPS = (Tap("0", "mean+std"), Tap("2", "none"))
RECIPE = Recipe({"centre": TAPS}, "float16", "channels_last")
IN_FLIGHT = ROWS + CPU_BATCH["channels_last"]
"""Samples that came out of the network and are not stored: less than a shard, and one batch."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "tasks.core.passes", "tasks.core.engine", "tasks.core.gpu"])


def tiny_network() -> nn.Module:
    torch.manual_seed(0)
    return freeze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=4)))


def extract(root: Path, folder: Path, log: Path, pipe: Connection | None = None, company: int = 1) -> None:
    """Extract everything; each sample that goes through the network is written down at once.

    After a batch it waits until `company` processes have run one, so that a slow start of the others is no matter.
    """
    torch.set_num_threads(1)
    extraction.SHARD_ROWS = ROWS
    tasks.core.networks.load_network = lambda backbone: tiny_network()
    run_prefix, handle = tasks.core.engine.run_prefix, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def logged(*given: Any) -> Any:
        for batch in run_prefix(*given):
            os.write(handle, "".join(f"{digest}\n" for digest in batch.digests).encode())
            if company > 1:
                await_company(log, company)
            yield batch

    tasks.core.engine.run_prefix = logged
    places = {path.stem: str(path) for path in sorted(folder.iterdir())}
    passes = Passes(find_backbone("lite0", resize=24, crop=20), RECIPE, Artifacts(root), places)
    if pipe is not None:
        pipe.send("ready")
        pipe.recv()
    passes.fill("centre")


def await_company(log: Path, company: int) -> None:
    """Wait until so many logs beside this one say something, for twenty seconds at most."""
    deadline = time.monotonic() + 20
    while (
        sum(bool(each.stat().st_size) for each in log.parent.glob("*.log")) < company
        and time.monotonic() < deadline
    ):
        time.sleep(0.002)


@dataclass
class Extractor:
    """A process that extracts."""

    root: Path
    folder: Path
    log: Path
    company: int = 1

    def start(self) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        given = (self.root, self.folder, self.log, theirs, self.company)
        self.process = CONTEXT.Process(target=extract, args=given)
        self.process.start()
        theirs.close()
        assert self.pipe.recv() == "ready"

    def go(self) -> None:
        self.pipe.send("go")

    def end(self, timeout: float = 60) -> int:
        self.process.join(timeout)
        code = self.process.exitcode
        assert code is not None, "it never ended"
        return code

    def ran(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures, each named by its digest."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for _ in range(SAMPLES):
        path = folder / "new.png"
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
        path.rename(folder / f"{digest_bytes(path.read_bytes())}.png")
    return folder


def extract_whole(root: Path, folder: Path, log: Path) -> Extractor:
    extractor = Extractor(root, folder, log)
    extractor.start()
    extractor.go()
    assert extractor.end() == 0
    return extractor


Rows = dict[str, dict[str, bytes]]


def rows_of(root: Path) -> Rows:
    """Read every set by h5py alone: set -> sample -> its bytes."""
    found = {}
    for path in sorted(root.glob("features/*/features.h5")):
        with h5py.File(path) as file:
            rows = zip(file["digests"][:], file["features"][:], strict=True)
            found[path.parent.name] = {digest.decode(): row.tobytes() for digest, row in rows}
            assert len(found[path.parent.name]) == len(file["digests"])  # none twice
    return found


def stored_everywhere(root: Path) -> set[str]:
    """Samples whose rows are in whole shards of every set."""
    held: list[set[str]] = []
    for shards in sorted(root.glob("features/*/shards")):
        here: set[str] = set()
        for path in shards.glob("*.h5"):
            with h5py.File(path) as file:
                here.update(digest.decode() for digest in file["digests"][:])
        held.append(here)
    return set.intersection(*held) if len(held) == len(TAPS) else set()


def litter(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if ".partial" in path.name]


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory) -> tuple[Rows, float]:
    """The rows of a run that nothing disturbed, and how long it took."""
    root = tmp_path_factory.mktemp("undisturbed")
    seconds = []
    for turn in range(3):
        extractor = Extractor(root / str(turn), folder, root / f"log-{turn}")
        extractor.start()
        started = time.perf_counter()
        extractor.go()
        assert extractor.end() == 0
        seconds.append(time.perf_counter() - started)
        assert sorted(extractor.ran()) == sorted(path.stem for path in folder.iterdir())
    rows = rows_of(root / "0")
    assert [len(each) for each in rows.values()] == [SAMPLES] * len(TAPS)
    assert rows == rows_of(root / "1")
    return rows, float(np.median(seconds))


def kill_and_go_on(folder: Path, root: Path, moment: float, expected: Rows) -> int:
    """Kill one extraction and let the next finish it; return how many rows the first had stored."""
    first = Extractor(root, folder, root / "first.log")
    root.mkdir(parents=True)
    first.start()
    first.go()
    time.sleep(moment)
    with suppress(ProcessLookupError):  # it was faster
        os.kill(first.process.pid, signal.SIGKILL)
    first.end()
    kept = stored_everywhere(root)
    assert len(set(first.ran()) - kept) <= IN_FLIGHT
    second = extract_whole(root, folder, root / "second.log")
    assert sorted(second.ran()) == sorted(set().union(*expected.values()) - kept)  # those, and each once
    assert rows_of(root) == expected
    cache_gc(root, None, None, dry_run=False)
    assert litter(root) == []
    assert rows_of(root) == expected
    return len(kept)


def kill_many(times: int, folder: Path, tmp_path: Path, undisturbed: tuple[Rows, float]) -> None:
    expected, seconds = undisturbed
    rng = random.Random(times)  # noqa: S311 - moments, no secret
    kept = [
        kill_and_go_on(folder, tmp_path / str(turn), rng.uniform(0, seconds), expected)
        for turn in range(times)
    ]
    parts = [sum(0 < n < SAMPLES for n in kept), sum(n == 0 for n in kept), sum(n == SAMPLES for n in kept)]
    print(
        f"killed {times} times within {seconds:.2f} s: {parts[0]} midway, {parts[1]} before, {parts[2]} after"
    )
    assert parts[0] > 0, "no kill fell between the first shard and the last"


def test_a_killed_run_is_finished_by_the_next(folder, tmp_path, undisturbed):
    kill_many(6, folder, tmp_path, undisturbed)


@pytest.mark.slow
def test_fifty_killed_runs_are_finished_by_the_next(folder, tmp_path, undisturbed):
    kill_many(50, folder, tmp_path, undisturbed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_killed_runs_are_finished_by_the_next(folder, tmp_path, undisturbed):
    kill_many(1000, folder, tmp_path, undisturbed)


# Several at once


def start_together(root: Path, folder: Path, number: int, company: int = 1) -> list[Extractor]:
    root.mkdir(parents=True, exist_ok=True)
    extractors = [Extractor(root, folder, root / f"{turn}.log", company) for turn in range(number)]
    for extractor in extractors:
        extractor.start()
    for extractor in extractors:
        extractor.go()
    return extractors


def test_four_processes_extract_every_sample_once(folder, tmp_path, undisturbed):
    extractors = start_together(tmp_path / "shared", folder, 4, company=2)
    assert [extractor.end() for extractor in extractors] == [0] * 4
    ran = [digest for extractor in extractors for digest in extractor.ran()]
    assert sorted(ran) == sorted(path.stem for path in folder.iterdir())
    assert sum(bool(extractor.ran()) for extractor in extractors) > 1  # they did share
    assert rows_of(tmp_path / "shared") == undisturbed[0]


def test_nobody_waits_for_a_dead_process(folder, tmp_path, undisturbed):
    """Two of four are killed midway; the others take over what those had in hand."""
    extractors = start_together(tmp_path / "shared", folder, 4)
    time.sleep(undisturbed[1] / 2)
    for extractor in extractors[:2]:
        with suppress(ProcessLookupError):
            os.kill(extractor.process.pid, signal.SIGKILL)
    assert [extractor.end(30) for extractor in extractors[2:]] == [0, 0]
    assert rows_of(tmp_path / "shared") == undisturbed[0]


def test_a_stopped_process_is_waited_for_and_its_work_is_not_done_twice(folder, tmp_path, undisturbed):
    """One that is merely slow keeps its claims."""
    slow, quick = start_together(tmp_path / "shared", folder, 2)
    deadline = time.monotonic() + 20
    while not slow.ran() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(slow.process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    waiting = quick.process.exitcode is None
    os.kill(slow.process.pid, signal.SIGCONT)
    assert [slow.end(), quick.end()] == [0, 0]
    ran = slow.ran() + quick.ran()
    assert len(ran) == len(set(ran))
    assert waiting or set(slow.ran()) == set()
    assert rows_of(tmp_path / "shared") == undisturbed[0]
