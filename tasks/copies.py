"""Near copies among the samples are looked for once, in the features that are there anyway."""

from typing import Any

from tasks.caching import stage
from tasks.core import versions
from tasks.core.artifacts import Artifacts
from tasks.core.copies import MOST_ROWS, near_copies
from tasks.core.heads import Inputs
from tasks.core.store import holdings, load
from tasks.core.tables import read_table
from tasks.core.taps import parse_tap, spell
from tasks.references import Copies, Features, Samples


def _identity(inputs: dict[str, Any]) -> object:
    return [versions.COPIES, inputs["samples"].rows, _set(inputs["seen"], inputs["features"])]


@stage("copies", _identity)
def find_copies(
    study: str, samples: Samples, features: Features, seen: Inputs, artifacts: Artifacts
) -> Copies:
    """Look for near copies in the first pooled tap of what heads see; it is left out with very many samples."""
    digests, name = read_table(samples.table)["digest"].tolist(), _set(seen, features)
    if name is None or len(digests) > MOST_ROWS:
        return Copies(pairs=[], searched=False)
    rows = load(holdings(artifacts.features / name, artifacts.seen("shard")), digests, "float32")
    pairs = near_copies(rows.reshape(len(rows), -1), digests)
    return Copies(pairs=[(pair.first, pair.second, pair.similarity) for pair in pairs])


def _set(seen: Inputs, features: Features) -> str | None:
    """Name the feature set of the first tap that is pooled, in the first view."""
    pooled = [tap for tap in map(parse_tap, seen.taps) if tap.pooling != "none"]
    return features.sets[spell(pooled[0], seen.views[0])] if pooled else None
