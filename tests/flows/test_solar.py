"""The shipped study on the real data: slow, and only where the data's package is installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.study import load_study

SOLAR = Path(__file__).parents[2] / "flows" / "studies" / "solar.toml"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="elpv-dataset is not installed (extra `demo`)")
def test_solar_cells_reach_their_scores_and_a_second_run_repeats_nothing(run):
    first = run(load_study(SOLAR))
    scores = {
        (row["experiment"], row["split"]): row["metrics"]["weighted accuracy"]["value"]
        for row in first.summary["scores"]
    }
    assert len(first.forwarded) == 2624
    assert scores["last layer", "by image"] >= 0.83
    assert scores["three depths", "by image"] >= 0.85
    assert scores["three depths", "by neighbours"] < scores["three depths", "by image"]
    assert all(row["converged"] == "True" for row in first.results())
    second = run(load_study(SOLAR))
    assert (second.forwarded, second.networks, second.trained) == ([], 0, 0)
    assert second.results() == first.results()
