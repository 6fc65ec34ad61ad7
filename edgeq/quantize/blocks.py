"""Parts of a network that are reconstructed one after the other: single layers, or residual blocks.

A block ends where one activation is all that the rest of the network reads, so that matching this activation matches
everything that the block does. Between two such places lies a residual or inverted residual block, or a single layer
of a chain; chains of layers are joined up to the next one without an activation function, whose output is the
bottleneck of an inverted residual block without a shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.ir import Graph, Node
from edgeq.ops import QuantRule, get
from edgeq.ops.avg_pool import AvgPool
from edgeq.ops.base import NO_CLAMP, Window
from edgeq.ops.elementwise import Elementwise
from edgeq.ops.unary import Unary
from edgeq.quantize.layers import is_layer
from edgeq.quantize.sharing import quantized_inputs

UNITS = ("layer", "block", "network")
"""What is optimised at a time: `layer` is AdaRound, `block` is BRECQ, `network` everything together."""

CHAIN = 3
"""At most so many layers of a chain make a block: an inverted residual block without shortcut has three."""

LARGEST = 12
"""A part between two cuts with more layers than this is taken layer by layer: it is no residual block."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive nodes.

    Attributes:
        nodes: As in the graph.
        inputs: Activations that the block reads and does not compute.
        outputs: Activations that it computes and that others read, or the network gives.
        stride: By how much height and width shrink, where each output pixel depends on input pixels near it alone and
            all inputs and outputs are maps of one size each; None elsewhere. What is cut out of all inputs at
            multiples of it is a smaller image for the block.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stride: int | None

    @property
    def name(self) -> str:
        """The first and the last layer (or node) of the block."""
        layers = [node.name for node in self.nodes if is_layer(node)] or [node.name for node in self.nodes]
        return layers[0] if len(layers) == 1 else f"{layers[0]} .. {layers[-1]}"


def find_blocks(graph: Graph, unit: str) -> list[Block]:
    """Splits a graph into blocks in execution order; every node but those with a float output is in one.

    Args:
        graph: NCHW, float or quantized.
        unit: A name in UNITS.
    """
    nodes = [node for node in graph.nodes if get(node.op).quant_rule is not QuantRule.FLOAT]
    if unit == "layer":
        parts = _by_layer(nodes)
    elif unit == "network":
        parts = [nodes]
    else:
        parts = []
        for part in _joined(_segments(nodes, graph)):
            parts += _by_layer(part) if sum(map(is_layer, part)) > LARGEST else [part]
    return [_block(part, graph) for part in parts]


def _segments(nodes: Sequence[Node], graph: Graph) -> list[list[Node]]:
    """Splits at every place where one activation is alive."""
    last_use = {name: index for index, node in enumerate(nodes) for name in quantized_inputs(node, graph)}
    alive = {name for name in graph.inputs if name in last_use}
    segments: list[list[Node]] = [[]]
    for index, node in enumerate(nodes):
        segments[-1].append(node)
        alive.update(node.outputs)
        alive = {name for name in alive if last_use.get(name, -1) > index}
        if len(alive) == 1 and index + 1 < len(nodes):
            segments.append([])
    return segments


def _joined(segments: list[list[Node]]) -> list[list[Node]]:
    """Joins what belongs together in a chain; residual segments stay as they are."""
    parts: list[list[Node]] = []
    chain: list[Node] = []
    for segment in segments:
        layers = sum(map(is_layer, segment))
        if layers > 1:
            parts += [part for part in (chain, segment) if part]
            chain = []
        elif layers == 0:
            # A pooling or an activation function goes with what it follows.
            (chain or (parts[-1] if parts else chain)).extend(segment)
        else:
            if sum(map(is_layer, chain)) == CHAIN or (chain and _is_linear(chain)):
                parts.append(chain)
                chain = []
            chain = chain + segment
    return [*parts, *([chain] if chain else [])]


def _is_linear(chain: list[Node]) -> bool:
    """Whether a chain ends in a layer without an activation function."""
    return is_layer(chain[-1]) and getattr(chain[-1].attrs, "clamp", NO_CLAMP) == NO_CLAMP


def _by_layer(nodes: Sequence[Node]) -> list[list[Node]]:
    """A layer with the pixel-wise nodes after it; others go with the layer that follows."""
    parts: list[list[Node]] = [[]]
    for node in nodes:
        if any(map(is_layer, parts[-1])) and (is_layer(node) or not _is_local(node)):
            parts.append([])
        parts[-1].append(node)
    if len(parts) > 1 and not any(map(is_layer, parts[-1])):
        last = parts.pop()
        parts[-1] += last
    return parts


def _block(nodes: Sequence[Node], graph: Graph) -> Block:
    computed = {name for node in nodes for name in node.outputs}
    inputs = dict.fromkeys(name for node in nodes for name in quantized_inputs(node, graph) if name not in computed)
    inside = {node.name for node in nodes}
    read = {name for node in graph.nodes if node.name not in inside for name in node.inputs} | set(graph.outputs)
    outputs = tuple(name for node in nodes for name in node.outputs if name in read)
    # A dead end gives what nobody reads; its own last output is as good a target as any.
    outputs = outputs or nodes[-1].outputs
    return Block(tuple(nodes), tuple(inputs), outputs, _stride(nodes, tuple(inputs), outputs, graph))


def _is_local(node: Node) -> bool:
    """Whether each output pixel depends on input pixels near it alone, whatever the size of the map."""
    operator = get(node.op)
    return node.op in ("conv", "max_pool", "relu", "clip", "channel_shuffle") or isinstance(
        operator, (Elementwise, Unary, AvgPool)
    )


def _stride(nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str], graph: Graph) -> int | None:
    """As `Block.stride`."""
    # Of what has no place any more, after a pooling over the whole map, there is no stride.
    strides: dict[str, tuple[int, int] | None] = dict.fromkeys(inputs, (1, 1))
    largest = 1
    for node in nodes:
        reads = [strides[name] for name in quantized_inputs(node, graph)]
        if node.op == "mean" or not any(reads):
            strides.update(dict.fromkeys(node.outputs, None))
            continue
        maps = [graph.tensor(name).shape for name in (*quantized_inputs(node, graph), *node.outputs)]
        constants = [graph.tensor(name).shape for name in node.inputs if name and graph.tensor(name).is_constant]
        wide = not is_layer(node) and any(len(shape) > 2 and max(shape[-2:]) > 1 for shape in constants)
        if not _is_local(node) or len(set(reads)) != 1 or wide or any(len(shape) != 4 for shape in maps):
            return None
        window, before = getattr(node.attrs, "window", None), reads[0]
        steps = window.strides if isinstance(window, Window) else (1, 1)
        assert before is not None
        stride = (before[0] * steps[0], before[1] * steps[1])
        largest = max(largest, *stride)
        strides.update(dict.fromkeys(node.outputs, stride))
    one_size = len({graph.tensor(name).shape[2:] for name in inputs}) == 1
    return largest if one_size and inputs else None
