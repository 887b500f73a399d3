"""Kept layers -> networks that speak."""

from copy import deepcopy

import torch
from torch import nn

from tasks.core.backbones import Backbone
from tasks.core.errors import RequestError
from tasks.core.heads import HeadFile
from tasks.core.layers import trainable
from tasks.core.predictors import Networks


def open_layers(head: HeadFile, backbone: Backbone) -> list[nn.Module]:
    """Make networks of the layers that a search kept.

    Args:
        head: of `tasks.core.heads.load_heads`.
        backbone: whose layers they are.

    Returns:
        A module for each inner fold, in eval mode: from the activation at the cut (or the preprocessed
        picture, where all layers were trained) to (B, C). What they say together is the mean of their
        probabilities, after division of the log probabilities by `head.predictor.temperature`.

    Raises:
        RequestError: if the file holds no layers of a network, or another network's.
    """
    kind, hyper = head.story["hyper"]
    if not isinstance(head.predictor, Networks):
        raise RequestError(
            f"head {kind!r} takes rows of features; open it with tasks.core.estimators.open_head"
        )
    if not head.predictor.tensors:
        raise RequestError("these layers were trained on a share of the samples, or not at all, and not kept")
    classes, pretrained = len(head.story["classes"]), hyper["start"] == "pretrained"
    shape = trainable(backbone, hyper["cut"], classes=classes, pretrained=pretrained)
    networks = []
    for state in head.predictor.states():
        layers = deepcopy(shape)
        try:
            layers.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        except RuntimeError as error:
            story = " ".join(str(error).split())[:160]
            raise RequestError(
                f"{backbone.name}: not the network whose layers these are ({story})"
            ) from error
        networks.append(layers.eval().requires_grad_(False))
    return networks
