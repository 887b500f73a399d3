"""Backbone -> network: the architecture built, its weights loaded, frozen."""

from collections.abc import Mapping

import timm
import torch
from torch import Tensor, nn

from tasks.core.backbones import Backbone
from tasks.core.errors import RequestError

_LITE_STAGES = {"tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1)}
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


def load_network(backbone: Backbone) -> nn.Module:
    """Build a backbone's network with its weights, in eval mode and frozen.

    Nothing is unpickled but tensors (`weights_only=True`).

    Raises:
        RequestError: if the weights are not this architecture's.
    """
    network: nn.Module = timm.create_model(backbone.architecture, pretrained=False)
    try:
        weights = torch.load(backbone.weights, map_location="cpu", weights_only=True)
        network.load_state_dict(_lite_names(weights, _LITE_STAGES[backbone.architecture]))
    except Exception as error:  # torch tells a wrong file in a dozen ways
        story = " ".join(str(error).split())[:200]
        raise RequestError(
            f"{backbone.weights}: not the weights of {backbone.architecture} ({story})"
        ) from error
    return freeze(network)


def freeze(network: nn.Module) -> nn.Module:
    """Put a network in eval mode for good: no gradient, no moving batch-norm statistics."""
    return network.eval().requires_grad_(False)


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
