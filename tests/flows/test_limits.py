"""One run at a time uses the GPU; cached work does not wait for it."""

import threading
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun, ObjectNotFound
from prefect.states import Cancelling

import tasks.limits
import tasks.progress
from flows.study import Study
from flows.transfer import transfer
from tasks.caching import stage
from tasks.limits import GPU, gpu_slot

SMALL = {
    "name": "stripes",
    "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48, "engine": "eager"}},
    "splits": [{"name": "random", "seeds": [0]}],
    "experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]}],
}


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says it has a GPU; the limit is gone before and after."""
    monkeypatch.setattr(tasks.limits, "has_gpu", lambda: True)
    _forget()
    yield
    _forget()


def _forget() -> None:
    with get_client(sync_client=True) as client:
        try:
            client.delete_global_concurrency_limit_by_name(GPU)
        except ObjectNotFound:
            return


def taken() -> int | None:
    """How many slots are taken; None if there is no limit."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(GPU).active_slots
        except ObjectNotFound:
            return None


def study_of(pictures: Any) -> Study:
    return Study.model_validate({**SMALL, "data": {"folder": str(pictures)}})


def test_the_limit_is_made_where_it_is_missing_and_held_while_the_network_runs(
    gpu, run, pictures, monkeypatch
):
    import tasks.core.engine

    seen, run_prefix = [], tasks.core.engine.run_prefix

    def watch(*given: Any) -> Any:
        seen.append(taken())
        return run_prefix(*given)

    monkeypatch.setattr(tasks.core.engine, "run_prefix", watch)
    run(study_of(pictures))
    assert seen == [1]
    assert taken() == 0


def test_a_run_that_has_nothing_to_forward_does_not_wait(gpu, run, pictures):
    run(study_of(pictures))
    with _held():
        relabelled = study_of(pictures).model_copy(update={"name": "other"})
        assert run(relabelled).forwarded == []


def test_without_a_gpu_nothing_is_limited(run, pictures, monkeypatch):
    _forget()
    monkeypatch.setattr(tasks.limits, "has_gpu", lambda: False)
    run(study_of(pictures))
    assert taken() is None


def test_a_second_run_waits_until_the_first_lets_go(gpu, tmp_path, pictures, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(tasks.limits, "LOOK", 0.5)
    letting_go = threading.Timer(2.0, lambda: (order.append("let go"), slot.close()))
    slot = _held()
    letting_go.start()
    transfer(study_of(pictures), tmp_path / "artifacts")
    order.append("ran")
    letting_go.join()
    assert order == ["let go", "ran"]


def test_a_run_that_waits_can_be_cancelled(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.limits, "LOOK", 0.2)

    @stage("waiting")
    def wait() -> None:
        from prefect.context import TaskRunContext

        with get_client(sync_client=True) as client:
            client.set_flow_run_state(TaskRunContext.get().task_run.flow_run_id, Cancelling(), force=True)
        with gpu_slot():
            raise AssertionError("the slot was taken")

    @flow
    def waiting() -> None:
        wait(return_state=True).result()

    with _held(), pytest.raises(CancelledRun):
        waiting()
    assert taken() == 0


class _held:  # noqa: N801 - reads as a function
    """Hold the only slot from another thread, as another run would."""

    def __init__(self) -> None:
        self._go, self._in = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()
        assert self._in.wait(30)

    def _hold(self) -> None:
        from prefect.concurrency.sync import concurrency

        with get_client(sync_client=True) as client:
            tasks.limits._make_limit(client)
        with concurrency(GPU, strict=True):
            self._in.set()
            self._go.wait(60)

    def close(self) -> None:
        self._go.set()
        self._thread.join()

    def __enter__(self) -> "_held":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
