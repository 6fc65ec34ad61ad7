"""Small float graphs with random weights."""

from __future__ import annotations

import math

import numpy as np

from edgeq.ir import BATCH, Attrs, Graph, Node, Tensor
from edgeq.ops import get
from edgeq.ops.base import NO_CLAMP, Clamp, Window
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.linear import LinearAttrs

RELU: Clamp = (0.0, math.inf)
RELU6: Clamp = (0.0, 6.0)


class Builder:
    """Appends nodes to a graph by name of their output."""

    def __init__(self, seed: int = 0, channels: int = 3, size: int = 8) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("small", inputs=["x"])
        self.graph.add_tensor(Tensor("x", (BATCH, channels, size, size)))

    def constant(self, name: str, value: np.ndarray) -> str:
        return self.graph.add_tensor(Tensor.constant(name, value))

    def node(self, op: str, name: str, inputs: list[str], attrs: Attrs) -> str:
        node = Node(op, name, tuple(inputs), (f"{name}.out",), attrs)
        ((shape, dtype),) = get(op).infer(node, self.graph)
        self.graph.add_tensor(Tensor(node.outputs[0], shape, dtype))
        self.graph.nodes.append(node)
        return node.outputs[0]

    def conv(
        self,
        name: str,
        x: str,
        out: int,
        kernel: int = 1,
        clamp: Clamp = RELU6,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        channels = self.graph.tensor(x).shape[1]
        shape = (out, channels // groups, kernel, kernel)
        weights = self.rng.normal(0, 1.5 / math.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        weights *= self.rng.uniform(0.3, 3, (out, 1, 1, 1)).astype(np.float32)
        bias = self.rng.normal(0, 0.5, out).astype(np.float32)
        pad = kernel // 2
        window = Window((kernel, kernel), (stride, stride), (pad, pad, pad, pad))
        inputs = [x, self.constant(f"{name}.weight", weights), self.constant(f"{name}.bias", bias)]
        return self.node("conv", name, inputs, ConvAttrs(window, groups, clamp))

    def linear(self, name: str, x: str, out: int, bias: bool = True) -> str:
        weights = self.rng.normal(0, 0.4, (out, self.graph.tensor(x).shape[-1])).astype(np.float32)
        inputs = [x, self.constant(f"{name}.weight", weights)]
        if bias:
            inputs.append(self.constant(f"{name}.bias", self.rng.normal(0, 0.5, out).astype(np.float32)))
        return self.node("linear", name, inputs, LinearAttrs())

    def add(self, name: str, a: str, b: str, clamp: Clamp = NO_CLAMP) -> str:
        return self.node("add", name, [a, b], ElementwiseAttrs(clamp))

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph


def mean(builder: Builder, name: str, x: str) -> str:
    """Global average pooling to [N, C]."""
    from edgeq.ops.mean import MeanAttrs

    return builder.node("mean", name, [x], MeanAttrs(keep_dims=False))


def inverted_residual(seed: int = 0) -> Graph:
    """Stem, an inverted residual block, pooling and a classifier: what the networks of the papers are made of."""
    b = Builder(seed)
    stem = b.conv("stem", "x", 8, 3)
    wide = b.conv("expand", stem, 24)
    deep = b.conv("depthwise", wide, 24, 3, groups=24)
    thin = b.conv("project", deep, 8, clamp=NO_CLAMP)
    return b.done(b.linear("head", mean(b, "pool", b.add("join", stem, thin)), 10))
