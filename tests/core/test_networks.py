"""Networks: the right weights in the right places, and nothing else is let in."""

import os
from collections import OrderedDict
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tasks.core.backbones import Backbone, find_backbone, known_backbones
from tasks.core.cuts import Prefix
from tasks.core.digest import digest_bytes
from tasks.core.engine import run_prefix
from tasks.core.errors import RequestError
from tasks.core.media import pixels
from tasks.core.networks import freeze, load_network
from tasks.core.taps import Tap


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return find_backbone("lite0")


@pytest.fixture(scope="module")
def network(lite0) -> nn.Module:
    return load_network(lite0)


@pytest.fixture(scope="module")
def stored(lite0) -> dict[str, torch.Tensor]:
    return torch.load(lite0.weights, weights_only=True)


def photos() -> list[Path]:
    """Twenty photos of ImageNet classes inside foolbox; the class is the last number of the name."""
    found = find_spec("foolbox")
    assert found, 'package foolbox holds the photos; install ".[test]"'
    return sorted(Path(found.origin).parent.glob("data/imagenet_*.jpg"))


def test_the_bundled_network_knows_what_the_photos_show(lite0, network):
    samples = [(digest_bytes(path.read_bytes()), path) for path in photos()]
    prefix = Prefix(network, [Tap("classifier")])
    batches = run_prefix(prefix, samples, lite0.preprocessing, torch.device("cpu"))
    logits = np.concatenate([batch.rows[0] for batch in batches])
    labels = np.array([int(path.stem.rsplit("_", 1)[1]) for _, path in samples])
    assert logits.shape == (20, 1000)
    order = np.argsort(-logits, axis=1)
    assert (order[:, :5] == labels[:, None]).any(axis=1).sum() >= 19
    assert (order[:, 0] == labels).sum() >= 16


def test_every_stored_tensor_stands_in_the_network_once(network, stored):
    def contents(state):
        return sorted(
            (tuple(tensor.shape), tensor.contiguous().numpy().tobytes()) for tensor in state.values()
        )

    assert contents(network.state_dict()) == contents(stored)


@pytest.mark.parametrize("name", known_backbones())
def test_a_network_is_frozen_and_gives_its_last_cut(name):
    backbone = find_backbone(name)
    network = load_network(backbone)
    assert not any(module.training for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())
    picture = pixels(photos()[0].read_bytes(), backbone.preprocessing)
    x = torch.from_numpy(picture)[None].float()
    [row] = Prefix(network, [Tap(backbone.last)])(x)
    assert row.ndim == 2
    assert torch.isfinite(row).all()


def test_freezing_is_for_the_whole_network():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())).train()
    assert freeze(network) is network
    assert not any(module.training for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())


# Wrong weights


def renamed(stored):
    return {f"module.{name}": tensor for name, tensor in stored.items()}


def incomplete(stored):
    return {name: tensor for name, tensor in stored.items() if name != "_fc.bias"}


def of_other_classes(stored):
    return {**stored, "_fc.weight": torch.zeros(10, 1280), "_fc.bias": torch.zeros(10)}


def of_another_network(stored):
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).state_dict()


def of_a_deeper_sister(stored):
    """EfficientNet-Lite1 has the same names, and more blocks."""
    deeper = {
        name.replace("_blocks.15.", "_blocks.16."): tensor
        for name, tensor in stored.items()
        if name.startswith("_blocks.15.")
    }
    return {**stored, **deeper}


def nameless(stored):
    return {"weight": torch.zeros(3)}


def no_mapping(stored):
    return torch.zeros(3)


def nested(stored):
    return {"state_dict": OrderedDict(stored), "epoch": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        renamed,
        incomplete,
        of_other_classes,
        of_another_network,
        of_a_deeper_sister,
        nameless,
        no_mapping,
        nested,
    ],
)
def test_weights_of_something_else_are_refused(wrong, lite0, stored, tmp_path):
    torch.save(wrong(stored), tmp_path / "weights.pth")
    with pytest.raises(RequestError, match=r"weights\.pth: not the weights of tf_efficientnet_lite0"):
        load_network(replace(lite0, weights=tmp_path / "weights.pth"))


@pytest.mark.parametrize("kind", ["text", "empty", "cut short"])
def test_a_damaged_weights_file_is_refused(kind, lite0, tmp_path):
    data = {"text": b"hello", "empty": b"", "cut short": lite0.weights.read_bytes()[:100_000]}[kind]
    (tmp_path / "weights.pth").write_bytes(data)
    with pytest.raises(RequestError, match=r"weights\.pth"):
        load_network(replace(lite0, weights=tmp_path / "weights.pth"))


class Code:
    """When unpickled, makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(lite0, stored, tmp_path):
    mark = tmp_path / "ran"
    torch.save({**stored, "_fc.bias": Code(mark)}, tmp_path / "weights.pth")
    with pytest.raises(Exception, match=r"(?i)weights"):
        load_network(replace(lite0, weights=tmp_path / "weights.pth"))
    assert not mark.exists()
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert mark.exists(), "the pickle would have run its code"
