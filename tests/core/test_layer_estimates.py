"""What layers take is told without training them, and is what training them then takes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import find_backbone
from tasks.core.cells import Source
from tasks.core.checkpoints import Checkpoint
from tasks.core.digest import digest_bytes
from tasks.core.errors import RequestError
from tasks.core.finetune import Course, Samples, Training
from tasks.core.heads import Inputs
from tasks.core.hyper import Network
from tasks.core.layer_estimates import layer_bytes, sample_seconds, search_bytes, step_bytes
from tasks.core.layers import part, set_mode
from tasks.core.networks import build
from tasks.core.truth import Known

SMALL = find_backbone("lite0", resize=48, crop=48)
CUTS = {"": (3, 48, 48), "blocks.4": (112, 3, 3), "global_pool": (1280,)}


def network(cut: str, **changes) -> Network:
    return Network(cut, "pretrained", (1e-3, 3e-3), (2, 4), **({"batch": 4, "folds": 3} | changes))


@pytest.mark.parametrize("cut", CUTS)
def test_layers_are_as_large_as_those_that_are_built(cut):
    layers = part(build(SMALL, classes=7, seed=0), cut, classes=7, blank=False)
    assert layer_bytes(SMALL, cut, 7) == sum(each.nbytes for each in layers.state_dict().values())


@pytest.mark.parametrize(
    "tell", [layer_bytes, lambda backbone, cut, n: step_bytes(backbone, network(cut), (3,), n)]
)
def test_where_the_network_does_not_fall_in_two_it_is_refused(tell):
    with pytest.raises(RequestError, match=r"choose from blocks\.4\.0, blocks\.4\.1"):
        tell(SMALL, "blocks.4.1.conv_pw", 2)


def test_a_network_that_cannot_be_built_without_numbers_tells_nothing(monkeypatch):
    def outline(backbone: object) -> torch.nn.Module:
        raise NotImplementedError

    monkeypatch.setattr("tasks.core.layer_estimates.outline", outline)
    assert layer_bytes(SMALL, "", 11) is None
    assert step_bytes(SMALL, network(""), (3, 48, 48), 11) is None


def test_searches_keep_a_network_a_fold_and_while_one_lasts_a_checkpoint_a_training():
    """Two learning rates, one more number of epochs, and two more folds."""
    assert search_bytes(network("", folds=3), 100, kept=4) == 100 * (3 * 4 + 3 * 5)


def test_a_checkpoint_is_as_large_as_three_times_the_layers(tmp_path):
    layers = part(build(SMALL, classes=2, seed=0), "blocks.4", classes=2, blank=False)
    looks = _Rows(torch.rand(8, 112, 3, 3))
    samples = Samples(looks, np.arange(8), Known(np.array([0, 1] * 4), np.ones(8), np.arange(8), 2))
    checkpoint = Checkpoint(tmp_path / "x.checkpoint")
    Training(layers, samples, Course(1e-3, epochs=1, batch=4), checkpoint).run()
    assert checkpoint.path.stat().st_size == pytest.approx(3 * layer_bytes(SMALL, "blocks.4", 2), rel=0.05)


class _Rows:
    """Activations in memory."""

    views = ("centre",)

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def drawn(self, rows, seed, epoch):
        return self.rows[rows]

    def fixed(self, rows, view):
        return self.rows[rows]


@pytest.mark.parametrize("cut", ["", "blocks.4"])
@pytest.mark.parametrize("batch_norm", ["frozen", "live"])
def test_a_steps_memory_is_what_is_kept_for_the_way_back(cut, batch_norm):
    layers = part(build(SMALL, classes=2, seed=0), cut, classes=2, blank=False)
    set_mode(layers, batch_norm=batch_norm)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = layers(torch.rand(4, *CUTS[cut]))
    own = {each.untyped_storage().data_ptr() for each in layers.state_dict().values()}
    real = sum(size for place, size in kept.items() if place not in own)
    told = step_bytes(SMALL, network(cut, batch_norm=batch_norm), CUTS[cut], 2)
    assert told - 4 * layer_bytes(SMALL, cut, 2) == pytest.approx(
        real, rel=0.1
    )  # but for a few numbers a channel
    assert out.requires_grad


def test_a_larger_batch_takes_more_memory():
    small, large = (step_bytes(SMALL, network("", batch=batch), (3, 48, 48), 2) for batch in (4, 40))
    weights = 4 * layer_bytes(SMALL, "", 2)
    assert large - weights == pytest.approx(10 * (small - weights), rel=1e-3)


@pytest.fixture
def source(pictures, tmp_path):
    """Pictures of which no activations are kept."""

    def of(*taps: str) -> Source:
        paths = sorted(map(str, pictures.rglob("*.png")))
        table = pd.DataFrame(
            {
                "path": paths,
                "digest": [digest_bytes(Path(path).read_bytes()) for path in paths],
                "label": [Path(path).parent.name for path in paths],
                "weight": 1.0,
            }
        )
        return Source(
            Inputs("small", taps, ("centre", "hflip")), SMALL, {}, table, Artifacts(tmp_path / "out")
        )

    return of


@pytest.mark.parametrize(("cut", "taps"), [("", ()), ("blocks.4", ("blocks.4:none",))])
def test_a_step_is_tried_though_nothing_is_stored_and_nothing_is_left_behind(source, tmp_path, cut, taps):
    assert sample_seconds(source(*taps), network(cut), CUTS[cut]) > 0
    assert not (tmp_path / "out").exists()


def test_later_layers_are_faster(source):
    everything = sample_seconds(source(), network(""), CUTS[""])
    late = sample_seconds(source("blocks.4:none"), network("blocks.4"), CUTS["blocks.4"])
    assert late < everything
