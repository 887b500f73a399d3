"""Cuts: at each one that is listed, suffix after prefix equals the uncut network, bit for bit."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from tasks.core.backbones import find_backbone
from tasks.core.cuts import Prefix, Suffix
from tasks.core.graph import CannotTrace, describe_cuts, trace
from tasks.core.networks import freeze, outline
from tasks.core.taps import Tap

FAST = ["resnet18", "squeezenet1_1", "timm:resnet10t"]

OF_TORCHVISION = {  # one or more of each family, and the smallest input that suits it
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnet50": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_0": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 64,
    "vgg11_bn": 64,
    "vit_b_32": 224,
}

OF_TIMM = {
    "convnext_atto": 64,
    "convnextv2_atto": 64,
    "efficientnet_b0": 64,
    "tf_efficientnet_lite0": 64,
    "resnet26": 64,
    "vit_tiny_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "swinv2_tiny_window8_256": 256,
    "mobilenetv3_small_050": 64,
    "mobilenetv4_conv_small": 64,
    "regnetx_002": 64,
    "mixer_s32_224": 224,
    "gmlp_ti16_224": 224,
    "deit_tiny_patch16_224": 224,
    "deit_tiny_distilled_patch16_224": 224,
    "densenet121": 64,
    "nfnet_f0": 64,
    "levit_128s": 224,
    "cait_xxs24_224": 224,
    "xcit_nano_12_p16_224": 224,
    "poolformer_s12": 64,
    "edgenext_xx_small": 64,
    "mobilevit_xxs": 64,
    "ghostnet_050": 64,
    "coatnet_nano_rw_224": 224,
    "beit_base_patch16_224": 224,
    "pvt_v2_b0": 64,
    "hiera_tiny_224": 224,
}


def numbered(network: nn.Module) -> nn.Module:
    """Put numbers into every weight that let every path reach the output: many start as zero."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.ndim > 1:
            drawn = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(drawn * (2 / max(1, tensor[0].numel())) ** 0.5)
        else:
            drawn = 0.4 * torch.rand(tensor.shape, generator=generator)
            tensor.copy_(drawn + (0.8 if name.endswith(("weight", "var", "gamma")) else -0.2))
    return freeze(network)


def built(name: str) -> nn.Module:
    if name.startswith("timm:"):
        return numbered(timm.create_model(name.removeprefix("timm:")))
    inception = {"init_weights": False, "transform_input": True}
    options = inception if name in ("googlenet", "inception_v3") else {}
    return numbered(models.get_model(name, weights=None, **options))


def check_every_cut(name: str, size: int) -> None:
    network = built(name)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = network(x)
        assert whole.isfinite().all()
        assert not torch.equal(whole[0], whole[1]), "the input must reach the output"
        cuts = list(trace(network).cuts)
        assert cuts
        stored = Prefix(network, [Tap(cut, "none") for cut in cuts])(x)
        for cut, activation in zip(cuts, stored, strict=True):
            kept = activation.clone()
            assert torch.equal(Suffix(network, cut)(activation), whole), cut
            assert torch.equal(activation, kept), cut
        assert torch.equal(network(x), whole), "tracing must leave the network as it was"


@pytest.mark.parametrize("name", FAST)
def test_suffix_after_prefix_is_the_uncut_network(name):
    check_every_cut(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), OF_TORCHVISION.items())
def test_suffix_after_prefix_is_the_uncut_network_of_torchvisions(name, size):
    check_every_cut(name, size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), OF_TIMM.items())
def test_suffix_after_prefix_is_the_uncut_network_of_timms(name, size):
    check_every_cut(f"timm:{name}", size)


# What is a cut


class Branching(nn.Module):
    """Two residual blocks, of which the second adds what came before the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.nothing, self.drop = nn.BatchNorm2d(4), nn.Identity(), nn.Dropout()
        self.three = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)
        self.spare = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.spare(x.mean((2, 3)))  # its result goes nowhere
        y = self.one(x)
        x = self.nothing(self.norm(x + self.two(y)))
        x = x + self.three(x)
        return self.head(self.drop(x.mean((2, 3))))


@pytest.fixture
def branching():
    return numbered(Branching())


def test_a_cut_is_where_every_path_runs_through(branching):
    traced = trace(branching)
    assert list(traced.cuts) == ["stem.0", "stem", "norm", "last"]


def test_a_cut_has_the_names_of_all_modules_that_return_it(branching):
    traced = trace(branching)
    assert [traced.cut_name(name) for name in ("stem", "stem.1", "norm", "nothing", "drop", "last")] == [
        *("stem", "stem", "norm", "norm", "last", "last")
    ]
    assert [traced.cut_name(name) for name in ("one", "two", "three", "head", "spare", "no such")] == [
        None
    ] * 6


def test_leaving_any_other_place_out_would_change_the_output(branching):
    """Independently: a place is a cut if the output stays when all before it is another sample's."""
    x, other = torch.randn(2, 1, 3, 8, 8)
    for place in ("stem.0", "stem", "one", "two", "norm", "three", "nothing"):
        kept = {}

        def keep(module, given, out, kept=kept):
            kept["out"] = out.clone()

        def put(module, given, out, kept=kept):
            return kept["out"].clone()

        module = branching.get_submodule(place)
        hook = module.register_forward_hook(keep)
        whole = branching(x)
        hook.remove()
        hook = module.register_forward_hook(put)
        is_cut = torch.equal(branching(other), whole)
        hook.remove()
        assert is_cut == (trace(branching).cut_name(place) is not None), place


def test_a_module_that_runs_twice_counts_the_first_time():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.conv(self.act(x)) - 1).flatten(1)

    network = numbered(Twice())
    x = torch.randn(1, 3, 4, 4)
    assert list(trace(network).cuts) == ["act", "conv"]
    [first] = Prefix(network, [Tap("act", "none")])(x)
    assert torch.equal(first, x.relu())


def test_what_is_made_of_weights_alone_crosses_no_cut():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(5, 4))
            self.one, self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            torch._assert(x.shape[1] == 4, "four tokens")
            token = 2 * self.token  # made before the cut, used behind it
            x = self.one(x)
            x = torch.cat([token.expand(x.shape[0], -1, -1), x], dim=1)
            return self.head(self.two(x + self.place)[:, 0])

    network = freeze(Tokens())
    assert list(trace(network).cuts) == ["one", "two", "last"]
    x = torch.randn(3, 4, 4)
    [stored] = Prefix(network, [Tap("one", "none")])(x)
    assert torch.equal(Suffix(network, "one")(stored), network(x))


def test_tracing_leaves_no_symbols_in_a_network_that_keeps_what_it_computes():
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.kept = nn.Conv2d(3, 3, 1), {}

        def forward(self, x: Tensor) -> Tensor:
            if "mean" not in self.kept:
                self.kept["mean"] = x.mean()
            return self.conv(x - self.kept["mean"]).flatten(1)

    network = freeze(Keeping())
    trace(network)
    assert network.kept == {}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto"])
def test_a_suffix_of_timms_trains_as_the_network_does(name):
    network = numbered(timm.create_model(name, drop_path_rate=0.9))
    cut = next(cut for cut in trace(network).cuts if cut.count(".") == 1)
    [stored] = Prefix(network, [Tap(cut, "none")])(torch.randn(4, 3, 64, 64))
    rest = Suffix(network, cut)
    assert torch.equal(rest(stored), rest(stored))
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    rest.train()
    assert not torch.equal(rest(stored), rest(stored))
    changed = [name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])]
    assert bool(changed) == (name == "tf_efficientnet_lite0")  # which has batch norm


def test_a_module_that_cannot_be_followed_stays_whole():
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if x.sum() > 0 else self.inner(-x)

    network = numbered(
        nn.Sequential(nn.Conv2d(3, 3, 1), Asking(), Asking(), nn.Conv2d(3, 2, 1), nn.Flatten())
    )
    assert list(trace(network).cuts) == ["0", "1", "2", "3"]
    for sign in (1, -1):
        x = sign * torch.rand(1, 3, 4, 4)
        [stored] = Prefix(network, [Tap("1", "none")])(x)
        assert torch.equal(Suffix(network, "1")(stored), network(x))


def test_a_network_that_cannot_be_followed_says_why():
    class Asking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CannotTrace, match=r"^Asking cannot be traced \(.*control flow.*\)$"):
        trace(Asking().eval())


def test_a_network_of_two_outputs_says_that_it_cannot_be_traced():
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x + 2

    with pytest.raises(CannotTrace, match="Both"):
        trace(Both().eval())


# What a cut costs


def test_cuts_are_measured_without_weights():
    backbone = find_backbone("resnet18")
    network = outline(backbone)
    cuts = {cut.name: cut for cut in describe_cuts(trace(network), 224)}
    assert cuts["conv1"].shape == (64, 112, 112)
    assert cuts["layer3"].shape == (256, 14, 14)
    assert cuts["last"].shape == (512,)
    assert cuts["last"].parameters == 513 * 1000
    assert cuts["layer4"].parameters == 513 * 1000
    whole = sum(weight.numel() for weight in network.parameters())
    assert cuts["conv1"].parameters == whole - 64 * 3 * 49
    conv1 = 2 * 64 * 3 * 49 * 112**2  # a multiplication and an addition are two
    assert cuts["conv1"].flops == pytest.approx(conv1 / (2 * 1.814e9), rel=1e-3)
    assert cuts["bn1"].flops == cuts["conv1"].flops
    assert 1 - cuts["last"].flops == pytest.approx(512 * 1000 / 1.814e9, rel=1e-3)
    shares = [cut.flops for cut in cuts.values()]
    assert shares == sorted(shares)


@pytest.mark.parametrize("name", ["lite0", "swin_t", "vit_b_32", "timm:vit_tiny_patch16_224"])
def test_shapes_are_those_of_the_activations(name):
    backbone = find_backbone(name)
    cuts = describe_cuts(trace(outline(backbone)), backbone.preprocessing.crop)
    network = built({"lite0": "timm:tf_efficientnet_lite0"}.get(name, name))
    side = backbone.preprocessing.crop
    stored = Prefix(network, [Tap(cut.name, "none") for cut in cuts])(torch.zeros(1, 3, side, side))
    assert [cut.shape for cut in cuts] == [tuple(each.shape[1:]) for each in stored]
