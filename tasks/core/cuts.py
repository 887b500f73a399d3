"""Taps: what a network's frozen prefix leaves behind at chosen places, pooled.

Several taps are had in one pass, and nothing after the deepest of them is computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.core.errors import RequestError
from tasks.core.taps import Tap


class Prefix(nn.Module):
    """The part of a network up to the deepest of the taps.

    Args:
        network: frozen, in eval mode.
        taps: the places, as module names, and how to pool there.

    Raises:
        RequestError: if the network has no module of a tap's name.
    """

    def __init__(self, network: nn.Module, taps: Sequence[Tap]) -> None:
        super().__init__()
        modules = dict(network.named_modules())
        for tap in taps:
            if tap.cut not in modules:
                names = [name for name in modules if name.count(".") < 2 and name]
                raise RequestError(
                    f"tap {str(tap)!r}: the network has no module {tap.cut!r} (it has {', '.join(names)})"
                )
        self.network = network
        self.taps = tuple(dict.fromkeys(taps))
        self.cuts = {tap.cut: modules[tap.cut] for tap in taps}

    def forward(self, x: Tensor) -> list[Tensor]:
        """Run the network until every tap is filled.

        Args:
            x: (B, 3, H, W) as the backbone's preprocessing gives it.

        Returns:
            One (B, D) for each tap, or (B, ...) as it stands for pooling "none".
        """
        rows: dict[Tap, Tensor] = {}
        hooks = [module.register_forward_hook(self._filler(cut, rows)) for cut, module in self.cuts.items()]
        try:
            self.network(x)
        except _Filled:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        lacking = [str(tap) for tap in self.taps if tap not in rows]
        if lacking:
            raise RequestError(f"tap {lacking[0]!r}: the network never runs that module; choose another")
        return [rows[tap] for tap in self.taps]

    def _filler(self, cut: str, rows: dict[Tap, Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
        """Make a hook that fills the taps at a cut, and ends the pass when all are filled."""
        here = [tap for tap in self.taps if tap.cut == cut]

        def hook(module: nn.Module, given: object, out: Tensor) -> None:
            for tap in here:
                if tap not in rows:  # a module that runs twice is tapped the first time
                    pooled = pool(out, tap.pooling)
                    rows[tap] = pooled.clone() if pooled is out else pooled  # what follows may change it
            if len(rows) == len(self.taps):
                raise _Filled

        return hook


@dataclass
class _Filled(Exception):  # noqa: N818 - not an error: the pass ends because all is had
    pass


def pool(activations: Tensor, pooling: str) -> Tensor:
    """Reduce a map of activations to one row a sample.

    Args:
        activations: (B, C, H, W), or (B, D), which every pooling but "none" leaves as it is.
        pooling: "none", "mean", "mean+std" (population deviation) or "max".

    Returns:
        (B, C), (B, 2 C) for "mean+std", or the activations as they are for "none".

    Raises:
        RequestError: if activations of that shape cannot be pooled so.
    """
    if pooling == "none" or activations.ndim == 2:
        return activations
    if activations.ndim != 4:
        raise RequestError(
            f"pooling {pooling!r} needs (B, C, H, W), this cut gives {tuple(activations.shape)}"
        )
    places = activations.flatten(2).float()  # (B, C, H * W)
    if pooling == "max":
        return places.amax(2)
    if pooling == "mean+std":
        return torch.cat([places.mean(2), places.std(2, correction=0)], dim=1)
    return places.mean(2)
