"""How long layers take is found out by a few steps, which change nothing and need no weights for training."""

from dataclasses import dataclass, replace
from pathlib import Path

import layered
import numpy as np
import pandas as pd
import pytest
from layered import CUTS, checkpoint, painted, source_of

from tasks.core import pace
from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.cells import Source
from tasks.core.finetune import Diverged, Step, Training
from tasks.core.hyper import Network
from tasks.core.looks import Live
from tasks.core.pace import FROZEN_BATCH, TRIALS, frozen_seconds_a_sample, seconds_a_sample

on_the_processor = layered.on_the_processor

NAME = "test_resnet"
NETWORK = Network(CUTS[NAME], "pretrained", (1e-3,), (5,), batch=8)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Backbone:
    return checkpoint(tmp_path_factory.mktemp("weights"), NAME)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pd.DataFrame:
    return painted(tmp_path_factory.mktemp("pictures"), 20)


@pytest.fixture
def behind_a_cut(backbone, table, tmp_path) -> Source:
    return source_of(backbone, table, Artifacts(tmp_path), f"{CUTS[NAME]}:none", ("centre", "hflip"))


@pytest.fixture
def on_pictures(backbone, table, tmp_path) -> Source:
    return source_of(backbone, table, Artifacts(tmp_path), None, ("centre", "crop"))


@dataclass
class Clock:
    """Goes on where it is told to."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


@pytest.fixture
def steps(monkeypatch, clock) -> list[int]:
    """The samples of each step; the first takes a minute, the others three seconds, more or less."""
    taken: list[int] = []
    take = Training._take

    def slowly(training: Training, step: Step, *given: object) -> None:
        take(training, step, *given)
        clock.now += (60, 2, 4)[len(taken)]
        taken.append(len(step.rows))

    monkeypatch.setattr(Training, "_take", slowly)
    return taken


@pytest.mark.parametrize(("batch", "samples"), [(8, 8), (20, 20), (64, 20)])
def test_a_step_of_a_full_batch_is_timed_and_the_first_does_not_count(behind_a_cut, steps, batch, samples):
    assert seconds_a_sample(behind_a_cut, replace(NETWORK, batch=batch)) == pytest.approx(3 / samples)
    assert steps == [samples] * TRIALS


@pytest.mark.parametrize("start", ["pretrained", "random"])
def test_looking_at_a_picture_counts_and_no_weights_are_read(on_pictures, start, clock, monkeypatch):
    drawn = Live.drawn

    def slowly(*given: object) -> object:
        clock.now += 4
        return drawn(*given)

    monkeypatch.setattr(Live, "drawn", slowly)
    source = replace(on_pictures, backbone=replace(on_pictures.backbone, weights=Path("/nowhere.pth")))
    whole = replace(NETWORK, cut="", start=start, batch_norm="live")
    assert seconds_a_sample(source, whole) == pytest.approx(4 / 8)


def test_random_weights_whose_loss_is_no_number_are_timed_all_the_same(behind_a_cut, clock, monkeypatch):
    def fail(*given: object) -> None:
        clock.now += 2
        raise Diverged("the loss was not finite")

    monkeypatch.setattr(Training, "_take", fail)
    assert seconds_a_sample(behind_a_cut, NETWORK) == pytest.approx(2 / 8)


def test_the_frozen_layers_are_timed_on_full_batches_and_stay_as_they_are(behind_a_cut, monkeypatch):
    seen: list[int] = []
    probe_input = pace.probe_input
    monkeypatch.setattr(pace, "probe_input", lambda spec, n: (seen.append(n), probe_input(spec, n))[1])
    before = {key: tensor.clone() for key, tensor in behind_a_cut.network.state_dict().items()}
    found = frozen_seconds_a_sample(behind_a_cut)
    assert seen == [FROZEN_BATCH]
    assert 0 < found < 1
    assert all(np.array_equal(before[key], each) for key, each in behind_a_cut.network.state_dict().items())
    assert not any(each.requires_grad for each in behind_a_cut.network.parameters())
