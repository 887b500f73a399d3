"""Nothing leaves the machine: seen in every system call, and by working where there is nobody else."""

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from served import Place, free_port, lone_network, missing, write_study

pytestmark = [pytest.mark.slow, pytest.mark.acceptance, pytest.mark.timeout(1800)]

SCRIPT = Path(__file__).with_name("whole_life.sh")
CALLS = "trace=connect,sendto,sendmsg,sendmmsg"
LOOPBACK = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "(::1|::ffff:127\.[\d.]+)"')
DNS = re.compile(r"htons\(53\)")
NOBODY = """
import socket
for kind, address in ((socket.SOCK_STREAM, ("192.0.2.1", 80)), (socket.SOCK_DGRAM, ("127.0.0.53", 53))):
    with socket.socket(socket.AF_INET, kind) as one:
        one.setblocking(False)
        one.connect_ex(address)
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
    one.connect_ex(("2001:db8::1", 443))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    try:
        one.sendto(b"", ("192.0.2.2", 9))
    except OSError:
        pass
    one.connect_ex(("127.0.0.1", 9))
"""


def traced(place: Place, *words: str | Path) -> list[str]:
    """Run a command to its end; returns what it and its children asked the kernel to send or connect to."""
    trace = place.folder / "trace"
    live(
        place, ["strace", "-f", "-qq", "-s", "0", "-e", CALLS, "-e", "signal=none", "-o", str(trace)], *words
    )
    return trace.read_text().splitlines()


def live(place: Place, under: Sequence[str], *words: str | Path) -> str:
    """Run a command under another one; returns what it said."""
    place.artifacts.mkdir(exist_ok=True)
    done = subprocess.run(
        [*under, *map(str, words)],
        cwd=place.folder,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def outbound(calls: Iterable[str]) -> list[str]:
    """The calls that reach for another machine, or ask for its name."""
    named = [call for call in calls if re.search(r"sa_family=AF_INET6?\b", call)]
    return [call for call in named if DNS.search(call) or not LOOPBACK.search(call)]


@pytest.fixture
def life(tmp_path: Path, pictures: Path) -> tuple[Place, list[str | Path]]:
    """A place, and the command that does everything in it."""
    place = Place(tmp_path, {"PORT": str(free_port())})
    small = write_study(tmp_path, "stripes", f"folder = '{pictures}'", backbone="resize = 48\ncrop = 48")
    return place, ["sh", SCRIPT, sys.executable, small, place.artifacts]


needs_strace = pytest.mark.skipif(bool(missing("strace")), reason="strace is not installed")


@needs_strace
def test_the_trace_tells_what_leaves(place: Place):
    found = outbound(traced(place, sys.executable, "-c", NOBODY))
    assert [
        next(each for each in ("192.0.2.1", "127.0.0.53", "2001:db8::1", "192.0.2.2") if each in call)
        for call in found
    ] == ["192.0.2.1", "127.0.0.53", "2001:db8::1", "192.0.2.2"]


@needs_strace
def test_nothing_connects_to_anything_but_this_machine(life):
    place, command = life
    calls = traced(place, *command)
    assert sum("htons(" + place.more["PORT"] + ")" in call for call in calls) > 10  # it was seen at all
    assert outbound(calls) == []
    assert [run["extracted"] for run in place.summary("stripes")["history"]][:3] == [24, 0, 0]
    place.check_left_nothing()


@pytest.mark.skipif(lone_network() is None, reason="this machine allows no network namespaces")
def test_everything_works_where_there_is_no_network(life):
    place, command = life
    under = lone_network()
    assert under is not None
    said = live(place, under, *command)
    assert "stopped the server" in said
    assert [run["extracted"] for run in place.summary("stripes")["history"]][:3] == [24, 0, 0]
    place.check_left_nothing()
