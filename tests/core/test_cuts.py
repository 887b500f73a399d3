"""Prefix and suffix: the activations of the uncut network, and nothing computed that nobody asked for."""

import warnings

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tasks.core.cuts import Prefix, Suffix, deepest_before, pool
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


class Asking(Net):
    """The same, but its code asks for a number, which no symbol has: it cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > -1e9 else -x)


NETS = [Net, Asking]

PLACES = ["stem", "blocks.one.conv", "blocks.one", "blocks.two.norm", "blocks.two", "classifier"]
OF_MAPS = [pooling for pooling in POOLINGS if pooling != "cls"]


def settle(network: nn.Module) -> nn.Module:
    """Give seeded weights and moving statistics, then freeze."""
    torch.manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.3 * torch.rand_like(tensor) + 0.1)
    return freeze(network)


@pytest.fixture(scope="module", params=NETS, ids=["traced", "hooked"])
def net(request) -> nn.Module:
    return settle(request.param())


@pytest.fixture(scope="module")
def batch() -> Tensor:
    return torch.randn(4, 3, 17, 17, generator=torch.Generator().manual_seed(0))


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
        st.builds(Tap, st.sampled_from(PLACES), st.sampled_from(OF_MAPS)),
        min_size=1,
        max_size=5,
        unique=True,
    ),
    st.sampled_from(NETS),
)
def test_taps_are_the_uncut_networks_activations_pooled(taps, kind):
    network = settle(kind())
    x = torch.randn(3, 3, 17, 17, generator=torch.Generator().manual_seed(0))
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
    taps = [Tap(place, pooling) for place in places for pooling in OF_MAPS]
    for tap, found in zip(taps, Prefix(network, taps)(x), strict=True):
        expected = pooled_by_hand(activations(network, tap.cut, x), tap.pooling)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-6)


def test_nothing_after_the_deepest_tap_is_computed(net, batch):
    class Mine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("computed what nobody asked for")

    network = type(net)()
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


def test_buffers_and_weights_stay_byte_identical(net, batch):
    network = settle(type(net)())
    before = {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}
    prefix = Prefix(network, [Tap("blocks.two")])
    for number in range(20):
        prefix(batch * number)
    assert {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()} == before
    assert not any(module.training for module in prefix.modules())
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


class InplaceAsking(Inplace):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > -1e9 else -x)


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
        (Asking, "blocks.one", "classifier"),
        (Net, "last", "classifier"),
        (Asking, "last", "classifier"),
        (Inplace, "conv", "act"),
        (InplaceAsking, "conv", "act"),
        (Twice, "act", "end"),
    ],
)
@pytest.mark.parametrize("pooling", OF_MAPS)
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


@pytest.mark.parametrize("pooling", OF_MAPS)
def test_half_precision_is_pooled_in_single(pooling):
    maps = (1000 + torch.arange(2 * 3 * 40 * 40).reshape(2, 3, 40, 40) % 7).half()
    expected = pooled_by_hand(maps.numpy().astype(np.float32), pooling)
    np.testing.assert_allclose(pool(maps, pooling).float().numpy(), expected, rtol=1e-5)


def test_one_place_has_no_deviation():
    pooled = pool(torch.ones(2, 3, 1, 1), "mean+std")
    torch.testing.assert_close(pooled, torch.tensor([[1.0, 1, 1, 0, 0, 0]] * 2))


@pytest.mark.parametrize("pooling", ["mean", "mean+std", "max"])
def test_maps_with_channels_last_and_tokens_are_pooled_over_their_places(pooling):
    maps = torch.randn(2, 5, 7, 7, generator=torch.Generator().manual_seed(0))
    expected = pool(maps, pooling)
    torch.testing.assert_close(expected, torch.from_numpy(pooled_by_hand(maps.numpy(), pooling)))
    torch.testing.assert_close(pool(maps.permute(0, 2, 3, 1), pooling), expected)
    torch.testing.assert_close(pool(maps.flatten(2).transpose(1, 2), pooling), expected)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_map_as_deep_as_it_is_wide_is_taken_with_channels_first(channels):
    maps = torch.randn(2, channels, 4, 4)
    torch.testing.assert_close(pool(maps, "mean"), maps.mean((2, 3)))


def test_cls_is_the_first_token():
    tokens = torch.randn(2, 5, 3)
    torch.testing.assert_close(pool(tokens, "cls"), tokens[:, 0], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 4), (2,)])
@pytest.mark.parametrize("pooling", ["mean", "mean+std", "max", "cls"])
def test_what_is_no_map_cannot_be_pooled(shape, pooling):
    with pytest.raises(RequestError, match="needs"):
        pool(torch.zeros(shape), pooling)
    assert pool(torch.zeros(shape), "none").shape == shape


def test_a_map_has_no_first_token():
    with pytest.raises(RequestError, match=r"pooling 'cls' needs \(B, T, C\), this cut gives \(2, 3, 4, 4\)"):
        pool(torch.zeros(2, 3, 4, 4), "cls")


# "last", and modules of another kind


@pytest.mark.parametrize("kind", NETS)
def test_last_is_what_the_classifier_is_given(kind, batch):
    network = settle(kind())
    [row] = Prefix(network, [Tap("last")])(batch)
    assert row.shape == (4, 8)
    assert torch.equal(network.classifier(row), network(batch))


def test_last_is_before_the_dropout_and_may_be_a_map(batch):
    network = freeze(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Dropout(), nn.Conv2d(6, 5, 1), nn.Flatten()))
    [found] = Prefix(network, [Tap("last", "none")])(batch)
    assert torch.equal(found, network[0](batch))


class Pair(nn.Module):
    """Gives two tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x + 1


class OfPairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.pair(x)
        return self.attention(one, other, one)[0]


def test_a_module_without_a_single_tensor_cannot_be_tapped():
    with pytest.raises(RequestError, match="gives no single tensor"):
        Prefix(freeze(OfPairs()), [Tap("pair")])(torch.zeros(1, 3, 4))


def test_a_tap_inside_a_module_that_stays_whole_is_had_by_hooks():
    network = freeze(OfPairs())
    x = torch.randn(2, 3, 4)
    prefix = Prefix(network, [Tap("attention.out_proj", "none")])
    assert not prefix.traced
    with pytest.raises(RequestError, match="the network never runs that module"):
        prefix(x)  # torch's attention uses its weights without calling it
    with pytest.raises(RequestError, match="a tap inside a module that stays whole starts from pixels"):
        Prefix(network, [Tap("attention.out_proj", "none")], start="attention")


# Starting at a cut


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["stem", "blocks.one", "blocks.two", "last"]),
    st.lists(st.builds(Tap, st.sampled_from([*PLACES, "last"]), st.sampled_from(OF_MAPS)), min_size=1),
)
def test_from_a_stored_activation_the_rows_are_those_from_the_pixels(start, taps):
    network = settle(Net())
    order = ["stem", "blocks.one.conv", "blocks.one", "blocks.two.norm", "blocks.two", "last", "classifier"]
    x = torch.randn(3, 3, 17, 17, generator=torch.Generator().manual_seed(0))
    [stored] = Prefix(network, [Tap(start, "none")])(x)
    before = [tap for tap in taps if order.index(tap.cut) < order.index(start)]
    if before:
        with pytest.raises(RequestError, match=f"lies before cut '{start}'"):
            Prefix(network, taps, start=start)
        return
    kept = stored.clone()
    for one, other in zip(Prefix(network, taps, start=start)(stored), Prefix(network, taps)(x), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(stored, kept)


def test_only_what_lies_between_is_in_a_prefix_that_starts_at_a_cut():
    network = settle(Net())
    prefix = Prefix(network, [Tap("blocks.two.norm")], start="blocks.one")
    assert sum(each.numel() for each in prefix.parameters()) == 8 * 8 * 9 + 2 * 8


def test_the_given_activation_is_not_changed_in_place(batch):
    network = freeze(Inplace())
    [stored] = Prefix(network, [Tap("conv", "none")])(batch)
    kept = stored.clone()
    assert (kept < 0).any()
    rest = Suffix(network, "conv")
    assert torch.equal(rest(stored), network(batch))
    Prefix(network, [Tap("act", "none")], start="conv")(stored)
    assert torch.equal(stored, kept)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("blocks.one.conv", r"does not fall in two there; choose from stem, blocks\.one \("),
        ("blocks.one.act", r"does not fall in two there; choose from stem, blocks\.one \("),
        ("classifier", r"does not fall in two there; choose from last \("),
        ("blocks.tow", r"has no module of that name; choose from blocks\.two, blocks\.one"),
        ("nowhere", r"has no module of that name; choose from "),
    ],
)
def test_where_the_network_does_not_fall_in_two_nothing_starts_and_the_near_cuts_are_told(place, told):
    network = settle(Net())
    with pytest.raises(RequestError, match=rf"cut '{place}': the network {told}"):
        Prefix(network, [Tap("classifier")], start=place)
    with pytest.raises(RequestError, match=rf"cut '{place}'"):
        Suffix(network, place)


def test_a_network_that_cannot_be_traced_starts_from_its_input_alone():
    network = settle(Asking())
    for make in (lambda: Prefix(network, [Tap("classifier")], start="stem"), lambda: Suffix(network, "stem")):
        with pytest.raises(RequestError, match="Asking cannot be traced"):
            make()


@pytest.mark.parametrize(
    ("tap", "names", "expected"),
    [
        ("blocks.two", ["stem", "blocks.one"], "blocks.one"),
        ("blocks.two", ["blocks.one", "stem", "last", "blocks.one.conv", "nowhere"], "blocks.one"),
        ("blocks.two", ["stem", "blocks.two"], "blocks.two"),
        ("blocks.one.conv", ["blocks.one", "stem"], "stem"),
        ("last", ["stem", "blocks.two"], "blocks.two"),
        ("stem", ["blocks.one"], None),
        ("stem", [], None),
        ("nowhere", ["stem"], None),
    ],
)
def test_the_deepest_stored_cut_before_a_tap_is_found(tap, names, expected):
    assert deepest_before(settle(Net()), Tap(tap), names) == expected


def test_in_a_network_that_cannot_be_traced_no_cut_helps():
    assert deepest_before(settle(Asking()), Tap("classifier"), ["stem"]) is None


# As other engines take it


def test_a_traced_prefix_can_be_traced_by_torch_jit(batch):
    network = settle(Net())
    taps = [Tap("stem", "none"), Tap("blocks.one", "mean+std"), Tap("last")]
    prefix = Prefix(network, taps)
    assert prefix.traced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(prefix, batch, strict=False)
    for one, other in zip(script(2 * batch[:3]), prefix(2 * batch[:3]), strict=True):
        assert torch.equal(one, other)


def test_weights_are_shared_with_the_network(batch):
    network = settle(Net())
    prefix, rest = Prefix(network, [Tap("blocks.one", "none")]), Suffix(network, "blocks.one")
    own = {id(weight) for weight in network.parameters()}
    assert {id(weight) for weight in [*prefix.parameters(), *rest.parameters()]} == own


def test_a_suffix_trains_as_its_modules_do(batch):
    network = settle(Net())
    rest = Suffix(network, "blocks.one").train().requires_grad_(True)
    statistics = network.blocks["two"].norm.running_mean.clone()
    [stored] = Prefix(network, [Tap("blocks.one", "none")])(batch)
    rest(stored).sum().backward()
    assert network.classifier.weight.grad is not None
    assert not torch.equal(network.blocks["two"].norm.running_mean, statistics)
