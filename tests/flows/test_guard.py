"""The small process that outlives a run that is killed: when it acts, what it does, and that it is gone then."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import launched
import pytest
from launched import Launched, free_port, home_with_tables, until, write_study

ui, launch, server = launched.ui, launched.launch, launched.no_harness

RUN = """
import json, sys, time
from flows.guard import Guard

with Guard() as guard:
    for line in sys.argv[2:]:
        guard.tell(**json.loads(line))
    print(guard.process.pid, flush=True)
    time.sleep(float(sys.argv[1]))
"""
OTHER = "import signal, time; {}; print('ready', flush=True); time.sleep(600)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"

Start = Callable[..., Launched]


@pytest.fixture
def watched(launch: Callable[..., Launched], tmp_path: Path) -> Start:
    """Start a process with a guard that is told some news; it goes on for so many seconds."""

    def start(*news: dict[str, Any], seconds: float = 600) -> Launched:
        words = (sys.executable, "-c", RUN, str(seconds), *map(json.dumps, news))
        run = launch(words, tmp_path / "home", tmp_path)
        until(lambda: run.out, "the guard is told")
        return run

    return start


@pytest.fixture
def other(launch: Callable[..., Launched], tmp_path: Path) -> Start:
    """Start a process that stands for an embedded server."""

    def start(how: str = "pass") -> Launched:
        found = launch((sys.executable, "-c", OTHER.format(how)), tmp_path / "home", tmp_path)
        until(lambda: found.out, "it is there")
        return found

    return start


class Recorder:
    """A Prefect server that writes down what it is told, and knows two task runs that are under way."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                recorder.told.append((self.path, body))
                found = [{"id": "task-1"}, {"id": "task-2"}] if self.path.endswith("filter") else {}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *given: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/api"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    yield found
    found.server.shutdown()
    found.server.server_close()


def kill(run: Launched, *others: Launched) -> None:
    """Kill a run and wait until its guard is gone; others are buried meanwhile, as `init` does it."""
    run.signal(signal.SIGKILL)
    run.end()

    def gone() -> bool:
        for each in others:
            each.process.poll()
        return not run.left()

    until(gone, "the guard is gone")


def ignored_by(pid: int) -> set[int]:
    """Which signals a process ignores."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {number for number in range(1, 65) if int(status["SigIgn"], 16) >> (number - 1) & 1}


def test_a_guard_ends_with_its_run_and_does_nothing_if_that_ended_by_itself(watched, other, recorder):
    server = other()
    run = watched({"api": recorder.api, "run": "flow-1", "server": server.process.pid}, seconds=0.5)
    assert run.end() == 0
    assert run.left() == []
    assert recorder.told == []
    assert server.left() == [server.process.pid]


def test_a_guard_ends_with_a_run_that_raises(launch, tmp_path):
    words = "from flows.guard import Guard\nwith Guard():\n    raise SystemExit(3)"
    run = launch((sys.executable, "-c", words), tmp_path / "home", tmp_path)
    assert run.end() == 3
    assert run.left() == []


def test_a_guard_that_was_told_nothing_ends_with_a_killed_run(watched):
    kill(watched())


def test_the_guard_of_a_killed_run_says_that_it_and_its_stages_crashed(watched, recorder):
    kill(watched({"api": recorder.api, "run": "flow-1"}))
    assert [place for place, _ in recorder.told] == [
        "/api/flow_runs/flow-1/set_state",
        "/api/task_runs/filter",
        "/api/task_runs/task-1/set_state",
        "/api/task_runs/task-2/set_state",
    ]
    bodies = [body for place, body in recorder.told if place.endswith("set_state")]
    assert [body["state"]["type"] for body in bodies] == ["CRASHED"] * 3
    assert all(body["force"] for body in bodies)
    asked = recorder.told[1][1]
    assert asked["flow_runs"] == {"id": {"any_": ["flow-1"]}}


def test_the_guard_of_a_killed_run_ends_its_server(watched, other):
    server = other()
    kill(watched({"server": server.process.pid}), server)
    assert server.end() == -signal.SIGTERM


def test_what_a_guard_is_told_later_adds_to_what_it_knows(watched, other, recorder):
    server = other()
    kill(watched({"server": server.process.pid}, {"api": recorder.api, "run": "flow-1"}), server)
    assert recorder.told
    assert server.end() == -signal.SIGTERM


def test_a_server_is_ended_although_it_answers_no_more(watched, other):
    server = other()
    api = f"http://127.0.0.1:{free_port()}/api"
    kill(watched({"api": api, "run": "flow-1", "server": server.process.pid}), server)
    assert server.end() == -signal.SIGTERM


@pytest.mark.slow
def test_a_server_that_does_not_listen_is_killed(watched, other):
    server = other(STUBBORN)
    kill(watched({"server": server.process.pid}), server)
    assert server.end() == -signal.SIGKILL


def test_a_server_that_is_gone_already_is_no_error(watched, other):
    server = other()
    server.end_all()
    kill(watched({"server": server.process.pid}), server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_guard_lives_on_when_it_is_asked_to_end_and_when_its_run_s_group_is(watched, other, number):
    server = other()
    run = watched({"server": server.process.pid})
    guard = int(run.out)
    assert os.getpgid(guard) != os.getpgid(run.process.pid)
    until(lambda: number in ignored_by(guard), "the guard is ready")
    os.kill(guard, number)
    assert guard in run.left()
    os.killpg(run.process.pid, signal.SIGKILL)  # which it leads
    assert server.end() == -signal.SIGTERM


def test_a_run_goes_on_without_a_guard_that_was_killed(launch, tmp_path):
    words = (
        "import os, signal\n"
        "from flows.guard import Guard\n"
        "with Guard() as guard:\n"
        "    os.kill(guard.process.pid, signal.SIGKILL)\n"
        "    os.waitid(os.P_PID, guard.process.pid, os.WEXITED | os.WNOWAIT)\n"
        "    guard.tell(run='flow-1')\n"
        "print('all is well')\n"
    )
    run = launch((sys.executable, "-c", words), tmp_path / "home", tmp_path)
    assert run.end() == 0, run.err
    assert run.out == "all is well\n"


def is_server(pid: int) -> bool:
    return b"prefect.server.api.server:create_app" in Path(f"/proc/{pid}/cmdline").read_bytes()


def server_of(run: Launched) -> int | None:
    return next((pid for pid in run.left() if is_server(pid)), None)


@pytest.mark.slow
def test_a_run_that_is_killed_while_its_server_starts_leaves_nothing(ui, launch, tmp_path, pictures):
    study = write_study(tmp_path / "early.toml", f'folder = "{pictures}"')
    home = home_with_tables(ui, tmp_path / "home")
    run = launch((*launched.HEADSTART, "run", str(study)), home, tmp_path)
    until(lambda: server_of(run), "its server starts")
    run.signal(signal.SIGKILL)
    run.end()
    until(lambda: not run.left(), "nothing of it is left", 20)


@pytest.mark.slow
def test_a_run_that_is_stopped_while_its_server_starts_leaves_nothing(ui, launch, tmp_path, pictures):
    study = write_study(tmp_path / "early.toml", f'folder = "{pictures}"')
    home = home_with_tables(ui, tmp_path / "home")
    run = launch((*launched.HEADSTART, "run", str(study)), home, tmp_path)
    until(lambda: server_of(run), "its server starts")
    run.signal(signal.SIGTERM)
    assert run.end() == 1
    assert run.left() == []
