"""A network made ready to be trained: the layers behind a cut, or all of them, with a new classifier."""

from collections.abc import Iterator
from copy import deepcopy

from torch import fx, nn

from tasks.core.backbones import Backbone
from tasks.core.cuts import Suffix
from tasks.core.digest import digest_value
from tasks.core.errors import RequestError
from tasks.core.networks import build, classifier, load_network

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
"""Layers that keep running statistics."""


def trainable(
    backbone: Backbone, cut: str, *, classes: int, pretrained: bool = True, seed: int = 0
) -> nn.Module:
    """Build the layers that are to be trained.

    Args:
        backbone: whose.
        cut: the layers behind it; "" for all of them.
        classes: C.
        pretrained: whether they start from the backbone's weights, or as the architecture starts by itself.
        seed: of the random start, and of a classifier that does not start at nought.

    Returns:
        From the activation at the cut, or from (B, 3, H, W) as the preprocessing gives it, to (B, C). The
        classifier is new: nought where the other layers are pretrained.

    Raises:
        RequestError: if the network has no such cut, or no classifier.
    """
    network = load_network(backbone) if pretrained else build(backbone, classes=classes, seed=seed)
    return part(network, cut, classes=classes, blank=pretrained)


def part(network: nn.Module, cut: str, *, classes: int, blank: bool) -> nn.Module:
    """Take the layers behind a cut of a network, with a classifier of so many classes.

    Args:
        network: is left as it is.
        cut: as `trainable`.
        classes: C.
        blank: whether to put a new classifier of noughts in the place of the network's own.
    """
    own = deepcopy(network).eval()
    if blank:
        with_new_classifier(own, classes)
    layers = Suffix(own, cut) if cut else own
    return layers.requires_grad_(True)


def with_new_classifier(network: nn.Module, classes: int) -> None:
    """Put a classifier of noughts, for so many classes, in the place of a network's own.

    Raises:
        RequestError: if the network has none.
    """
    name, old = classifier(network)
    parent, _, child = name.rpartition(".")
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, classes)
    elif isinstance(old, nn.Conv2d) and old.groups == 1:
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size, old.stride, old.padding, old.dilation)  # type: ignore[arg-type]
    else:
        raise RequestError(f"{name}: a {type(old).__name__} of groups cannot be replaced by a new classifier")
    for tensor in new.parameters():
        nn.init.zeros_(tensor)
    network.get_submodule(parent).add_module(child, new)


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
    """
    parameters = in_order(layers)
    last = max(1, len(parameters) - 1)
    return [
        {
            "params": [each],
            "lr": learning_rate * earlier ** (1 - number / last),
            "weight_decay": weight_decay if each.ndim > 1 else 0.0,
        }
        for number, each in enumerate(parameters)
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
    return (each for each in layers.modules() if isinstance(each, NORMS))
