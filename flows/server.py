"""The Prefect server that runs report to: a user's own, the one of `headstart ui`, or one embedded in the run.

The user's own is the one that Prefect's settings name (`PREFECT_API_URL`, or a profile). The one of `headstart ui`
is remembered in a file of the user's Prefect home. Both it and embedded servers keep their history in one
database there, so that runs made before the UI was started are seen in it.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

from tasks.core.errors import HeadstartError, RequestError
from tasks.core.files import write_text

HOST = "127.0.0.1"
USUAL_PORT = 4200
ABOUT = "/headstart/about"
"""Where a server of ours says which process it is."""

REPORTS = "/headstart/reports"
"""Where it shows the studies' folders."""

START_WITHIN = 120.0
"""Seconds; a new database takes some, and a slow machine has many others to do."""
STOP_WITHIN = 20.0
ANSWER_WITHIN = 2.0
"""Seconds in which a server on this machine answers, if there is one."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
}
"""Nothing leaves the machine, a slow machine has time to start the server, and errors are told once, by us."""

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"


@dataclass(frozen=True)
class Remembered:
    """A server that `headstart ui` started.

    Attributes:
        pid: its process.
        address: such as http://127.0.0.1:4200.
        artifacts: the folder whose reports it shows.
    """

    pid: int
    address: str
    artifacts: str

    @property
    def api(self) -> str:
        """What Prefect calls the API's URL."""
        return f"{self.address}/api"


def prefect_home() -> Path:
    """The user's Prefect home, as Prefect finds it."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser().absolute()


def connect() -> str | None:
    """Settle which server this process and its children report to, before a flow is imported.

    Returns:
        The API's URL, or None for an embedded server.

    Raises:
        RequestError: if the server of the settings does not answer.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url is not None:
        _check_own(settings.api.url)
        return settings.api.url
    running = find_running()
    if running is not None:
        os.environ["PREFECT_API_URL"] = running.api
    else:
        os.environ.update(_database())
    refresh_global_settings_context()
    return running.api if running else None


def find_server() -> str | None:
    """Tell which server runs would report to: the API's URL, or None for an embedded one."""
    from prefect.settings import get_current_settings

    running = find_running()
    return get_current_settings().api.url or (running.api if running else None)


def report_link(place: Path) -> str:
    """Say where a study's report is to be had: in the server of `headstart ui` if that shows its folder.

    Args:
        place: the study's folder in the artifacts.
    """
    from prefect.settings import get_current_settings

    running = find_running()
    shown = running and Path(running.artifacts) / "studies"
    if running and running.api == get_current_settings().api.url and place.parent == shown:
        return f"{running.address}{REPORTS}/{quote(place.name)}/report.html"
    return str(place / "report.html")


def _database() -> dict[str, str]:
    """Set a database of ours, unless one is configured; Prefect's usual one may be in use by another version."""
    from prefect.settings import get_current_settings

    configured = get_current_settings().to_environment_variables(exclude_unset=True)
    if any(name.startswith("PREFECT_SERVER_DATABASE") for name in configured):
        return {}
    prefect_home().mkdir(parents=True, exist_ok=True)
    return {DATABASE: f"sqlite+aiosqlite:///{prefect_home() / 'headstart.db'}"}


def find_running() -> Remembered | None:
    """Find the server of `headstart ui`, if it answers."""
    try:
        found = Remembered(**json.loads(_note().read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if _pid_of(found.address) == found.pid else None


def start(artifacts: Path, port: int | None = None) -> Remembered:
    """Start a server in the background, wait until it is healthy and remember it; one that runs is kept.

    Args:
        artifacts: the folder whose reports it shows.
        port: where it listens; 4200 if that is free and another if not.

    Raises:
        RequestError: if the port is taken, or a server runs at another.
        HeadstartError: if it does not start.
    """
    with _alone():
        running = find_running()
        if running is not None:
            if port is not None and running.address != f"http://{HOST}:{port}":
                raise RequestError(
                    f"--port {port}: a server runs at {running.address}; stop it first with: headstart ui --stop"
                )
            return running
        port = _free_port(port)
        started = Remembered(_launch(artifacts, port), f"http://{HOST}:{port}", str(artifacts))
        try:
            _wait_until_healthy(started)
        except BaseException:  # nobody else would end it
            _end(started.pid)
            raise
        write_text(_note(), json.dumps(asdict(started)))
        return started


def stop() -> Remembered | None:
    """Stop the server of `headstart ui`; returns which it was, or None if there was none.

    Raises:
        HeadstartError: if it does not end.
    """
    with _alone():
        running = find_running()
        if running is not None:
            _end(running.pid)
        _note().unlink(missing_ok=True)
        return running


def _check_own(url: str) -> None:
    """Refuse a server of the user's settings that does not answer: the run would only wait for it."""
    try:
        with build_opener().open(f"{url}/health", timeout=10):
            return
    except HTTPError:
        return  # it answers; what it wants, Prefect says better
    except (OSError, ValueError):
        raise RequestError(
            f"PREFECT_API_URL: no server answers at {url}; start it, or unset it to run without one"
        ) from None


def _note() -> Path:
    return prefect_home() / "headstart-ui.json"


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time start or stop the server."""
    prefect_home().mkdir(parents=True, exist_ok=True)
    with (prefect_home() / "headstart-ui.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pid_of(address: str) -> int | None:
    """Ask a server of ours for its process; None if none of ours answers."""
    try:
        # No proxy of the environment has a part in what stays on this machine.
        with build_opener(ProxyHandler({})).open(address + ABOUT, timeout=ANSWER_WITHIN) as answer:
            pid = json.load(answer)["pid"]
    except (OSError, URLError, ValueError, KeyError, TypeError):
        return None
    return pid if isinstance(pid, int) else None


def _free_port(wanted: int | None) -> int:
    for port in (USUAL_PORT, 0) if wanted is None else (wanted,):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise RequestError(f"--port {wanted}: something else listens there; name another, or leave --port out")


def _launch(artifacts: Path, port: int) -> int:
    """Start the server as a process of its own, which outlives this one and its terminal."""
    address = f"http://{HOST}:{port}"
    environment = {
        **os.environ,
        **QUIET,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # the log is where its faults are found
        "PREFECT_UI_API_URL": f"{address}/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Pages of others may not use the API.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{address},http://localhost:{port}",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "HEADSTART_REPORTS": str(artifacts / "studies"),
        **_database(),
    }
    environment.pop("PREFECT_API_URL", None)
    words = ["-m", "uvicorn", "--factory", "flows.ui_app:create", "--host", HOST, "--port", str(port)]
    with _log().open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *words, "--log-level", "warning", "--timeout-graceful-shutdown", "3"],
            env=environment,
            cwd=prefect_home(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return process.pid


def _log() -> Path:
    return prefect_home() / "headstart-ui.log"


def _wait_until_healthy(started: Remembered) -> None:
    until = time.monotonic() + START_WITHIN
    while time.monotonic() < until:
        if _pid_of(started.address) == started.pid:
            return
        if os.waitpid(started.pid, os.WNOHANG)[0]:
            raise HeadstartError(f"the server ended at once; its log says why: {_log()}")
        time.sleep(0.1)
    raise HeadstartError(f"the server was not ready within {START_WITHIN:.0f} s; its log: {_log()}")


def _end(pid: int) -> None:
    if not _lives(pid):
        return
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + STOP_WITHIN
    while time.monotonic() < until:
        if not _lives(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
    except ChildProcessError:
        pass  # another process started it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
