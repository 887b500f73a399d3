"""The server of `headstart ui`: started once, found by runs, shown to this machine alone, and stopped."""

import http.client
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import launched
import pytest
from launched import Ui, free_port, headstart, remembered, until, write_study
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

ui, launch, server = launched.ui, launched.launch, launched.no_harness

EVIL = {"Origin": "http://evil.example"}


def ask(ui: Ui, place: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    """Ask for a place just as it is written: `..` is left in it."""
    connection = http.client.HTTPConnection("127.0.0.1", ui.port, timeout=60)
    connection.request(method, place, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().split("=", 1) for entry in entries if entry)


def open_files(pid: int) -> set[str]:
    return {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}


# As it is started


def test_the_server_is_healthy_once_its_command_has_ended_and_said_the_address(ui):
    assert ui.said.split()[0] == ui.address
    assert ui.api.get("/health") is True
    assert httpx.get(ui.address, follow_redirects=True, trust_env=False).status_code == 200  # the UI's page


def test_the_server_outlives_the_terminal_that_started_it(ui):
    pid = ui.remembered.pid
    assert os.getsid(pid) == pid


def test_the_server_is_remembered_in_the_prefect_home_and_found(ui):
    assert ui.remembered.address == ui.address
    assert Path(ui.remembered.artifacts) == ui.artifacts
    assert str(ui.remembered.pid) in (ui.home / "headstart-ui.json").read_text()


def test_a_second_start_says_the_same_address_and_starts_nothing(ui, tmp_path):
    before = ui.remembered
    again = headstart(ui.home, tmp_path, "ui", "--port", str(ui.port))
    assert again.end() == 0
    assert again.out.split()[0] == ui.address
    assert ui.remembered == before
    assert again.left() == []


def test_another_port_than_that_of_the_running_server_is_refused_in_one_line(ui, tmp_path):
    told = headstart(ui.home, tmp_path, "ui", "--port", str(free_port()))
    assert told.end() == 2
    [line] = told.err.splitlines()
    assert ui.address in line
    assert "headstart ui --stop" in line


def test_a_port_that_is_taken_is_refused_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = headstart(tmp_path / "home", tmp_path, "ui", "--port", str(port))
    assert told.end() == 2
    [line] = told.err.splitlines()
    assert f"--port {port}: something else listens there" in line
    assert remembered(tmp_path / "home") is None


@pytest.mark.slow
def test_a_server_keeps_to_a_configured_database_and_is_stopped_and_forgotten(tmp_path, launch):
    home, mine = tmp_path / "home", tmp_path / "mine.db"
    more = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{mine}"}
    started = launch((*launched.HEADSTART, "ui", "--port", str(free_port())), home, tmp_path, more)
    assert started.end() == 0, started.err
    assert mine.exists()
    assert not (home / "headstart.db").exists()
    [pid] = started.left()
    assert remembered(home).pid == pid

    stopped = headstart(home, tmp_path, "ui", "--stop")
    assert stopped.end() == 0
    assert started.out.split()[0] in stopped.out
    assert started.left() == []
    assert not (home / "headstart-ui.json").exists()


STANDS_IN = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid()}).encode())

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
"""What is left of our server if Prefect is left out: it says who it is."""


def test_stopping_ends_the_server_s_process_and_forgets_it(tmp_path, launch):
    home = tmp_path / "home"
    running = launch((sys.executable, "-c", STANDS_IN), home, tmp_path)
    address = f"http://127.0.0.1:{until(lambda: running.out, 'it listens').strip()}"
    write_note(home, running.process.pid, address)
    assert remembered(home).address == address
    told = launch((*launched.HEADSTART, "ui", "--stop"), home, tmp_path)
    until(lambda: running.process.poll() is not None, "it ended")
    assert told.end() == 0
    assert told.out == f"stopped the server at {address}\n"
    assert running.left() == []
    assert not (home / "headstart-ui.json").exists()


def test_stopping_when_none_runs_is_no_error(tmp_path):
    told = headstart(tmp_path / "home", tmp_path, "ui", "--stop")
    assert told.end() == 0
    assert told.out == "no server of headstart ui is running\n"
    assert told.err == ""


# Whom a note is believed


@pytest.fixture
def answering() -> Iterator[Callable[[str], str]]:
    """Servers of others on this machine, which answer everything with one text."""
    servers = []

    def start(text: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *given: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=[0.02], daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def write_note(home: Path, pid: int, address: str) -> None:
    home.mkdir(exist_ok=True)
    note = {"pid": pid, "address": address, "artifacts": str(home / "artifacts")}
    (home / "headstart-ui.json").write_text(json.dumps(note))


@pytest.mark.parametrize("text", ['{"pid": 2}', '{"pid": "1"}', '{"other": 1}', "[]", "no JSON", ""])
def test_a_note_is_not_believed_if_another_answers_at_its_address(tmp_path, answering, text):
    write_note(tmp_path / "home", 1, answering(text))
    assert remembered(tmp_path / "home") is None


def test_a_note_is_believed_if_the_process_that_it_names_answers(tmp_path, answering):
    write_note(tmp_path / "home", 1, answering('{"pid": 1}'))
    assert remembered(tmp_path / "home").pid == 1


def test_a_note_of_a_dead_server_is_not_believed(tmp_path):
    write_note(tmp_path / "home", os.getpid(), f"http://127.0.0.1:{free_port()}")
    assert remembered(tmp_path / "home") is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"pid": 1}', '{"a": 1}', "\0"])
def test_a_torn_note_is_not_believed(tmp_path, text):
    (tmp_path / "headstart-ui.json").write_text(text)
    assert remembered(tmp_path) is None


def test_stopping_ends_no_process_that_only_a_note_names(tmp_path, launch):
    other = launch((sys.executable, "-c", "import time; time.sleep(600)"), tmp_path / "home", tmp_path)
    write_note(tmp_path / "home", other.process.pid, f"http://127.0.0.1:{free_port()}")
    told = headstart(tmp_path / "home", tmp_path, "ui", "--stop")
    assert told.out == "no server of headstart ui is running\n"
    assert other.left() == [other.process.pid]


# To whom it is shown


def test_the_server_listens_to_this_machine_alone(ui):
    lines = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")).splitlines()
    rows = [line.split() for line in lines]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{ui.port:04X}")]
    assert listening == [f"0100007F:{ui.port:04X}"]


@pytest.mark.parametrize("place", ["/api/health", "/", "/headstart/about", "/headstart/reports/x"])
def test_a_request_by_the_name_of_another_host_is_refused(ui, place):
    assert ask(ui, place, Host="evil.example").status == 400
    assert ask(ui, place, Host=f"evil.example:{ui.port}").status == 400
    assert ask(ui, place, Host=f"localhost:{ui.port}").status != 400


def test_no_page_of_elsewhere_may_read_the_answers(ui):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert ask(ui, "/api/health", **EVIL).getheader("access-control-allow-origin") is None
    refused = ask(ui, "/api/flow_runs/filter", "OPTIONS", **asked, **EVIL)
    assert refused.status in (400, 403)
    assert refused.getheader("access-control-allow-origin") is None
    own = ask(ui, "/api/flow_runs/filter", "OPTIONS", **asked, Origin=ui.address)
    assert own.getheader("access-control-allow-origin") == ui.address


def test_no_page_of_elsewhere_may_write_what_browsers_send_unasked(ui):
    """Browsers send plain text to anywhere without asking whether they may."""
    given = {"content": '{"name": "evil", "value": 1}', "headers": {**EVIL, "Content-Type": "text/plain"}}
    httpx.post(f"{ui.api.url}/variables/", trust_env=False, **given)
    assert ui.api.post("/variables/filter") == []


def listen(ui: Ui, origin: str) -> str:
    """Open a socket as a page of some origin does, and return the first word that the server says."""
    place = f"ws://127.0.0.1:{ui.port}/api/events/out"
    with connect(place, origin=origin, subprotocols=["prefect"]) as events:  # type: ignore[arg-type]
        events.send('{"type": "auth", "token": null}')
        return json.loads(events.recv(60))["type"]


def test_the_own_page_may_listen_to_events(ui):
    assert listen(ui, ui.address) == "auth_success"


def test_no_page_of_elsewhere_may_listen_to_events(ui):
    """Browsers open sockets to anywhere; only the server can refuse, by the page's origin."""
    with pytest.raises(InvalidStatus):
        listen(ui, EVIL["Origin"])


def test_reports_are_shown_and_nothing_outside_of_the_studies(ui):
    studies = ui.artifacts / "studies"
    (studies / "mine").mkdir(parents=True)
    (studies / "mine" / "report.html").write_text("all is well")
    (ui.artifacts / "secret.txt").write_text("secret")
    (studies / "link.txt").symlink_to(ui.artifacts / "secret.txt")
    (studies / "folder").symlink_to(ui.artifacts)
    place = f"{ui.address}/headstart/reports"
    assert httpx.get(f"{place}/mine/report.html", trust_env=False).text == "all is well"
    for way in ("../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "mine/../../secret.txt"):
        assert ask(ui, f"/headstart/reports/{way}").status == 404, way
    for way in ("link.txt", "folder/secret.txt", "", "mine", "mine/"):
        assert ask(ui, f"/headstart/reports/{way}").status == 404, way


def test_nothing_of_the_server_is_told_to_others(ui):
    found = environment_of(ui.remembered.pid)
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert found["DO_NOT_TRACK"] == "1"


def test_the_server_keeps_its_history_in_a_database_of_our_own(ui):
    assert str(ui.home / "headstart.db") in open_files(ui.remembered.pid)


# Which server a run reports to

ORDER = """
import os
from pathlib import Path
from prefect.context import refresh_global_settings_context
from flows.server import DATABASE, connect, find_server

def look():
    refresh_global_settings_context()
    print(find_server(), connect(), os.environ.get(DATABASE))
    os.environ.pop("PREFECT_API_URL", None)

look()
look()
Path(os.environ["PREFECT_HOME"], "headstart-ui.json").unlink()
look()
"""


def test_the_servers_of_the_settings_of_headstart_ui_and_of_the_run_itself_are_taken_in_this_order(
    tmp_path, answering, launch
):
    own, ours = f"{answering('true')}/api", answering(json.dumps({"pid": 1}))
    write_note(tmp_path / "home", 1, ours)
    asked = launch((sys.executable, "-c", ORDER), tmp_path / "home", tmp_path, {"PREFECT_API_URL": own})
    assert asked.end() == 0, asked.err
    database = f"sqlite+aiosqlite:///{tmp_path / 'home' / 'headstart.db'}"
    assert asked.out.splitlines() == [
        f"{own} {own} None",
        f"{ours}/api {ours}/api None",
        f"None None {database}",
    ]


def test_a_server_of_the_settings_that_does_not_answer_is_refused_in_one_line(tmp_path, pictures):
    study = write_study(tmp_path / "one.toml", f'folder = "{pictures}"')
    url = f"http://127.0.0.1:{free_port()}/api"
    told = headstart(tmp_path / "home", tmp_path, "run", str(study), more={"PREFECT_API_URL": url})
    assert told.end() == 2
    [line] = told.err.splitlines()
    assert f"no server answers at {url}" in line


def test_a_page_of_elsewhere_may_not_even_send_what_needs_no_body(ui):
    assert ask(ui, "/api/health", "POST", **EVIL).status == 403
    assert ask(ui, "/api/health", Origin=ui.address).status == 200
