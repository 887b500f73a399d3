"""A search whose process is killed, again and again, ends with the bits of one that was not."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "layered_search.py"


def search(place: Path, result: Path, pause: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, SCRIPT, place, result, str(pause)], cwd=SCRIPT.parents[2])


def steps(place: Path) -> int:
    log = place.with_suffix(".log")
    return log.stat().st_size if log.exists() else 0


@pytest.mark.slow
def test_a_search_that_is_killed_at_any_moment_ends_with_the_same_bits(tmp_path):
    assert search(tmp_path / "whole", tmp_path / "whole.npz").wait(120) == 0
    whole = steps(tmp_path / "whole")
    assert whole == 2 * (2 + 2 + 3 + 3 + 3)  # batches of 8 in each epoch of 16 samples
    place, luck, kills = tmp_path / "killed", np.random.default_rng(0), 0
    while True:
        before = steps(place)
        process = search(place, tmp_path / "killed.npz", pause=0.05)
        wanted = before + int(luck.integers(1, 7))
        while process.poll() is None and steps(place) < wanted:
            time.sleep(0.01)
        time.sleep(luck.uniform(0, 0.1))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills >= 4
    assert steps(place) < whole + 2 * kills  # a kill costs no more than the step that was under way
    with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "killed.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
