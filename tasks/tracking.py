"""Stage 6, where the study asks for it: a run that is done is told to MLflow. Never cached.

MLflow is imported when the stage runs: it takes a second, and its telemetry must be off before. It comes last,
and whatever goes wrong between here and a tracking server costs the run nothing but one line.
"""

import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

import tasks.core
from tasks.core.artifacts import Artifacts
from tasks.core.errors import RequestError
from tasks.core.files import write_text
from tasks.core.heads import Grid, load_heads, save_heads
from tasks.core.predictors import Networks
from tasks.core.tracked import Told, results_identity, told_of_experiments, told_of_run
from tasks.references import Scores

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRIVATE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""MLflow reports how it is used unless told not to; to it "1" is no "true". Whatever was set before."""

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""By itself MLflow waits minutes for a server that does not answer, and talks."""

FILES = ("report.html", "results.csv", "summary.json")
MODEL = "head"
SCRIPT = Path(tasks.core.__file__).with_name("mlflow_model.py")

AT_ONCE = 1000
"""Metrics that a server takes in one request."""

LONGEST = 300
"""Letters of an error that are repeated."""


@task(name="tracking", task_run_name="{study}: track", cache_policy=NO_CACHE)
def track(
    study: str, grids: tuple[Grid, ...], scores: Scores, summary: dict[str, Any], artifacts: Artifacts
) -> dict[str, Any]:
    """Tell MLflow of a run that is done, and `summary.json` of what became of that; return the summary.

    MLflow's own configuration decides where to; without one it is a database in the artifacts folder.
    Whatever fails costs a warning.
    """
    told: dict[str, Any] = {"to": "mlflow", "state": "failed"}
    try:
        _import_mlflow()
        uri = _address(artifacts)
        told["uri"] = _public(uri)
        with _settled(uri):
            book = _open(uri, study, artifacts)
            told["experiment"] = book.experiment
            told |= _tell(book, grids, scores, summary, artifacts)
    except Exception as error:  # of an installation, a server, a database: none shall cost the run
        told["problem"] = _one_line(error)
        _warn(told)
    summary = summary | {"tracking": told}
    write_text(artifacts.study(study) / "summary.json", json.dumps(summary, indent=2, allow_nan=False))
    return summary


@dataclass(frozen=True)
class _Book:
    """An MLflow experiment, open for writing."""

    client: "MlflowClient"
    experiment: str
    place: str

    @contextmanager
    def run(self, told: Told, parent: str | None = None, started: float | None = None) -> Iterator[str]:
        """Write a run that is finished when the block ends well, and failed if it does not."""
        tags = told.tags | ({"mlflow.parentRunId": parent} if parent else {})
        begun = int((started or time.time()) * 1000)
        run: str = self.client.create_run(self.place, begun, tags, told.name).info.run_id
        try:
            self._log(run, told, begun)
            yield run
        except BaseException:
            with suppress(Exception):
                self.client.set_terminated(run, "FAILED")
            raise
        self.client.set_terminated(run)

    def _log(self, run: str, told: Told, now: int) -> None:
        from mlflow.entities import Metric, Param

        metrics = [Metric(name, value, now, 0) for name, value in told.metrics.items()]
        for name, scores in told.by_seed.items():
            metrics += [Metric(name, score, now, seed) for seed, score in scores.items()]
        self.client.log_batch(run, params=[Param(name, value) for name, value in told.params.items()])
        for first in range(0, len(metrics), AT_ONCE):
            self.client.log_batch(run, metrics[first : first + AT_ONCE])

    def whole(self, identity: str) -> str | None:
        """Find the run that told everything about the same results, if there is one."""
        wanted = f"tags.`headstart.results` = '{identity}' and attributes.status = 'FINISHED'"
        found = self.client.search_runs(
            [self.place], f"{wanted} and tags.`headstart.reused` = 'false'", max_results=1
        )
        return found[0].info.run_id if found else None


def _import_mlflow() -> None:
    """Import MLflow, which reports to nobody and is brief; one that is not there a study is refused for at once.

    Raises:
        RequestError: if it is there and cannot be imported.
    """
    os.environ.update(PRIVATE)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow.pyfunc  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"tracking = \"mlflow\": MLflow cannot be imported ({error}); pip install 'headstart[mlflow]'"
        ) from None


def _address(artifacts: Artifacts) -> str:
    """Say where MLflow keeps its runs: where it is set up to, else in a database among the artifacts."""
    import mlflow

    uri: str = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else _own(artifacts)
    return uri


def _folder(artifacts: Artifacts) -> Path:
    return artifacts.root / "mlflow"


def _own(artifacts: Artifacts) -> str:
    return f"sqlite:///{_folder(artifacts) / 'mlflow.db'}"


def _open(uri: str, study: str, artifacts: Artifacts) -> _Book:
    """Find the experiment, or make it."""
    from mlflow import MlflowClient

    files = None  # a server knows where
    if uri == _own(artifacts):
        _folder(artifacts).mkdir(parents=True, exist_ok=True)
        files = (_folder(artifacts) / "files").as_uri()
    client, place = MlflowClient(tracking_uri=uri), os.environ.get("MLFLOW_EXPERIMENT_ID")
    if place is not None:
        return _Book(client, client.get_experiment(place).name, place)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", study)
    return _Book(client, name, _experiment(client, name, files))


def _experiment(client: "MlflowClient", name: str, location: str | None) -> str:
    from mlflow import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, location))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # so it is not that another run has made it a moment ago
                raise
    return str(found.experiment_id)


def _tell(
    book: _Book, grids: tuple[Grid, ...], scores: Scores, summary: dict[str, Any], artifacts: Artifacts
) -> dict[str, Any]:
    """Write a run with all that belongs to it, or, of results that are told already, one with the scores alone.

    So a nightly run leaves a point in the history each night, and files only when something has changed.
    """
    each = told_of_experiments(grids, scores.splits, summary)
    best = each[summary["best"]["experiment"], summary["best"]["split"]]
    told, identity = told_of_run(summary, best), results_identity(summary)
    same = book.whole(identity)
    told.tags.update({"headstart.results": identity, "headstart.reused": str(same is not None).lower()})
    told.tags.update({"headstart.same_as": same} if same else {})
    flow = runtime.flow_run.id
    told.tags.update({"prefect.flow_run_id": str(flow)} if flow else {})
    started = time.time() - sum(stage["seconds"] for stage in summary["stages"])
    with book.run(told, started=started) as run:
        if same is None:
            for one in each.values():
                with book.run(one, parent=run):
                    pass
            for file in FILES:
                book.client.log_artifact(run, str(artifacts.study(summary["study"]) / file))
            _write_model(book, run, best, summary["best"]["heads"][0], artifacts)
    return {"run": run, "state": "reused" if same else "told"}


def _write_model(book: _Book, run: str, best: Told, head: dict[str, Any], artifacts: Artifacts) -> None:
    """Write the chosen head of the first seed as a model that MLflow loads, without pickle; layers are none."""
    import mlflow
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    file = load_heads(artifacts.root / head["file"])[head["key"]]
    if isinstance(file.predictor, Networks):
        return
    model = book.client.create_logged_model(book.place, MODEL, run, best.tags, best.params)
    book.client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        key, place = head["key"], Path(folder) / "model"
        alone = save_heads(Path(folder), {key: file})
        mlflow.pyfunc.save_model(
            place,
            python_model=str(SCRIPT),
            artifacts={"head": str(alone)},
            pip_requirements=[f"headstart=={version('headstart')}", f"mlflow=={mlflow.__version__}"],
            metadata={name: head[name] for name in ("seed", "classes", "sets", "views")},
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                run_id=run,
                model_uuid=model.model_id,
                model_id=model.model_id,
            ),
        )
        book.client.log_model_artifacts(model.model_id, str(place))
    book.client.finalize_logged_model(model.model_id, "READY")


@contextmanager
def _settled(uri: str) -> Iterator[None]:
    """Keep back each retry's own warning, for it is told once, and MLflow from opening a store of its own choice."""
    noisy, before = logging.getLogger("urllib3.connectionpool"), os.environ.get("MLFLOW_TRACKING_URI")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        noisy.setLevel(level)
        del os.environ["MLFLOW_TRACKING_URI"]
        os.environ.update({} if before is None else {"MLFLOW_TRACKING_URI": before})


def _warn(told: dict[str, Any]) -> None:
    where = f" at {told['uri']}" if "uri" in told else ""
    line = (
        f"not tracked: MLflow{where}: {told['problem']}; "
        "the run itself is done and kept, and the next one tells MLflow of it"
    )
    get_run_logger().warning(line)
    print(f"headstart: {line}", file=sys.stderr, flush=True)


def _one_line(error: BaseException) -> str:
    """Say what went wrong; of what a network or a disk did, what it was at bottom, without what wraps it."""
    bottom = error
    while bottom.__cause__ or bottom.__context__:
        bottom = bottom.__cause__ or bottom.__context__ or bottom
    cause = bottom if isinstance(bottom, OSError) else error
    text = " ".join(_public(str(cause) or type(cause).__name__).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _public(text: str) -> str:
    """Leave out the name and password that an address may hold."""
    return re.sub(r"//[^/@\s]+@", "//", text)
