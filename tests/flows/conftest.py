"""One Prefect server for all flow tests, and a run whose forward passes are counted."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

import tasks.core.curve  # has `train_heads` before that counts: its heads are none of the study's
import tasks.core.engine
import tasks.core.networks
import tasks.core.selection
from flows.outcome import summary_of
from flows.study import Study
from flows.transfer import transfer


@pytest.fixture(scope="session", autouse=True)
def server() -> Iterator[None]:
    """A Prefect server with a database of its own."""
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # joining its thread takes a second
    ):
        yield


@dataclass
class Done:
    """What one run did, counted where the work is done, not where it is reported."""

    summary: dict[str, Any]
    forwarded: list[str]
    networks: int
    trained: int
    folder: Path
    rows: list[dict[str, str]]

    def results(self) -> list[dict[str, str]]:
        """The rows of results.csv, as they were when the run ended: the next run writes over them."""
        return self.rows

    def state(self, stage: str) -> str:
        """The Prefect state that a stage ended in."""
        return next(each["state"] for each in self.summary["stages"] if each["name"] == stage)


Runner = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Run a study; every call shares one artifacts folder."""
    forwarded: list[str] = []
    counts = {"networks": 0, "trained": 0}
    run_prefix = tasks.core.engine.run_prefix
    load_network = tasks.core.networks.load_network
    train_heads = tasks.core.selection.train_heads

    def forward(engine: Any, samples: Any, *rest: Any) -> Any:
        for batch in run_prefix(engine, samples, *rest):
            forwarded.extend([*batch.digests, *batch.failed])
            yield batch

    def load(backbone: Any) -> Any:
        counts["networks"] += 1
        return load_network(backbone)

    def train(rows: Any, hypers: Any, **named: Any) -> Any:
        counts["trained"] += len(hypers)
        return train_heads(rows, hypers, **named)

    monkeypatch.setattr(tasks.core.engine, "run_prefix", forward)
    monkeypatch.setattr(tasks.core.networks, "load_network", load)
    monkeypatch.setattr(tasks.core.selection, "train_heads", train)

    def go(study: Study) -> Done:
        forwarded.clear()
        counts.update(networks=0, trained=0)
        artifacts = tmp_path / "artifacts"
        folder = artifacts / "studies" / study.name
        summary = summary_of(transfer(study, artifacts, return_state=True), folder)
        assert json.loads((folder / "summary.json").read_text()) == summary
        with (folder / "results.csv").open() as file:
            rows = list(csv.DictReader(file))
        return Done(summary, list(forwarded), counts["networks"], counts["trained"], folder, rows)

    return go
