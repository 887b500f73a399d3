"""A network made ready to be trained: the layers behind a cut, or all of them, with a new classifier."""

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import fx, nn

from tasks.core.backbones import Backbone
from tasks.core.cuts import Suffix
from tasks.core.digest import digest_value
from tasks.core.errors import RequestError
from tasks.core.networks import build, classifier, load_network

STATISTICS = "running_"
"""How the names of those begin that norms keep of what they have seen."""


def trainable(
    backbone: Backbone, cut: str, *, classes: int, pretrained: bool = True, seed: int = 0
) -> nn.Module:
    """Build the layers that are to be trained.

    Args:
        backbone: whose.
        cut: the layers behind it; "" for all of them.
        classes: C.
        pretrained: whether they start from the backbone's weights, or as the architecture starts by itself.
        seed: of the random start.

    Returns:
        From the activation at the cut, or from (B, 3, H, W) as the preprocessing gives it, to (B, C). The
        classifier is new; where the other layers are pretrained, it tells no class from another.

    Raises:
        RequestError: if the network has no such cut, or no classifier behind it.
    """
    network = load_network(backbone) if pretrained else build(backbone, classes=classes, seed=seed)
    return part(network, cut, classes=classes, blank=pretrained)


def part(network: nn.Module, cut: str, *, classes: int, blank: bool) -> nn.Module:
    """Take the layers behind a cut of a network, with a classifier of so many classes.

    Args:
        network: is left as it is.
        cut: as `trainable`.
        classes: C.
        blank: whether to put a new classifier in the place of the network's own.

    Raises:
        RequestError: as `trainable`.
    """
    own = deepcopy(network)
    if blank:
        with_new_classifier(own, classes)
    layers = Suffix(own.eval(), cut) if cut else own.eval()
    if cut and not _holds(layers, classifier(own)[1]):
        raise RequestError(f"cut {cut!r}: it lies behind the classifier; choose an earlier one")
    return layers.requires_grad_(True)


def with_new_classifier(network: nn.Module, classes: int) -> None:
    """Put a classifier that says the same of every class, of so many, in the place of a network's own.

    Its weights are nought. A convolution has a constant for all classes besides: it changes no probability,
    and keeps the ReLU open that stands behind SqueezeNet's, which would let no gradient through at nought.

    Raises:
        RequestError: if the network has none, or two.
    """
    name, old = classifier(network)
    _refuse_two(network, name, old)
    parent, _, child = name.rpartition(".")
    with torch.random.fork_rng(devices=[]):  # what is drawn for its first weights is not kept
        new = _like(name, old, classes)
    for each, tensor in new.named_parameters():
        nn.init.constant_(tensor, 1.0 if each == "bias" and isinstance(new, nn.Conv2d) else 0.0)
    network.get_submodule(parent).add_module(child, new)


def check_classifier(network: nn.Module, crop: int) -> None:
    """Refuse a network that does not say what a new classifier says, such as one that gives features alone.

    Args:
        network: with its own classifier, on torch's meta device; is left as it is.
        crop: pixels of a picture's side.

    Raises:
        RequestError: if it has no classifier at its end, or more than one.
    """
    x = torch.empty(2, 3, crop, crop, device="meta")
    try:
        said = network(x)
    except Exception:  # it does what cannot be done without numbers; then training tells
        return
    classes = said.shape[-1] + 1 if isinstance(said, torch.Tensor) else 1
    try:
        with torch.device("meta"):
            said = part(network, "", classes=classes, blank=True)(x)
    except RuntimeError:  # shapes that do not fit: what was replaced was no classifier, or one of two
        said = None
    if not isinstance(said, torch.Tensor) or said.shape != (2, classes):
        raise RequestError(
            "the network has no single classifier at its end that could be replaced by a new one; train heads, "
            "or choose another network"
        )


def _refuse_two(network: nn.Module, name: str, old: nn.Module) -> None:
    """Refuse a network whose answer is the mean of two classifiers, such as a distilled DeiT's."""
    shape = getattr(old, "weight", torch.empty(0)).shape
    twins = [
        other
        for other, module in network.named_modules()
        if isinstance(module, nn.Linear) and module is not old and module.weight.shape == shape
        if other.rpartition(".")[0] == name.rpartition(".")[0]
    ]
    if twins:
        raise RequestError(
            f"the network has two classifiers ({twins[0]}, {name}), and layers are trained under one alone; "
            "choose another network, or train heads"
        )


def _like(name: str, old: nn.Module, classes: int) -> nn.Module:
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, classes)
    if isinstance(old, nn.Conv2d) and old.groups == 1:
        return nn.Conv2d(old.in_channels, classes, old.kernel_size, old.stride, old.padding, old.dilation)  # type: ignore[arg-type]
    raise RequestError(f"{name}: a {type(old).__name__} of groups cannot be replaced by a new classifier")


def set_mode(layers: nn.Module, *, batch_norm: str) -> None:
    """Put layers in train mode; with frozen batch norm its statistics stay as they are."""
    layers.train()
    if batch_norm == "frozen":
        for norm in _norms(layers):
            norm.eval()


def grouped(
    layers: nn.Module, learning_rate: float, *, earlier: float, weight_decay: float
) -> list[dict[str, object]]:
    """Give each parameter its learning rate, lower for earlier layers, for an optimiser.

    The rates rise evenly, in their logarithm, from the first parameter to the last: what is early is
    general and needs to move least (Howard and Ruder 2018, section 3.2, discriminative fine-tuning). Biases
    and the scales of norms do not decay.

    Args:
        layers: of `trainable`.
        learning_rate: of the last parameter.
        earlier: the first one's, as a share of it.
        weight_decay: of matrices and kernels.

    Returns:
        A group for each; "peak" is its rate, from which "lr" is moved.
    """
    parameters = in_order(layers)
    last = max(1, len(parameters) - 1)
    peaks = [learning_rate * earlier ** (1 - number / last) for number in range(len(parameters))]
    return [
        {"params": [each], "lr": peak, "peak": peak, "weight_decay": weight_decay if each.ndim > 1 else 0.0}
        for each, peak in zip(parameters, peaks, strict=True)
    ]


def in_order(layers: nn.Module) -> list[nn.Parameter]:
    """List the parameters in the order of computation: by the graph of a suffix, else as modules are listed."""
    graph = layers.body if isinstance(layers, Suffix) else None
    if not isinstance(graph, fx.GraphModule):
        return list(layers.parameters())
    named = dict(graph.named_parameters())
    found: dict[str, nn.Parameter] = {}
    for node in graph.graph.nodes:
        if node.op in ("call_module", "get_attr"):
            place = str(node.target)
            found |= {name: named[name] for name in named if name == place or name.startswith(f"{place}.")}
    return list(found.values())


def last_linear(layers: nn.Module) -> nn.Linear | None:
    """Find the last layer, if it is linear."""
    last = in_order(layers)[-1]
    owners = [each for each in layers.modules() if any(own is last for own in each.parameters(recurse=False))]
    return owners[0] if owners and isinstance(owners[0], nn.Linear) else None


def seed_of(*parts: object) -> int:
    """Make a seed for torch of plain values."""
    return int(digest_value(list(parts))[:15], 16)


def _norms(layers: nn.Module) -> Iterator[nn.Module]:
    """Find the layers that keep running statistics."""
    for each in layers.modules():
        if any(name.startswith(STATISTICS) for name, _ in each.named_buffers(recurse=False)):
            yield each


def _holds(layers: nn.Module, module: nn.Module) -> bool:
    """Whether layers have the parameters of a module."""
    own = {id(each) for each in layers.parameters()}
    return any(id(each) in own for each in module.parameters())
