"""Processes that tests start as a user does, each with a Prefect home of its own, and what became of them."""

import functools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from PIL import Image

from flows.server import Remembered, find_running

HEADSTART = (sys.executable, "-m", "flows")
SLOW_RUN = (sys.executable, str(Path(__file__).with_name("slow_run.py")))
"""Then LOG, PAUSE, SHARD and the words of `headstart`."""
MARK = "HEADSTART_TEST_MARK"
PATIENCE = 120.0
"""Seconds; a machine may have others to serve."""

Found = TypeVar("Found")


def until(look: Callable[[], Found], what: str, within: float = PATIENCE) -> Found:
    """Look again and again until there is something to see, and return it."""
    end = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < end, f"not within {within:.0f} s: {what}"
        time.sleep(0.05)
    return found


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of a user who has set nothing of Prefect but its home."""
    plain = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "HEADSTART_"))
    }
    return {**plain, "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(home), **(more or {})}


@dataclass
class Launched:
    """A command that was started, and all processes that come of it.

    Attributes:
        words: the command.
        home: its Prefect home.
        folder: where it runs, and where its output goes.
        more: further variables of its environment.
    """

    words: tuple[str, ...]
    home: Path
    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._out, self._err = (self.folder / f"{self.mark}.{name}" for name in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self.words,
                cwd=self.folder,
                env=environment(self.home, {**self.more, MARK: self.mark}),
                stdin=subprocess.DEVNULL,
                stdout=out,  # files, as a pipe is held open by whoever is left
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has told so far, but for warnings of libraries."""
        return self._err.read_text()

    def told(self) -> list[str]:
        """The lines that it has told as `headstart: ...`."""
        return [line for line in self.err.splitlines() if line.startswith("headstart: ")]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, within: float = PATIENCE) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(within)

    def left(self) -> list[int]:
        """Its processes that live, itself among them."""
        return marked(self.mark)

    def end_all(self) -> None:
        """End whatever is left of it."""
        for pid in self.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def marked(mark: str) -> list[int]:
    """Find the processes that have inherited a mark."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _has(path, f"{MARK}={mark}".encode())]


def _has(process: Path, entry: bytes) -> bool:
    try:
        return entry in (process / "environ").read_bytes().split(b"\0")  # empty once it is dead
    except OSError:
        return False


def headstart(home: Path, folder: Path, *words: str, more: Mapping[str, str] | None = None) -> Launched:
    """Run the command line to its end."""
    launched = Launched((*HEADSTART, *words), home, folder, more or {})
    launched.end()
    return launched


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def paint_classes(folder: Path, samples: int) -> Path:
    """Draw noisy pictures in two classes, dark and bright; no two are the same."""
    rng = np.random.default_rng(0)
    for number in range(samples):
        name, least = ("dark", 0) if number % 2 else ("bright", 128)
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(least, least + 128, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


STUDY = """
name = "{name}"
[data]
{data}
[backbones.lite0]
resize = 48
crop = 48
engine = "eager"
[[splits]]
name = "s"
seeds = [0]
[[experiments]]
name = "last layer"
head = "centroid"
"""
"""Quick: no engines are tried, and one head is trained."""


def write_study(path: Path, data: str) -> Path:
    """Write a study named as its file; `data` is the text of that table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUDY.format(name=path.stem, data=data))
    return path


GATE = """
import os
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent


def manifest():
    with (HERE / "came").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    until = time.monotonic() + 200
    while (HERE / "closed").exists() and time.monotonic() < until:
        time.sleep(0.05)
    paths = sorted(HERE.glob("*/*.png"))
    return pd.DataFrame({"path": [str(path) for path in paths], "class": [path.parent.name for path in paths]})
"""


@dataclass
class Gate:
    """A manifest at which runs wait while it is closed: so a run lasts as long as a test wants."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "manifest.py").write_text(GATE)

    @property
    def data(self) -> str:
        return f'manifest = "{self.folder / "manifest.py"}"'

    def close(self) -> None:
        (self.folder / "closed").touch()

    def open(self) -> None:
        (self.folder / "closed").unlink(missing_ok=True)

    def came(self) -> list[int]:
        """The processes that have come to it, in order."""
        place = self.folder / "came"
        return [int(line) for line in place.read_text().split()] if place.exists() else []

    def next_after(self, before: list[int]) -> int:
        """Wait for one more process than had come before."""
        return until(lambda: self.came()[len(before) :], "a run came to the gate")[0]


@dataclass(frozen=True)
class Api:
    """A Prefect server, asked as its UI asks it."""

    url: str

    def get(self, place: str) -> Any:
        return self._ask("GET", place)

    def post(self, place: str, **body: Any) -> Any:
        return self._ask("POST", place, json=body)

    def _ask(self, method: str, place: str, **more: Any) -> Any:
        """A database that is locked for a moment is asked again, as Prefect's own clients do."""
        with httpx.Client(trust_env=False, timeout=60) as client:
            for _ in range(10):
                answer = client.request(method, f"{self.url}{place}", **more)
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    break
                time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def flow_runs(self, name: str) -> list[dict[str, Any]]:
        """The flow runs of a study, the oldest first."""
        runs: list[dict[str, Any]] = self.post(
            "/flow_runs/filter", flow_runs={"name": {"any_": [name]}}, sort="START_TIME_ASC"
        )
        return runs

    def flow_run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/flow_runs/{run}")
        return found

    def task_runs(self, run: str) -> list[dict[str, Any]]:
        """The task runs of a flow run, in order."""
        runs: list[dict[str, Any]] = self.post(
            "/task_runs/filter", flow_runs={"id": {"any_": [run]}}, sort="EXPECTED_START_TIME_ASC"
        )
        return runs

    def cancel(self, run: str) -> None:
        """Cancel a run as the UI does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.post(f"/flow_runs/{run}/set_state", state=state, force=False)

    def state(self, run: str) -> str:
        """The name of a flow run's state."""
        return str(self.flow_run(run)["state"]["name"])

    def wait_for(self, run: str, *states: str) -> str:
        """Wait until a flow run is in one of some states."""
        return until(
            lambda: self.state(run) if self.state(run) in states else None,
            f"the run reads {' or '.join(states)}, not {self.state(run)}",
        )


@dataclass(frozen=True)
class Ui:
    """The server of `headstart ui` that all tests share.

    Attributes:
        home: its Prefect home.
        artifacts: the folder whose reports it shows.
        port: where it listens.
        said: what the command printed.
    """

    home: Path
    artifacts: Path
    port: int
    said: str

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> Api:
        return Api(f"{self.address}/api")

    @property
    def remembered(self) -> Remembered:
        found = remembered(self.home)
        assert found is not None, "it runs"
        return found


def remembered(home: Path) -> Remembered | None:
    """Find the server that is remembered in a Prefect home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        return find_running()


@functools.cache
def _the_ui(base: Path) -> Ui:
    base.mkdir()
    home, artifacts, port = base / "home", base / "artifacts", free_port()
    told = headstart(home, base, "ui", "--port", str(port), "--artifacts", str(artifacts))
    assert told.end() == 0, told.err
    return Ui(home, artifacts, port, told.out)


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """One server for all test files that name it: `ui = launched.ui`."""
    base = tmp_path_factory.getbasetemp() / "ui"
    try:
        yield _the_ui(base)
    finally:
        headstart(base / "home", base, "ui", "--stop")


@pytest.fixture(scope="module", autouse=True)
def no_harness() -> None:
    """Stand in for the server of the other flow tests, which these have no use for: `server = launched.no_harness`."""


@pytest.fixture
def launch() -> Iterator[Callable[..., Launched]]:
    """Start commands; whatever is left of them after the test is ended."""
    started: list[Launched] = []

    def start(*given: Any, **named: Any) -> Launched:
        started.append(Launched(*given, **named))
        return started[-1]

    yield start
    for each in started:
        each.end_all()


def home_with_tables(ui: Ui, home: Path) -> Path:
    """Make a Prefect home whose database has its tables already: making them takes ten seconds."""
    home.mkdir(parents=True)
    with (
        closing(sqlite3.connect(ui.home / "headstart.db")) as source,
        closing(sqlite3.connect(home / "headstart.db")) as copy,
    ):
        source.backup(copy)
        for table in ("task_run", "flow_run"):
            copy.execute(f"DELETE FROM {table}")  # noqa: S608
        copy.commit()
    return home


def history(home: Path) -> list[tuple[str, dict[str, str]]]:
    """Read from a home's database how each flow run ended, and each of its task runs, by name; the oldest first."""
    tasks = "SELECT name, state_name FROM task_run WHERE flow_run_id = ? ORDER BY expected_start_time"
    with closing(sqlite3.connect(home / "headstart.db")) as database:
        runs = database.execute("SELECT id, state_name FROM flow_run ORDER BY start_time").fetchall()
        return [(state, dict(database.execute(tasks, [run]).fetchall())) for run, state in runs]
