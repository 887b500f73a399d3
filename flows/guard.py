"""A small process that outlives a run that is killed: it says so to the server, and ends the embedded one.

Nothing else can: a killed process runs no code of its own. It waits for the end of its standard input, which
the kernel closes with the run, whatever ended it. This file is its whole program, run without our packages,
so that it costs next to nothing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

ANSWER_WITHIN = 10.0
ENDS_WITHIN = 5.0
CRASHED = {
    "type": "CRASHED",
    "name": "Crashed",
    "message": "The process was killed. What is done is kept: the next run goes on from there.",
}


class Guard:
    """Watches over this process from another one, for as long as the block lasts."""

    def __enter__(self) -> "Guard":
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what kills the run's group spares it
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tell(done=True)
        with suppress(OSError):
            self._pipe().close()
        self.process.wait()

    def tell(self, **news: Any) -> None:
        """Say what is to be done should this process be killed: `api`, `run`, `server`; or that it is `done`."""
        with suppress(OSError):  # a guard that is gone shall not stop the run
            self._pipe().write(json.dumps(news).encode() + b"\n")
            self._pipe().flush()

    def _pipe(self) -> Any:
        assert self.process.stdin is not None, "opened as a pipe"  # noqa: S101
        return self.process.stdin


def watch() -> None:
    """Wait for the end of the run; if it was not announced, do what is left to do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    known: dict[str, Any] = {}
    for line in sys.stdin:
        known |= json.loads(line)
    if known.get("done"):
        return
    if "run" in known:
        with suppress(OSError):
            _say_crashed(known["api"], known["run"])
    if "server" in known:
        _end(known["server"])


def _say_crashed(api: str, run: str) -> None:
    """Set the run, and the stage that it was in, to the state that a killed process cannot report itself."""
    under_way = {
        "flow_runs": {"id": {"any_": [run]}},
        "task_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}},
    }
    _post(f"{api}/flow_runs/{run}/set_state", {"state": CRASHED, "force": True})
    for task in _post(f"{api}/task_runs/filter", under_way):
        _post(f"{api}/task_runs/{task['id']}/set_state", {"state": CRASHED, "force": True})


def _post(url: str, body: dict[str, Any]) -> Any:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with build_opener(ProxyHandler({})).open(request, timeout=ANSWER_WITHIN) as answer:
        return json.load(answer)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + ENDS_WITHIN
        while time.monotonic() < until:
            time.sleep(0.1)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    watch()
