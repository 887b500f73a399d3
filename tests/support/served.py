"""Headstart as a user has it: its commands in processes of their own, a server, and what the server's API tells."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import Any, TypeVar
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).parents[2]
WITHIN = 300.0
"""Seconds that a command may take: the machine may have much else to do."""
ENDS_WITHIN = 60.0

Found = TypeVar("Found")


@dataclass(frozen=True)
class Api:
    """Prefect's API, asked over HTTP as anybody may."""

    address: str

    def get(self, path: str) -> Any:
        """Ask for what lies at a path."""
        return self._ask(path, None)

    def post(self, path: str, **body: Any) -> Any:
        """Send a question."""
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None) -> Any:
        request = Request(f"{self.address}/api{path}", body, {"Content-Type": "application/json"})  # noqa: S310
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, name: str, *states: str) -> list[dict[str, Any]]:
        """The runs of that name in the order of their starts; of those states, or all."""
        wanted: dict[str, Any] = {"name": {"any_": [name]}}
        if states:
            wanted["state"] = {"type": {"any_": list(states)}}
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", flow_runs=wanted)
        return sorted(found, key=lambda run: run["start_time"] or run["expected_start_time"])

    def state(self, run: str) -> str:
        """The name of a run's state."""
        return str(self.get(f"/flow_runs/{run}")["state"]["name"])

    def stages(self, run: str) -> dict[str, str]:
        """What became of each stage of a run, by the stage's name in the UI."""
        found = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return {each["name"]: each["state_name"] for each in found}

    def artifacts(self, run: str, kind: str) -> list[dict[str, Any]]:
        """The artifacts of a run that are of a kind: table, markdown or progress."""
        wanted = {"flow_run_id": {"any_": [run]}, "type": {"any_": [kind]}}
        found: list[dict[str, Any]] = self.post("/artifacts/filter", artifacts=wanted)
        return found

    def deployment(self, name: str) -> dict[str, Any]:
        """A served study, once it is known."""
        wanted = {"name": {"any_": [name]}}
        [found] = until("a deployment", lambda: self.post("/deployments/filter", deployments=wanted))
        return dict(found)


@dataclass
class Started:
    """A command that runs beside the test."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Everything that it printed so far."""
        return self.log.read_text()

    def ended(self, within: float = WITHIN) -> int:
        """Wait for its end; returns its exit code."""
        return self.process.wait(within)


@dataclass(frozen=True)
class Place:
    """A folder that has everything: Prefect's home, the outputs and temporary files.

    Attributes:
        folder: the place.
        more: of the environment.
        elsewhere: the folder of outputs, if that is not in it.
    """

    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Path | None = None

    @property
    def home(self) -> Path:
        """Prefect's."""
        return self.folder / "prefect"

    @property
    def artifacts(self) -> Path:
        """The folder of outputs."""
        return self.elsewhere or self.folder / "artifacts"

    def environment(self) -> dict[str, str]:
        """This process's, without what is set for Prefect in it."""
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        own = {"PREFECT_HOME": str(self.home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
        return kept | own | dict(self.more)

    def headstart(self, *words: str | Path, within: float = WITHIN) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command(*words),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
        )

    def run(self, study: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a study, which has to go well."""
        done = self.headstart("run", study, "--artifacts", self.artifacts, *words)
        assert done.returncode == 0, done.stderr
        return done

    @contextmanager
    def started(self, *words: str | Path) -> Iterator[Started]:
        """Run a command beside the test, and end it politely if it has not ended."""
        log = self.folder / f"{words[0]}-{time.monotonic_ns()}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command(*words),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            yield Started(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(ENDS_WITHIN)
            finally:
                process.kill()

    @contextmanager
    def served(self, study: Path, *words: str) -> Iterator[Started]:
        """Serve a study as long as the block lasts."""
        with self.started("serve", study, "--artifacts", self.artifacts, *words) as serving:
            yield serving

    @contextmanager
    def ui(self) -> Iterator[Api]:
        """Have the server of `headstart ui` as long as the block lasts; then nothing of ours runs any more."""
        begun = self.headstart("ui", "--artifacts", self.artifacts, "--port", str(free_port()))
        assert begun.returncode == 0, begun.stderr
        try:
            yield Api(begun.stdout.split()[0])
        finally:
            ended = self.headstart("ui", "--stop")
        assert ended.stdout.startswith("stopped the server"), ended.stdout + ended.stderr
        self.check_left_nothing()

    def summary(self, study: str) -> dict[str, Any]:
        """The study's `summary.json`."""
        return dict(json.loads((self.artifacts / "studies" / study / "summary.json").read_text()))

    def check_left_nothing(self) -> None:
        """Assert that no process of this place is alive, after a moment in which the last may end."""
        until("the end of all processes", lambda: not self._alive() or None, ENDS_WITHIN)

    def _alive(self) -> list[str]:
        mark = f"PREFECT_HOME={self.home}".encode()
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                if mark in (each / "environ").read_bytes().split(b"\0"):
                    found.append((each / "cmdline").read_text().replace("\0", " "))
        return found


def command(*words: str | Path) -> list[str]:
    """The command line, as a list of words."""
    return [sys.executable, "-m", "flows", *map(str, words)]


def until(what: str, look: Callable[[], Found | None], within: float = WITHIN) -> Found:
    """Look again and again until something is found.

    Raises:
        AssertionError: if it is not within so many seconds.
    """
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"waited {within:.0f} s for {what}"
        time.sleep(0.3)


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def missing(*programs: str) -> str:
    """Say which of some programs are not there; empty if all are."""
    return ", ".join(name for name in programs if shutil.which(name) is None)


@cache
def lone_network() -> Sequence[str] | None:
    """The words before a command that give it a network with nothing but loopback; None where that cannot be."""
    if missing("unshare", "ip"):
        return None
    for unshare in (["unshare", "-n"], ["unshare", "-rn"]):
        words = [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            return words
    return None


def make_cells(count: int, folder: Path) -> Path:
    """Make a manifest of so many solar cells, or of dark and bright squares where the cells are not installed."""
    table = _solar(count) if find_spec("elpv_dataset") else _squares(count, folder / "squares")
    manifest = folder / f"cells-{count}.csv"
    table.to_csv(manifest, index=False)
    return manifest


def _solar(count: int) -> pd.DataFrame:
    cells: pd.DataFrame = run_path(str(ROOT / "data" / "solar.py"))["manifest"]()
    halves = [cells[cells["defective"] == label].head(count // 2) for label in (0, 1)]
    return pd.concat(halves)[["path", "defective"]]


def _squares(count: int, folder: Path) -> pd.DataFrame:
    folder.mkdir(exist_ok=True)
    rows = [(str(folder / f"{number}.png"), number % 2) for number in range(count)]
    for number, (path, label) in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 128, (48, 48, 3)) + 100 * label
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return pd.DataFrame(rows, columns=["path", "defective"])


def write_study(folder: Path, name: str, data: str, *, backbone: str = "") -> Path:
    """Write a study with two experiments and one split.

    Args:
        folder: where it is written.
        name: the study's.
        data: the lines of its data.
        backbone: lines of its backbone.
    """
    file = folder / f"{name}.toml"
    parts = [
        f"name = '{name}'",
        f"[data]\n{data}",
        f"[backbones.lite0]\n{backbone}",
        "[[splits]]\nname = 'by chance'\nseeds = [0]",
        "[[experiments]]\nname = 'last layer'",
        "[[experiments]]\nname = 'two depths'\ntaps = ['last:mean', 'blocks.4:mean']",
    ]
    file.write_text("\n".join(parts) + "\n")
    return file
