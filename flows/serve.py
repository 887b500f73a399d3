"""A study on a schedule: a deployment that the Prefect UI can start, and a process that runs it when it is due."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx

from flows.server import connect
from flows.study import Study, load_study
from flows.watch import feed, file_changes, folder_changes, gathered
from tasks.core.errors import HeadstartError, RequestError

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import SCHEDULE_TYPES
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner

POLL = 2.0
"""Seconds between two looks for runs that are due."""
FLOW = "transfer"


@dataclass(frozen=True)
class When:
    """When a study runs.

    Attributes:
        cron: such as "0 3 * * *", or None.
        interval: between the starts of two runs, or None.
        timezone: that cron speaks of, such as "Europe/Berlin"; the machine's own if None.
        watch: whether files that change start a run.
        busy: what becomes of a run that is due while another runs.
    """

    cron: str | None = None
    interval: timedelta | None = None
    timezone: str | None = None
    watch: bool = False
    busy: Literal["queue", "skip"] = "queue"


def serve_study(path: Path, sets: Sequence[str], artifacts: Path, when: When) -> None:
    """Register a study's deployment and run it when it is due, until this process is ended.

    A study file that changes is read again: the next run follows it.

    Args:
        path: the study file, or a folder.
        sets: changes to its keys, as `headstart run --set`.
        artifacts: the folder for all outputs.
        when: the schedule.

    Raises:
        RequestError: if there is no server, the schedule cannot be read, or the study is wrong.
    """
    study, schedules = load_study(path, sets), read_schedules(when)
    api = connect()
    if api is None:
        raise RequestError("a schedule needs a server that stays; start one with: headstart ui")
    _tell(f"{study.name}: served at {api.removesuffix('/api')}, {_spelled(when)}; Ctrl-C ends it")
    served = _Served(study, path, sets, artifacts, when, schedules)
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(served.run())
    _tell(f"{study.name}: no longer served; its schedule is paused")
    if served.problem is not None:
        raise HeadstartError(f"watching files failed: {served.problem}") from served.problem


@dataclass
class _Served:
    """A study that is served, as its file is now."""

    study: Study
    path: Path
    sets: Sequence[str]
    artifacts: Path
    when: When
    schedules: "list[SCHEDULE_TYPES]"
    problem: BaseException | None = None

    async def run(self) -> None:
        """Serve until this process is told to end."""
        loop, self.stop = asyncio.get_running_loop(), _stopper(asyncio.current_task())
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        self.runner = _runner(self.study.name, partial(loop.call_soon_threadsafe, self.stop))
        try:
            await self._register()
            if self.path.is_file():
                self._beside(self._follow_file())
            if self.when.watch:
                self.watching = self._beside(self._watch())
            await self.runner.start()
        finally:
            for each in asyncio.all_tasks(loop) - {asyncio.current_task()}:
                each.cancel()
            with suppress(httpx.HTTPError):  # the server may have been stopped first
                await _leave(f"{FLOW}/{self.study.name}")

    def _beside(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something beside serving; if it fails, serving ends, since nobody would notice otherwise."""

        def look(done: "asyncio.Task[None]") -> None:
            error = None if done.cancelled() else done.exception()
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            if error is not None:
                self.problem = error
                self.stop()

        task = asyncio.create_task(work)
        task.add_done_callback(look)
        return task

    async def _register(self) -> None:
        deployment = await deployment_of(self.study, self.artifacts, self.when, self.schedules)
        await self.runner.aadd_deployment(deployment)

    async def _follow_file(self) -> None:
        """Read the study again when its file changes."""
        async for _ in file_changes(self.path.resolve()):
            try:
                study = load_study(self.path, self.sets)
                if study.name != self.study.name:
                    raise RequestError(f"{self.path}: its name is now {study.name!r}; serve it anew for that")
            except HeadstartError as error:
                _tell(f"{error}; served as it was before")
                continue
            self.study = study
            await self._register()
            _tell(f"{self.study.name}: {self.path.name} read again")
            if self.when.watch:
                self.watching.cancel()  # its data may lie elsewhere now
                self.watching = self._beside(self._watch())

    async def _watch(self) -> None:
        """Start a run now, for what has changed so far, and whenever the data change."""
        from prefect.deployments.flow_runs import arun_deployment

        source, news = self.study.source(), asyncio.Queue[set[Path]]()
        news.put_nowait(set())
        streams = (
            folder_changes(source.root.resolve(), leave_out=[self.artifacts]),
            file_changes(source.place.resolve()),
        )
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(feed(news, stream))
            while True:
                changed = await gathered(news)
                if changed:
                    _tell(f"{self.study.name}: {len(changed)} files are new, changed or gone")
                await arun_deployment(f"{FLOW}/{self.study.name}", timeout=0, as_subflow=False)


def _runner(name: str, stop: Callable[[], object]) -> "Runner":
    from prefect.runner import Runner

    class Stoppable(Runner):
        """Prefect's own handler calls from outside of the loop what only the loop can run."""

        def handle_sigterm(self, *given: object) -> None:
            stop()

    return Stoppable(
        name=f"headstart {name}",
        query_seconds=POLL,
        prefetch_seconds=0,
        limit=None,
        pause_on_shutdown=False,  # `_leave` does, also where serving ends before it has begun
    )


async def _leave(name: str) -> None:
    """Pause a deployment that nobody serves now, and say of its runs that they have ended with that."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelled

    under_way = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    ended: State[Any] = Cancelled(
        message="Serving ended. What is done is kept: the next run goes on from there."
    )
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(name)
        except ObjectNotFound:
            return  # it ends before it has begun
        await client.pause_deployment(deployment.id)
        runs = await client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=under_way)),
        )
        for run in runs:
            await client.set_flow_run_state(run.id, ended, force=True)
            within = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            for task in await client.read_task_runs(flow_run_filter=within):
                if task.state is not None and not task.state.is_final():
                    await client.set_task_run_state(task.id, ended, force=True)


def _stopper(task: "asyncio.Task[None] | None") -> Callable[[], object]:
    assert task is not None, "a coroutine runs in a task"  # noqa: S101
    return task.cancel


async def deployment_of(
    study: Study, artifacts: Path, when: When, schedules: "list[SCHEDULE_TYPES]"
) -> "RunnerDeployment":
    """Spell a study as a deployment whose form in the UI has the study's fields.

    Args:
        study: what to run.
        artifacts: the folder for all outputs.
        when: what becomes of a run that is due while another runs.
        schedules: as `read_schedules` gives them.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.types.entrypoint import EntrypointType

    from flows.transfer import transfer

    strategy = (
        ConcurrencyLimitStrategy.ENQUEUE if when.busy == "queue" else ConcurrencyLimitStrategy.CANCEL_NEW
    )
    return await transfer.ato_deployment(
        study.name,
        schedules=schedules,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
        parameters={"study": study.model_dump(mode="json", exclude_none=True), "artifacts": str(artifacts)},
        description=f"Headstart: the study {study.name}. A run does only what is not done yet.",
        tags=[study.name],
        paused=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def read_schedules(when: When) -> "list[SCHEDULE_TYPES]":
    """Make Prefect's schedules, or none for a study that only files or people start.

    Raises:
        RequestError: if cron or the time zone is none, or the interval is too short.
    """
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from pydantic import ValidationError

    zone = when.timezone or _own_zone()
    try:
        if when.cron is not None:
            return [CronSchedule(cron=when.cron, timezone=zone)]
        if when.interval is not None:
            return [IntervalSchedule(interval=when.interval, timezone=zone)]
    except (ValidationError, ValueError) as error:
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        given = f"--cron {when.cron!r}, --timezone {zone!r}" if when.cron else f"--timezone {zone!r}"
        raise RequestError(
            f'{given}: {" ".join(text.split())}; write it like --cron "0 3 * * *" --timezone Europe/Berlin'
        ) from None
    return []


def read_interval(text: str) -> timedelta:
    """Read a time such as 90s, 15m, 12h or 1d.

    Raises:
        RequestError: if it is none, or shorter than ten seconds.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], units.get(text[-1:])
    if unit is None or not number.isdecimal():
        raise RequestError(f"--interval {text!r}: write a whole number and s, m, h or d, such as 12h")
    found = timedelta(seconds=int(number) * unit)
    if found < timedelta(seconds=10):
        raise RequestError(f"--interval {text!r}: ten seconds are the least")
    return found


def _own_zone() -> str:
    """Name the machine's time zone, UTC where it is not known."""
    place = Path("/etc/localtime").resolve().as_posix()
    return place.split("zoneinfo/", 1)[1] if "zoneinfo/" in place else "UTC"


def _spelled(when: When) -> str:
    parts = [
        f"cron {when.cron!r} {when.timezone or _own_zone()}" if when.cron else "",
        f"every {when.interval}" if when.interval else "",
        "when its files change" if when.watch else "",
    ]
    return " and ".join(part for part in parts if part) or "when it is started in the UI"


def _tell(line: str) -> None:
    print(f"headstart: {line}", file=sys.stderr, flush=True)
