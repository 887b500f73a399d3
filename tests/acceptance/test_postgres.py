"""The server of `headstart ui` on PostgreSQL: runs, two at once, and a schedule."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from served import Place, Started, free_port, make_cells, missing, until, write_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.acceptance,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not (shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))),
        reason="PostgreSQL is not installed",
    ),
    pytest.mark.skipif(
        bool(missing("psql", "pg_isready", "setpriv")),
        reason=f"not installed: {missing('psql', 'pg_isready', 'setpriv')}",
    ),
]

SCRIPT = Path(__file__).with_name("postgres.sh")
CELLS = 120


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of a PostgreSQL of this test's own."""
    port = str(free_port())
    process = subprocess.Popen(
        ["sh", SCRIPT, port], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, "PostgreSQL did not start"
    yield url
    process.terminate()
    assert process.wait(60) == 0
    assert subprocess.run(["pg_isready", "-q", "-h", "127.0.0.1", "-p", port]).returncode == 2


@pytest.fixture
def place(tmp_path: Path, database: str) -> Place:
    return Place(tmp_path, {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database})


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    return write_study(tmp_path, "cells", f"manifest = '{make_cells(CELLS, tmp_path)}'\ntarget = 'defective'")


def told(database: str, query: str) -> str:
    """Ask the database itself."""
    url = database.replace("+asyncpg", "")
    return subprocess.run(["psql", "-Atc", query, url], capture_output=True, text=True, check=True).stdout


def forwarded(run: Started) -> int:
    """How many samples a run says that it put through the network."""
    found = re.search(r"samples: ([\d,]+) run through|(everything was reused)", run.said())
    assert found, run.said()
    return int((found[1] or "0").replace(",", ""))


def test_a_run_is_kept_in_postgresql_and_the_next_one_repeats_nothing(place, database, cells):
    with place.ui() as api:
        place.run(cells)
        place.run(cells)
        assert [run["state_name"] for run in api.runs("cells")] == ["Completed", "Unchanged"]
        assert place.summary("cells")["samples"] == {
            "total": CELLS, "extracted": 0, "reused": CELLS, "quarantined": 0
        }  # fmt: skip
        kept = told(database, "select name, state_name from flow_run order by start_time").split()
        assert kept == ["cells|Completed", "cells|Unchanged"]
        assert not list(place.home.glob("*.db"))  # no SQLite beside it


def test_two_runs_at_once_extract_each_sample_once_between_them(place, cells):
    with place.ui() as api:
        with ExitStack() as both:
            words = ("run", cells, "--artifacts", place.artifacts)
            runs = [both.enter_context(place.started(*words)) for _ in range(2)]
            codes = [run.ended() for run in runs]
        assert codes == [0, 0], "\n\n".join(run.said() for run in runs)
        assert sum(map(forwarded, runs)) == CELLS
        first, second = api.runs("cells", "COMPLETED")
        assert second["start_time"] < first["end_time"]  # at once, indeed
        assert sorted(run["extracted"] for run in place.summary("cells")["history"]) == sorted(
            map(forwarded, runs)
        )


def test_a_schedule_fires_twice_and_the_second_time_forwards_nothing(place, database, cells):
    with place.ui() as api, place.served(cells, "--interval", "15s"):
        first, second, *_ = until(
            "two firings", lambda: len(found := api.runs("cells", "COMPLETED")) > 1 and found
        )
        assert [first["state_name"], second["state_name"]] == ["Completed", "Unchanged"]
        assert [run["extracted"] for run in place.summary("cells")["history"]][:2] == [CELLS, 0]
        assert told(database, "select count(*) from deployment_schedule").strip() == "1"
