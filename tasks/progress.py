"""Long work shows how far it is: in the terminal, and as a progress artifact in Prefect."""

import sys
import time
from contextlib import suppress
from types import TracebackType
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger

from tasks.core.errors import Cancelled
from tasks.core.speed import Speed
from tasks.core.words import lasted

NO_ANSWER = (httpx.HTTPError, PrefectHTTPStatusError)
"""A server that is away for a while shall not cost the work."""

EVERY = 1.0
"""Seconds between two updates of a terminal line or a Prefect artifact."""

EVERY_LOOK = 2.0
"""Seconds between two looks whether somebody has cancelled the run."""

EVERY_LINE = 10.0
"""Seconds between two lines where the output is no terminal, or a log."""


class Progress:
    """Counts items of known number, and ends the work if the run was cancelled in the UI meanwhile.

    Args:
        what: names the work in the terminal and in the UI, such as "solar: forward".
        total: how many items there are.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.shown = self.logged = self.looked = time.monotonic()
        self.speed = Speed(self.shown)
        self.artifact: UUID | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.artifact is not None:  # short work shows nothing
            self.done = self.total if kind is None else self.done
            self._publish()
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def advance_to(self, done: int) -> None:
        """Say how many items are done by now.

        Raises:
            Cancelled: if somebody has cancelled the run.
        """
        self.done = done
        now = time.monotonic()
        self.speed.note(now, done)
        if now - self.shown >= EVERY:
            self.shown = now
            self._publish()
            if sys.stderr.isatty():
                print(f"\r\x1b[K  {self}", end="", file=sys.stderr, flush=True)
        if now - self.looked >= EVERY_LOOK:
            self.looked = now
            with suppress(*NO_ANSWER):
                stop_if_cancelled()
        if now - self.logged >= EVERY_LINE:
            self.logged = now
            get_run_logger().info(str(self))
            if not sys.stderr.isatty():
                print(f"  {self}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        rate = self.speed.rate(time.monotonic(), self.done)
        speed = f" · {rate:.0f}/s" if rate >= 1 else ""
        left = f" · {lasted((self.total - self.done) / rate)} left" if rate > 0 else ""
        return f"{self.what} {self.done:,} of {self.total:,}{speed}{left}"

    def _publish(self) -> None:
        with suppress(*NO_ANSWER):
            self._show_in_prefect()

    def _show_in_prefect(self) -> None:
        percent = 100.0 * self.done / max(self.total, 1)
        if self.artifact is None:
            self.artifact = create_progress_artifact(progress=percent, description=str(self))  # type: ignore[assignment]
        else:
            update_progress_artifact(self.artifact, progress=percent, description=str(self))


def stop_if_cancelled() -> None:
    """Ask the server whether somebody has cancelled this run.

    A run that a `headstart serve` or a worker started is ended by that; one that a user started by hand is
    not known to either, and ends itself.

    Raises:
        Cancelled: if so.
    """
    context = TaskRunContext.get()
    if context is None or context.task_run.flow_run_id is None:
        return
    state = get_client(sync_client=True).read_flow_run(context.task_run.flow_run_id).state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        raise Cancelled("cancelled; what is done is kept, the next run goes on from there")
