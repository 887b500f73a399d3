"""The new classifier at its optimum on layers that are frozen, before they are trained.

Layers that are trained under a random classifier lose what they knew while it finds its way; one that starts
at its optimum spares them that (Kumar et al. 2022, "Fine-tuning can distort pretrained features", LP-FT).
"""

import numpy as np
import torch
from torch import Tensor, nn

from tasks.core.finetune import ask
from tasks.core.hyper import Softmax
from tasks.core.layers import last_linear
from tasks.core.linear import train_softmax
from tasks.core.looks import Looks
from tasks.core.predictors import Linear

STRENGTH = 0.1
"""Of the L2 penalty, on standardised features; from where it starts is all that hangs on it."""


def start_at_optimum(
    layers: nn.Module,
    looks: Looks,
    labels: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
    *,
    classes: int,
) -> None:
    """Put the last layer at the optimum of regularised softmax regression on what reaches it.

    Args:
        layers: in eval mode; a last layer that is not linear stays as it is.
        looks: at all samples; all fixed views are learnt from.
        labels: (N,) int, of all.
        weights: (N,) likewise.
        rows: (n,) numbers of the samples to learn from.
        classes: C.
    """
    final = last_linear(layers)
    if final is None:
        return
    layers.to("cuda" if torch.cuda.is_available() else "cpu")  # where they are trained
    features = reaching(layers, final, looks, rows)  # (V * n, D)
    views = len(looks.views)
    [fit] = train_softmax(
        features,
        np.tile(labels[rows], views),
        np.tile(weights[rows], views) / views,
        classes=classes,
        hypers=[Softmax(STRENGTH)],
        folds=[],
    )
    assert isinstance(fit.predictor, Linear)  # noqa: S101
    with torch.no_grad():
        final.weight.copy_(torch.from_numpy(fit.predictor.weight))
        final.bias.copy_(torch.from_numpy(fit.predictor.bias))


def reaching(layers: nn.Module, final: nn.Linear, looks: Looks, rows: np.ndarray) -> np.ndarray:
    """What the last layer is given of samples, the views below each other: (V * n, D) float32."""
    seen: list[Tensor] = []
    hook = final.register_forward_pre_hook(lambda module, given: seen.append(given[0].float().cpu()))
    try:
        ask(layers, looks, rows)
    finally:
        hook.remove()
    found: np.ndarray = torch.cat(seen).numpy()
    return found
