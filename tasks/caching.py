"""How Prefect knows that a stage need not run: a key made of content alone.

Prefect's own policies hash a task's arguments and its own source; neither tells whether the files
behind the arguments or the code behind the task are the same. A stage here names what decides its
result, in plain values, and its code's version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from tasks.core.digest import digest_value

P = ParamSpec("P")
R = TypeVar("R")
Identity = Callable[[dict[str, Any]], object]


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


def cached_stage(name: str, run_name: str, identity: Identity) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Prefect task that is answered from the cache while its identity stays the same.

    Its result is kept as JSON; a reference that refuses to be read back (`tasks.references`) is a miss.

    Args:
        name: the stage, and the first part of its key.
        run_name: a template over the task's arguments, as the UI shows it.
        identity: from the task's arguments by name to the plain values that decide its result.
    """
    return task(
        name=name,
        task_run_name=run_name,
        cache_policy=ByContent(stage=name, identity=identity),
        persist_result=True,
        result_serializer="json",
    )
