"""Taps: the activations of the uncut network, and nothing computed after the deepest of them."""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tasks.core.cuts import Prefix, pool
from tasks.core.errors import RequestError
from tasks.core.networks import freeze
from tasks.core.taps import POOLINGS, Tap


class Block(nn.Module):
    """A residual block, with batch norm whose statistics are not the neutral ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.norm(self.conv(x)))


class Net(nn.Module):
    """Stem, two blocks, pooling and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.blocks = nn.ModuleDict({"one": Block(8), "two": Block(8)})
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks["two"](self.blocks["one"](self.stem(x)))
        return self.classifier(x.mean((2, 3)))


PLACES = ["stem", "blocks.one.conv", "blocks.one", "blocks.two.norm", "blocks.two", "classifier"]


TAPS = st.builds(Tap, st.sampled_from(PLACES), st.sampled_from(POOLINGS))


def settle(network: nn.Module) -> nn.Module:
    """Give seeded weights and moving statistics, then freeze."""
    torch.manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.3 * torch.rand_like(tensor) + 0.1)
    return freeze(network)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return settle(Net())


@pytest.fixture(scope="module")
def batch() -> Tensor:
    return torch.randn(4, 3, 17, 15, generator=torch.Generator().manual_seed(0))


def activations(network: nn.Module, place: str, x: Tensor) -> np.ndarray:
    """What a module of the whole network gives, copied at once, by a hook of our own."""
    kept = []
    module = network.get_submodule(place)
    hook = module.register_forward_hook(lambda module, given, out: kept.append(out.clone().numpy()))
    network(x)
    hook.remove()
    return kept[0]


def pooled_by_hand(activations: np.ndarray, pooling: str) -> np.ndarray:
    """Pool sample by sample and channel by channel."""
    if activations.ndim == 2 or pooling == "none":
        return activations
    means = np.array([[channel.mean() for channel in sample] for sample in activations])
    if pooling == "mean":
        return means
    if pooling == "max":
        return np.array([[channel.max() for channel in sample] for sample in activations])
    return np.concatenate(
        [means, np.array([[channel.std() for channel in sample] for sample in activations])], axis=1
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(Tap, st.sampled_from(PLACES), st.sampled_from(POOLINGS)),
        min_size=1,
        max_size=5,
        unique=True,
    )
)
def test_taps_are_the_uncut_networks_activations_pooled(taps):
    network = settle(Net())
    x = torch.randn(3, 3, 17, 15, generator=torch.Generator().manual_seed(0))
    for tap, found in zip(taps, Prefix(network, taps)(x), strict=True):
        expected = pooled_by_hand(activations(network, tap.cut, x), tap.pooling)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_taps_of_a_real_architecture_are_its_activations():
    torch.manual_seed(0)
    network = freeze(timm.create_model("tf_efficientnet_lite0", pretrained=False))
    x = torch.randn(2, 3, 64, 64)
    places = [
        "conv_stem",
        "bn1",
        "blocks.2",
        "blocks.4.1",
        "blocks.6.0.bn3",
        "conv_head",
        "bn2",
        "classifier",
    ]
    taps = [Tap(place, pooling) for place in places for pooling in POOLINGS]
    for tap, found in zip(taps, Prefix(network, taps)(x), strict=True):
        expected = pooled_by_hand(activations(network, tap.cut, x), tap.pooling)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-6)


def test_nothing_after_the_deepest_tap_is_computed(net, batch):
    class Mine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("computed what nobody asked for")

    network = Net()
    network.load_state_dict(net.state_dict())
    network.blocks["two"].act = Mine()
    network.classifier = Mine()
    freeze(network)
    found = Prefix(network, [Tap("stem"), Tap("blocks.two.norm"), Tap("blocks.one")])(batch)
    expected = Prefix(net, [Tap("stem"), Tap("blocks.two.norm"), Tap("blocks.one")])(batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(AssertionError, match="nobody asked for"):
        Prefix(network, [Tap("blocks.two")])(batch)


def test_hooks_are_gone_after_a_pass_and_after_one_that_failed(net, batch):
    prefix = Prefix(net, [Tap("stem"), Tap("blocks.two")])
    whole = net(batch)
    prefix(batch)
    with pytest.raises(RuntimeError):
        prefix(batch[:, :2])
    assert not [module for module in net.modules() if module._forward_hooks]
    torch.testing.assert_close(net(batch), whole, rtol=0, atol=0)


def test_buffers_and_weights_stay_byte_identical(batch):
    network = settle(Net())
    before = {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}
    prefix = Prefix(network, [Tap("blocks.two")])
    for number in range(20):
        prefix(batch * number)
    assert {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()} == before
    assert not any(module.training for module in prefix.network.modules())
    assert not any(weight.requires_grad for weight in prefix.parameters())


@pytest.mark.parametrize("place", ["", "block", "blocks.three", "blocks.one."])
def test_an_unknown_place_is_refused_with_the_known_ones(place, net):
    with pytest.raises(RequestError, match=r"stem, blocks.*classifier"):
        Prefix(net, [Tap("stem"), Tap(place or "nowhere")])


# A tap's row depends on the tap alone


class Inplace(nn.Module):
    """The activation overwrites what the convolution gave, as torchvision's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.conv(x)))


class Twice(nn.Module):
    """One activation serves at two places, as in torchvision's residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU()
        self.last = nn.Conv2d(4, 4, 3)
        self.end = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.act(self.last(self.act(self.conv(x)))))


@pytest.mark.parametrize(
    ("network", "place", "deeper"),
    [
        (Net, "blocks.one", "classifier"),
        (Inplace, "conv", "last"),
        (Twice, "act", "end"),
    ],
)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_tap_gives_the_same_row_whichever_taps_are_with_it(network, place, deeper, pooling, batch):
    torch.manual_seed(0)
    whole, tap = freeze(network()), Tap(place, pooling)
    alone = Prefix(whole, [tap])(batch)[0]
    for others in ([Tap(deeper)], [Tap(place, "mean"), Tap(place, "none"), Tap(deeper, "none")]):
        together = Prefix(whole, [tap, *(other for other in others if other != tap)])(batch)[0]
        torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_a_place_that_the_pass_never_reaches_is_refused(batch):
    network = Net()
    network.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(RequestError, match="spare"):
        Prefix(freeze(network), [Tap("spare")])(batch)


# Pooling


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_row_without_places_is_left_as_it_is(pooling):
    rows = torch.arange(6.0).reshape(2, 3)
    torch.testing.assert_close(pool(rows, pooling), rows)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_is_pooled_in_single(pooling):
    maps = (1000 + torch.arange(2 * 3 * 40 * 40).reshape(2, 3, 40, 40) % 7).half()
    expected = pooled_by_hand(maps.numpy().astype(np.float32), pooling)
    np.testing.assert_allclose(pool(maps, pooling).float().numpy(), expected, rtol=1e-5)


def test_one_place_has_no_deviation():
    pooled = pool(torch.ones(2, 3, 1, 1), "mean+std")
    torch.testing.assert_close(pooled, torch.tensor([[1.0, 1, 1, 0, 0, 0]] * 2))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 4, 4)])
@pytest.mark.parametrize("pooling", ["mean", "mean+std", "max"])
def test_what_is_no_map_cannot_be_pooled(shape, pooling):
    with pytest.raises(RequestError, match="needs"):
        pool(torch.zeros(shape), pooling)
    assert pool(torch.zeros(shape), "none").shape == shape
