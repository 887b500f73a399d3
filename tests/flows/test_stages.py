"""What a stage does beside its work: tries again what may pass, stops when it is told to, and is told of."""

from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun, FailedRun, MissingResult
from prefect.states import StateType

import tasks.caching
import tasks.progress
from flows.outcome import summary_of
from flows.stages import Stages
from flows.study import Study
from flows.transfer import transfer
from tasks.caching import stage
from tasks.core.errors import Cancelled, RequestError, Unreachable
from tasks.progress import Progress

SMALL = {
    "name": "stripes",
    "backbones": {"small": {"network": "lite0", "resize": 48, "crop": 48}},
    "splits": [{"name": "random", "seeds": [0]}],
    "experiments": [{"name": "early", "taps": ["blocks.1:mean"], "strengths": [1.0]}],
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(tasks.caching, "TRY_AGAIN_AFTER", [0, 0, 0])


def in_a_flow(work: Any, folder: Any, *given: Any) -> tuple[Any, Stages]:
    """Run one stage in a flow of its own, as a run does."""
    stages = Stages("cats", ["other", "it"], folder)

    @flow
    def run() -> Any:
        with stages:
            return stages.run("it", work, *given)

    return run(), stages


def task_run(stages: Stages) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_task_run(stages.runs[0])


def test_a_share_that_comes_back_is_tried_again(tmp_path):
    tries = []

    @stage("reading")
    def read() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise Unreachable("the share is gone")
        return len(tries)

    found, _ = in_a_flow(read, tmp_path)
    assert found == 3


def test_a_share_that_stays_away_fails_after_the_last_try(tmp_path, capsys):
    tries = []

    @stage("reading")
    def read() -> None:
        tries.append(1)
        raise Unreachable("the share is gone")

    with pytest.raises(Unreachable):
        in_a_flow(read, tmp_path)
    assert len(tries) == 4
    assert capsys.readouterr().err.count("the share is gone; trying again in 0 s") == 3


@pytest.mark.parametrize("error", [RequestError("a bad study"), ValueError("a fault of ours")])
def test_what_cannot_pass_is_not_tried_again(tmp_path, error):
    tries = []

    @stage("reading")
    def read() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        in_a_flow(read, tmp_path)
    assert len(tries) == 1


def test_stages_have_names_that_tell_how_far_the_run_is(tmp_path):
    @stage("reading")
    def read() -> int:
        return 1

    _, stages = in_a_flow(read, tmp_path)
    assert stages.runs
    run = task_run(stages)
    assert run.name == "cats: it, 2 of 2"
    assert "cats" in run.tags


def test_braces_in_an_experiments_name_are_letters(run, pictures):
    experiment = {**SMALL["experiments"][0], "name": "{early} {study.name}"}
    done = run(
        Study.model_validate({**SMALL, "experiments": [experiment], "data": {"folder": str(pictures)}})
    )
    assert done.state("train {early} {study.name}") == "Completed"


def test_a_cancelled_stage_ends_the_run_as_cancelled(tmp_path):
    @stage("waiting")
    def wait() -> None:
        raise Cancelled("somebody said so")

    with pytest.raises(CancelledRun, match="somebody said so"):
        in_a_flow(wait, tmp_path)


def test_long_work_notices_within_seconds_that_its_run_is_cancelled(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.progress, "EVERY_LOOK", 0.0)
    done = []

    @stage("counting")
    def count() -> None:
        from prefect.context import TaskRunContext
        from prefect.states import Cancelling

        with Progress("cats: count", 5) as progress:
            for number in range(5):
                progress.advance_to(number)
                done.append(number)
                if number == 2:
                    context = TaskRunContext.get()
                    with get_client(sync_client=True) as client:
                        client.set_flow_run_state(context.task_run.flow_run_id, Cancelling(), force=True)

    with pytest.raises(CancelledRun, match="what is done is kept"):
        in_a_flow(count, tmp_path)
    assert done == [0, 1, 2]


def test_an_unchanged_run_says_so_in_its_state(pictures, tmp_path):
    study = Study.model_validate({**SMALL, "data": {"folder": str(pictures)}})
    first = transfer(study, tmp_path / "artifacts", return_state=True)
    second = transfer(study, tmp_path / "artifacts", return_state=True)
    assert (first.type, first.name) == (StateType.COMPLETED, "Completed")
    assert (
        first.message
        == "samples: 24 run through the network, 0 reused, 0 quarantined; heads: 1 trained, 0 reused"
    )
    assert (second.type, second.name) == (StateType.COMPLETED, "Unchanged")
    assert second.message == "everything was reused: 24 samples, 1 heads"
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(second.state_details.flow_run_id).state.name == "Unchanged"


def test_a_run_whose_server_answered_too_late_keeps_what_it_came_to(pictures, tmp_path, monkeypatch):
    study = Study.model_validate({**SMALL, "data": {"folder": str(pictures)}})
    send, late = httpx.Client.send, []

    def send_late(client: httpx.Client, request: httpx.Request, **named: Any) -> httpx.Response:
        answer = send(client, request, **named)
        if request.url.path.endswith("/set_state") and b"COMPLETED" in request.content and not late:
            late.append(request)
            raise httpx.ReadTimeout("too late", request=request)  # Prefect's client asks again
        return answer

    monkeypatch.setattr(httpx.Client, "send", send_late)
    state = transfer(study, tmp_path / "artifacts", return_state=True)
    with pytest.raises(MissingResult):
        state.result()
    assert summary_of(state, tmp_path / "artifacts" / "studies" / "stripes")["samples"]["total"] == 24


def test_a_run_that_did_not_end_well_has_no_summary(tmp_path):
    (tmp_path / "summary.json").write_text("{}")  # of the run before
    with pytest.raises(CancelledRun):
        summary_of(State(type=StateType.CANCELLED), tmp_path)
    with pytest.raises(FailedRun):
        summary_of(State(type=StateType.FAILED), tmp_path)


def test_a_data_folder_that_is_empty_is_waited_for(pictures, tmp_path, monkeypatch):
    study = Study.model_validate({**SMALL, "data": {"folder": str(pictures)}})
    away, tries = tmp_path / "away", []

    def comes_back(folder: Any) -> None:
        tries.append(folder)
        if len(tries) == 2:
            away.rename(pictures)
        if not any(pictures.iterdir() if pictures.is_dir() else ()):
            raise Unreachable("gone")

    monkeypatch.setattr("tasks.samples.check_place", comes_back)
    monkeypatch.setattr("flows.transfer.check_study", lambda study: None)
    pictures.rename(away)
    assert transfer(study, tmp_path / "artifacts")["samples"]["total"] == 24
    assert len(tries) == 2


def test_each_run_adds_to_the_history_of_a_studys_artifacts(pictures, tmp_path):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    study = Study.model_validate({**SMALL, "name": "Two words", "data": {"folder": str(pictures)}})
    for _ in range(2):
        transfer(study, tmp_path / "artifacts")
    with get_client(sync_client=True) as client:
        for key in ("scores-two-words", "report-two-words"):
            wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
            assert len(client.read_artifacts(artifact_filter=wanted)) == 2
