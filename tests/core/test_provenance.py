"""What a report says of how it was made: of this machine and code, and of every way in which rows were made."""

import json
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import tasks.report
from tasks.core.artifacts import Artifacts
from tasks.core.commit import commit_of
from tasks.core.digest import digest_value
from tasks.core.provenance import made_with, story_of
from tasks.core.store import set_folder, write_shard

STORY = {
    "backbone": "b",
    "architecture": "a",
    "weights": "w.pth",
    "fingerprint": "f" * 40,
    "preprocessing": [1, 8, 8],
    "tap": "last:mean",
    "view": "centre",
    "dtype": "float16",
    "versions": {"torch": "2"},
    "engine": "eager",
    "device": "cpu",
    "from": "pixels",
}


@pytest.fixture
def stored(tmp_path):
    """Artifacts with one set of three shards, of which one came from another engine."""
    artifacts = Artifacts(tmp_path)
    folder = set_folder(artifacts.features, {"a": 1})
    for number, engine in enumerate(("eager", "openvino", "eager")):
        rows = np.zeros((2, 3), dtype=np.float16)
        digests = [digest_value([number, row]) for row in range(2)]
        write_shard(folder, digests, rows, STORY | {"engine": engine})
    return artifacts, folder.name


def test_a_set_tells_its_origin_and_each_engine_once(stored):
    artifacts, name = stored
    told = {key: value for key, value in STORY.items() if key not in ("engine", "device", "from")}
    ways = ["eager on cpu, from pixels", "openvino on cpu, from pixels"]
    assert story_of(name, artifacts) == {"set": name, **told, "made": ways}


def test_a_set_without_rows_has_nothing_to_tell(tmp_path):
    assert story_of("a" * 40, Artifacts(tmp_path)) == {"set": "a" * 40, "made": []}


def test_a_run_tells_its_time_machine_and_code(stored):
    artifacts, name = stored
    code = Path(tasks.report.__file__)
    made = made_with([name, name], artifacts, {"torch": "2"}, code)
    assert abs(datetime.fromisoformat(made["ended"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert made["ended"].endswith("+00:00")
    assert made["python"] == platform.python_version()
    assert made["commit"] == commit_of(code)
    assert [each["set"] for each in made["sets"]] == [name]
    assert made["versions"] == {"torch": "2"}
    assert json.loads(json.dumps(made, allow_nan=False)) == made
