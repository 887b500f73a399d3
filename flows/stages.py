"""Running the stages of a flow, and keeping what became of each."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State

CACHED = "Cached"


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
        results: the folder where Prefect keeps what a task returned; a cached stage is answered from it.
        ran: what became of each stage so far.
    """

    results: Path
    ran: list[Stage] = field(default_factory=list)

    def run(self, name: str, stage: Task[..., Any], *given: Any) -> Any:
        """Run one task and return its result; what it raises goes through."""
        started = time.perf_counter()
        kept = stage.with_options(result_storage=self.results)
        state: State[Any] = kept(*given, return_state=True)  # type: ignore[assignment]
        self.ran.append(Stage(name, state.name or state.type.value, round(time.perf_counter() - started, 2)))
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
