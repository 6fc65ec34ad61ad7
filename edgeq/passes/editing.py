"""What passes that rewrite nodes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeq.ir import Graph, Node


@dataclass(slots=True)
class NodeList:
    """Nodes of a graph under reconstruction, with their producers at hand.

    Attributes:
        graph: The graph being built: its tensors are those of the source, its nodes come last.
        readers: How many inputs read each tensor of the source; a graph output counts as one more.
        nodes: What has been kept so far, in execution order.
    """

    graph: Graph
    readers: dict[str, int]
    nodes: list[Node] = field(default_factory=list)
    _producers: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(source: Graph) -> NodeList:
        """Starts with no nodes; the source keeps its own."""
        readers: dict[str, int] = {}
        for node in source.nodes:
            for name in node.inputs:
                readers[name] = readers.get(name, 0) + 1
        for name in source.outputs:
            readers[name] = readers.get(name, 0) + 1
        return NodeList(source.copy(), readers)

    def append(self, node: Node) -> None:
        """Keeps a node."""
        for out in node.outputs:
            self._producers[out] = len(self.nodes)
        self.nodes.append(node)

    def producer(self, name: str) -> Node | None:
        """The kept node that computes a tensor, or None."""
        index = self._producers.get(name)
        return None if index is None else self.nodes[index]

    def sole_producer(self, name: str) -> Node | None:
        """The same, but only when nothing else than one input reads the tensor."""
        return self.producer(name) if self.readers.get(name) == 1 else None

    def replace(self, old: Node, new: Node) -> None:
        """Puts a node in the place of a kept one."""
        index = self._producers[old.outputs[0]]
        self.nodes[index] = new
        for out in new.outputs:
            self._producers[out] = index

    def finish(self) -> Graph:
        """Returns the new graph, without what nothing needs any more."""
        self.graph.nodes = self.nodes
        return self.graph.prune()


def with_inputs_renamed(node: Node, names: Mapping[str, str]) -> Node:
    """Returns the node reading `names[x]` wherever it read x."""
    if not any(name in names for name in node.inputs):
        return node
    return node.with_(inputs=tuple(names.get(name, name) for name in node.inputs))
