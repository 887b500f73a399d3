"""Running the stages of a flow, and keeping what became of each."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId
from prefect.client.schemas.objects import State

CACHED = "Cached"

RECORDED_WITHIN = 10.0
"""Seconds that a run waits for an embedded server to write down what became of its stages."""


@dataclass
class Stage:
    """One stage of a run: its name, the state that it ended in, and how long that took."""

    name: str
    state: str
    seconds: float


@dataclass
class Stages:
    """Runs tasks one after another and says how each ended.

    Attributes:
        study: what runs, for names in the UI.
        planned: names of the stages that are to run, in order; others may come between.
        results: the folder where Prefect keeps what a task returned; a cached stage is answered from it.
        ran: what became of each stage so far.
        runs: the ids of the task runs.
    """

    study: str
    planned: Sequence[str]
    results: Path
    ran: list[Stage] = field(default_factory=list)
    runs: list[UUID] = field(default_factory=list)

    def __enter__(self) -> "Stages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with get_client(sync_client=True) as client:
            if client.server_type == ServerType.EPHEMERAL:
                self._wait_until_recorded(client)

    def run(self, name: str, stage: Task[..., Any], *given: Any) -> Any:
        """Run one task and return its result; what it raises goes through."""
        started = time.perf_counter()
        kept = stage.with_options(
            result_storage=self.results, task_run_name=self._title(name), tags=[self.study]
        )
        state: State[Any] = kept(*given, return_state=True)  # type: ignore[assignment]
        self.ran.append(Stage(name, state.name or state.type.value, round(time.perf_counter() - started, 2)))
        if state.state_details.task_run_id is not None:
            self.runs.append(state.state_details.task_run_id)
        result = state.result()
        print(
            f"  {name:<28} {self.ran[-1].state:<10} {self.ran[-1].seconds:6.1f} s",
            file=sys.stderr,
            flush=True,
        )
        return result

    def was_cached(self, name: str) -> bool:
        """Whether the stage of that name was answered from the cache."""
        return any(stage.name == name and stage.state == CACHED for stage in self.ran)

    def _title(self, name: str) -> str:
        place = f", {self.planned.index(name) + 1} of {len(self.planned)}" if name in self.planned else ""
        return f"{self.study}: {name}{place}".replace("{", "{{").replace("}", "}}")  # Prefect formats it

    def _wait_until_recorded(self, client: SyncPrefectClient) -> None:
        """Wait until the server has written the stages' ends: an embedded one forgets what it has not."""
        until = time.monotonic() + RECORDED_WITHIN
        wanted = TaskRunFilter(id=TaskRunFilterId(any_=self.runs))
        while self.runs and time.monotonic() < until:
            known = client.read_task_runs(task_run_filter=wanted)
            if sum(bool(run.state and run.state.is_final()) for run in known) == len(set(self.runs)):
                return
            time.sleep(0.05)
