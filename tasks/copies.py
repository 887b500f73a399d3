"""Near copies among the samples are looked for once, in the features that are there anyway."""

from typing import Any

from tasks.caching import cached_stage
from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.copies import MOST_ROWS, near_copies
from tasks.core.heads import Experiment
from tasks.core.store import holdings, load
from tasks.core.tables import read_table
from tasks.references import Copies, Features, Samples


def _identity(inputs: dict[str, Any]) -> object:
    return [versions.COPIES, inputs["samples"].rows, _set(inputs["experiment"], inputs["features"])]


@cached_stage("copies", "{study}: look for near copies", _identity)
def find_copies(
    study: str, samples: Samples, features: Features, experiment: Experiment, artifacts: Artifacts
) -> Copies:
    """Look for near copies in an experiment's first tap; with very many samples it is left out."""
    digests = read_table(samples.table)["digest"].tolist()
    if len(digests) > MOST_ROWS:
        return Copies(pairs=[], searched=False)
    held = holdings(artifacts.features / _set(experiment, features), artifacts.seen("shard"))
    rows = load(held, digests)
    wide = rows.reshape(*rows.shape[:2], -1)  # (N, C, 1), or (N, C, places)
    pooled = wide.mean(axis=2, dtype="float32")  # (N, C)
    return Copies(pairs=[(pair.first, pair.second, pair.similarity) for pair in near_copies(pooled, digests)])


def _set(experiment: Experiment, features: Features) -> str:
    return experiment.sets(features.sets)[0]
