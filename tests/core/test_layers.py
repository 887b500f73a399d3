"""Layers made ready to be trained: the network's own behind a cut, in order, with a classifier that may learn."""

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from layered import CUTS, SIZE, checkpoint, cut_of, tiny
from torch import Tensor, nn
from torchvision import models

from tasks.core.cuts import Prefix
from tasks.core.errors import RequestError
from tasks.core.graph import trace
from tasks.core.layers import (
    check_classifier,
    grouped,
    in_order,
    last_linear,
    part,
    seed_of,
    set_mode,
    trainable,
    with_new_classifier,
)
from tasks.core.networks import classifier, freeze, load_network
from tasks.core.taps import Tap

CLASSES = 3


def small_squeezenet() -> nn.Module:
    torch.manual_seed(0)
    return freeze(models.squeezenet1_1(num_classes=7))


def small_transformer() -> nn.Module:
    torch.manual_seed(0)
    return freeze(
        models.VisionTransformer(
            image_size=SIZE,
            patch_size=8,
            num_layers=2,
            num_heads=2,
            hidden_dim=16,
            mlp_dim=32,
            num_classes=7,
            dropout=0.1,
        )
    )


MAKES = {
    "test_resnet": lambda: tiny("test_resnet"),
    "test_efficientnet": lambda: tiny("test_efficientnet"),
    "test_convnext": lambda: tiny("test_convnext"),
    "test_vit": lambda: tiny("test_vit"),
    "squeezenet1_1": small_squeezenet,
    "VisionTransformer": small_transformer,
}
SIZES = {"squeezenet1_1": 48}


@pytest.fixture(scope="module", params=MAKES)
def named(request) -> tuple[str, nn.Module]:
    return request.param, MAKES[request.param]()


@pytest.fixture(scope="module")
def network(named) -> nn.Module:
    return named[1]


@pytest.fixture(scope="module")
def x(named) -> Tensor:
    size = SIZES.get(named[0], SIZE)
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def cuts(network) -> list[str]:
    """Every fourth cut before the classifier, and the last."""
    module = classifier(network)[0]
    names = list(trace(network).cuts)
    names = names[: names.index(module)] if module in names else names
    return [*names[:-1:4], names[-1]]


def told(network: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


def with_some_classifier(network: nn.Module) -> nn.Module:
    """A copy whose new classifier is not blank."""
    whole = deepcopy(network)
    with_new_classifier(whole, CLASSES)
    generator = torch.Generator().manual_seed(2)
    for tensor in classifier(whole)[1].requires_grad_(False).parameters():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return freeze(whole)


def order_of_use(layers: nn.Module, x: Tensor) -> list[str]:
    """Names of the parameters in the order in which their modules are called."""
    names = {id(each): name for name, each in layers.named_parameters()}
    used: list[str] = []

    def note(module: nn.Module, given: object) -> None:
        used.extend(names[id(each)] for each in module.parameters(recurse=False))

    hooks = [module.register_forward_pre_hook(note) for module in layers.modules()]
    layers(x)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(used))


def names_in_order(layers: nn.Module) -> list[str]:
    names = {id(each): name for name, each in layers.named_parameters()}
    return [names[id(each)] for each in in_order(layers)]


# What is trained is the network


def test_from_every_cut_the_layers_say_what_the_whole_network_says(network, x, cuts):
    whole = with_some_classifier(network)
    expected = whole(x)
    assert expected.shape == (3, CLASSES)
    assert expected.std() > 0
    torch.testing.assert_close(part(whole, "", classes=CLASSES, blank=False)(x), expected)
    for cut in cuts:
        [kept] = Prefix(network, [Tap(cut, "none")])(x)
        layers = part(whole, cut, classes=CLASSES, blank=False)
        torch.testing.assert_close(layers(kept), expected, rtol=1e-4, atol=1e-5)


def test_a_new_classifier_tells_no_class_from_another(network, x, cuts):
    for cut in ("", cuts[len(cuts) // 2]):
        layers = part(network, cut, classes=CLASSES, blank=True)
        said = layers(Prefix(network, [Tap(cut, "none")])(x)[0] if cut else x).softmax(1)
        assert torch.equal(said, torch.full((3, CLASSES), 1 / CLASSES))


def test_a_new_classifier_learns_though_it_begins_at_nought(network, x):
    """SqueezeNet's has a ReLU behind it, which at nought would stay shut for ever."""
    layers = part(network, "", classes=CLASSES, blank=True)
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.01)
    labels, losses = torch.arange(3), []
    for _ in range(8):
        loss = nn.functional.cross_entropy(layers(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(bool(each.grad.any()) for each in classifier(layers)[1].parameters())
    assert losses[-1] < losses[0]


def test_the_network_stays_frozen_and_shares_nothing_with_what_is_trained(network, x, cuts):
    before = told(network)
    for cut in ("", cuts[len(cuts) // 2]):
        layers = part(network, cut, classes=CLASSES, blank=True)
        assert not any(module.training for module in layers.modules())
        assert all(each.requires_grad for each in layers.parameters())
        theirs = {each.data_ptr() for each in network.state_dict().values()}
        assert not theirs & {each.data_ptr() for each in layers.state_dict().values() if each.numel() > 1}
        set_mode(layers, batch_norm="live")
        optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
        layers(Prefix(network, [Tap(cut, "none")])(x)[0] if cut else x).square().sum().backward()
        optimizer.step()
    assert told(network) == before
    assert not any(each.requires_grad for each in network.parameters())
    assert not any(module.training for module in network.modules())


def test_a_suffix_has_the_parameters_behind_its_cut_and_no_others(network, x, cuts):
    for cut in cuts:
        layers = part(network, cut, classes=CLASSES, blank=True)
        before = {id(each) for each in Prefix(network, [Tap(cut, "none")]).parameters()}
        behind = [each for each in network.parameters() if id(each) not in before]
        old = sum(each.numel() for each in classifier(network)[1].parameters())
        new = sum(each.numel() for each in list(in_order(layers))[-2:])
        assert sum(each.numel() for each in layers.parameters()) - new == sum(map(Tensor.numel, behind)) - old


# Starts


@pytest.fixture(scope="module", params=CUTS)
def backbone(request, tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("weights"), request.param)


@pytest.mark.parametrize("whole", [True, False])
def test_a_random_start_hangs_on_the_seed_alone_and_owes_nothing_to_the_weights(backbone, whole, tmp_path):
    cut = "" if whole else cut_of(backbone)
    other_weights = checkpoint(tmp_path, Path(backbone.name).name.partition("-")[0], seed=9)
    before = torch.get_rng_state()
    first, same, other, elsewhere = (
        trainable(of, cut, classes=CLASSES, pretrained=False, seed=seed)
        for of, seed in [(backbone, 1), (backbone, 1), (backbone, 2), (other_weights, 1)]
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert told(first) == told(same) == told(elsewhere)
    learnt = trainable(backbone, cut, classes=CLASSES)
    assert first.state_dict().keys() == learnt.state_dict().keys()
    for key, tensor in first.state_dict().items():
        if tensor.ndim > 1:
            assert not torch.equal(tensor, other.state_dict()[key])
            assert not torch.equal(tensor, learnt.state_dict()[key])


def test_a_pretrained_start_has_the_weights_of_the_file(backbone):
    network = load_network(backbone)
    name, _ = classifier(network)
    for cut in ("", cut_of(backbone)):
        layers = trainable(backbone, cut, classes=CLASSES)
        found = {key.removeprefix("body.network."): each for key, each in layers.state_dict().items()}
        assert len(found) > 4
        for key, tensor in found.items():
            if key.rpartition(".")[0] != name:
                assert torch.equal(tensor, network.state_dict()[key])
        assert found[f"{name}.weight"].shape[0] == CLASSES


# Order


def test_parameters_come_in_the_order_of_computation(network, x, cuts):
    for cut in cuts:
        layers = part(network, cut, classes=CLASSES, blank=True)
        [kept] = Prefix(network, [Tap(cut, "none")])(x)
        used, found = order_of_use(layers, kept), names_in_order(layers)
        assert sorted(found) == sorted(name for name, _ in layers.named_parameters())
        assert [
            name for name in found if name in used
        ] == used  # the others belong to no module that is called


class Backwards(nn.Module):
    """Lists its layers in another order than it calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.second = nn.Linear(4, 4)
        self.first = nn.Linear(3, 4)
        self.head = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.third(self.second(self.first(x)) * self.scale))


def test_the_order_is_that_of_computation_whatever_that_of_the_modules():
    layers = part(freeze(Backwards()), "first", classes=CLASSES, blank=True)
    names = [name.removeprefix("body.network.") for name in names_in_order(layers)]
    assert names == [
        "second.weight",
        "second.bias",
        "scale",
        "third.weight",
        "third.bias",
        "head.weight",
        "head.bias",
    ]
    rates = [group["lr"] for group in grouped(layers, 1.0, earlier=0.1, weight_decay=0.0)]
    np.testing.assert_allclose(rates, np.logspace(-1, 0, 7))


def test_the_last_linear_layer_is_the_classifier_and_none_where_another_layer_is_last(named, network, cuts):
    for cut in ("", cuts[0], cuts[-1]):
        found = last_linear(part(network, cut, classes=CLASSES, blank=True))
        if named[0] == "squeezenet1_1":
            assert found is None
        else:
            assert isinstance(found, nn.Linear)
            assert found.out_features == CLASSES
    assert last_linear(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))) is None


# Modes


class NormsOfAllKinds(nn.Module):
    """Each keeps statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        from timm.layers import BatchNormAct2d, EvoNorm2dB0

        self.norms = nn.Sequential(
            nn.BatchNorm2d(4),
            BatchNormAct2d(4),
            nn.SyncBatchNorm(4),
            nn.InstanceNorm2d(4, track_running_stats=True),
            EvoNorm2dB0(4),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.GroupNorm(2, 4),
        )
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norms(x).mean((2, 3))))


@pytest.mark.parametrize("make", [lambda: tiny("test_resnet"), lambda: tiny("test_efficientnet")])
@pytest.mark.parametrize(("batch_norm", "moves"), [("frozen", False), ("live", True)])
def test_statistics_behind_a_cut_stay_where_they_are_frozen_and_move_where_they_live(make, batch_norm, moves):
    network = make()
    cut = list(trace(network).cuts)[6]
    layers = part(network, cut, classes=CLASSES, blank=True)
    set_mode(layers, batch_norm=batch_norm)
    before = {name: tensor.clone() for name, tensor in layers.state_dict().items() if "running_" in name}
    layers(Prefix(network, [Tap(cut, "none")])(torch.randn(4, 3, SIZE, SIZE) + 1)[0])
    assert len(before) > 10
    assert all(torch.equal(layers.state_dict()[name], each) != moves for name, each in before.items())


def test_frozen_norms_of_every_kind_keep_their_statistics_while_dropout_drops():
    layers = NormsOfAllKinds()
    statistics = {name for name, _ in layers.named_buffers() if "running_" in name}
    assert len({name.rpartition(".")[0] for name in statistics}) == 5
    for batch_norm in ("frozen", "live"):
        set_mode(layers, batch_norm=batch_norm)
        frozen = [module for name, module in layers.named_modules() if f"{name}.running_var" in statistics]
        assert [module.training for module in frozen] == [batch_norm == "live"] * 5
        assert layers.drop.training
        assert layers.norms[5].training


def test_a_frozen_norm_gives_what_it_gives_in_eval_mode():
    network = tiny("test_efficientnet")
    layers = part(network, "", classes=CLASSES, blank=False)
    x = torch.randn(4, 3, SIZE, SIZE)
    expected = layers(x)
    set_mode(layers, batch_norm="frozen")
    torch.testing.assert_close(layers(x), expected)
    set_mode(layers, batch_norm="live")
    assert not torch.allclose(layers(x), expected)


# What cannot be trained


def test_a_cut_behind_the_classifier_is_refused():
    network = small_squeezenet()
    for cut in ("classifier.1", "classifier.2"):
        with pytest.raises(
            RequestError, match=rf"^cut '{cut}': it lies behind the classifier; choose an earlier"
        ):
            part(network, cut, classes=CLASSES, blank=True)
    assert part(network, "classifier.0", classes=CLASSES, blank=True)


def test_an_unknown_cut_is_refused(network):
    with pytest.raises(RequestError, match=r"^cut 'nowhere': "):
        part(network, "nowhere", classes=CLASSES, blank=True)


def test_a_network_without_a_classifier_that_can_be_replaced_is_refused():
    with pytest.raises(RequestError, match="no linear layer or convolution"):
        part(nn.Sequential(nn.BatchNorm2d(3)), "", classes=CLASSES, blank=True)
    with pytest.raises(RequestError, match="0: a Conv2d of groups cannot be replaced"):
        part(nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), "", classes=CLASSES, blank=True)


@pytest.mark.parametrize(
    ("architecture", "fits"),
    [
        ("resnet18", True),
        ("vit_tiny_patch16_224", True),
        ("mobilenetv3_small_100", True),
        ("vit_tiny_patch16_224.of_features", False),  # its last linear layer is in the midst of a block
        ("levit_128s", False),  # two classifiers, each under a parent of its own
        ("repvit_m0_9", False),
        ("crossvit_tiny_240", False),  # two that are not alike
    ],
)
def test_a_network_without_one_classifier_at_its_end_is_refused_before_it_has_weights(architecture, fits):
    name, _, features = architecture.partition(".")
    with torch.device("meta"):
        network = timm.create_model(name, **({"num_classes": 0} if features else {})).eval()
    size = network.default_cfg["input_size"][-1]
    with nullcontext() if fits else pytest.raises(RequestError, match="no single classifier at its end"):
        check_classifier(network, size)


def test_a_network_that_cannot_be_asked_without_numbers_is_not_refused():
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(x.mean((2, 3))) * (2 if float(x.sum()) > 0 else 1)

    check_classifier(Asks().to("meta"), 8)


@pytest.mark.parametrize("bias", [True, False])
def test_a_new_classifier_takes_the_place_of_the_old_wherever_it_stands(bias):
    network = nn.Sequential(nn.Linear(2, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 9, bias=bias)))
    with_new_classifier(network, 4)
    assert network(torch.ones(1, 2)).shape == (1, 4)
    assert [tuple(each.shape) for each in network.parameters()] == [(6, 2), (6,), (4, 6), (4,)]
    maps = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, dilation=2, bias=bias))
    shape = maps(torch.ones(2, 3, 9, 9)).shape
    with_new_classifier(maps, 4)
    assert maps(torch.ones(2, 3, 9, 9)).shape == (2, 4, *shape[2:])


# Seeds


def test_a_seed_is_told_by_its_parts_and_their_order_and_torch_takes_it():
    seeds = {seed_of(*parts) for parts in [(0,), (1,), (0, 1), (1, 0), ("0", 1), ([0], 1)]}
    assert len(seeds) == 6
    assert seed_of(7, 3) == seed_of(7, 3)
    for seed in seeds:
        torch.Generator().manual_seed(seed)
        assert 0 <= seed < 2**60


def test_a_network_of_two_classifiers_is_refused():
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, depth=1)
    with pytest.raises(RequestError, match=r"two classifiers \(head, head_dist\)"):
        part(network, "", classes=2, blank=True)
