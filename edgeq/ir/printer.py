"""A stable printed form of a graph, for golden tests and for reading."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from edgeq.ir.graph import Attrs, Graph
from edgeq.ir.tensor import BATCH, QuantParams, Tensor


def format_shape(shape: tuple[int, ...]) -> str:
    """Returns e.g. [N, 3, 224, 224]."""
    return "[" + ", ".join("N" if size == BATCH else str(size) for size in shape) + "]"


def format_quant(quant: QuantParams) -> str:
    """Returns e.g. 8b s=0.0235 z=-128, or 4b s[32]=0.0012..0.03 axis 0."""
    if quant.axis is None:
        return f"{quant.bits}b s={float(quant.scale):.6g} z={int(quant.zero_point)}"
    low, high = float(quant.scale.min()), float(quant.scale.max())
    return f"{quant.bits}b s[{quant.scale.size}]={low:.6g}..{high:.6g} axis {quant.axis}"


def format_tensor(tensor: Tensor) -> str:
    """Returns name, type, shape, quantization and, for a constant, a digest of its value."""
    parts = [f"%{tensor.name}: {tensor.dtype}{format_shape(tensor.shape)}"]
    if tensor.quant is not None:
        parts.append(f"<{format_quant(tensor.quant)}>")
    if tensor.data is not None:
        if tensor.data.size <= 4:
            parts.append("= " + np.array2string(tensor.data.reshape(-1), precision=6, separator=","))
        else:
            parts.append("= #" + hashlib.sha256(np.ascontiguousarray(tensor.data).tobytes()).hexdigest()[:12])
    return " ".join(parts)


def format_attrs(attrs: Attrs) -> str:
    """Returns the attributes that differ from their defaults, in order of declaration."""
    shown = []
    for item in dataclasses.fields(attrs):
        value = getattr(attrs, item.name)
        if item.default is dataclasses.MISSING or value != item.default:
            shown.append(f"{item.name}={value}")
    return ", ".join(shown)


def format_graph(graph: Graph) -> str:
    """Returns the whole graph as text: the ends, the constants, and a line a node."""
    lines = [f"graph {graph.name} ({graph.layout})"]
    lines += [f"  input  {format_tensor(graph.tensor(name))}" for name in graph.inputs]
    lines += [f"  const  {format_tensor(t)}" for t in graph.tensors.values() if t.is_constant]
    for node in graph.nodes:
        outputs = ", ".join(format_tensor(graph.tensor(name)) for name in node.outputs)
        inputs = ", ".join(f"%{name}" if name else "-" for name in node.inputs)
        attrs = format_attrs(node.attrs)
        lines.append(f"  {outputs} = {node.op}({inputs}){' {' + attrs + '}' if attrs else ''}")
    lines += [f"  output %{name}" for name in graph.outputs]
    return "\n".join(lines) + "\n"
