"""What makes a function a stage: how Prefect knows that it need not run, tries it again, and stops it.

Prefect's own policies hash a task's arguments and its own source; neither tells whether the files
behind the arguments or the code behind the task are the same. A stage here names what decides its
result, in plain values, and its code's version.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Cancelled as CancelledState
from prefect.transactions import get_transaction

from tasks.core.digest import digest_value
from tasks.core.errors import Cancelled, may_pass

P = ParamSpec("P")
R = TypeVar("R")
Identity = Callable[[dict[str, Any]], object]

TRY_AGAIN_AFTER = [5, 20, 60]
"""Seconds before each further try of a stage that a share or a server did not answer."""


@dataclass
class ByContent(CachePolicy):
    """The stage's name, and the digest of what decides its result.

    Attributes:
        stage: the task's name; two stages never share an answer.
        identity: from the task's arguments by name to plain values, the code's version among them.
    """

    stage: str = ""
    identity: Identity = lambda inputs: None

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        """Name the file in result storage."""
        return f"{self.stage}-{digest_value(self.identity(inputs))}"


def stage(name: str, identity: Identity | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Prefect task.

    With an identity it is answered from the cache while that stays the same. Its result is kept as JSON; a
    reference that refuses to be read back (`tasks.references`) is a miss. What may pass is tried again, and
    a run that is cancelled ends as such.

    Args:
        name: the stage, and the first part of its key.
        identity: from the task's arguments by name to the plain values that decide its result; None for
            a stage that always runs.
    """
    kept: dict[str, Any] = {"cache_policy": NO_CACHE}
    if identity is not None:
        policy = ByContent(stage=name, identity=identity)
        kept = {"cache_policy": policy, "persist_result": True, "result_serializer": "json"}

    def make(work: Callable[P, R]) -> Task[P, R]:
        decorate = task(
            name=name,
            retries=len(TRY_AGAIN_AFTER),
            retry_delay_seconds=cast(list[float], TRY_AGAIN_AFTER),
            retry_condition_fn=_try_again,
            **kept,
        )
        return decorate(_cancellable(work))

    return make


def _try_again(stage: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    try:
        state.result()
    except Exception as error:
        again = may_pass(error)
        if again and run.run_count <= len(TRY_AGAIN_AFTER):
            wait = TRY_AGAIN_AFTER[run.run_count - 1]
            print(f"  {error}; trying again in {wait} s", file=sys.stderr, flush=True)
        return again
    return False


def _cancellable(work: Callable[P, R]) -> Callable[P, R]:
    """Let work that was cancelled end in the state of that name."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except Cancelled as wish:
            if (kept := get_transaction()) is not None:
                kept.write_on_commit = False  # or the next run would be answered with this
            state: State[R] = CancelledState(message=str(wish))
            return cast(R, state)  # Prefect takes a returned state for the task's own

    return run
