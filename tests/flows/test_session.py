"""A run from the command line: what the server knows of it, and what is left of it however it ends."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import httpx
import launched
import pytest
from launched import Launched, Ui, headstart, history, home_with_tables, paint_classes, until, write_study
from slow_run import BATCH, QUICK

from flows.session import OF_TERMINALS

ui, launch, server = launched.ui, launched.launch, launched.no_harness

SAMPLES = 100
SHARD, ALL = 8, 1000
"""Samples of a shard: a few, or more than there are."""
IN_FLIGHT = SHARD + BATCH
"""Samples that came out of the network and are not stored: less than a shard, and one batch."""
STAGES = [
    "samples",
    "features lite0",
    "train last layer",
    "scores",
    "learning curve",
    "near copies",
    "report",
    "publish",
]
UNCHANGED = ["Completed", *["Cached"] * 5, "Completed", "Completed"]
HINT = "to watch runs in a browser: headstart ui"
STOPS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
SOON = 30.0
"""Seconds; on a quiet machine it takes three."""


def titles(study: str) -> list[str]:
    return [f"{study}: {name}, {number} of {len(STAGES)}" for number, name in enumerate(STAGES, 1)]


def begun(study: str, state: str) -> dict[str, str]:
    """The stages of a run that ended in this state in the midst of the extraction."""
    return dict(zip(titles(study), ["Completed", state], strict=False))


def stages(ui: Ui, run: str) -> dict[str, str]:
    return {task["name"]: task["state"]["name"] for task in ui.api.task_runs(run)}


@dataclass
class Slow:
    """A run that comes to a crawl after twenty samples, unless it is told to be quick."""

    study: Path
    home: Path
    artifacts: Path

    @property
    def log(self) -> Path:
        return self.artifacts.parent / f"{self.study.stem}.log"

    def start(self, pause: float, shard: int = SHARD, *more: str) -> Launched:
        self.log.unlink(missing_ok=True)
        words = ("run", str(self.study), "--artifacts", str(self.artifacts), *more)
        given = (*launched.SLOW_RUN, str(self.log), str(pause), str(shard), *words)
        return Launched(given, self.home, self.artifacts.parent)

    def forwarded(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def wait_until_midway(self, run: Launched) -> None:
        until(lambda: len(self.forwarded()) >= QUICK or run.process.poll() is not None, "it forwards")
        assert run.process.poll() is None, run.err

    def midway(self, pause: float = 600.0, shard: int = SHARD) -> Launched:
        """Start it and wait until it is in the midst of the extraction."""
        run = self.start(pause, shard)
        self.wait_until_midway(run)
        return run

    def quick(self, *more: str) -> Launched:
        """Run it to its end, slowed down by nothing."""
        run = self.start(0.0, SHARD, *more)
        run.end()
        return run


@dataclass
class Runs:
    """Runs of one study, one after the other, of which the first was stopped in the midst of the extraction.

    Attributes:
        runs: as they were started.
        ids: of the flow runs, where a server of others knows them.
        forwarded: the samples that went through the network in each.
        seconds: from the order to stop to the end of the first, and of all that it had started.
        histories: what the database held after each, where they had a server of their own.
    """

    runs: list[Launched] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    forwarded: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0
    histories: list[list[tuple[str, dict[str, str]]]] = field(default_factory=list)

    def wait_for_end(self) -> None:
        """Wait until nothing of the first is left."""
        started = time.monotonic()
        until(lambda: not self.runs[0].left(), "nothing of it is left")
        self.runs[0].end()
        self.seconds = time.monotonic() - started

    def note(self, slow: Slow, run: Launched) -> None:
        self.runs.append(run)
        self.forwarded.append(slow.forwarded())


def check_goes_on(found: Runs) -> None:
    """A killed run is finished by the next, which repeats only what was in flight; the third has nothing to do."""
    for forwarded in found.forwarded:
        assert len(forwarded) == len(set(forwarded))
    killed, completed, unchanged = map(set, found.forwarded)
    assert QUICK <= len(killed) < SAMPLES
    assert len(killed | completed) == SAMPLES
    assert len(killed & completed) <= IN_FLIGHT
    assert not unchanged


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classes of pictures, as a study's table of data."""
    return f'folder = "{paint_classes(tmp_path_factory.mktemp("data") / "pictures", SAMPLES)}"'


Chain = Callable[[Ui, str, Path], Runs]


def kill_and_go_on(ui: Ui, data: str, base: Path) -> Runs:
    """Killed by SIGKILL; then completed; then unchanged."""
    slow = Slow(write_study(base / "killed.toml", data), ui.home, ui.artifacts)
    found = Runs()
    found.note(slow, slow.midway())
    found.runs[0].signal(signal.SIGKILL)
    found.wait_for_end()
    found.note(slow, slow.quick())
    found.note(slow, slow.quick())
    found.ids = [each["id"] for each in ui.api.flow_runs("killed")]
    return found


def cancel_and_go_on(ui: Ui, data: str, base: Path) -> Runs:
    """Cancelled over the API, as the UI does; then completed."""
    slow = Slow(write_study(base / "cancelled.toml", data), ui.home, base / "artifacts")
    found = Runs([slow.midway(0.5, ALL)])
    ui.api.cancel(ui.api.flow_runs("cancelled")[0]["id"])
    found.wait_for_end()
    found.forwarded.append(slow.forwarded())
    found.note(slow, slow.quick())
    found.ids = [each["id"] for each in ui.api.flow_runs("cancelled")]
    return found


def kill_and_go_on_alone(ui: Ui, data: str, base: Path) -> Runs:
    """Without a server: killed by SIGKILL; then completed; then unchanged, and not told of the UI."""
    home = home_with_tables(ui, base / "home")
    slow = Slow(write_study(base / "alone.toml", data), home, base / "artifacts")
    found = Runs()
    found.note(slow, slow.midway())
    found.runs[0].signal(signal.SIGKILL)
    found.wait_for_end()
    found.histories.append(history(home))
    found.note(slow, slow.quick())
    found.histories.append(history(home))
    found.note(slow, slow.quick("--no-ui-hint"))
    found.histories.append(history(home))
    return found


@pytest.fixture(scope="module")
def chains(
    ui: Ui, data: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Chain], "Future[Runs]"]]:
    """Chains of runs, which go on beside each other and the tests; each is started once."""
    with ThreadPoolExecutor() as pool:
        started = {
            chain: pool.submit(chain, ui, data, tmp_path_factory.mktemp(chain.__name__))
            for chain in (kill_and_go_on, cancel_and_go_on, kill_and_go_on_alone)
        }
        yield started.__getitem__


@pytest.fixture(scope="module")
def killed(chains: Callable[[Chain], "Future[Runs]"]) -> Runs:
    return chains(kill_and_go_on).result()


@pytest.fixture(scope="module")
def cancelled(chains: Callable[[Chain], "Future[Runs]"]) -> Runs:
    return chains(cancel_and_go_on).result()


@pytest.fixture(scope="module")
def alone(chains: Callable[[Chain], "Future[Runs]"]) -> Runs:
    return chains(kill_and_go_on_alone).result()


# On the server of `headstart ui`


def test_a_run_reports_to_the_server_of_headstart_ui_without_any_setting(ui, killed):
    assert len(killed.ids) == 3
    for run in killed.runs[1:]:
        assert run.end() == 0, run.err
        assert HINT not in run.err
    for run, each in zip(killed.runs, killed.ids, strict=True):
        assert f"watch it at {ui.address}/runs/flow-run/{each}" in run.err


def test_a_run_that_changed_nothing_reads_unchanged_and_its_stages_cached(ui, killed):
    completed, unchanged = (ui.api.flow_run(each)["state"] for each in killed.ids[1:])
    assert (completed["type"], completed["name"]) == ("COMPLETED", "Completed")
    assert (unchanged["type"], unchanged["name"]) == ("COMPLETED", "Unchanged")
    assert unchanged["message"] == f"everything was reused: {SAMPLES} samples, 1 heads"
    states = [task["state"]["name"] for task in ui.api.task_runs(killed.ids[1])]
    assert states == ["Completed"] * len(STAGES)
    states = [task["state"]["name"] for task in ui.api.task_runs(killed.ids[2])]
    assert states == UNCHANGED


def test_task_runs_are_named_by_study_stage_and_place(ui, killed):
    for run in killed.ids[1:]:
        tasks = ui.api.task_runs(run)
        assert [task["name"] for task in tasks] == titles("killed")
        assert [task["tags"] for task in tasks] == [["killed"]] * len(STAGES)


@pytest.mark.parametrize("key", ["scores-killed", "report-killed"])
def test_scores_and_reports_have_one_version_for_each_run_that_came_to_its_end(ui, killed, key):
    versions = ui.api.post("/artifacts/filter", artifacts={"key": {"any_": [key]}})
    assert sorted(each["flow_run_id"] for each in versions) == sorted(killed.ids[1:])


def test_the_link_to_the_report_leads_to_it(ui, killed):
    [page] = ui.api.post("/artifacts/latest/filter", artifacts={"key": {"any_": ["report-killed"]}})
    link = f"{ui.address}/headstart/reports/killed/report.html"
    assert f"({link})" in page["data"]
    answer = httpx.get(link, trust_env=False)
    assert answer.status_code == 200
    assert answer.text == (ui.artifacts / "studies/killed/report.html").read_text()


def test_nothing_is_left_of_a_run_however_it_ended(killed, cancelled):
    for run in (*killed.runs, *cancelled.runs):
        assert run.left() == []


def test_a_killed_run_and_its_stage_read_crashed_soon(ui, killed):
    assert killed.seconds < SOON
    state = ui.api.flow_run(killed.ids[0])["state"]
    assert state["name"] == "Crashed"
    assert "The process was killed" in state["message"]
    assert stages(ui, killed.ids[0]) == begun("killed", "Crashed")


def test_the_run_after_a_killed_one_repeats_no_more_than_what_was_in_flight(killed):
    check_goes_on(killed)


def test_a_cancelled_run_ends_soon_with_one_line(cancelled):
    assert cancelled.seconds < SOON
    run = cancelled.runs[0]
    assert run.end() == 1
    assert run.told()[1:] == ["headstart: cancelled; what is done is kept, the next run goes on from there"]
    assert "Traceback" not in run.err


def test_a_cancelled_run_and_its_stage_read_cancelled(ui, cancelled):
    assert ui.api.state(cancelled.ids[0]) == "Cancelled"
    assert stages(ui, cancelled.ids[0]) == begun("cancelled", "Cancelled")


def test_the_run_after_a_cancelled_one_does_the_rest_and_no_sample_again(cancelled):
    assert cancelled.runs[1].end() == 0, cancelled.runs[1].err
    first, second = map(set, cancelled.forwarded)
    assert QUICK <= len(first) < SAMPLES
    assert len(second) == SAMPLES - len(first)
    assert not first & second


def test_a_run_that_cannot_be_is_failed_with_its_one_line_and_not_tried_again(ui, tmp_path):
    folder = paint_classes(tmp_path / "pictures", 8)
    (folder / "dark" / "1.png").write_text("no picture")
    study = write_study(tmp_path / "failing.toml", f'folder = "{folder}"\nmax_bad = 0.01')
    told = headstart(ui.home, tmp_path, "run", str(study), "--artifacts", str(tmp_path / "artifacts"))
    assert told.end() == 2
    [line] = told.told()[1:]
    [run] = ui.api.flow_runs("failing")
    assert run["state"]["name"] == "Failed"
    assert line.removeprefix("headstart: ") in run["state"]["message"]
    [task] = ui.api.task_runs(run["id"])
    assert (task["state"]["name"], task["run_count"]) == ("Failed", 1)
    assert told.left() == []


# On a server of its own


def test_a_run_without_a_server_says_once_how_to_have_a_ui(alone):
    assert alone.runs[1].end() == 0, alone.runs[1].err
    assert alone.runs[1].err.count(HINT) == 1
    assert alone.runs[1].told() == ["headstart: alone"]


def test_a_run_does_not_say_how_to_have_a_ui_if_that_is_not_wanted(alone):
    assert alone.runs[2].end() == 0, alone.runs[2].err
    assert HINT not in alone.runs[2].err


def test_the_database_holds_the_whole_history_of_runs_that_had_a_server_of_their_own(alone):
    assert alone.histories[1][1:] == [("Completed", dict.fromkeys(titles("alone"), "Completed"))]
    assert alone.histories[2][2:] == [("Unchanged", dict(zip(titles("alone"), UNCHANGED, strict=True)))]


def test_the_server_of_a_killed_run_is_ended_soon_and_knows_that_the_run_crashed(alone):
    assert alone.seconds < SOON
    assert alone.histories[0] == [("Crashed", begun("alone", "Crashed"))]


def test_the_run_after_a_killed_one_without_a_server_goes_on_from_there_too(alone):
    check_goes_on(alone)


def test_nothing_is_left_of_a_run_that_had_a_server_of_its_own(alone):
    for run in alone.runs:
        assert run.left() == []


@dataclass
class Ended:
    """A run without a server that ended early: its Prefect home, what it had forwarded and stored, its last seconds."""

    run: Launched
    home: Path
    forwarded: set[str]
    stored: set[str]
    seconds: float


def stored_in(artifacts: Path) -> set[str]:
    """Samples whose rows are stored, read by h5py alone."""
    found: set[str] = set()
    for path in artifacts.glob("features/*/shards/*.h5"):
        with h5py.File(path) as file:
            found.update(digest.decode() for digest in file["digests"][:])
    return found


@pytest.fixture(scope="module")
def ended(ui: Ui, data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Ended]:
    """Runs, at the same time, that end early by signals that let them; a terminal sends its own to all processes."""
    slow, runs = {}, {}
    for number in STOPS:
        base = tmp_path_factory.mktemp(number.name)
        study, home = write_study(base / "ended.toml", data), home_with_tables(ui, base / "home")
        slow[number] = Slow(study, home, base / "artifacts")
        runs[number] = slow[number].start(600.0, ALL)
    for number, run in runs.items():
        slow[number].wait_until_midway(run)
    found = {}
    for number, run in runs.items():
        started = time.monotonic()
        if number in OF_TERMINALS:
            os.killpg(run.process.pid, number)
        else:
            run.signal(number)
        run.end()
        seconds = time.monotonic() - started
        found[number] = Ended(
            run, slow[number].home, set(slow[number].forwarded()), stored_in(slow[number].artifacts), seconds
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPS)
def test_a_run_that_is_stopped_says_so_keeps_what_is_done_and_leaves_nothing(ended, number):
    found = ended[number]
    assert found.run.end() == 1
    assert found.seconds < SOON
    assert found.run.told()[1:] == [
        "headstart: stopped; what is done is kept, the same command goes on from there"
    ]
    assert "Traceback" not in found.run.err
    assert len(found.forwarded) >= QUICK
    assert found.stored >= found.forwarded
    assert found.run.left() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPS)
def test_a_run_that_is_stopped_is_not_left_running_in_the_history(ended, number):
    [(state, stages)] = history(ended[number].home)
    assert state in ("Crashed", "Cancelled", "Failed")
    assert stages[titles("ended")[0]] == "Completed"
    assert stages[titles("ended")[1]] in ("Crashed", "Cancelled", "Failed")


@pytest.mark.slow
def test_nothing_is_left_of_a_run_that_failed_with_a_server_of_its_own(ui, tmp_path):
    study = write_study(tmp_path / "failed.toml", f'folder = "{paint_classes(tmp_path / "pictures", 8)}"')
    (tmp_path / "pictures" / "dark" / "1.png").write_text("no picture")
    home = home_with_tables(ui, tmp_path / "home")
    told = headstart(home, tmp_path, "run", str(study), "--set", "data.max_bad=0.01")
    assert told.end() == 2
    assert told.left() == []
    assert history(home) == [("Failed", {titles("failed")[0]: "Failed"})]


def test_a_run_that_has_a_server_does_not_load_one(ui, launch, tmp_path):
    study = write_study(tmp_path / "light.toml", f'folder = "{paint_classes(tmp_path / "pictures", 8)}"')
    words = ["run", str(study), "--artifacts", str(tmp_path / "artifacts")]
    loaded = "print('prefect.server.api.server' in sys.modules)"
    look = f"import sys; from flows.__main__ import main; main({words!r}); {loaded}"
    run = launch((sys.executable, "-c", look), ui.home, tmp_path)
    assert run.end() == 0, run.err
    assert run.out.splitlines()[-1] == "False"
