"""Wall time of a run that has nothing to do, beside Prefect's own floor: `make bench-wall`.

Each is a process of its own, from its start to its end, in turns: an unchanged study and a flow with one empty
task, against a running server and with an embedded one. The study is a folder of made-up pictures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

EMPTY = """
from prefect import flow, task

@task
def nothing():
    return None

@flow
def floor():
    nothing()

floor()
"""
CLASSES, EACH = ("lying", "upright"), 60


def main() -> None:
    """Measure and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _paint(folder / "stripes")
        measured = {
            server: _measure(folder, server, rounds) for server in ("a running server", "an embedded server")
        }
    table = Table(
        "",
        "floor, s",
        "unchanged study, s",
        "Headstart adds, s",
        title=f"medians of {rounds} (least to most)",
    )
    for server, (floor, ours) in measured.items():
        added = [mine - theirs for mine, theirs in zip(ours, floor, strict=True)]
        table.add_row(server, _spelled(floor), _spelled(ours), _spelled(added))
    Console(width=110).print(table)


def _measure(folder: Path, server: str, rounds: int) -> tuple[list[float], list[float]]:
    """Time both in turns, after a first run of each that fills caches and databases."""
    environment = _environment(folder / "home")
    headstart = [sys.executable, "-m", "flows"]
    if server == "a running server":
        subprocess.run([*headstart, "ui", "--port", _port()], env=environment, cwd=folder, check=True)
    try:
        api = _api(folder / "home")
        study = [*headstart, "run", "stripes", "--no-ui-hint"]
        floor = [sys.executable, "-c", EMPTY]
        plain = environment | ({"PREFECT_API_URL": api} if api else {})
        times = [
            (_seconds(floor, plain, folder), _seconds(study, environment, folder)) for _ in range(rounds + 1)
        ]
    finally:
        subprocess.run([*headstart, "ui", "--stop"], env=environment, cwd=folder, check=True)
    return [each[0] for each in times[1:]], [each[1] for each in times[1:]]


def _seconds(command: list[str], environment: dict[str, str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return kept | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _api(home: Path) -> str | None:
    try:
        address: str = json.loads((home / "headstart-ui.json").read_text())["address"]
    except FileNotFoundError:
        return None
    return f"{address}/api"


def _port() -> str:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _paint(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for each in range(EACH):
            light = rng.integers(0, 100, (48, 48, 3)) + 100 * number
            Image.fromarray(light.astype(np.uint8)).save(folder / name / f"{each}.png")


def _spelled(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
