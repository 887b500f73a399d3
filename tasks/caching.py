"""How Prefect knows that a stage need not run: a key made of content alone.

Prefect's own policies hash a task's arguments and its own source; neither tells whether the files
behind the arguments or the code behind the task are the same. A stage here names what decides its
result, in plain values, and its code's version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from tasks.core.digest import digest_value


@dataclass
class ByContent(CachePolicy):
    """The stage's name, and the digest of what decides its result.

    Attributes:
        stage: the task's name; two stages never share an answer.
        identity: from the task's arguments by name to plain values, the code's version among them.
    """

    stage: str = ""
    identity: Callable[[dict[str, Any]], object] = lambda inputs: None

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str:
        """Name the file in result storage."""
        return f"{self.stage}-{digest_value(self.identity(inputs))}"
