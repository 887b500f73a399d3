"""What layers take that are to be trained, told by the network's outline or by a step on made-up samples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tasks.core.backbones import Backbone
from tasks.core.cells import Source
from tasks.core.errors import HeadstartError
from tasks.core.hyper import Network
from tasks.core.layers import part, set_mode
from tasks.core.networks import outline
from tasks.core.pace import seconds_a_sample

WEIGHTS_A_CHECKPOINT = 3
"""It holds the weights, and the optimiser's two moments of each."""
WEIGHTS_A_STEP = 4
"""In memory there are the gradients, too."""
TRIAL_BATCH = 8
"""Samples of a step that is tried on a CPU, where a sample takes as long in a small batch."""

T = TypeVar("T")


@cache
def layer_bytes(backbone: Backbone, cut: str, classes: int) -> int | None:
    """Tell how large the weights of layers are.

    Args:
        backbone: whose.
        cut: the layers behind it; "" for all of them.
        classes: C.

    Returns:
        Bytes; None if the network cannot be built without numbers.

    Raises:
        RequestError: if the network does not fall in two there.
    """
    return _known(lambda: _size(_outlined(backbone, cut, classes).state_dict().values()))


def search_bytes(network: Network, weights: int, kept: int) -> int:
    """Tell how much of the disk searches take: the layers that they keep, and one search's checkpoints.

    Args:
        network: what is searched.
        weights: bytes of the layers once.
        kept: how many searches keep their layers.
    """
    trainings = len(network.learning_rates) + len(network.epochs[1:]) + network.folds - 1
    return weights * (network.folds * kept + WEIGHTS_A_CHECKPOINT * trainings)


def step_bytes(backbone: Backbone, network: Network, shape: Sequence[int], classes: int) -> int | None:
    """Tell how much memory a step of training takes: what the way back needs of the way forth, and the weights.

    Args:
        backbone: whose layers are trained.
        network: how.
        shape: of a sample as the layers take it.
        classes: C.

    Returns:
        Bytes; None if the network cannot be run without numbers.
    """
    return _known(lambda: _step_bytes(_outlined(backbone, network.cut, classes), network, shape))


def _step_bytes(layers: nn.Module, network: Network, shape: Sequence[int]) -> int:
    set_mode(layers, batch_norm=network.batch_norm)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # several views of it count once
        return tensor

    some = 2  # batch norm wants more than one
    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = layers(torch.empty(some, *shape, device="meta"))
    assert out.requires_grad, "or nothing would have been noted"  # noqa: S101
    state = list(layers.state_dict().values())
    own = {tensor.untyped_storage()._cdata for tensor in state}
    seen = sum(bytes_ for storage, bytes_ in kept.items() if storage not in own)
    return network.batch * seen // some + WEIGHTS_A_STEP * _size(state)


def sample_seconds(source: Source, network: Network, shape: Sequence[int]) -> float:
    """Time how long layers take to learn from a sample once.

    Args:
        source: what is trained on; where it is activations, none need be stored.
        network: what is trained.
        shape: of a sample as the layers take it.
    """
    if source.inputs.taps:
        own = (source.inputs, source.backbone, source.known, source.table, source.artifacts)
        source = _Imagined(*own, shape=tuple(shape))
    if not torch.cuda.is_available():
        network = replace(network, batch=min(network.batch, TRIAL_BATCH))
    return seconds_a_sample(source, network)


@dataclass(frozen=True)
class _Imagined(Source):
    """Samples whose activations are made up."""

    shape: tuple[int, ...] = ()

    @cached_property
    def looks(self) -> "_MadeUp":
        return _MadeUp(self.shape, self.inputs.views)


@dataclass(frozen=True)
class _MadeUp:
    """Made-up activations of a shape; see `tasks.core.looks.Looks`."""

    shape: tuple[int, ...]
    views: tuple[str, ...]

    def drawn(self, rows: np.ndarray, seed: Sequence[int], epoch: int) -> Tensor:
        return torch.rand(len(rows), *self.shape)

    def fixed(self, rows: np.ndarray, view: str) -> Tensor:
        return torch.rand(len(rows), *self.shape)


def _outlined(backbone: Backbone, cut: str, classes: int) -> nn.Module:
    return part(outline(backbone), cut, classes=classes, blank=True).to("meta")


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def _known(tell: Callable[[], T]) -> T | None:
    """Ask a network; None if it does what cannot be done without numbers."""
    try:
        return tell()
    except HeadstartError:
        raise
    except Exception:
        return None
