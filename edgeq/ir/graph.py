"""Graphs: nodes in execution order over named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgeq.errors import GraphError
from edgeq.ir.names import unused_name
from edgeq.ir.tensor import Array, QuantParams, Tensor

Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True, slots=True)
class Attrs:
    """Base of every operator's attributes: a frozen dataclass, one a kind of operator."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator applied to named tensors.

    Attributes:
        op: Name of the operator in `edgeq.ops`.
        name: Unique in its graph; shown to the user.
        inputs: Tensor names; "" marks an absent optional input.
        outputs: Tensor names.
        attrs: The operator's own attributes.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Attrs = field(default_factory=Attrs)

    def with_(self, **changes: Any) -> Node:
        """Returns a copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(slots=True)
class Graph:
    """A model: nodes in execution order, the tensors they name, and the ends.

    A graph is float (no tensor has `quant`) or quantized. Passes take a graph and return a new one; they share
    the immutable nodes, tensors and constant arrays (which nobody writes to).

    Attributes:
        name: Shown to the user.
        inputs: Names of the activations that the caller gives.
        outputs: Names of the activations that the caller gets.
        nodes: In an order in which every input is defined before it is used.
        tensors: Every tensor by name.
        layout: Where rank-4 activations keep their channels: "nchw" (axis 1) or "nhwc" (axis 3).
        plain_ends: Rank-4 inputs and outputs of an NHWC graph that the source model too has in the tensor's own
            order of axes; callers give and get all others as NCHW. In an NCHW graph, the ends that `channels_last` must
            make so: those of models that are NHWC themselves.
    """

    name: str
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    layout: Layout = "nchw"
    plain_ends: frozenset[str] = frozenset()

    def copy(self) -> Graph:
        """Returns a graph whose lists can be changed without touching this one."""
        return Graph(
            self.name,
            list(self.inputs),
            list(self.outputs),
            list(self.nodes),
            dict(self.tensors),
            self.layout,
            self.plain_ends,
        )

    def tensor(self, name: str) -> Tensor:
        """Returns the tensor of that name; raises GraphError when there is none."""
        try:
            return self.tensors[name]
        except KeyError:
            raise GraphError(f"graph {self.name} has no tensor named {name!r}") from None

    def constant(self, name: str) -> Array | None:
        """Returns the value of a constant, or None when `name` is absent ("") or not constant."""
        found = self.tensors.get(name)
        return None if found is None else found.data

    def quant(self, name: str) -> QuantParams:
        """Returns the quantization of a tensor; raises GraphError when it has none."""
        quant = self.tensor(name).quant
        if quant is None:
            raise GraphError(f"tensor {name!r} is not quantized")
        return quant

    def is_turned(self, name: str) -> bool:
        """Whether a graph input or output is [N, H, W, C] here and [N, C, H, W] to callers."""
        return self.layout == "nhwc" and len(self.tensor(name).shape) == 4 and name not in self.plain_ends

    def add_tensor(self, tensor: Tensor) -> str:
        """Adds or replaces a tensor and returns its name."""
        self.tensors[tensor.name] = tensor
        return tensor.name

    def fresh_name(self, stem: str) -> str:
        """Returns `stem`, or `stem_1`, ... : a name that neither a tensor nor a node has."""
        taken = {node.name for node in self.nodes} | self.tensors.keys()
        return unused_name(stem, taken)

    def producers(self) -> dict[str, Node]:
        """Maps each computed tensor to the node that computes it."""
        return {out: node for node in self.nodes for out in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """Maps each tensor to the nodes that read it, in order (a node once for each use)."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                if name:
                    found.setdefault(name, []).append(node)
        return found

    def activations(self) -> Iterator[Tensor]:
        """Yields the graph inputs, then every computed tensor in execution order."""
        for name in self.inputs:
            yield self.tensors[name]
        for node in self.nodes:
            for name in node.outputs:
                yield self.tensors[name]

    def prune(self) -> Graph:
        """Returns a copy without the nodes and tensors that no output depends on."""
        needed = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(name for name in node.inputs if name)
        kept.reverse()
        used = needed | set(self.inputs) | {out for node in kept for out in node.outputs}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        ends = (list(self.inputs), list(self.outputs))
        return Graph(self.name, *ends, kept, tensors, self.layout, self.plain_ends)


def topological_order(nodes: Iterable[Node], available: Iterable[str]) -> list[Node]:
    """Returns `nodes` so that each comes after those it reads from; stable where there is a choice.

    Args:
        nodes: The nodes in any order.
        available: Tensors that need no node: graph inputs and constants.

    Raises:
        GraphError: If a cycle or an undefined input leaves nodes over.
    """
    ready = set(available) | {""}
    waiting = list(nodes)
    ordered: list[Node] = []
    while waiting:
        rest: list[Node] = []
        for node in waiting:
            if all(name in ready for name in node.inputs):
                ordered.append(node)
                ready.update(node.outputs)
            else:
                rest.append(node)
        if len(rest) == len(waiting):
            names = ", ".join(node.name for node in rest[:3])
            raise GraphError(f"nodes {names} depend on each other in a cycle or on a tensor that nothing defines")
        waiting = rest
    return ordered
