"""A network as a graph of what it computes, and where that graph falls into two.

The network is traced symbolically (torch.fx) in eval mode. In the order of computation, a node is a cut
if nothing that was made from the input before it is used after it: then every path from the input to the
output runs through it.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm.layers
import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import StochasticDepth

from tasks.core.errors import RequestError
from tasks.core.taps import LAST

_layers: Any = timm.layers  # untyped
_DROPPING: tuple[type[nn.Module], ...] = (nn.Dropout, _layers.DropPath, StochasticDepth)
"""Modules that do nothing in eval mode; kept whole, so that a suffix that trains drops as they do."""


class CannotTrace(RequestError):  # noqa: N818 - said as a sentence
    """The network's own code cannot be followed; the text says where and why."""


class _Whole(nn.Module):
    """One input, one output: arguments with defaults stay out of the graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> object:
        return self.network(x)


class _Tracer(fx.Tracer):
    """Follows a network, and notes for each module the node that its first call returns."""

    def __init__(self, whole_types: set[type]) -> None:
        functions = tuple(each for each in _layers.get_notrace_functions() if callable(each))
        super().__init__(autowrap_functions=functions)
        self.whole_types = whole_types.union(_layers.get_notrace_modules())  # their code asks for shapes
        self.returned: dict[str, fx.Node] = {}
        self.failed: nn.Module | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = type(m) in self.whole_types or isinstance(m, _DROPPING)
        return whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            out = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or m  # the innermost is the first to see it
            raise
        name = self.path_of_module(m).partition(".")[2]  # without "network."
        if isinstance(out, fx.Proxy) and name:
            self.returned.setdefault(name, out.node)
        return out


@dataclass(frozen=True)
class Traced:
    """A network's graph.

    Attributes:
        root: holds what the graph's names stand for.
        nodes: in order of computation, the output left out.
        output: the node that is the network's output.
        position: node -> its place in `nodes`.
        returned: module name -> the node that its first call returns; "last" -> the classifier's input.
        cuts: name -> node, in order of computation; one name for each node, that of the outermost module.
    """

    root: nn.Module
    nodes: list[fx.Node]
    output: fx.Node
    position: dict[fx.Node, int]
    returned: dict[str, fx.Node]
    cuts: dict[str, fx.Node]

    def cut(self, name: str) -> fx.Node | None:
        """Return the node of a cut by any of its names; None if the network does not fall in two there."""
        listed = self.cut_name(name)
        return None if listed is None else self.cuts[listed]

    def cut_name(self, name: str) -> str | None:
        """Return the name under which a cut is listed, given any of its names; None if it is no cut."""
        node = self.returned.get(name)
        return next((listed for listed, cut in self.cuts.items() if cut is node), None)

    def has_module(self, name: str) -> bool:
        """Whether the network has a module of that name, cut or not."""
        return name in dict(self.root.get_submodule("network").named_modules())

    def near(self, name: str) -> list[str]:
        """Name the cuts before and behind a module where the network does not fall in two, or those spelled alike."""
        node = self.returned.get(name)
        if node is None:
            return get_close_matches(name, self.cuts, n=3, cutoff=0.4) or list(self.cuts)[-3:]
        place = self.position[node]
        before = [cut for cut, where in self.cuts.items() if self.position[where] < place]
        return [*before[-1:], *list(self.cuts)[len(before) :][:1]]

    def between(self, start: fx.Node | None, ends: Sequence[tuple[fx.Node, nn.Module]]) -> fx.GraphModule:
        """Build what lies between a cut and some nodes.

        Args:
            start: the cut whose activation is the input; None for the network's own input.
            ends: nodes, none before the start, each with a module that is called on its activation as
                soon as it is there.

        Returns:
            A module that computes nothing after the deepest end and gives a tuple of one output for each
            end. It shares its weights with the network.
        """
        graph, copies = fx.Graph(), _Copies(start)
        first = 0 if start is None else self.position[start]
        last = max(self.position[node] for node, _ in ends)
        found: dict[str, Any] = {}
        outputs: dict[str, fx.Node] = {}
        for node in self.nodes[first : last + 1]:
            copies.add(graph, node)
            for number, (end, module) in enumerate(ends):
                if end is node:
                    found[f"end_{number}"] = module
                    outputs[f"end_{number}"] = graph.call_module(f"end_{number}", (copies.of[node],))
        graph.output(tuple(outputs[f"end_{number}"] for number in range(len(ends))))
        for node in graph.nodes:
            if node.op in ("call_module", "get_attr") and node.target not in found:
                found[node.target] = operator.attrgetter(node.target)(self.root)
        return fx.GraphModule(found, graph)


class _Copies:
    """The copies of a graph's nodes in another graph, which begins at `start`."""

    def __init__(self, start: fx.Node | None) -> None:
        self.start = start
        self.of: dict[fx.Node, fx.Node] = {}

    def add(self, graph: fx.Graph, node: fx.Node) -> None:
        """Copy a node; what it needs from before the start is constant, and copied with it."""
        if node in self.of:
            return
        if node is self.start:
            given = graph.placeholder("x")
            self.of[node] = graph.call_method("clone", (given,))  # what follows may change it in place
            return
        for before in node.all_input_nodes:
            self.add(graph, before)
        self.of[node] = graph.node_copy(node, self.of.__getitem__)


def trace(network: nn.Module) -> Traced:
    """Follow a network's code symbolically.

    A module whose code cannot be followed stays whole, as one node; its inside has no cuts then.

    Args:
        network: in eval mode, of one input.

    Raises:
        CannotTrace: if the network's own code cannot be followed.
    """
    whole_types: set[type] = set()
    while True:
        tracer = _Tracer(whole_types)
        try:
            whole = _Whole(_twin(network))
            return _tidied(whole, tracer.trace(whole), tracer.returned)
        except Exception as error:  # anything that the network's code does and symbols cannot
            failed = tracer.failed
            if failed is None or failed is whole.network or type(failed) in tracer.whole_types:
                reason = " ".join(str(error).split())[:160]
                raise CannotTrace(f"{type(network).__name__} cannot be traced ({reason})") from error
            whole_types.add(type(failed))


def _twin(network: nn.Module) -> nn.Module:
    """Copy the modules and share their tensors: some networks keep what they compute, here symbols."""
    tensors = [*network.parameters(), *network.buffers()]
    return deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _tidied(root: nn.Module, graph: fx.Graph, returned: dict[str, fx.Node]) -> Traced:
    """Take out modules that do nothing and what nobody uses, such as checks of sizes; name the cuts."""
    for node in list(graph.nodes):
        if isinstance(_module(root, node), nn.Identity):
            [given] = node.all_input_nodes
            node.replace_all_uses_with(given)
            returned |= {name: given for name, old in returned.items() if old is node}
            graph.erase_node(node)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or _writes(root, node))
    *nodes, end = graph.nodes
    [output] = end.all_input_nodes  # a ValueError if there are several outputs
    position = {node: place for place, node in enumerate(nodes)}
    alive = {name: node for name, node in returned.items() if node in position}
    same = {name: _before_dropout(root, node) for name, node in alive.items()}  # in eval mode
    final = _classifier_input(root, nodes)
    last = {} if final is None else {LAST: final}
    names = _first_names(
        [item for item in same.items() if item[1] is alive[item[0]]], last.items(), same.items()
    )
    cuts = {names[node]: node for node in _cut_nodes(nodes, output) if node in names}
    return Traced(root, nodes, output, position, same | last, cuts)


def _module(root: nn.Module, node: fx.Node) -> nn.Module | None:
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None


def _writes(root: nn.Module, node: fx.Node) -> bool:
    """Whether a node may change a tensor that it was given, so that it must stay though nobody uses it."""
    if node.op == "call_module":
        return bool(getattr(_module(root, node), "inplace", False))
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or name == "setitem" or name.endswith("_")


def _cut_nodes(nodes: Sequence[fx.Node], output: fx.Node) -> list[fx.Node]:
    """Find the nodes after which nothing from before them is used; the input and the output are none."""
    position = {node: place for place, node in enumerate(nodes)}
    depends: set[fx.Node] = set()
    cuts = []
    reach = 0  # the last use of anything that was made from the input so far
    for place, node in enumerate(nodes[: position[output]]):
        if node.op != "placeholder" and depends.isdisjoint(node.all_input_nodes):
            continue
        if depends and reach <= place:
            cuts.append(node)
        depends.add(node)
        reach = max([reach, *(position.get(user, len(nodes)) for user in node.users)])
    return cuts


def _first_names(*groups: Iterable[tuple[str, fx.Node]]) -> dict[fx.Node, str]:
    """Choose one name for each node: from the first group that has one, that of the outermost module."""
    names: dict[fx.Node, str] = {}
    for group in groups:
        for name, node in sorted(group, key=lambda item: item[0].count(".")):
            names.setdefault(node, name)
    return names


def _before_dropout(root: nn.Module, node: fx.Node) -> fx.Node:
    while isinstance(_module(root, node), _DROPPING) or node.target is nn.functional.dropout:
        node = node.all_input_nodes[0]
    return node


def _classifier_input(root: nn.Module, nodes: Sequence[fx.Node]) -> fx.Node | None:
    """Find what the last linear layer or convolution is given, before any dropout."""
    layers = [node for node in nodes if isinstance(_module(root, node), nn.Linear | nn.Conv2d)]
    return _before_dropout(root, layers[-1].all_input_nodes[0]) if layers else None


@dataclass(frozen=True)
class Cut:
    """A place where a network falls in two.

    Attributes:
        name: of the outermost module that returns the activation.
        shape: of one sample's activation.
        flops: share of the network's floating-point operations before it, 0 to 1.
        parameters: number after it.
    """

    name: str
    shape: tuple[int, ...]
    flops: float
    parameters: int


def describe_cuts(traced: Traced, size: int) -> list[Cut]:
    """Measure each cut of a network on the meta device: nothing is computed but shapes.

    Args:
        traced: of a network on the meta device.
        size: pixels of the square input.
    """
    measured = _Measure(traced)
    measured.run(torch.empty(2, 3, size, size, device="meta"))
    total = max(measured.total, 1)
    cuts = []
    for name, node in traced.cuts.items():
        after = _parameters(traced, traced.nodes[traced.position[node] + 1 :])
        cuts.append(Cut(name, measured.shapes[node], measured.flops[node] / total, after))
    return cuts


class _Measure(fx.Interpreter):
    """Runs a graph, noting shapes and operations node by node."""

    def __init__(self, traced: Traced) -> None:
        super().__init__(traced.root, graph=traced.output.graph)
        self.wanted = set(traced.cuts.values())
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.flops: dict[fx.Node, int] = {}
        self.total = 0

    def run(self, *args: Any, **options: Any) -> Any:
        with FlopCounterMode(display=False) as self.counter:
            out = super().run(*args, **options)
        self.total = self.counter.get_total_flops()
        return out

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        if n in self.wanted:
            self.shapes[n] = tuple(out.shape[1:])
            self.flops[n] = self.counter.get_total_flops()
        return out


def _parameters(traced: Traced, nodes: Iterable[fx.Node]) -> int:
    """Count the parameters that some nodes use."""
    found: dict[nn.Parameter, int] = {}
    for node in nodes:
        module = _module(traced.root, node)
        if module is not None:
            found |= {each: each.numel() for each in module.parameters()}
        elif node.op == "get_attr":
            each = operator.attrgetter(str(node.target))(traced.root)
            found |= {each: each.numel()} if isinstance(each, nn.Parameter) else {}
    return sum(found.values())
