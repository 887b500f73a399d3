"""One run from the command line, from the choice of its server to the last line of its history."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.guard import Guard
from flows.server import connect
from flows.study import Study
from tasks.core.artifacts import Artifacts
from tasks.core.errors import Cancelled

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

HINT = "to watch runs in a browser: headstart ui (this run has a server of its own, gone at its end)"
OF_TERMINALS = {signal.SIGINT, signal.SIGHUP}
"""Signals that a terminal sends to all processes of a command."""


def run_study(study: Study, artifacts: Path, *, hint: bool) -> dict[str, Any]:
    """Run a study, watched over by a guard, on the server that there is.

    Args:
        study: what to run.
        artifacts: the folder for all outputs.
        hint: whether to say how to have a UI where there is none.

    Returns:
        What `summary.json` holds.

    Raises:
        Cancelled: if somebody cancelled the run.
    """
    api = connect()  # before a flow is imported
    _tell(f"headstart: {study.name}")
    if hint and api is None:
        _tell(f"  {HINT}")
    from prefect import tags
    from prefect.exceptions import CancelledRun
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.outcome import summary_of
    from flows.transfer import transfer

    with (
        _ended_politely(),
        Guard() as guard,
        tags(study.name),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # the guard says more, and sooner
    ):
        if api is None:
            _tell_of_server(guard)
            _start_server()
        try:
            watched = transfer.with_options(on_running=[_telling(guard, api)])
            state = watched(study, artifacts, return_state=True)
            return summary_of(state, Artifacts(artifacts).study(study.name))
        except CancelledRun as wish:
            raise Cancelled(str(wish)) from None


def _telling(guard: Guard, api: str | None) -> Callable[..., None]:
    """Make a hook that tells the guard what runs and where, and the user where to watch it."""
    from prefect.utilities.urls import url_for

    def tell(flow: Any, flow_run: Any, state: Any) -> None:
        guard.tell(api=api or _embedded().api_url, run=str(flow_run.id))
        if api is not None:
            _tell(f"  watch it at {url_for('flow-run', flow_run.id)}")

    return tell


def _tell_of_server(guard: Guard) -> None:
    """Tell the guard of this process's embedded server as soon as it is started, which is when a flow first asks."""
    server = _embedded()

    def look() -> None:
        while server.server_process is None:
            time.sleep(0.01)
        guard.tell(server=server.server_process.pid)

    threading.Thread(target=look, name="embedded server", daemon=True).start()


def _start_server() -> None:
    """Start this process's embedded server so that what a terminal sends to both, such as Ctrl-C, ends the run alone.

    The run then tells its server how it ended. A child has the signals blocked that its parent had when it began.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINALS)
    try:
        _embedded().start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _embedded() -> "SubprocessASGIServer":
    """Name this process's embedded server; only a run that has one waits for the second that the import takes."""
    from prefect.server.api.server import SubprocessASGIServer

    return SubprocessASGIServer()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _ended_politely() -> Iterator[None]:
    """Let a signal to end be what Ctrl-C is: whatever was started is ended as well."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
