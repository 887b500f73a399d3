"""Sizes are those that a run writes, and times follow from what was tried."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made import noisy_classes

from tasks.core.backbones import find_backbone
from tasks.core.choice import Measured
from tasks.core.cuts import Prefix
from tasks.core.errors import RequestError
from tasks.core.estimates import (
    Pace,
    decode_some,
    extrapolated,
    find_pace,
    made_up,
    mixed,
    row_shapes,
    time_training,
)
from tasks.core.hyper import Ridge, Softmax
from tasks.core.networks import load_network
from tasks.core.taps import Tap

SMALL = find_backbone("lite0", resize=48, crop=48)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_shapes_are_those_of_the_rows_that_the_network_gives():
    taps = [Tap("bn2"), Tap("blocks.2", "mean+std"), Tap("blocks.1", "none")]
    rows = Prefix(load_network(SMALL), taps)(torch.zeros(1, 3, 48, 48))
    assert row_shapes(SMALL, taps) == [tuple(row.shape[1:]) for row in rows]


def test_a_tap_that_the_network_lacks_is_refused():
    with pytest.raises(RequestError, match="no module 'nowhere'"):
        row_shapes(SMALL, [Tap("nowhere")])


def test_a_network_that_cannot_run_without_numbers_tells_no_shapes(monkeypatch):
    def outline(backbone: object) -> torch.nn.Module:
        raise NotImplementedError

    monkeypatch.setattr("tasks.core.estimates.outline", outline)
    assert row_shapes(SMALL, [Tap("bn2")]) is None


def test_the_pace_is_that_of_the_engine_which_is_done_first(no_gpu):
    known = {"slow": Measured(0, 10), "fast": Measured(50, 100), "broken": Measured(0, 0, problem="no")}
    few, many = (find_pace(SMALL, [Tap("bn2")], [], known, passes) for passes in (10, 10_000))
    assert few == Pace(0.1, 0, "by slow, as measured before")
    assert many == Pace(0.01, 50, "by fast, as measured before")
    assert many.seconds(100, decoding=0.02) == pytest.approx(50 + 100 * 0.03)


def test_without_a_measurement_the_network_is_tried(no_gpu, pictures, monkeypatch):
    monkeypatch.setattr("tasks.core.estimates.PATIENCE", 0.0)
    files = {path.stem: str(path) for path in (pictures / "lying").iterdir()}
    seconds, decoded = decode_some(SMALL, "centre", files)
    assert seconds > 0
    assert [picture.shape for picture in decoded] == [(3, 48, 48)] * len(files)
    pace = find_pace(SMALL, [Tap("blocks.1")], decoded, {}, 10)
    assert pace.forward > 0
    assert pace.basis.startswith("at most")


@given(st.integers(1, 2), st.floats(0.01, 10), st.integers(1000, 100_000))
def test_what_grows_as_a_power_is_foretold(power, unit, rows):
    took = [(n, unit * n**power) for n in (128, 256)]
    assert extrapolated(took, rows) == pytest.approx(unit * rows**power, rel=1e-6)


def test_odd_trials_are_kept_within_reason():
    assert extrapolated([(100, 2.0), (200, 1.0)], 400) == pytest.approx(2.0)
    assert extrapolated([(100, 1.0), (200, 100.0)], 400) == pytest.approx(400.0)
    assert extrapolated([(100, 1.0)], 400) == pytest.approx(8.0)


def test_small_networks_take_less_than_in_proportion():
    """With more rows they stop after fewer epochs; what two short trials say of that is too noisy to go by."""
    took = [(128, 1.0), (256, 3.0)]
    assert 3.0 < extrapolated(took, 1024, networks=True) < 12.0


def test_trials_have_ever_more_rows_and_every_class_fills_its_folds():
    features, labels, _ = noisy_classes(600, 20, 3)
    order = mixed(labels)
    took = time_training(features[order], labels[order], [Softmax(1.0), Ridge(1.0)], classes=3)
    rows = [n for n, _ in took]
    assert rows == sorted(set(rows))
    assert all(seconds > 0 for _, seconds in took)


def test_too_few_rows_tell_nothing():
    labels = np.array([0, 1] * 4)
    assert time_training(made_up(labels, 5), labels, [Ridge(1.0)], classes=2) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 80))
def test_each_beginning_has_its_share_of_each_class(labels, first):
    labels = np.array(labels)
    order, first = mixed(labels), min(first, len(labels))
    assert sorted(order) == list(range(len(labels)))
    for name in set(labels.tolist()):
        share = (labels == name).mean()
        assert abs((labels[order[:first]] == name).sum() - share * first) <= 2.5


def test_made_up_features_are_the_same_each_time():
    labels = np.array([0, 1, 2, 0])
    assert made_up(labels, 7).shape == (4, 7)
    assert (made_up(labels, 7) == made_up(labels, 7)).all()
