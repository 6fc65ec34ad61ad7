"""Small quantized channels-last graphs, one operator each, for the TFLite exporter's tests and its study."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeq.ir import BATCH, Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops import QuantRule, get
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import NO_CLAMP, Clamp, Window, dequantize
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.gelu import GeluAttrs
from edgeq.ops.hard_sigmoid import HardSigmoidAttrs
from edgeq.ops.leaky_relu import LeakyReluAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.pow import PowAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.resize import Coordinates, NearestRounding, ResizeAttrs, ResizeMode
from edgeq.ops.silu import SiluAttrs
from edgeq.ops.slice import SliceAttrs
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.ops.transpose import TransposeAttrs
from edgeq.quantize.qparams import activation_params, fixed_params

RELU: Clamp = (0.0, math.inf)
RELU6: Clamp = (0.0, 6.0)


class QuantizedBuilder:
    """Builds a quantized NHWC graph node by node; ranges are those of the float statement on random codes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph("case", layout="nhwc")
        self.sample: dict[str, Array] = {}

    def activation_quant(self) -> QuantParams:
        return QuantParams.per_tensor(float(self.rng.uniform(0.01, 0.06)), int(self.rng.integers(-90, 90)))

    def input(self, name: str, *shape: int, quant: QuantParams | None = None) -> str:
        quant = quant or self.activation_quant()
        self.graph.add_tensor(Tensor(name, (BATCH, *shape), "int8", quant))
        self.graph.inputs.append(name)
        self.sample[name] = dequantize(self.codes(4, *shape), quant)
        return name

    def codes(self, *shape: int) -> Array:
        return self.rng.integers(-128, 128, shape).astype(np.int8)

    def constant(self, name: str, value: Array, quant: QuantParams | None = None) -> str:
        return self.graph.add_tensor(Tensor.constant(name, value, quant))

    def weights(
        self, x: str, shape: tuple[int, ...], bits: int = 8, bias: bool = True, per_tensor: bool = False
    ) -> list[str]:
        """Weights with output channels on axis 0, and a bias."""
        limit = 127 if bits == 8 else 7
        count = 1 if per_tensor else shape[0]
        scale = (self.rng.uniform(0.3, 1.5, count) / limit / math.sqrt(np.prod(shape[1:]))).astype(np.float32)
        codes = self.rng.integers(-limit, limit + 1, shape).astype(np.int8)
        bias_scale = np.float32(self.graph.quant(x).scale) * scale
        zero, axis = np.zeros(count, np.int32), None if per_tensor else 0
        if per_tensor:
            scale, bias_scale, zero = scale[0], bias_scale[0], zero[0]
        names = [self.constant("w", codes, QuantParams(scale, zero, bits, axis))]
        if bias:
            values = np.rint(self.rng.normal(0, 0.3, shape[0]) / bias_scale).astype(np.int32)
            names.append(self.constant("b", values, QuantParams(bias_scale, zero, 32, axis)))
        return names

    def node(self, op: str, inputs: list[str], attrs: Attrs, output: QuantParams | None = None) -> str:
        """Appends a node; its output gets `output`, or what its operator's rule says."""
        operator, number = get(op), len(self.graph.nodes)
        node = Node(op, f"{op}_{number}", tuple(inputs), (f"y{number}",), attrs)
        ((shape, dtype),) = operator.infer(node, self.graph)
        values: list[Array | None] = []
        for name in inputs:
            tensor = self.graph.tensor(name)
            if tensor.data is None:
                values.append(self.sample[name])
            else:
                values.append(tensor.data if tensor.quant is None else dequantize(tensor.data, tensor.quant))
        (real,) = operator.run_float(node, values, self.graph)
        self.sample[node.outputs[0]] = real
        rule, fixed = operator.quant_rule, operator.fixed_range(node)
        if rule is QuantRule.FLOAT:
            self.graph.add_tensor(Tensor(node.outputs[0], shape, dtype))
        else:
            if output is None and rule is QuantRule.SAME:
                output = self.graph.quant(inputs[0])
            elif output is None and fixed is not None:
                output = fixed_params(*fixed, 8)
            elif output is None:
                low, high = np.quantile(real, [0.005, 0.995])
                output = activation_params(float(low), float(high), 8)
            self.graph.add_tensor(Tensor(node.outputs[0], shape, "int8", output))
        self.graph.nodes.append(node)
        self.graph.outputs = [node.outputs[0]]
        return node.outputs[0]


Build = Callable[[QuantizedBuilder], object]


@dataclass(frozen=True)
class Case:
    """A graph of one operator.

    Attributes:
        name: Test id; up to the first "-" it is the operator, as the study groups them.
        build: Fills a builder.
        most: Largest difference in output steps, on any runtime.
        share: Largest share of differing values, in percent, on any runtime.
        exact_xnnpack: Whether LiteRT with XNNPACK must agree on every value.
        old: Whether tflite-runtime 2.14 runs it.
    """

    name: str
    build: Build
    most: int = 1
    share: float = 5.0
    exact_xnnpack: bool = False
    old: bool = True

    def graph(self, seed: int = 0) -> Graph:
        builder = QuantizedBuilder(seed)
        self.build(builder)
        return builder.graph


def conv(
    channels: int,
    outputs: int,
    kernel: int,
    *,
    size: int = 11,
    stride: int = 1,
    pads: tuple[int, int, int, int] = (0,) * 4,
    groups: int = 1,
    bits: int = 8,
    dilation: int = 1,
    clamp: Clamp = NO_CLAMP,
    bias: bool = True,
    per_tensor: bool = False,
) -> Build:
    def build(b: QuantizedBuilder) -> None:
        x = b.input("x", size, size + 1, channels)
        weights = b.weights(x, (outputs, kernel, kernel, channels // groups), bits, bias, per_tensor)
        window = Window((kernel, kernel), (stride, stride), pads, (dilation, dilation))
        b.node("conv", [x, *weights], ConvAttrs(window, groups, clamp))

    return build


def linear(
    inputs: int,
    outputs: int,
    *,
    bits: int = 8,
    clamp: Clamp = NO_CLAMP,
    middle: tuple[int, ...] = (),
    bias: bool = True,
) -> Build:
    def build(b: QuantizedBuilder) -> None:
        x = b.input("x", *middle, inputs)
        b.node("linear", [x, *b.weights(x, (outputs, inputs), bits, bias)], LinearAttrs(clamp))

    return build


def transposed(
    kernel: int,
    stride: int,
    pads: tuple[int, int, int, int] = (0,) * 4,
    *,
    groups: int = 1,
    dilation: int = 1,
    extra: tuple[int, int] = (0, 0),
    bits: int = 8,
    clamp: Clamp = NO_CLAMP,
) -> Build:
    def build(b: QuantizedBuilder) -> None:
        x = b.input("x", 7, 6, 8)
        window = Window((kernel, kernel), (stride, stride), pads, (dilation, dilation))
        weights = b.weights(x, (12, kernel, kernel, 8 // groups), bits)
        b.node("conv_transpose", [x, *weights], ConvTransposeAttrs(window, groups, extra, clamp))

    return build


def two(
    op: str, first: tuple[int, ...], second: tuple[int, ...], clamp: Clamp = NO_CLAMP, constant: bool = False
) -> Build:
    def build(b: QuantizedBuilder) -> None:
        x = b.input("x", *first)
        if constant:
            y = b.constant("c", b.codes(*second), b.activation_quant())
        else:
            y = b.input("z", *second)
        b.node(op, [x, y], ElementwiseAttrs(clamp))

    return build


def one(op: str, attrs: Attrs, shape: tuple[int, ...] = (9, 10, 12), output: QuantParams | None = None) -> Build:
    def build(b: QuantizedBuilder) -> None:
        b.node(op, [b.input("x", *shape)], attrs, output)

    return build


def same_quant(op: str, attrs: Attrs) -> Build:
    def build(b: QuantizedBuilder) -> None:
        x = b.input("x", 9, 10, 12)
        b.node(op, [x], attrs, b.graph.quant(x))

    return build


def prelu(*slopes: float, shape: tuple[int, ...] = (9, 10, 12)) -> Build:
    def build(b: QuantizedBuilder) -> None:
        values = np.array(slopes, np.float32) if slopes else b.rng.uniform(-0.1, 0.5, shape[-1]).astype(np.float32)
        b.node("prelu", [b.input("x", *shape), b.constant("slope", values)], Attrs())

    return build


def concat(axis: int, *shapes: tuple[int, ...]) -> Build:
    def build(b: QuantizedBuilder) -> None:
        quant = b.activation_quant()
        names = [b.input(f"x{i}", *shape, quant=quant) for i, shape in enumerate(shapes)]
        b.node("concat", names, ConcatAttrs(axis))

    return build


def table(channels: int | None) -> Build:
    def build(b: QuantizedBuilder) -> None:
        x = b.input("x", 5, 6, 8)
        values = b.codes(256) if channels is None else b.codes(channels, 256)
        node = Node("lut", "lut", (x, b.constant("table", values)), ("y",))
        b.graph.add_tensor(Tensor("y", b.graph.tensor(x).shape, "int8", b.activation_quant()))
        b.graph.nodes.append(node)
        b.graph.outputs = ["y"]

    return build


def _resize(
    size: tuple[int, int],
    mode: ResizeMode,
    coordinates: Coordinates,
    rounding: NearestRounding = NearestRounding.FLOOR,
) -> Build:
    return one("resize", ResizeAttrs(size, mode, coordinates, rounding), (7, 9, 6))


def _part(begin: tuple[int, ...], stride: tuple[int, ...], size: tuple[int, ...]) -> Build:
    return one("slice", SliceAttrs((0, *begin), (1, *stride), (BATCH, *size)))


NEAREST, BILINEAR = ResizeMode.NEAREST, ResizeMode.BILINEAR
SIGMOID_OUT = QuantParams.per_tensor(1 / 256, -128)

CASES = (
    Case("conv-3x3", conv(16, 24, 3, pads=(1, 1, 1, 1)), exact_xnnpack=True),
    Case("conv-3x3-relu6-stride2", conv(3, 24, 3, stride=2, pads=(1, 1, 1, 1), clamp=RELU6), exact_xnnpack=True),
    Case("conv-3x3-uneven-pads", conv(8, 16, 3, stride=2, pads=(0, 2, 1, 0), clamp=RELU), exact_xnnpack=True),
    Case("conv-5x5-dilated", conv(8, 16, 3, dilation=2, pads=(2, 2, 2, 2)), exact_xnnpack=True),
    Case("conv-1x1-clamp", conv(24, 32, 1, clamp=(-0.3, 0.4)), exact_xnnpack=True),
    Case("conv-groups", conv(16, 24, 3, groups=4), exact_xnnpack=True),
    Case("conv-per-tensor-no-bias", conv(16, 24, 3, bias=False, per_tensor=True), exact_xnnpack=True),
    Case("depthwise-3x3", conv(32, 32, 3, groups=32, pads=(1, 1, 1, 1), clamp=RELU6), exact_xnnpack=True),
    Case("depthwise-5x5-stride2", conv(24, 24, 5, groups=24, stride=2, pads=(2, 2, 2, 2)), exact_xnnpack=True),
    Case("depthwise-multiplier", conv(8, 16, 3, groups=8), exact_xnnpack=True),
    Case("linear-8bit", linear(64, 40), exact_xnnpack=True),
    Case("linear-8bit-rank3-relu", linear(32, 24, middle=(5,), clamp=RELU), exact_xnnpack=True),
    Case("linear-8bit-no-bias", linear(33, 10, bias=False), exact_xnnpack=True),
    Case("conv4-3x3", conv(16, 24, 3, bits=4, pads=(1, 1, 1, 1))),
    Case("conv4-1x1", conv(32, 24, 1, bits=4, clamp=RELU6), exact_xnnpack=True),
    Case("conv4-odd", conv(5, 7, 3, bits=4, stride=2, pads=(1, 1, 1, 1))),
    Case("conv4-groups", conv(16, 24, 3, bits=4, groups=4)),
    Case("depthwise4-3x3", conv(32, 32, 3, bits=4, groups=32, pads=(1, 1, 1, 1))),
    Case("depthwise4-odd", conv(7, 7, 3, bits=4, groups=7)),
    Case("linear4", linear(64, 40, bits=4), exact_xnnpack=True, old=False),
    Case("linear4-odd", linear(33, 11, bits=4), old=False),
    Case("linear4-rank3", linear(32, 24, bits=4, middle=(5,)), exact_xnnpack=True, old=False),
    Case("conv_transpose-2x2", transposed(2, 2)),
    Case("conv_transpose-4x4-crop", transposed(4, 2, (1, 1, 1, 1), clamp=RELU)),
    Case("conv_transpose-3x3-extra", transposed(3, 2, (1, 1, 1, 1), extra=(1, 1))),
    Case("conv_transpose-groups-dilated", transposed(2, 1, groups=4, dilation=2)),
    Case("conv_transpose-4bit", transposed(3, 1, (1, 1, 1, 1), bits=4)),
    Case("add", two("add", (9, 10, 12), (9, 10, 12))),
    Case("add-relu", two("add", (9, 10, 12), (9, 10, 12), RELU)),
    Case("add-constant", two("add", (9, 10, 12), (12,), constant=True)),
    Case("sub", two("sub", (9, 10, 12), (9, 10, 12))),
    Case("sub-relu6-broadcast", two("sub", (9, 10, 12), (1, 1, 12), RELU6)),
    Case("mul", two("mul", (9, 10, 12), (9, 10, 12))),
    Case("mul-gate", two("mul", (9, 10, 12), (1, 1, 12))),
    Case("mul-constant", two("mul", (9, 10, 12), (1,), constant=True)),
    Case("max_pool-3x3", one("max_pool", MaxPoolAttrs(Window((3, 3), (2, 2), (1, 1, 1, 1)))), most=0),
    Case("max_pool-2x2", one("max_pool", MaxPoolAttrs(Window((2, 2), (2, 2)))), most=0),
    Case("max_pool-ceil", one("max_pool", MaxPoolAttrs(Window((3, 3), (2, 2), (0, 0, 0, 1)))), most=0),
    Case("avg_pool-2x2", one("avg_pool", AvgPoolAttrs(Window((2, 2), (2, 2)))), share=20),
    Case("avg_pool-3x3-same", one("avg_pool", AvgPoolAttrs(Window((3, 3), (1, 1), (1, 1, 1, 1)))), share=10),
    Case(
        "avg_pool-padded-counted",
        one("avg_pool", AvgPoolAttrs(Window((3, 3), (2, 2), (1, 1, 1, 1)), True)),
        share=10,
    ),
    Case("mean", one("mean", MeanAttrs())),
    Case("mean-flat", one("mean", MeanAttrs(keep_dims=False), (7, 7, 32))),
    Case("relu", one("relu", Attrs())),
    Case("relu-same", same_quant("relu", Attrs()), most=0),
    Case("clip", one("clip", ClipAttrs(-0.5, 0.75))),
    Case("clip-same", same_quant("clip", ClipAttrs(-0.5, 0.75)), most=0),
    Case("leaky_relu", one("leaky_relu", LeakyReluAttrs(0.1)), share=10),
    Case("prelu", prelu(), share=10),
    Case("prelu-one-slope", prelu(0.25), share=10),
    Case("sigmoid", one("sigmoid", Attrs()), most=0),
    Case("sigmoid-own-range", one("sigmoid", Attrs(), output=QuantParams.per_tensor(0.005, -100)), most=0),
    Case("tanh", one("tanh", Attrs()), most=0),
    Case("hard_sigmoid", one("hard_sigmoid", HardSigmoidAttrs())),
    Case("hard_swish", one("hard_swish", Attrs())),
    Case("silu", one("silu", SiluAttrs()), share=40),
    Case("silu-alpha", one("silu", SiluAttrs(1.702)), most=0),
    Case("gelu", one("gelu", GeluAttrs()), most=0),
    Case("gelu-tanh", one("gelu", GeluAttrs(tanh=True)), most=0),
    Case("erf", one("erf", Attrs()), most=0),
    Case("pow", one("pow", PowAttrs(2.0)), most=0),
    Case("lut", table(None), most=0),
    Case("lut-per-channel", table(8), most=0),
    Case("concat-channels", concat(3, (5, 6, 8), (5, 6, 4), (5, 6, 3)), most=0),
    Case("concat-rows", concat(1, (5, 6, 8), (2, 6, 8)), most=0),
    Case("pad", one("pad", PadAttrs((0, 1, 2, 0), (0, 0, 1, 0))), most=0),
    Case("pad-value", one("pad", PadAttrs((0, 1, 2, 0), (0, 0, 1, 3), 0.5)), most=0),
    Case("reshape", one("reshape", ReshapeAttrs((BATCH, 90, 12))), most=0),
    Case("transpose", one("transpose", TransposeAttrs((0, 3, 1, 2))), most=0),
    Case("channel_shuffle", one("channel_shuffle", ChannelShuffleAttrs(3)), most=0),
    Case("slice", _part((1, 0, 4), (1, 1, 1), (5, 10, 8)), most=0),
    Case("slice-strided", _part((1, 0, 0), (2, 3, 1), (4, 4, 12)), most=0),
    Case("resize-nearest-asymmetric", _resize((14, 18), NEAREST, Coordinates.ASYMMETRIC), most=0),
    Case(
        "resize-nearest-half-pixel",
        _resize((14, 18), NEAREST, Coordinates.HALF_PIXEL, NearestRounding.ROUND_PREFER_FLOOR),
        most=0,
    ),
    Case("resize-nearest-odd", _resize((10, 5), NEAREST, Coordinates.HALF_PIXEL, NearestRounding.CEIL), most=0),
    Case("resize-bilinear-half-pixel", _resize((14, 18), BILINEAR, Coordinates.HALF_PIXEL), share=20),
    Case("resize-bilinear-corners", _resize((10, 21), BILINEAR, Coordinates.ALIGN_CORNERS), share=20),
    Case("resize-bilinear-asymmetric", _resize((14, 18), BILINEAR, Coordinates.ASYMMETRIC), share=20),
    Case("softmax", one("softmax", SoftmaxAttrs(1), (40,))),
)
