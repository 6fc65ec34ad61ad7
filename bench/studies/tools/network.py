"""A float ONNX network as a torch module of plain layers, for tools that start from torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn


def load(path: Path) -> torch.fx.GraphModule:
    """Reads a network of convolutions, linear layers, additions, ReLU, ReLU6, means over the image, slices and padding.

    Raises:
        ValueError: If it holds something else.
    """
    graph = onnx.load(str(path)).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    modules = nn.ModuleDict()
    traced = torch.fx.Graph()
    values = {end.name: traced.placeholder("x") for end in graph.input if end.name not in constants}

    def module(name: str, layer: nn.Module, x: torch.fx.Node) -> torch.fx.Node:
        modules[name] = layer
        return traced.call_module(name, (x,))

    for position, node in enumerate(graph.node):
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        operands = [constants.get(name) for name in node.input]
        x = values.get(node.input[0])
        name = f"{node.op_type.lower()}{position}"
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            continue
        if node.op_type == "Conv":
            layer, border = _conv(attributes, operands)
            y = module(name, layer, x if border is None else traced.call_function(nn.functional.pad, (x, border)))
        elif node.op_type == "Gemm" and attributes.get("transB") and not attributes.get("transA"):
            y = module(name, _linear(operands), x)
        elif node.op_type == "Relu":
            y = module(name, nn.ReLU(), x)
        elif node.op_type == "Clip" and [float(one) for one in operands[1:]] == [0.0, 6.0]:
            y = module(name, nn.ReLU6(), x)
        elif node.op_type == "Add":
            y = traced.call_function(torch.add, (x, values[node.input[1]]))
        elif node.op_type == "ReduceMean" and sorted(a % 4 for a in operands[1].tolist()) == [2, 3]:
            y = module(name, nn.AdaptiveAvgPool2d(1), x)
        elif node.op_type in ("Reshape", "Flatten"):
            y = traced.call_function(torch.flatten, (x, 1))
        elif node.op_type == "Slice":
            y = traced.call_function(torch.ops.aten.slice.Tensor, (x, *_sliced(operands)))
        elif node.op_type == "Pad" and attributes.get("mode", b"constant") == b"constant":
            y = traced.call_function(nn.functional.pad, (x, _padded(operands)))
        else:
            raise ValueError(f"{node.name}: {node.op_type} has no torch form here; add one")
        values[node.output[0]] = y
    traced.output(values[graph.output[0].name])
    return torch.fx.GraphModule(modules, traced).eval()


def _conv(attributes, operands):
    """Returns the layer and the padding that must come before it: uneven padding is none of the layer's own."""
    weights = operands[1]
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    even = (top, left) == (bottom, right)
    groups = attributes.get("group", 1)
    layer = nn.Conv2d(
        weights.shape[1] * groups,
        weights.shape[0],
        weights.shape[2:],
        tuple(attributes.get("strides", (1, 1))),
        (top, left) if even else (0, 0),
        tuple(attributes.get("dilations", (1, 1))),
        groups,
    )
    return _filled(layer, operands), None if even else [left, right, top, bottom]


def _linear(operands):
    return _filled(nn.Linear(operands[1].shape[1], operands[1].shape[0]), operands)


def _filled(layer, operands):
    bias = operands[2] if len(operands) > 2 else np.zeros(operands[1].shape[0], np.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(operands[1].copy()))
        layer.bias.copy_(torch.from_numpy(bias.copy()))
    return layer


def _sliced(operands):
    if operands[1].size != 1:
        raise ValueError("a slice of several axes has no torch form here")
    start, end, axis = (int(one.reshape(-1)[0]) for one in operands[1:4])
    return axis, start, end, int(operands[4].reshape(-1)[0]) if len(operands) > 4 else 1


def _padded(operands):
    before, after = np.split(operands[1], 2)
    if len(operands) > 2 and operands[2] is not None and operands[2].size and float(operands[2].reshape(-1)[0]) != 0:
        raise ValueError("padding with other than 0 has no torch form here")
    return [int(one) for pair in zip(before[::-1], after[::-1], strict=True) for one in pair]
