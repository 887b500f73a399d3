"""A network cut in two: the frozen prefix with its taps, and the suffix behind a cut.

Several taps are had in one pass, and nothing after the deepest of them is computed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.core.errors import RequestError
from tasks.core.graph import CannotTrace, Traced, trace
from tasks.core.networks import classifier
from tasks.core.taps import LAST, Tap


class Prefix(nn.Module):
    """The part of a network up to the deepest of the taps.

    A network that can be traced is run as the graph of what the taps need, which torch.compile,
    torch.jit.trace and OpenVINO take; one that cannot, or a tap inside a module that stays whole, by
    hooks (eager alone).

    Args:
        network: frozen, in eval mode.
        taps: the places, as module names or "last", and how to pool there.
        start: a cut; the input is then the unpooled activation there, and only what lies between is run.

    Attributes:
        taps: the distinct ones, in order.
        traced: whether the network is run as a graph.

    Raises:
        RequestError: if the network has no module of a tap's name, does not fall in two at the start, or
            a tap lies before it.
    """

    def __init__(self, network: nn.Module, taps: Sequence[Tap], start: str | None = None) -> None:
        super().__init__()
        self.taps = tuple(dict.fromkeys(taps))
        _refuse_unknown(network, self.taps)
        graph = _traced(network, self.taps)
        self.traced = graph is not None
        self.body: nn.Module
        if graph is not None:
            self.body = _part(graph, self.taps, start)
        elif start is None:
            self.body = _Hooked(network, self.taps)
        else:
            trace(network)  # tells why not
            raise RequestError(f"cut {start!r}: a tap inside a module that stays whole starts from pixels")
        self.eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Run the network until every tap is filled.

        Args:
            x: (B, 3, H, W) as the backbone's preprocessing gives it, or the activation at `start`.

        Returns:
            One (B, D) for each tap, or (B, ...) as it stands for pooling "none".
        """
        return list(self.body(x))


class Suffix(nn.Module):
    """The part of a network behind a cut: `Suffix(network, cut)(x)` is the network's output.

    It shares its weights with the network, and was traced in the mode in which the network was: dropout
    and batch norm that are modules follow `train()`, those that are not stay as they were.

    Args:
        network: in eval mode.
        cut: where.

    Raises:
        RequestError: if the network does not fall in two there, or cannot be traced.
    """

    def __init__(self, network: nn.Module, cut: str) -> None:
        super().__init__()
        graph = trace(network)
        self.body = graph.between(_cut(graph, cut), [(graph.output, nn.Identity())])
        self.train(network.training)

    def forward(self, x: Tensor) -> Tensor:
        """Run the rest.

        Args:
            x: the unpooled activation at the cut.
        """
        [out] = self.body(x)
        result: Tensor = out
        return result


def deepest_before(network: nn.Module, tap: Tap, names: Iterable[str]) -> str | None:
    """Choose the cut from which a tap is reached with the least work.

    Args:
        network: frozen, in eval mode.
        tap: what is wanted.
        names: cuts whose unpooled activations are at hand; what is no cut is passed over.

    Returns:
        The deepest of them through which the tap can be computed, or None.
    """
    try:
        graph = trace(network)
    except CannotTrace:
        return None
    wanted = graph.returned.get(tap.cut)
    if wanted is None:
        return None
    places = {name: graph.position[node] for name in names if (node := graph.cut(name)) is not None}
    before = [name for name, place in places.items() if place <= graph.position[wanted]]
    return max(before, key=places.__getitem__, default=None)


def pool(activations: Tensor, pooling: str) -> Tensor:
    """Reduce a map of activations to one row a sample.

    Args:
        activations: (B, C, H, W); (B, H, W, C), known by its equal second and third axis, since inputs
            are square; (B, T, C) tokens; or (B, D), which is left as it is.
        pooling: "none", "mean", "mean+std" (population deviation) or "max" over places or tokens, or
            "cls", the first token.

    Returns:
        (B, C), (B, 2 C) for "mean+std", or the activations as they are for "none".

    Raises:
        RequestError: if activations of that shape cannot be pooled so.
    """
    if pooling == "none" or activations.ndim == 2:
        return activations
    if pooling == "cls" and activations.ndim == 3:
        return activations[:, 0].float()
    if pooling == "cls" or activations.ndim not in (3, 4):
        needed = "(B, T, C)" if pooling == "cls" else "(B, C, H, W) or (B, T, C)"
        raise RequestError(f"pooling {pooling!r} needs {needed}, this cut gives {tuple(activations.shape)}")
    places = _places(activations).float()  # (B, C, H * W)
    if pooling == "max":
        return places.amax(2)
    if pooling == "mean+std":
        return torch.cat([places.mean(2), places.std(2, correction=0)], dim=1)
    return places.mean(2)


def _places(activations: Tensor) -> Tensor:
    """Put channels second and all places or tokens third."""
    if activations.ndim == 3:
        return activations.transpose(1, 2)
    _, first, second, third = activations.shape
    if first == second and second != third:
        return activations.flatten(1, 2).transpose(1, 2)
    return activations.flatten(2)


class _Pool(nn.Module):
    """Pools an activation as soon as it is there; what follows may change it in place."""

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap = tap

    def forward(self, x: Tensor) -> Tensor:
        return _row(x, self.tap)


def _row(activations: object, tap: Tap) -> Tensor:
    if not isinstance(activations, Tensor):
        raise RequestError(f"tap {str(tap)!r}: that module gives no single tensor; choose another")
    pooled = pool(activations, tap.pooling)
    aliases = tap.pooling in ("none", "cls") or activations.ndim == 2
    return pooled.clone() if aliases else pooled


def _refuse_unknown(network: nn.Module, taps: Sequence[Tap]) -> None:
    modules = dict(network.named_modules())
    for tap in taps:
        if tap.cut not in modules and tap.cut != LAST:
            names = [name for name in modules if name.count(".") < 2 and name]
            raise RequestError(
                f"tap {str(tap)!r}: the network has no module {tap.cut!r} (it has {', '.join(names)})"
            )


def _traced(network: nn.Module, taps: Sequence[Tap]) -> Traced | None:
    """Trace the network; None if that fails, or if a tap lies inside a module that stays whole."""
    try:
        graph = trace(network)
    except CannotTrace:
        return None
    return graph if all(graph.returned.get(tap.cut) is not None for tap in taps) else None


def _part(graph: Traced, taps: Sequence[Tap], start: str | None) -> nn.Module:
    first = None if start is None else _cut(graph, start)
    ends = [(graph.returned[tap.cut], _Pool(tap)) for tap in taps]
    for tap, (node, _) in zip(taps, ends, strict=True):
        if first is not None and graph.position[node] < graph.position[first]:
            raise RequestError(f"tap {str(tap)!r} lies before cut {start!r}; start from an earlier one")
    return graph.between(first, ends)


def _cut(graph: Traced, name: str) -> torch.fx.Node:
    node = graph.cut(name)
    if node is None:
        found = "does not fall in two there" if graph.has_module(name) else "has no module of that name"
        near = ", ".join(graph.near(name)) or "none near"
        raise RequestError(
            f"cut {name!r}: the network {found}; choose from {near} (headstart cuts lists all)"
        )
    return node


class _Hooked(nn.Module):
    """Runs a network that cannot be traced, and stops it as soon as every tap is filled."""

    def __init__(self, network: nn.Module, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.network = network
        self.taps = tuple(taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        rows: dict[Tap, Tensor] = {}
        hooks = [self._hook(cut, rows) for cut in {tap.cut for tap in self.taps}]
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

    def _hook(self, cut: str, rows: dict[Tap, Tensor]) -> torch.utils.hooks.RemovableHandle:
        fill = self._filler(cut, rows)
        if cut == LAST:
            module = classifier(self.network)[1]
            return module.register_forward_pre_hook(lambda module, given: fill(given[0]))
        module = self.network.get_submodule(cut)
        return module.register_forward_hook(lambda module, given, out: fill(out))

    def _filler(self, cut: str, rows: dict[Tap, Tensor]) -> Callable[[object], None]:
        """Make what fills the taps at a cut, and ends the pass when all are filled."""
        here = [tap for tap in self.taps if tap.cut == cut]

        def fill(out: object) -> None:
            for tap in here:
                if tap not in rows:  # a module that runs twice is tapped the first time
                    rows[tap] = _row(out, tap)
            if len(rows) == len(self.taps):
                raise _Filled

        return fill


@dataclass
class _Filled(Exception):  # noqa: N818 - not an error: the pass ends because all is had
    pass
