"""A study that is served: its deployment, runs that are started, cancelled and killed, and what is left at the end."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import launched
import pytest
from launched import Api, Gate, Launched, Ui, headstart, paint_classes, until, write_study

from flows.__main__ import main
from flows.study import Study

ui, launch, server = launched.ui, launched.launch, launched.no_harness

SERVE = """
import signal
import sys
import flows.watch
from flows.__main__ import main

flows.watch.REST = 0.5
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
sys.exit(main(sys.argv[1:]))
"""
"""`headstart`, in which files come to rest sooner."""
SOON = 30.0
DONE = ("Completed", "Unchanged", "Failed", "Crashed")
"""States of runs that are over, but for those that were cancelled."""


@dataclass
class Served:
    """A study that is served, whose runs wait at a gate while that is closed."""

    ui: Ui
    study: Path
    gate: Gate
    artifacts: Path
    options: tuple[str, ...] = ()

    def launch(self) -> None:
        words = ("serve", str(self.study), "--artifacts", str(self.artifacts), *self.options)
        self.process = Launched((sys.executable, "-c", SERVE, *words), self.ui.home, self.study.parent)

    def start(self) -> None:
        """Serve it, and wait until it looks for runs that are due."""
        before = self.last_look()
        self.launch()
        until(lambda: self.is_over() or self.last_look() != before, "it is served")
        assert not self.is_over(), self.process.err

    def last_look(self) -> object:
        found = self.deployment()
        return found and found["last_polled"]

    def is_over(self) -> bool:
        return self.process.process.poll() is not None

    def is_registered(self) -> bool:
        found = self.deployment()
        return found is not None and not found["paused"] and found["status"] == "READY"

    @property
    def api(self) -> Api:
        return self.ui.api

    def deployment(self) -> dict[str, Any] | None:
        wanted = self.api.post("/deployments/filter", deployments={"name": {"any_": [self.study.stem]}})
        return wanted[0] if wanted else None

    def run(self) -> str:
        """Start a run as the UI does, and return its id."""
        return str(self.api.post(f"/deployments/{self.deployment()['id']}/create_flow_run")["id"])

    def run_to_the_gate(self) -> tuple[str, int]:
        """Start a run and wait until it is at the gate; returns its id and its process."""
        self.gate.close()
        before = self.gate.came()
        run = self.run()
        return run, self.gate.next_after(before)

    def end(self) -> None:
        self.process.signal(signal.SIGTERM)
        self.process.end()


def lives(pid: int) -> bool:
    with suppress(OSError):
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the network runs once."""
    return tmp_path_factory.mktemp("artifacts")


def make(ui: Ui, base: Path, name: str, artifacts: Path, *options: str) -> Served:
    gate = Gate(paint_classes(base / "pictures", 24))
    return Served(ui, write_study(base / f"{name}.toml", gate.data), gate, artifacts, options)


@pytest.fixture
def serving(ui: Ui, tmp_path: Path, artifacts: Path) -> Iterator[Callable[..., Served]]:
    """Make studies that can be served; whatever is left of that after the test is ended."""
    made: list[Served] = []

    def new(name: str, *options: str) -> Served:
        made.append(make(ui, tmp_path, name, artifacts, *options))
        return made[-1]

    yield new
    for each in made:
        each.process.end_all()


@pytest.fixture(scope="module")
def queueing(ui: Ui, tmp_path_factory: pytest.TempPathFactory, artifacts: Path) -> Iterator[Served]:
    """Served for all tests of this file; runs wait for each other."""
    served = make(ui, tmp_path_factory.mktemp("queueing"), "queueing", artifacts)
    served.start()
    yield served
    served.gate.open()
    served.end()
    served.process.end_all()


@pytest.fixture
def queue(queueing: Served) -> Iterator[Served]:
    """That one with its gate open, and afterwards no run under way."""
    queueing.gate.open()
    yield queueing
    queueing.gate.open()
    until(lambda: not under_way(queueing), "no run is under way")


def under_way(served: Served) -> list[dict[str, Any]]:
    deployment = {"id": {"any_": [served.deployment()["id"]]}}
    types = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]
    found: list[dict[str, Any]] = served.api.post(
        "/flow_runs/filter", deployments=deployment, flow_runs={"state": {"type": {"any_": types}}}
    )
    return found


# Requests that cannot be


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--cron", "every night"], "--cron 'every night'"),
        (["--cron", "61 3 * * *"], "--cron '61 3 * * *'"),
        (["--cron", "0 3 * * *", "--timezone", "Europe/Berlln"], "--timezone 'Europe/Berlln'"),
        (["--interval=soon"], "--interval 'soon': write a whole number and s, m, h or d"),
        (["--interval=-5m"], "--interval '-5m'"),
        (["--interval=9s"], "--interval '9s': ten seconds are the least"),
        (["--set", "data.foldr=x"], "did you mean 'folder'?"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(tmp_path, pictures, capsys, words, complaint):
    study = write_study(tmp_path / "wrong.toml", f'folder = "{pictures}"')
    assert main(["serve", str(study), *words, "--artifacts", str(tmp_path / "artifacts")]) == 2
    told = capsys.readouterr()
    [line] = told.err.splitlines()
    assert complaint in line
    assert told.out == ""


def test_serving_without_a_server_is_refused_in_one_line_that_says_how_to_have_one(tmp_path, pictures):
    study = write_study(tmp_path / "no-server.toml", f'folder = "{pictures}"')
    told = headstart(tmp_path / "home", tmp_path, "serve", str(study))
    assert told.end() == 2
    [line] = told.err.splitlines()
    assert line.endswith("start one with: headstart ui")
    assert told.left() == []


# The deployment


def test_the_deployment_s_form_has_the_study_s_fields_and_its_values(queue):
    found = queue.deployment()
    schema = found["parameter_openapi_schema"]
    assert set(schema["definitions"]["Study"]["properties"]) == set(Study.model_fields)
    assert set(schema["properties"]) == {"study", "artifacts"}
    assert found["parameters"]["study"]["name"] == "queueing"
    assert found["parameters"]["study"]["backbones"]["lite0"]["crop"] == 48
    assert found["parameters"]["artifacts"] == str(queue.artifacts)


def test_one_run_at_a_time_is_the_limit_and_others_wait(queue):
    found = queue.deployment()
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"


def test_a_run_that_is_started_over_the_api_is_run(queue):
    run = queue.run()
    assert queue.api.wait_for(run, *DONE) in (
        "Completed",
        "Unchanged",
    )
    assert queue.api.flow_run(run)["name"] == "queueing"
    [first, *_] = queue.api.task_runs(run)
    assert first["name"] == "queueing: samples, 1 of 8"
    assert (queue.artifacts / "studies/queueing/report.html").is_file()


def test_a_run_that_is_cancelled_over_the_api_reads_cancelled_soon_and_its_process_is_gone(queue):
    run, pid = queue.run_to_the_gate()
    started = time.monotonic()
    queue.api.cancel(run)
    assert queue.api.wait_for(run, "Cancelled", *DONE) == "Cancelled"
    until(lambda: not lives(pid), "its process is gone")
    assert time.monotonic() - started < SOON


def test_a_study_file_that_changes_is_followed_and_a_broken_one_is_told(queue):
    text = queue.study.read_text()
    queue.study.write_text(text.replace("crop = 48", "crop = 32"))
    until(lambda: crop(queue) == 32, "the deployment follows")
    queue.study.write_text("name = ")
    until(lambda: "not a TOML file" in queue.process.err, "it is told")
    assert "served as it was before" in queue.process.err
    assert crop(queue) == 32
    assert not queue.is_over()
    draft = queue.study.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(queue.study)  # as many programs save
    until(lambda: crop(queue) == 48, "the deployment follows")


def crop(served: Served) -> int:
    return int(served.deployment()["parameters"]["study"]["backbones"]["lite0"]["crop"])


@pytest.mark.slow
def test_two_runs_at_once_are_done_one_after_the_other(queue):
    first, _ = queue.run_to_the_gate()
    second = queue.run()
    queue.api.wait_for(second, "AwaitingConcurrencySlot")
    assert queue.api.state(first) == "Running"
    queue.gate.open()
    for run in (first, second):
        assert queue.api.wait_for(run, "Cancelled", *DONE) in ("Completed", "Unchanged")
    ended, started = queue.api.flow_run(first)["end_time"], queue.api.flow_run(second)["start_time"]
    assert ended <= started


@pytest.mark.slow
def test_a_killed_run_reads_crashed_and_the_next_one_works(queue):
    run, pid = queue.run_to_the_gate()
    os.kill(pid, signal.SIGKILL)
    assert queue.api.wait_for(run, *DONE) == "Crashed"
    queue.gate.open()
    following = queue.run()
    assert queue.api.wait_for(following, *DONE) in ("Completed", "Unchanged")


# The end of it


@pytest.mark.slow
def test_a_second_run_is_skipped_and_serving_that_ends_leaves_nothing(skipping):
    served, pid = skipping.served, skipping.pid
    assert skipping.strategy == "CANCEL_NEW"
    assert skipping.states == ("Running", "Cancelled")
    assert served.process.end() == 0
    until(lambda: not served.process.left(), "nothing of it is left", SOON)
    assert not lives(pid)
    assert "no longer served; its schedule is paused" in served.process.err
    assert "Traceback" not in served.process.err
    assert served.deployment()["paused"]


@pytest.mark.slow
def test_a_run_that_was_under_way_when_serving_ended_is_not_left_running(skipping):
    until(
        lambda: skipping.served.api.state(skipping.first) in ("Crashed", "Cancelled", "Failed"),
        "it ended",
        10,
    )


@dataclass
class Skipping:
    """A study served with `--busy skip`, ended by SIGTERM while a run was under way.

    Attributes:
        served: which is no longer served.
        strategy: the deployment's, of runs that collide.
        first: the run that was under way, by its process `pid`.
        states: of that run and a second one, before the end.
    """

    served: Served
    strategy: str
    first: str
    pid: int
    states: tuple[str, str]


@pytest.fixture(scope="module")
def skipping(ui: Ui, tmp_path_factory: pytest.TempPathFactory, artifacts: Path) -> Iterator[Skipping]:
    base = tmp_path_factory.mktemp("skipping")
    served = make(ui, base, "skipping", artifacts, "--busy", "skip", "--cron", "0 3 * * *")
    served.start()
    strategy = served.deployment()["concurrency_options"]["collision_strategy"]
    first, pid = served.run_to_the_gate()
    second = served.run()
    states = (served.api.state(first), served.api.wait_for(second, "Cancelled", "Running", *DONE))
    served.end()
    yield Skipping(served, strategy, first, pid, states)
    served.process.end_all()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_study_is_paused_once_it_is_not_served_and_no_longer_when_it_is_served_again(serving, number):
    served = serving(f"again-{number.name.lower()}", "--cron", "0 3 * * *")
    for _ in range(2):
        served.start()
        assert not served.deployment()["paused"]
        served.process.signal(number)
        assert served.process.end() == 0, served.process.err
        assert served.process.left() == []
        assert served.deployment()["paused"]


@pytest.mark.slow
def test_serving_that_is_ended_while_it_starts_leaves_the_study_paused(serving):
    served = serving("early", "--cron", "0 3 * * *")
    served.launch()
    until(served.is_registered, "it is registered")
    served.end()
    assert served.deployment()["paused"]


@pytest.mark.slow
def test_a_study_runs_at_its_interval(serving):
    served = serving("often", "--interval", "10s")
    served.start()
    until(lambda: len(served.gate.came()) >= 2, "it has run twice")
    served.end()
    assert served.process.left() == []


# When files change


@dataclass
class Watching:
    """A study of a folder that is served with `--watch`."""

    served: Served
    pictures: Path

    def ended(self, number: int) -> bool:
        runs = self.served.api.flow_runs(self.served.study.stem)
        return sum(run["end_time"] is not None for run in runs) >= number

    def total(self) -> int:
        """How many samples the last run that came to its end has seen."""
        place = self.served.artifacts / "studies" / self.served.study.stem / "summary.json"
        return int(json.loads(place.read_text())["samples"]["total"]) if place.exists() else 0

    def add(self) -> None:
        """Add a picture of other bytes."""
        data = (self.pictures / "dark" / "1.png").read_bytes()
        (self.pictures / "dark" / f"{time.monotonic_ns()}.png").write_bytes(data + b"\0")


@pytest.fixture
def watching(serving: Callable[..., Served], tmp_path: Path) -> Watching:
    served = serving(tmp_path.name, "--watch")  # its runs are told from another test's by the name
    pictures = served.study.parent / "pictures"
    write_study(served.study, f'folder = "{pictures}"')
    return Watching(served, pictures)


@pytest.mark.slow
def test_new_files_start_a_run(watching):
    watching.served.start()
    watching.add()
    until(lambda: watching.total() == 25, "a run has seen the new one")
    assert "1 files are new, changed or gone" in watching.served.process.err
    until(lambda: not under_way(watching.served), "the run is done")
    assert {run["state"]["name"] for run in watching.served.api.flow_runs(watching.served.study.stem)} <= {
        "Completed",
        "Unchanged",
    }
    watching.served.end()
    assert watching.served.process.left() == []


@pytest.mark.slow
def test_a_study_that_is_watched_is_run_at_once_for_what_has_changed_before(watching):
    watching.served.start()
    until(lambda: watching.ended(1), "a run is done", 40)
