"""Backbone -> network: the architecture built, its weights loaded, frozen."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from tasks.core.backbones import Backbone
from tasks.core.errors import RequestError
from tasks.core.libraries import TIMM

_LITE_STAGES = {
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
_LITE_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PRETRAINED_SO: Mapping[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": False, "init_weights": False},
}
"""What torchvision's builder sets for its own weights; the auxiliary heads never run in eval mode."""
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""Its published weights have a dot in names where torch no longer allows one."""


def load_network(backbone: Backbone) -> nn.Module:
    """Build a backbone's network with its weights, in eval mode and frozen.

    Nothing is unpickled but tensors (`weights_only=True`). The number of classes is the weights' own.

    Raises:
        RequestError: if the weights are not this architecture's, or are not here and cannot be downloaded.
    """
    file = backbone.weights_file()
    try:
        network = _with_weights(backbone, _read(file))
    except Exception as error:  # torch tells a wrong file in a dozen ways
        story = " ".join(str(error).split())[:200]
        raise RequestError(f"{file}: not the weights of {backbone.architecture} ({story})") from error
    return freeze(network)


def outline(backbone: Backbone) -> nn.Module:
    """Build a backbone's network without weights, on torch's meta device: shapes without numbers.

    Returns:
        In eval mode and frozen, with the architecture's usual number of classes.
    """
    with torch.device("meta"):
        return freeze(_untrained(backbone))


def build(backbone: Backbone, *, classes: int, seed: int) -> nn.Module:
    """Build a backbone's architecture with random weights, as it starts by itself.

    Args:
        backbone: whose.
        classes: of its classifier.
        seed: same seed, same weights.

    Returns:
        In eval mode and frozen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return freeze(_untrained(backbone, num_classes=classes))


def freeze(network: nn.Module) -> nn.Module:
    """Put a network in eval mode for good: no gradient, no moving batch-norm statistics."""
    return network.eval().requires_grad_(False)


def classifier(network: nn.Module) -> tuple[str, nn.Module]:
    """Find the final classifier by its place: the last linear layer or convolution.

    Returns:
        Its name and itself.

    Raises:
        RequestError: if the network has neither.
    """
    found: list[tuple[str, nn.Module]] = [
        item for item in network.named_modules() if isinstance(item[1], nn.Linear | nn.Conv2d)
    ]
    if not found:
        raise RequestError("the network has no linear layer or convolution that could be its classifier")
    return found[-1]


def _untrained(backbone: Backbone, **options: Any) -> nn.Module:
    """Build the architecture; `options` are the builder's own, such as num_classes."""
    architecture = backbone.architecture
    if architecture.startswith(TIMM) or architecture in _LITE_STAGES:
        import timm

        network: nn.Module = timm.create_model(
            architecture.removeprefix(TIMM), **(_input_size(backbone) | options)
        )
        return network
    from torchvision import models

    built: nn.Module = models.get_model(
        architecture, weights=None, **_PRETRAINED_SO.get(architecture, {}), **options
    )
    return built


def _input_size(backbone: Backbone) -> dict[str, Any]:
    """Tell timm the size of a picture where a network is built for one size."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(backbone.architecture.removeprefix(TIMM))
    fixed = config is not None and config.fixed_input_size
    return {"img_size": backbone.preprocessing.crop} if fixed else {}


def _with_weights(backbone: Backbone, state: dict[str, Tensor]) -> nn.Module:
    if "_conv_stem.weight" in state and backbone.architecture in _LITE_STAGES:
        state = _lite_names(state, _LITE_STAGES[backbone.architecture])
    classes = _other_classes(backbone, state)
    if backbone.architecture.startswith(TIMM):
        overlay = {"state_dict": state, "custom_load": False, **classes}  # timm renames what is old
        return _untrained(backbone, pretrained=True, pretrained_cfg_overlay=overlay)
    network = _untrained(backbone, **classes)
    network.load_state_dict(_modern(state, network))
    return network


def _other_classes(backbone: Backbone, state: dict[str, Tensor]) -> dict[str, int]:
    """Return the number of classes in the weights where it is not the architecture's usual one."""
    name, module = classifier(outline(backbone))
    usual, stored = module.get_parameter("weight"), state.get(f"{name}.weight")
    if stored is None or stored.ndim != usual.ndim or len(stored) == len(usual):
        return {}
    return {"num_classes": len(stored)}


def _modern(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Give torchvision's weights the names and the version that a network of today expects."""
    kept = {
        _OLD_DENSENET.sub(r"\1\2", name): tensor
        for name, tensor in state.items()
        if not name.startswith(_AUXILIARY)
    }
    modern = OrderedDict(kept)
    own = {"": {"version": network._version}}  # a safetensors file has none, and mnasnet asks for it
    modern._metadata = getattr(state, "_metadata", own)  # type: ignore[attr-defined]
    return modern


def _read(file: Path) -> dict[str, Tensor]:
    """Read a state dict, also one inside a checkpoint or of a network that was trained in parallel."""
    state: Any = (
        load_file(file)
        if file.suffix == ".safetensors"
        else torch.load(file, map_location="cpu", weights_only=True)
    )
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    consume_prefix_in_state_dict_if_present(state, "module.")
    tensors: dict[str, Tensor] = state
    return tensors


def _lite_names(weights: Mapping[str, Tensor], repeats: tuple[int, ...]) -> dict[str, Tensor]:
    """Rename EfficientNet-Lite's flat blocks to timm's stages."""
    places = [f"{stage}.{turn}" for stage, turns in enumerate(repeats) for turn in range(turns)]
    renamed = {}
    for key, tensor in weights.items():
        layer, rest = key.split(".", 1)
        if layer != "_blocks":
            renamed[f"{_LITE_OUTSIDE[layer]}.{rest}"] = tensor
            continue
        number, layer, rest = rest.split(".", 2)
        place = places[int(number)]
        names = _LITE_FIRST if place.startswith("0.") else _LITE_LATER
        renamed[f"blocks.{place}.{names[layer]}.{rest}"] = tensor
    return renamed
