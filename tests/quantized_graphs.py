"""Quantized graphs with random codes, weights and scales: the cases of the conformance matrix.

Nothing is calibrated: scales are drawn so that outputs spread over their codes, with some saturation, and zero points
include both ends of the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeq.ir import BATCH, Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ops import QuantRule, get
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import NO_CLAMP, Window
from edgeq.ops.celu import CeluAttrs
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.elu import EluAttrs
from edgeq.ops.hard_sigmoid import HardSigmoidAttrs
from edgeq.ops.leaky_relu import LeakyReluAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.pow import PowAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.resize import Coordinates, NearestRounding, ResizeAttrs, ResizeMode
from edgeq.ops.slice import SliceAttrs, part_of
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.ops.softplus import SoftplusAttrs
from edgeq.ops.transpose import TransposeAttrs

SCHEMES = {"w8a8": (8, 8), "w4a8": (4, 8), "w4a4": (4, 4)}


class QuantizedBuilder:
    """Appends quantized nodes to an NCHW graph.

    Attributes:
        graph: What was built so far.
        rng: Where every random choice comes from.
        weight_bits: 4 or 8.
        activation_bits: 4 or 8.
    """

    def __init__(self, rng: np.random.Generator, scheme: str) -> None:
        self.rng = rng
        self.weight_bits, self.activation_bits = SCHEMES[scheme]
        self.graph = Graph("random")

    def activation_quant(self, scale: float) -> QuantParams:
        """Per-tensor parameters with a random zero point, often an extreme one."""
        half = 1 << (self.activation_bits - 1)
        zero = int(self.rng.choice([-half, half - 1, 0, int(self.rng.integers(-half, half))]))
        return QuantParams.per_tensor(scale, zero, self.activation_bits)

    def input(self, *shape: int, scale: float | None = None) -> str:
        """Adds a graph input of that shape without the batch axis."""
        name = f"x{len(self.graph.inputs)}"
        quant = self.activation_quant(float(self.rng.uniform(0.01, 0.1)) if scale is None else scale)
        self.graph.add_tensor(Tensor(name, (BATCH, *shape), "int8", quant))
        self.graph.inputs.append(name)
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        return self.graph.tensor(name).shape

    def constant(self, *shape: int) -> str:
        """Adds an int8 constant operand, with the codes of an activation."""
        quant = self.activation_quant(float(self.rng.uniform(0.01, 0.1)))
        value = self.rng.integers(quant.qmin, quant.qmax + 1, shape).astype(np.int8)
        name = f"constant{len(self.graph.tensors)}"
        return self.graph.add_tensor(Tensor.constant(name, value, quant))

    def node(self, op: str, inputs: list[str], attrs: Attrs | None = None, spread: float | None = None) -> str:
        """Appends a node; `spread` is the standard deviation that its real output is expected to have."""
        name = f"{op}{len(self.graph.nodes)}"
        node = Node(op, name, tuple(inputs), (f"{name}.out",), attrs or Attrs())
        ((shape, _),) = get(op).infer(node, self.graph)
        rule = get(op).quant_rule
        if rule is QuantRule.FLOAT:
            self.graph.add_tensor(Tensor(node.outputs[0], shape))
        else:
            if rule is QuantRule.SAME:
                quant = self.graph.quant(inputs[0])
            else:
                steps = 50 if self.activation_bits == 8 else 4
                first = self.graph.quant(inputs[0])
                typical = float(first.scale) * steps if spread is None else spread
                quant = self.activation_quant(typical / steps * float(self.rng.uniform(0.5, 1.5)))
            self.graph.add_tensor(Tensor(node.outputs[0], shape, "int8", quant))
        self.graph.nodes.append(node)
        return node.outputs[0]

    def weights(
        self, x: str, shape: tuple[int, ...], taps: int, bias: bool, per_channel: bool
    ) -> tuple[list[str], float]:
        """Adds weights [O, ...] (and a bias); returns the inputs of the node and its output's expected spread."""
        stem = f"weights{len(self.graph.tensors)}"
        limit = (1 << (self.weight_bits - 1)) - 1
        value = self.rng.integers(-limit, limit + 1, shape).astype(np.int8)
        value[self.rng.integers(shape[0])] = 0
        value.reshape(-1)[:: max(value.size // 3, 1)] = limit
        count = shape[0] if per_channel else 1
        scale = self.rng.uniform(0.2, 1, count).astype(np.float32) * np.float32(0.02)
        scale = scale if per_channel else scale.reshape(())
        quant = QuantParams(scale, np.zeros(scale.shape, np.int32), self.weight_bits, 0 if per_channel else None)
        inputs = [x, self.graph.add_tensor(Tensor.constant(stem, value, quant))]
        source = self.graph.quant(x)
        typical_x = 0.4 * (source.qmax - source.qmin)
        spread = math.sqrt(taps) * typical_x * 0.6 * limit
        if bias:
            values = self.rng.normal(0, spread, shape[0]).astype(np.int32)
            bias_scale = np.float32(source.scale) * scale
            bias_quant = QuantParams(bias_scale, np.zeros(bias_scale.shape, np.int32), 32, quant.axis)
            inputs.append(self.graph.add_tensor(Tensor.constant(f"{stem}.bias", values, bias_quant)))
        return inputs, spread * float(source.scale) * float(scale.mean())

    def conv(
        self, x: str, out: int, kernel: tuple[int, int] = (1, 1), strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0), dilations: tuple[int, int] = (1, 1), groups: int = 1,
        bias: bool = True, per_channel: bool = True, clamp: bool = False,
    ) -> str:  # fmt: skip
        channels = self.shape(x)[1] // groups
        taps = channels * kernel[0] * kernel[1]
        inputs, spread = self.weights(x, (out, channels, *kernel), taps, bias, per_channel)
        bounds = (-spread / 2, spread) if clamp else NO_CLAMP
        return self.node("conv", inputs, ConvAttrs(Window(kernel, strides, pads, dilations), groups, bounds), spread)

    def conv_transpose(
        self, x: str, out: int, kernel: tuple[int, int] = (2, 2), strides: tuple[int, int] = (2, 2),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0), dilations: tuple[int, int] = (1, 1), groups: int = 1,
        output_padding: tuple[int, int] = (0, 0), bias: bool = True,
    ) -> str:  # fmt: skip
        channels = self.shape(x)[1] // groups
        inputs, spread = self.weights(x, (out, channels, *kernel), 2 * channels, bias, True)
        window = Window(kernel, strides, pads, dilations)
        return self.node("conv_transpose", inputs, ConvTransposeAttrs(window, groups, output_padding), spread)

    def depthwise(self, x: str, kernel: int = 3, stride: int = 1, pad: int | None = None, clamp: bool = False) -> str:
        channels = self.shape(x)[1]
        side = kernel // 2 if pad is None else pad
        return self.conv(x, channels, (kernel, kernel), (stride, stride), (side,) * 4, groups=channels, clamp=clamp)

    def linear(self, x: str, out: int, bias: bool = True, clamp: bool = False) -> str:
        inputs, spread = self.weights(x, (out, self.shape(x)[-1]), self.shape(x)[-1], bias, True)
        return self.node("linear", inputs, LinearAttrs((0.0, spread) if clamp else NO_CLAMP), spread)

    def binary(self, op: str, a: str, b: str, clamp: bool = False) -> str:
        scales = [float(self.graph.quant(name).scale) for name in (a, b)]
        steps = 90 if self.activation_bits == 8 else 6
        spread = steps * steps * scales[0] * scales[1] if op == "mul" else steps * max(scales)
        return self.node(op, [a, b], ElementwiseAttrs((0.0, spread) if clamp else NO_CLAMP), spread)

    def unary(self, op: str, x: str, attrs: Attrs | None = None) -> str:
        return self.node(op, [x], attrs)

    def prelu(self, x: str, per_channel: bool) -> str:
        slope = self.rng.normal(0.2, 0.3, self.shape(x)[1] if per_channel else 1).astype(np.float32)
        name = self.graph.add_tensor(Tensor.constant(f"slope{len(self.graph.tensors)}", slope))
        return self.node("prelu", [x, name])

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("reshape", [x], ReshapeAttrs((BATCH, *shape)))

    def flatten(self, x: str) -> str:
        return self.reshape(x, math.prod(self.shape(x)[1:]))

    def transpose(self, x: str, *permutation: int) -> str:
        return self.node("transpose", [x], TransposeAttrs(permutation))

    def concat(self, inputs: list[str], axis: int = 1) -> str:
        return self.node("concat", inputs, ConcatAttrs(axis))

    def part(self, x: str, axis: int, begin: int, size: int, stride: int = 1) -> str:
        return self.node("slice", [x], part_of(self.shape(x), axis, begin, size, stride))

    def max_pool(self, x: str, *window: object) -> str:
        return self.node("max_pool", [x], MaxPoolAttrs(Window(*window)))  # type: ignore[arg-type]

    def avg_pool(self, x: str, window: Window, include: bool = False) -> str:
        return self.node("avg_pool", [x], AvgPoolAttrs(window, include))

    def mean(self, x: str, keep: bool = True) -> str:
        return self.node("mean", [x], MeanAttrs(keep), 0.2 * 2**self.activation_bits * float(self.graph.quant(x).scale))

    def finish(self, *outputs: str) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph


Build = Callable[[QuantizedBuilder], Graph]


@dataclass(frozen=True)
class Case:
    """One graph of the matrix.

    Attributes:
        name: Unique; the first word is the operator it is about.
        build: Makes the graph.
        free: Whether the channels-last graph must hold no transpose.
    """

    name: str
    build: Build
    free: bool = True


CASES: list[Case] = []


def case(name: str, free: bool = True) -> Callable[[Build], Build]:
    """Adds a function as a case."""

    def add(build: Build) -> Build:
        CASES.append(Case(name, build, free))
        return build

    return add


def _one(name: str, build: Callable[[QuantizedBuilder], str], free: bool = True) -> None:
    CASES.append(Case(name, lambda b: b.finish(build(b)), free))


# --- conv ---
for _channels, _out in ((1, 1), (3, 8), (8, 3), (16, 17), (33, 40), (64, 64), (5, 100)):
    _one(f"conv 1x1 {_channels}to{_out}", lambda b, i=_channels, o=_out: b.conv(b.input(i, 5, 7), o))
for _channels, _out in ((1, 4), (3, 16), (12, 20), (19, 9)):
    _one(
        f"conv 3x3 {_channels}to{_out}",
        lambda b, i=_channels, o=_out: b.conv(b.input(i, 7, 6), o, (3, 3), pads=(1, 1, 1, 1)),
    )
_one("conv 3x3 stride 2", lambda b: b.conv(b.input(3, 9, 11), 16, (3, 3), (2, 2), (1, 1, 1, 1), clamp=True))
_one("conv asymmetric pads", lambda b: b.conv(b.input(6, 8, 8), 10, (3, 3), (2, 2), (0, 0, 1, 1)))
_one("conv pads beyond the kernel", lambda b: b.conv(b.input(4, 3, 3), 5, (2, 2), (1, 1), (3, 2, 0, 4)))
_one("conv 7x7 stride 2", lambda b: b.conv(b.input(3, 17, 15), 12, (7, 7), (2, 2), (3, 3, 3, 3)))
_one("conv 1x5 and strides apart", lambda b: b.conv(b.input(4, 6, 9), 7, (1, 5), (1, 2), (0, 2, 0, 2)))
_one("conv dilated", lambda b: b.conv(b.input(8, 10, 9), 8, (3, 3), (1, 1), (2, 3, 2, 3), (2, 3)))
_one("conv 1x1 stride 2", lambda b: b.conv(b.input(16, 7, 7), 24, (1, 1), (2, 2)))
_one("conv no bias", lambda b: b.conv(b.input(24, 4, 4), 24, (3, 3), pads=(1, 1, 1, 1), bias=False))
_one("conv per tensor", lambda b: b.conv(b.input(10, 4, 4), 12, (3, 3), per_channel=False))
_one("conv clamp", lambda b: b.conv(b.input(32, 6, 6), 48, clamp=True))
_one("conv to 1x1 image", lambda b: b.conv(b.input(7, 5, 5), 11, (5, 5)))
_one("conv groups", lambda b: b.conv(b.input(12, 5, 5), 18, (3, 3), pads=(1, 1, 1, 1), groups=3))
_one("conv groups 1x1", lambda b: b.conv(b.input(32, 5, 5), 64, groups=4, clamp=True))
_one("conv groups of one input", lambda b: b.conv(b.input(6, 5, 5), 12, (3, 3), pads=(1, 1, 1, 1), groups=6))
_one("conv large", lambda b: b.conv(b.input(96, 9, 9), 130, clamp=True))
for _channels, _kernel, _stride in ((1, 3, 1), (8, 3, 1), (17, 3, 2), (32, 5, 1), (40, 5, 2), (16, 7, 1), (67, 3, 1)):
    _one(
        f"conv depthwise {_channels} {_kernel}x{_kernel} stride {_stride}",
        lambda b, c=_channels, k=_kernel, s=_stride: b.depthwise(b.input(c, 11, 10), k, s, clamp=s == 1),
    )
_one(
    "conv depthwise dilated",
    lambda b: b.conv(b.input(20, 9, 9), 20, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2), groups=20),
)
_one(
    "conv depthwise 1x3 no bias",
    lambda b: b.conv(b.input(33, 4, 12), 33, (1, 3), pads=(0, 1, 0, 1), groups=33, bias=False),
)
_one("conv depthwise no padding", lambda b: b.depthwise(b.input(12, 6, 6), pad=0))
_one("conv depthwise image smaller than kernel", lambda b: b.depthwise(b.input(24, 2, 1), 5))

# --- conv_transpose ---
_one("conv_transpose 2x2", lambda b: b.conv_transpose(b.input(8, 4, 5), 6))
_one("conv_transpose overlapping", lambda b: b.conv_transpose(b.input(5, 4, 4), 7, (4, 4), (2, 2), (1, 1, 1, 1)))
_one(
    "conv_transpose odd",
    lambda b: b.conv_transpose(b.input(4, 3, 5), 9, (3, 2), (2, 3), (1, 0, 0, 1), (2, 1), 1, (1, 2), bias=False),
)
_one("conv_transpose groups", lambda b: b.conv_transpose(b.input(6, 4, 4), 9, (3, 3), (1, 1), groups=3))
_one("conv_transpose depthwise", lambda b: b.conv_transpose(b.input(8, 4, 4), 8, (4, 4), pads=(1, 1, 1, 1), groups=8))

# --- linear ---
for _inputs, _out in ((1, 1), (16, 10), (37, 5), (64, 100), (130, 33)):
    _one(f"linear {_inputs}to{_out}", lambda b, i=_inputs, o=_out: b.linear(b.input(i), o, clamp=o == 33))
_one("linear no bias", lambda b: b.linear(b.input(31), 7, bias=False))
_one("linear rank 3", lambda b: b.linear(b.input(5, 12), 9))
_one("linear rank 4", lambda b: b.linear(b.input(3, 4, 6), 5), free=False)
_one("linear after permute", lambda b: b.linear(b.transpose(b.input(6, 4, 5), 0, 2, 3, 1), 5))

# --- add, sub, mul ---
for _op in ("add", "sub", "mul"):
    _one(f"{_op} images", lambda b, op=_op: b.binary(op, b.input(5, 4, 3), b.input(5, 4, 3)))
    _one(f"{_op} clamp", lambda b, op=_op: b.binary(op, b.input(32, 4, 4), b.input(32, 4, 4), clamp=True))
    _one(f"{_op} itself", lambda b, op=_op: (lambda x: b.binary(op, x, x))(b.input(9, 3, 3)))
    _one(f"{_op} rows", lambda b, op=_op: b.binary(op, b.input(41), b.input(41)))
    _one(f"{_op} a value a channel", lambda b, op=_op: b.binary(op, b.input(17, 4, 5), b.input(17, 1, 1)))
    _one(f"{_op} a value a channel first", lambda b, op=_op: b.binary(op, b.input(8, 1, 1), b.input(8, 4, 5)))
    _one(f"{_op} a value a pixel", lambda b, op=_op: b.binary(op, b.input(7, 4, 5), b.input(1, 4, 5)))
    _one(f"{_op} rows and columns", lambda b, op=_op: b.binary(op, b.input(7, 4, 1), b.input(7, 1, 5)))
    _one(f"{_op} constant a channel", lambda b, op=_op: b.binary(op, b.input(7, 4, 5), b.constant(1, 7, 1, 1)))
    _one(f"{_op} constant of lower rank", lambda b, op=_op: b.binary(op, b.constant(7, 1, 1), b.input(7, 4, 5)))
    _one(f"{_op} constant scalar", lambda b, op=_op: b.binary(op, b.input(7, 4, 5), b.constant(1, 1, 1, 1)))
    _one(f"{_op} constant scalar first", lambda b, op=_op: b.binary(op, b.constant(1), b.input(12)))
    _one(f"{_op} constant image", lambda b, op=_op: b.binary(op, b.input(3, 4, 5), b.constant(1, 3, 4, 5)))
    _one(f"{_op} constant row", lambda b, op=_op: b.binary(op, b.input(6), b.constant(1, 6)))

# --- one-input functions ---
for _op, _attrs in (
    ("relu", None), ("clip", ClipAttrs(-0.5, 0.8)), ("sigmoid", None), ("tanh", None), ("hard_swish", None),
    ("hard_sigmoid", HardSigmoidAttrs()), ("silu", None), ("gelu", None), ("erf", None),
    ("leaky_relu", LeakyReluAttrs(0.1)), ("pow", PowAttrs(2.0)), ("elu", None), ("selu", None),
    ("celu", CeluAttrs(0.5)), ("softplus", None), ("mish", None), ("softsign", None),
):  # fmt: skip
    _one(
        f"{_op}",
        lambda b, op=_op, attrs=_attrs: b.unary(op, b.input(9, 4, 5), attrs or get(op).attrs_type()),
    )
_one("sigmoid rows", lambda b: b.unary("sigmoid", b.input(70)))
_one("elu alpha", lambda b: b.unary("elu", b.input(9, 4, 5), EluAttrs(0.3)))
_one("softplus beta", lambda b: b.unary("softplus", b.input(9, 4, 5), SoftplusAttrs(1.7)))
_one("softplus threshold", lambda b: b.unary("softplus", b.input(9, 4, 5), SoftplusAttrs(0.8, 1.5)))
_one("prelu", lambda b: b.prelu(b.input(9, 4, 5), False))
_one("prelu a slope a channel", lambda b: b.prelu(b.input(9, 4, 5), True))
_one("prelu a slope a column", lambda b: b.prelu(b.input(19), True))

# --- pools and mean ---
_one("max_pool 2x2", lambda b: b.max_pool(b.input(9, 6, 7), (2, 2), (2, 2)))
_one("max_pool 3x3 padded", lambda b: b.max_pool(b.input(33, 7, 7), (3, 3), (2, 2), (1, 1, 1, 1)))
_one("max_pool dilated", lambda b: b.max_pool(b.input(4, 8, 9), (3, 2), (1, 2), (1, 0, 2, 1), (2, 2)))
_one("max_pool one axis", lambda b: b.max_pool(b.input(5, 4, 19), (1, 19)))
_one("max_pool whole image", lambda b: b.max_pool(b.input(16, 4, 4), (4, 4)))
_one("avg_pool 2x2", lambda b: b.avg_pool(b.input(9, 6, 7), Window((2, 2), (2, 2))))
_one("avg_pool 3x3 padded", lambda b: b.avg_pool(b.input(33, 7, 7), Window((3, 3), (1, 1), (1, 1, 1, 1))))
_one("avg_pool padding counts", lambda b: b.avg_pool(b.input(5, 7, 7), Window((3, 3), (2, 2), (1, 0, 1, 2)), True))
_one("avg_pool padding behind", lambda b: b.avg_pool(b.input(5, 6, 7), Window((2, 2), (3, 3), (1, 1, 2, 2)), True))
_one("mean kept", lambda b: b.mean(b.input(33, 7, 5)))
_one("mean", lambda b: b.mean(b.input(18, 4, 4), keep=False))
_one("mean of one pixel", lambda b: b.mean(b.input(18, 1, 1), keep=False))


# --- moving codes ---
def _same(b: QuantizedBuilder, *shapes: tuple[int, ...]) -> list[str]:
    """Inputs that share one quantization."""
    names = [b.input(*shape) for shape in shapes]
    quant = b.graph.quant(names[0])
    for name in names:
        b.graph.add_tensor(b.graph.tensor(name).with_(quant=quant))
    return names


_one("concat channels", lambda b: b.concat(_same(b, (3, 4, 5), (8, 4, 5), (1, 4, 5))))
_one("concat height", lambda b: b.concat(_same(b, (3, 4, 5), (3, 1, 5)), 2))
_one("concat width", lambda b: b.concat(_same(b, (3, 4, 5), (3, 4, 2)), 3))
_one("concat rows", lambda b: b.concat(_same(b, (3,), (8,))))
_one("concat itself", lambda b: (lambda x: b.concat([x, x, x]))(b.input(5, 3, 3)))
_one("concat rank 3", lambda b: b.concat(_same(b, (3, 4), (3, 2)), 2))
_one("slice channels", lambda b: b.part(b.input(9, 4, 5), 1, 2, 5))
_one("slice every other channel", lambda b: b.part(b.input(9, 4, 5), 1, 1, 4, 2))
_one(
    "slice image", lambda b: b.node("slice", [b.input(5, 8, 9)], SliceAttrs((0, 0, 1, 2), (1, 1, 2, 3), (-1, 5, 3, 2)))
)
_one("slice columns", lambda b: b.part(b.input(19), 1, 3, 8))
_one("reshape to and from 1x1", lambda b: b.reshape(b.reshape(b.input(12, 1, 1), 12), 12, 1, 1))
_one("reshape flatten", lambda b: b.flatten(b.input(4, 3, 5)), free=False)
_one("reshape flatten one channel", lambda b: b.flatten(b.input(1, 3, 5)))
_one("reshape rows to image", lambda b: b.reshape(b.input(24), 2, 3, 4))
_one("reshape rank 3", lambda b: b.reshape(b.input(6, 4), 3, 8))
_one("reshape image to sequence", lambda b: b.transpose(b.reshape(b.input(6, 3, 4), 6, 12), 0, 2, 1))
_one("reshape odd", lambda b: b.reshape(b.input(6, 4, 5), 8, 3, 5), free=False)
_one("transpose image", lambda b: b.transpose(b.input(3, 4, 5), 0, 1, 3, 2), free=False)
_one("transpose rank 3", lambda b: b.transpose(b.input(3, 4), 0, 2, 1), free=False)
_one("transpose rank 5", lambda b: b.transpose(b.input(2, 3, 2, 2), 0, 3, 1, 4, 2), free=False)
_one("transpose to nhwc and back", lambda b: b.transpose(b.transpose(b.input(3, 4, 5), 0, 2, 3, 1), 0, 3, 1, 2))
_one("pad image", lambda b: b.node("pad", [b.input(5, 3, 4)], PadAttrs((0, 0, 1, 2), (0, 0, 0, 3))))
_one(
    "pad channels with a value", lambda b: b.node("pad", [b.input(5, 3, 4)], PadAttrs((0, 1, 0, 0), (0, 2, 0, 0), 0.7))
)
_one("pad rows", lambda b: b.node("pad", [b.input(5)], PadAttrs((0, 2), (0, 1), -0.3)))
for _coordinates in Coordinates:
    _one(
        f"resize bilinear {_coordinates.name.lower()}",
        lambda b, c=_coordinates: b.node("resize", [b.input(5, 4, 6)], ResizeAttrs((7, 9), ResizeMode.BILINEAR, c)),
    )
    for _rounding in NearestRounding:
        _one(
            f"resize nearest {_coordinates.name.lower()} {_rounding.name.lower()}",
            lambda b, c=_coordinates, r=_rounding: b.node(
                "resize", [b.input(3, 4, 6)], ResizeAttrs((7, 4), ResizeMode.NEAREST, c, r)
            ),
        )
for _mode in ResizeMode:
    _one(
        f"resize {_mode.name.lower()} 3 to 7",
        lambda b, m=_mode: b.node("resize", [b.input(3, 3, 3)], ResizeAttrs((7, 7), m, Coordinates.ASYMMETRIC)),
    )
_one(
    "resize bilinear smaller", lambda b: b.node("resize", [b.input(17, 9, 7)], ResizeAttrs((4, 3), ResizeMode.BILINEAR))
)
_one("softmax rows", lambda b: b.node("softmax", [b.input(10)], SoftmaxAttrs(1)))
_one("softmax channels", lambda b: b.node("softmax", [b.input(10, 2, 3)], SoftmaxAttrs(1)))
_one("softmax width", lambda b: b.node("softmax", [b.input(3, 2, 5)], SoftmaxAttrs(3)))
for _channels, _groups in ((8, 2), (12, 3), (12, 4), (66, 2)):
    _one(
        f"channel_shuffle {_channels} by {_groups}",
        lambda b, c=_channels, g=_groups: b.node("channel_shuffle", [b.input(c, 3, 4)], ChannelShuffleAttrs(g)),
    )


# --- a few operators together ---
@case("block inverted residual")
def _inverted_residual(b: QuantizedBuilder) -> Graph:
    x = b.input(16, 9, 8)
    y = b.conv(x, 48, clamp=True)
    y = b.depthwise(y, 3, clamp=True)
    return b.finish(b.binary("add", x, b.conv(y, 16)))


@case("block residual with a table after it")
def _residual_relu(b: QuantizedBuilder) -> Graph:
    x = b.input(12, 6, 6)
    y = b.conv(b.unary("relu", b.conv(x, 12, (3, 3), pads=(1, 1, 1, 1))), 12, (3, 3), pads=(1, 1, 1, 1))
    return b.finish(b.unary("hard_swish", b.binary("add", y, x, clamp=True)))


@case("block squeeze and excite")
def _squeeze_and_excite(b: QuantizedBuilder) -> Graph:
    x = b.depthwise(b.input(24, 7, 7), 5)
    gate = b.unary("hard_sigmoid", b.conv(b.unary("relu", b.conv(b.mean(x), 8)), 24), HardSigmoidAttrs())
    return b.finish(b.conv(b.binary("mul", x, gate), 10))


@case("block squeeze and excite through linear")
def _squeeze_linear(b: QuantizedBuilder) -> Graph:
    x = b.input(24, 5, 5)
    gate = b.unary("sigmoid", b.linear(b.linear(b.mean(x, keep=False), 6, clamp=True), 24))
    return b.finish(b.binary("mul", b.reshape(gate, 24, 1, 1), x))


@case("block fire")
def _fire(b: QuantizedBuilder) -> Graph:
    squeezed = b.conv(b.input(16, 7, 7), 8, clamp=True)
    wide = b.conv(squeezed, 12, (3, 3), pads=(1, 1, 1, 1))
    narrow = b.conv(squeezed, 12)
    b.graph.add_tensor(b.graph.tensor(narrow).with_(quant=b.graph.quant(wide)))
    return b.finish(b.max_pool(b.concat([narrow, wide]), (3, 3), (2, 2), (0, 0, 1, 1)))


@case("block shuffle unit")
def _shuffle_unit(b: QuantizedBuilder) -> Graph:
    x = b.input(24, 6, 6)
    left, right = b.part(x, 1, 0, 12), b.part(x, 1, 12, 12)
    right = b.conv(b.depthwise(b.conv(right, 12, clamp=True)), 12, clamp=True)
    b.graph.add_tensor(b.graph.tensor(right).with_(quant=b.graph.quant(left)))
    y = b.node("channel_shuffle", [b.concat([left, right])], ChannelShuffleAttrs(2))
    return b.finish(b.conv(y, 20))


@case("block shuffle written as reshapes")
def _shuffle_reshapes(b: QuantizedBuilder) -> Graph:
    x = b.conv(b.input(6, 4, 4), 12)
    y = b.reshape(b.transpose(b.reshape(x, 3, 4, 4, 4), 0, 2, 1, 3, 4), 12, 4, 4)
    return b.finish(b.conv(y, 5))


CASES[-1] = Case(CASES[-1].name, CASES[-1].build, free=False)


@case("block pixel shuffle", free=False)
def _pixel_shuffle(b: QuantizedBuilder) -> Graph:
    x = b.conv(b.input(6, 3, 5), 12)
    y = b.reshape(b.transpose(b.reshape(x, 3, 2, 2, 3, 5), 0, 1, 4, 2, 5, 3), 3, 6, 10)
    return b.finish(b.conv(y, 4, (3, 3), pads=(1, 1, 1, 1)))


@case("block flatten and linear")
def _flatten_linear(b: QuantizedBuilder) -> Graph:
    x = b.max_pool(b.conv(b.input(3, 8, 8), 10, (3, 3), clamp=True), (2, 2), (2, 2))
    return b.finish(b.linear(b.linear(b.flatten(x), 20, clamp=True), 10))


@case("block flatten, elementwise, two linears")
def _flatten_elementwise(b: QuantizedBuilder) -> Graph:
    x = b.flatten(b.conv(b.input(3, 4, 5), 6))
    y = b.binary("mul", b.unary("relu", x), b.constant(1, 120))
    y = b.binary("add", y, b.constant(1))
    return b.finish(b.linear(y, 7), b.linear(y, 9))


@case("block flatten of two branches")
def _flatten_branches(b: QuantizedBuilder) -> Graph:
    x = b.input(4, 5, 5)
    a, c = b.flatten(b.conv(x, 6)), b.flatten(b.conv(x, 6))
    return b.finish(b.linear(b.binary("add", a, c), 8))


@case("block flatten that is read twice", free=False)
def _flatten_output(b: QuantizedBuilder) -> Graph:
    x = b.flatten(b.conv(b.input(4, 5, 5), 6))
    return b.finish(b.linear(x, 8), x)


@case("block flatten and concat", free=False)
def _flatten_concat(b: QuantizedBuilder) -> Graph:
    x, y = _same(b, (4, 3, 3), (5,))
    return b.finish(b.linear(b.concat([b.flatten(x), y]), 8))


@case("block dense")
def _dense(b: QuantizedBuilder) -> Graph:
    x = b.input(8, 5, 5)
    quant = b.graph.quant(x)
    features = [x]
    for _ in range(3):
        y = b.conv(b.unary("relu", b.concat(features)) if len(features) > 1 else x, 4, (3, 3), pads=(1, 1, 1, 1))
        b.graph.add_tensor(b.graph.tensor(y).with_(quant=quant))
        features.append(y)
    return b.finish(b.avg_pool(b.concat(features), Window((2, 2), (2, 2))))


@case("block transposes around a table")
def _transposes_around(b: QuantizedBuilder) -> Graph:
    x = b.transpose(b.conv(b.input(6, 4, 5), 8), 0, 2, 3, 1)
    y = b.linear(b.unary("gelu", b.linear(x, 16), get("gelu").attrs_type()), 8)
    return b.finish(b.conv(b.transpose(y, 0, 3, 1, 2), 3))


@case("block a tensor beside its transpose", free=False)
def _beside_its_transpose(b: QuantizedBuilder) -> Graph:
    x = b.reshape(b.conv(b.input(5, 4, 3), 12), 12, 12)
    return b.finish(b.linear(b.concat([x, b.transpose(x, 0, 2, 1)], 2), 7))


@case("block with NHWC ends")
def _nhwc_ends(b: QuantizedBuilder) -> Graph:
    x = b.transpose(b.input(7, 5, 3), 0, 3, 1, 2)
    y = b.depthwise(b.conv(x, 8, (3, 3), pads=(1, 1, 1, 1), clamp=True))
    return b.finish(b.transpose(y, 0, 2, 3, 1), y)


@case("block NHWC input that is read twice", free=False)
def _nhwc_input(b: QuantizedBuilder) -> Graph:
    x = b.input(7, 5, 3)
    y = b.conv(b.transpose(x, 0, 3, 1, 2), 6)
    return b.finish(b.unary("relu", x), b.transpose(y, 0, 2, 3, 1))


@case("block classifier")
def _classifier(b: QuantizedBuilder) -> Graph:
    x = b.conv(b.input(3, 9, 9), 16, (3, 3), (2, 2), (0, 0, 1, 1), clamp=True)
    y = b.linear(b.flatten(b.mean(b.depthwise(x))), 10)
    return b.finish(b.node("softmax", [y], SoftmaxAttrs(1)))


@case("block pad then convolution")
def _pad_convolution(b: QuantizedBuilder) -> Graph:
    x = b.node("pad", [b.input(5, 6, 6)], PadAttrs((0, 0, 1, 0), (0, 0, 2, 1)))
    return b.finish(b.conv(x, 8, (3, 3), (2, 2)))


@case("block two inputs, three outputs")
def _several_ends(b: QuantizedBuilder) -> Graph:
    x, y = b.input(4, 5, 5), b.input(4, 1, 1)
    z = b.binary("mul", x, y)
    return b.finish(z, b.mean(z, keep=False), b.conv(z, 3))


@case("block upsample and merge")
def _upsample(b: QuantizedBuilder) -> Graph:
    x, y = b.input(6, 4, 4), b.input(3, 8, 8)
    up = b.node("resize", [b.conv(x, 5)], ResizeAttrs((8, 8), ResizeMode.NEAREST, Coordinates.ASYMMETRIC))
    b.graph.add_tensor(b.graph.tensor(y).with_(quant=b.graph.quant(up)))
    return b.finish(b.conv_transpose(b.concat([up, y]), 4))


def build(case_: Case, scheme: str, seed: int) -> Graph:
    """Returns the graph of a case; the same for the same scheme and seed."""
    return case_.build(QuantizedBuilder(np.random.default_rng(seed), scheme))


def random_codes(graph: Graph, batch: int, seed: int) -> list[np.ndarray]:
    """Returns random codes for every input: NCHW, with both ends of the range among them."""
    rng = np.random.default_rng(seed)
    arrays = []
    for name in graph.inputs:
        quant, shape = graph.quant(name), graph.tensor(name).shape
        codes = rng.integers(quant.qmin, quant.qmax + 1, (batch, *shape[1:])).astype(np.int8)
        codes.reshape(-1)[0] = quant.qmin
        codes.reshape(-1)[-1] = quant.qmax
        arrays.append(codes)
    return arrays
