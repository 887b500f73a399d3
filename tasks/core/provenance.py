"""What a result was made with: this machine, this code, and what each feature set was made of."""

import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.core.artifacts import Artifacts
from tasks.core.commit import commit_of
from tasks.core.machine import machine
from tasks.core.store import holdings

TOLD = (
    *("backbone", "architecture", "weights", "fingerprint", "preprocessing"),
    *("tap", "view", "dtype", "versions"),
)
VERSIONS = ("headstart", "prefect", "torch", "timm", "h5py", "numpy", "pandas", "scikit-learn", "pillow")
"""Libraries that a report tells of."""


def told_of(features: Mapping[str, Mapping[str, str]], artifacts: Artifacts) -> dict[str, Any]:
    """Say when, where and with what a run's results were made.

    Args:
        features: backbone -> tap of a view -> feature set.
        artifacts: where they lie.
    """
    sets = [name for each in features.values() for name in each.values()]
    return made_with(sets, artifacts, {name: version(name) for name in VERSIONS}, Path(__file__))


def made_with(
    sets: Iterable[str], artifacts: Artifacts, versions: Mapping[str, str], code: Path
) -> dict[str, Any]:
    """Say when, where and with what a report is made.

    Args:
        sets: the names of the feature sets.
        artifacts: where they lie.
        versions: of the libraries.
        code: a file of this program, whose commit is told if it lies in a checkout.
    """
    _, processor, cores, *_ = machine()
    return {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{processor}, {cores} cores",
        "versions": dict(versions),
        "commit": commit_of(code),
        "sets": [story_of(name, artifacts) for name in dict.fromkeys(sets)],
    }


def story_of(name: str, artifacts: Artifacts) -> dict[str, Any]:
    """Say what a feature set was made of.

    Returns:
        "set", its name; what its shards tell of `TOLD`; and "made", the ways in which they were: rows of one
        set may come from several engines and devices.
    """
    held = holdings(artifacts.features / name, artifacts.seen("shard"))
    stories = [json.loads(text) for text in sorted({shard.layout.provenance for shard in held.shards})]
    told = {each: stories[0].get(each) for each in TOLD} if stories else {}
    ways = {f"{each.get('engine')} on {each.get('device')}, from {each.get('from')}" for each in stories}
    return {"set": name, **told, "made": sorted(ways)}
