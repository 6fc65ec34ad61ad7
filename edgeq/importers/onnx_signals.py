"""ONNX's 1-D operators over [N, C, L] as 2-D ones over [N, C, 1, L].

A node becomes three: an Unsqueeze of its input (and of its weights or slopes), the same node with a height of 1 in its
attributes, and a Squeeze. So the operators' rows know images alone, and the tensors that a model names keep the shapes
that it gives them. `passes.lift_signals` removes what stands between neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeq.ir import Graph
from edgeq.ir.tensor import Array

HEIGHT = 2
"""Where the axis of size 1 stands in [N, C, 1, L]."""
LENGTH = 2
"""Where the length stands in [N, C, L]."""

_SPATIAL = {
    "kernel_shape": 1,
    "strides": 1,
    "dilations": 1,
    "pads": 0,
    "output_padding": 0,
    "output_shape": 1,
}
"""Attributes with one number an axis (pads: one before and one after it), and the number that leaves a height of 1."""
_WEIGHTED = ("Conv", "ConvTranspose")
_REDUCTIONS = ("ReduceMax", "ReduceMean")
_TYPES = (*_WEIGHTED, *_REDUCTIONS, "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "PRelu", "Resize")


def lifts(node: Any, graph: Graph, known: Mapping[str, Sequence[Array]]) -> bool:
    """Whether a node is a 1-D operator, which `lifted` writes as a 2-D one: whether its input is a signal of `graph`.

    Args:
        node: The onnx.NodeProto.
        graph: What has been read.
        known: The constants, in one or more versions each.
    """
    signal = graph.tensors.get(node.input[0]) if node.op_type in _TYPES and node.input else None
    if signal is None or len(signal.shape) != 3:
        return False
    # One slope for all is a function of one number, whatever the rank.
    return node.op_type != "PRelu" or (node.input[1] in known and known[node.input[1]][0].size > 1)


def lifted(
    node: Any,
    attributes: Mapping[str, Any],
    reduced: Sequence[int] | None,
    known: Mapping[str, Sequence[Array]],
    fresh: Callable[[str], str],
) -> list[Any] | str:
    """Returns the nodes (onnx.NodeProto) that compute a 1-D node in 2-D, or a sentence that says why there are none.

    Args:
        node: `lifts` is true of it.
        attributes: Its attributes by name.
        reduced: The axes that a reduction goes over, ascending; None for other nodes.
        known: The constants.
        fresh: Returns an unused name with that stem.
    """
    import onnx

    if reduced is not None and list(reduced) != [LENGTH]:
        done = "mean" if node.op_type == "ReduceMean" else "maximum"
        return (
            f"of a tensor [N, C, L] only the {done} over the length (axis 2) is supported, got axes {list(reduced)}; "
            "put a Transpose before it that makes the axis the last one"
        )
    # Counted from the end, which fits slopes of any rank too.
    one = onnx.helper.make_tensor(fresh("height"), onnx.TensorProto.INT64, [1], [HEIGHT - 4])
    nodes = [onnx.helper.make_node("Constant", [], [one.name], value=one)]

    def unsqueezed(name: str) -> str:
        out = fresh(f"{name}.lifted")
        nodes.append(onnx.helper.make_node("Unsqueeze", [name, one.name], [out], out))
        return out

    changes = {name: value for name, value in attributes.items() if name != "axes"}
    for name in _SPATIAL.keys() & attributes.keys():
        values = [int(value) for value in attributes[name]]
        if len(values) != (2 if name == "pads" else 1):
            return f"{name} {values} do not fit an input with one axis behind the channels"
        neutral = _SPATIAL[name]
        changes[name] = [neutral, values[0], neutral, values[1]] if name == "pads" else [neutral, *values]
    inputs, squeezed = [unsqueezed(node.input[0]), *node.input[1:]], [HEIGHT]
    if node.op_type in (*_WEIGHTED, "PRelu") and len(inputs) > 1 and inputs[1] in known:
        # Weights that are not constant are left to the row, which says so.
        rank = known[inputs[1]][0].ndim
        if node.op_type in _WEIGHTED and rank != 3:
            return f"weights with {rank} axes do not fit an input with one axis behind the channels"
        inputs[1] = unsqueezed(inputs[1])
    elif node.op_type in _REDUCTIONS:
        # The axes are an attribute here whatever the opset: rows read either.
        inputs, changes["axes"] = inputs[:1], [HEIGHT, HEIGHT + 1]
        if not attributes.get("keepdims", 1):
            squeezed.append(HEIGHT + 1)
        changes["keepdims"] = 1
    elif node.op_type == "Resize":
        behind = {0: 0, 1: 1, LENGTH: HEIGHT + 1}
        changes["axes"] = [behind[int(axis) % 3] for axis in attributes.get("axes", range(3))]
    image = fresh(f"{node.output[0]}.lifted")
    nodes.append(
        onnx.helper.make_node(node.op_type, inputs, [image, *node.output[1:]], node.name or node.output[0], **changes)
    )
    axes = onnx.helper.make_tensor(fresh("axes"), onnx.TensorProto.INT64, [len(squeezed)], squeezed)
    nodes.append(onnx.helper.make_node("Constant", [], [axes.name], value=axes))
    nodes.append(onnx.helper.make_node("Squeeze", [image, axes.name], [node.output[0]], image))
    return nodes
