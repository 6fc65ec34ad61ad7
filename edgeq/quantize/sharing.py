"""Which activations must share one scale and zero point."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.errors import QuantizationError
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops import QuantRule, get


@dataclass(frozen=True, slots=True)
class SharedSet:
    """Activations with one set of quantization parameters.

    Attributes:
        name: The first member in execution order; names the set.
        members: Every activation of the set, in execution order.
        observed: The members whose values are not just copies of another member's.
        constants: Constant inputs that take the set's parameters too (an operand of a concat).
        fixed: The real range that every producer in the set has by definition, or None.
        forced: Why the set cannot have fewer than 8 bits, or None.
    """

    name: str
    members: tuple[str, ...]
    observed: tuple[str, ...]
    constants: tuple[str, ...]
    fixed: tuple[float, float] | None
    forced: str | None


def quantized_inputs(node: Node, graph: Graph) -> list[str]:
    """Returns the activations that a node reads as codes."""
    return [name for name in node.inputs if name and not graph.tensor(name).is_constant]


def shared_sets(graph: Graph) -> list[SharedSet]:
    """Partitions the float32 activations that are quantized (all but the outputs of FLOAT operators).

    Operators with QuantRule.SAME join their activation inputs and outputs.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    constants: dict[str, list[str]] = {}
    copies: set[str] = set()
    float_outputs: set[str] = set()
    forced = dict.fromkeys(graph.inputs, "it is an input of the network")
    fixed: dict[str, tuple[float, float] | None] = {}
    for name in graph.inputs:
        parent[name] = name
    for node in graph.nodes:
        operator = get(node.op)
        sources = [name for name in quantized_inputs(node, graph) if name in parent]
        if operator.quant_rule is QuantRule.FLOAT:
            float_outputs.update(node.outputs)
            forced.update(dict.fromkeys(sources, f"{node.name} turns it into the network's float output"))
            continue
        floats = [name for name in node.inputs if name in float_outputs]
        if floats:
            raise QuantizationError(
                f"{node.name}: it reads {floats[0]!r}, the float output of a softmax, and edgeq has no integer form of "
                "that; end the network before the softmax."
            )
        for name in node.outputs:
            parent[name] = name
            fixed[name] = operator.fixed_range(node) if operator.quant_rule is QuantRule.FIXED else None
        if operator.quant_rule is QuantRule.SAME:
            # The border of a padding may lie outside of what is padded.
            if getattr(node.attrs, "value", 0.0) == 0.0:
                copies.update(node.outputs)
            for name in [*sources[1:], *node.outputs]:
                # The earlier tensor stays the root, so that a set is named by its first member.
                first, second = sorted((root(sources[0]), root(name)), key=list(parent).index)
                parent[second] = first
            for name in node.inputs:
                if name and graph.tensor(name).dtype == "float32" and graph.tensor(name).is_constant:
                    constants.setdefault(sources[0], []).append(name)
    for name in graph.outputs:
        if name in parent:
            forced[name] = "it is an output of the network"
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return [
        SharedSet(
            name=name,
            members=tuple(members),
            observed=tuple(member for member in members if member not in copies),
            constants=tuple(constant for member in members for constant in constants.get(member, [])),
            fixed=_common_range([fixed.get(member) for member in members if member not in copies]),
            forced=next((forced[member] for member in members if member in forced), None),
        )
        for name, members in groups.items()
    ]


def _common_range(ranges: list[tuple[float, float] | None]) -> tuple[float, float] | None:
    return ranges[0] if ranges and all(found == ranges[0] for found in ranges) else None


def constant_values(graph: Graph, names: tuple[str, ...]) -> list[Array]:
    """Returns the values of constants."""
    return [value for value in (graph.constant(name) for name in names) if value is not None]
