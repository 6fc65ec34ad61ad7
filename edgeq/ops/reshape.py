"""Another shape for the same elements in the same order; flatten, squeeze and unsqueeze too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Attrs, Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import (
    OnnxSink,
    OnnxSource,
    Operator,
    QuantRule,
    Shape,
    TfliteSink,
    TorchTensor,
    attrs_of,
    operand,
    register,
    torch_operand,
)
from edgeq.ops.tflite_forms import reshaped


@dataclass(frozen=True, slots=True)
class ReshapeAttrs(Attrs):
    """Attributes of `reshape`.

    Attributes:
        target: The output's shape, BATCH first.
    """

    target: tuple[int, ...]


@register
class Reshape(Operator):
    """y = x with another shape; the batch axis stays."""

    name = "reshape"
    attrs_type = ReshapeAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        target, shape = attrs_of(node, ReshapeAttrs).target, graph.tensor(node.inputs[0]).shape
        if not target or not shape or target[0] != shape[0] or min(target[1:], default=1) < 1:
            raise GraphError(f"{node.name}: reshape from {list(shape)} to {list(target)} must keep the batch axis")
        if int(np.prod(target[1:], dtype=object)) != int(np.prod(shape[1:], dtype=object)):
            raise GraphError(f"{node.name}: {list(shape)} and {list(target)} differ in their number of elements")
        return [(target, "float32")]

    def _run(self, node: Node, values: Sequence[Array | None]) -> list[Array]:
        x = operand(values, 0)
        return [x.reshape((x.shape[0], *attrs_of(node, ReshapeAttrs).target[1:]))]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        x = torch_operand(values, 0)
        return [x.reshape(x.shape[0], *attrs_of(node, ReshapeAttrs).target[1:])]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        return self._run(node, values)

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        target = _target(source, node, source.graph.tensor(node.input[0]).shape)
        source.emit("reshape", source.name_of(node), [node.input[0]], [node.output[0]], ReshapeAttrs(target))

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        target = np.array(attrs_of(node, ReshapeAttrs).target, np.int64)
        # One free dimension: the batch; 0 would copy it too, but not where the rank falls to 1.
        name = sink.initializer(f"{node.name}.shape", np.where(target == BATCH, -1, target))
        sink.emit("Reshape", [node.inputs[0], name], list(node.outputs), node.name)

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        reshaped(sink, node.inputs[0], node.outputs[0])


def _target(source: OnnxSource, node: Any, shape: Shape) -> Shape:
    """Works the target out at batch 2 and batch 3; what differs must be exactly axis 0."""
    found = []
    for which, batch in enumerate((2, 3)):
        known = (batch, *shape[1:])
        if node.op_type == "Reshape":
            found.append(_resolve(source, node, known, which))
        elif node.op_type == "Flatten":
            axis = int(source.attribute(node, "axis", 1))
            axis = axis + len(known) if axis < 0 else axis
            found.append((int(np.prod(known[:axis])), int(np.prod(known[axis:]))))
        else:
            found.append(_squeezed(source, node, known))
    first, second = found
    if first and len(first) == len(second) and (first[0], second[0]) == (2, 3) and first[1:] == second[1:]:
        return (BATCH, *first[1:])
    raise source.fail(
        node,
        f"it turns {['N', *shape[1:]]} into {list(first)} at batch 2 and {list(second)} at batch 3; the batch must "
        "stay axis 0 by itself (export the model with a free batch axis)",
    )


def _resolve(source: OnnxSource, node: Any, known: Shape, which: int) -> Shape:
    pair = source.shape_pair(node, 1)
    if pair is None:
        raise source.fail(node, "its target shape must be constant")
    target = [int(v) for v in pair[which].reshape(-1)]
    if not source.attribute(node, "allowzero", 0):
        if any(v == 0 and i >= len(known) for i, v in enumerate(target)):
            raise source.fail(node, f"target {target} copies an axis that {list(known)} does not have")
        target = [known[i] if v == 0 else v for i, v in enumerate(target)]
    total = int(np.prod(known[1:], dtype=object))
    # A model exported at batch 1 has a 1 where the batch belongs.
    if target and target[0] == 1 and _fills(target[1:], total):
        target[0] = known[0]
    if target.count(-1) > 1 or any(v < -1 for v in target):
        raise source.fail(node, f"target {target} is not a shape")
    if -1 in target:
        rest = int(np.prod([v for v in target if v != -1], dtype=object))
        if rest == 0 or total * known[0] % rest:
            raise source.fail(node, f"{list(known)} does not reshape to {target}")
        target[target.index(-1)] = total * known[0] // rest
    if int(np.prod(target, dtype=object)) != total * known[0]:
        raise source.fail(node, f"{list(known)} does not reshape to {target}")
    return tuple(target)


def _fills(sizes: list[int], total: int) -> bool:
    """Whether the sizes, of which one may be -1 (to be found), can hold `total` elements."""
    product = int(np.prod([v for v in sizes if v != -1], dtype=object))
    return product > 0 and (total % product == 0 if -1 in sizes else product == total)


def _squeezed(source: OnnxSource, node: Any, known: Shape) -> Shape:
    axes = source.attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = source.require_constant(node, 1, "axes").reshape(-1)
    if node.op_type == "Squeeze":
        chosen = (
            {i for i, size in enumerate(known) if size == 1} if axes is None else {int(a) % len(known) for a in axes}
        )
        if any(known[a] != 1 for a in chosen):
            raise source.fail(node, f"axes {sorted(chosen)} of {list(known)} are not all 1")
        return tuple(size for i, size in enumerate(known) if i not in chosen)
    if axes is None:
        raise source.fail(node, "its axes must be constant")
    rank = len(known) + len(axes)
    chosen = {int(a) % rank for a in axes}
    rest = iter(known)
    return tuple(1 if i in chosen else next(rest) for i in range(rank))
