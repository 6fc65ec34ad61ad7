"""What each builtin operator of a TFLite file becomes: a function an operator, and the table of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from edgeq.importers.tflite_constants import strided
from edgeq.importers.tflite_file import ELEMENTS, FileOperator
from edgeq.importers.tflite_graph import MAX_NUMBERS, Constant, TfliteSource, Value, shown
from edgeq.ir import Attrs, QuantParams, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import Clamp, Shape, Window
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.elu import EluAttrs
from edgeq.ops.fake_quant import FakeQuantAttrs
from edgeq.ops.gelu import GeluAttrs
from edgeq.ops.leaky_relu import LeakyReluAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.pow import PowAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.resize import (
    Coordinates,
    NearestRounding,
    ResizeAttrs,
    ResizeMode,
    nearest_index,
    tflite_nearest_index,
)
from edgeq.ops.slice import SliceAttrs, part_of
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.ops.transpose import TransposeAttrs

MAX_SIDE = 1 << 16
"""Pixels along a side of an image that is resized or gathered."""

_COORDINATES = (Coordinates.ASYMMETRIC, Coordinates.HALF_PIXEL, Coordinates.ALIGN_CORNERS)

LOWEST = float(np.finfo(np.float32).min)

_HEAVIEST = 127
"""The largest weight."""

_IMAGE_AXES = (0, 2, 3, 1)
"""Where each axis of an image of the file is in the graph."""


# --- windows ---


def _sizes(source: TfliteSource, node: FileOperator, names: Sequence[str], default: int = 0) -> tuple[int, int]:
    first, second = (int(node.option(name, default)) for name in names)
    if min(first, second) < 1 or max(first, second) > MAX_SIDE:
        raise source.fail(node, f"{names[0]} {first} and {names[1]} {second} must be positive")
    return first, second


def _window(source: TfliteSource, node: FileOperator, shape: Shape, kernel: tuple[int, int], dilated: bool) -> Window:
    """Returns the window over an image of the file; SAME padding puts the smaller half before the image."""
    strides = _sizes(source, node, ("stride_h", "stride_w"))
    names = ("dilation_h_factor", "dilation_w_factor")
    dilations = _sizes(source, node, names, default=1) if dilated else (1, 1)
    if min(kernel) < 1:
        raise source.fail(node, f"its kernel {list(kernel)} is empty")
    before, after = [], []
    for axis in range(2):
        span = dilations[axis] * (kernel[axis] - 1) + 1
        size, stride = shape[axis + 1], strides[axis]
        total = max((-(-size // stride) - 1) * stride + span - size, 0) if node.padding == "SAME" else 0
        before.append(total // 2)
        after.append(total - total // 2)
    return Window(kernel, strides, (before[0], before[1], after[0], after[1]), dilations)


# --- layers with weights ---


def _conv(source: TfliteSource, node: FileOperator) -> None:
    x, weights = source.image_input(node), _filters(source, node, 1, lambda w: w.transpose(0, 3, 1, 2), 0)
    o, per_group, kh, kw = weights.value.shape
    if not per_group or x.shape[3] % per_group or o % max(x.shape[3] // per_group, 1):
        raise source.fail(node, f"filters {list(weights.value.shape)} (OIHW) do not fit {x.shape[3]} channels")
    window = _window(source, node, x.shape, (kh, kw), dilated=True)
    attrs = ConvAttrs(window, x.shape[3] // per_group, source.clamp(node))
    _layer(source, node, "conv", source.image(x), x, weights, attrs, bias=2, image=True)


def _depthwise(source: TfliteSource, node: FileOperator) -> None:
    x, weights = source.image_input(node), _filters(source, node, 1, lambda w: w.transpose(3, 0, 1, 2), 3)
    o, one, kh, kw = weights.value.shape
    if one != 1 or o % x.shape[3]:
        raise source.fail(node, f"filters of {o} channels do not fit an input of {x.shape[3]} channels")
    window = _window(source, node, x.shape, (kh, kw), dilated=True)
    attrs = ConvAttrs(window, x.shape[3], source.clamp(node))
    _layer(source, node, "conv", source.image(x), x, weights, attrs, bias=2, image=True)


def _transpose_conv(source: TfliteSource, node: FileOperator) -> None:
    x, weights = source.image_input(node, 2), _filters(source, node, 1, lambda w: w.transpose(0, 3, 1, 2), 0)
    wanted = source.numbers(node, 0, "output shape")
    o, channels, kh, kw = weights.value.shape
    if len(wanted) != 4 or wanted[0] not in (1, -1) or wanted[3] != o or channels != x.shape[3]:
        raise source.fail(node, f"output shape {wanted} and filters [{o}, {channels}, {kh}, {kw}] do not fit its input")
    strides = _sizes(source, node, ("stride_h", "stride_w"))
    pads, extra = [0, 0, 0, 0], [0, 0]
    for axis, kernel in enumerate((kh, kw)):
        full = (x.shape[axis + 1] - 1) * strides[axis] + kernel
        size = wanted[axis + 1]
        # The input's size follows from the output's as a convolution's would; what is cut is what it would pad.
        same = node.padding == "SAME"
        reached = -(-size // strides[axis]) if same else -(-(size - kernel + 1) // strides[axis])
        if size < 1 or reached != x.shape[axis + 1]:
            raise source.fail(node, f"output shape {wanted} does not fit its input {shown(x.shape)}")
        total = max((reached - 1) * strides[axis] + kernel - size, 0) if same else 0
        pads[axis] = total // 2
        pads[axis + 2] = max(full - pads[axis] - size, 0)
        extra[axis] = size + pads[axis] + pads[axis + 2] - full
    window = Window((kh, kw), strides, (pads[0], pads[1], pads[2], pads[3]))
    attrs = ConvTransposeAttrs(window, 1, (extra[0], extra[1]), source.clamp(node))
    _layer(source, node, "conv_transpose", source.image(x), x, weights, attrs, bias=3, image=True)


def _fully_connected(source: TfliteSource, node: FileOperator) -> None:
    x = source.value(node)
    if node.option("weights_format"):
        raise source.fail(node, "its weights are shuffled for one CPU; convert the model with plain weights")
    weights = _filters(source, node, 1, lambda w: w, 0, rank=2)
    depth, clamp = weights.value.shape[1], source.clamp(node)
    if len(x.shape) == 4 and x.image and node.option("keep_num_dims") and x.shape[3] == depth:
        # Over the channels of an image it is a 1x1 convolution.
        filters = weights.changed(lambda w: w[:, :, None, None])
        attrs = ConvAttrs(Window((1, 1)), 1, clamp)
        _layer(source, node, "conv", source.image(x), x, filters, attrs, bias=2, image=True)
        return
    given = source.plain(x)
    if not (node.option("keep_num_dims") or len(x.shape) == 2) or len(x.shape) < 2:
        if math.prod(x.shape[1:]) != depth:
            raise source.fail(
                node, f"it makes more than one row of each {shown(x.shape)}; the batch must stay axis 0 by itself"
            )
        given = source.step("reshape", f"{given}.flat", [given], ReshapeAttrs((x.shape[0], depth)))
    _layer(source, node, "linear", given, x, weights, LinearAttrs(clamp), bias=2, image=False)


def _filters(
    source: TfliteSource,
    node: FileOperator,
    index: int,
    change: Callable[[Array], Array],
    channels: int,
    rank: int = 4,
) -> Constant:
    """Returns weights in the graph's order: output channels first; `channels` is where the file has them."""
    found = source.require(node, index, "weights")
    if found.value.ndim != rank or 0 in found.value.shape:
        raise source.fail(node, f"its weights have shape {list(found.value.shape)}; they must have {rank} axes")
    if found.value.dtype.kind != "f":
        raise source.fail(node, "its weights are integers without a scale")
    if found.axis not in (None, channels):
        raise source.fail(node, f"its weights have scales along axis {found.axis}, not the output channels")
    if found.steps is not None and found.bits > 8:
        raise source.fail(node, f"its weights have {found.bits} bits; 8 and 4 are supported")
    return found.changed(change)


def _layer(
    source: TfliteSource,
    node: FileOperator,
    op: str,
    given: str,
    x: Value,
    weights: Constant,
    attrs: Attrs,
    *,
    bias: int,
    image: bool,
) -> None:
    """Emits a layer with its weights and its bias, if it has one."""
    stored = source.file.tensors[node.inputs[1]]
    stem = stored.name or f"{node.label}.weight"
    if weights.steps is not None and x.quant is None and stored.data is not None:
        source.notes.append(
            (
                node.label,
                "its weights are integers and its input is float: TFLite rounds the input to 8 bits while it runs, "
                "edgeq computes with the real weights",
            )
        )
    inputs = [given, source.add_constant(stem, weights)]
    if source.has(node, bias):
        found = source.require(node, bias, "bias")
        outputs = weights.value.shape[0]
        if found.value.size != outputs:
            raise source.fail(node, f"its bias has {found.value.size} values for {outputs} channels")
        found = found.changed(lambda value: value.reshape(-1))
        if found.steps is not None or found.value.dtype.kind != "f":
            found = _integer_bias(source, node, found, x, weights)
        inputs.append(source.add_constant(source.file.tensors[node.inputs[bias]].name or f"{node.label}.bias", found))
    source.emit(op, node, inputs, attrs, image=image)


def _integer_bias(source: TfliteSource, node: FileOperator, bias: Constant, x: Value, weights: Constant) -> Constant:
    """An integer bias counts steps of its input's scale times the weights', whatever scale the file gives it itself."""
    steps = bias.value if bias.steps is None else bias.steps
    if x.quant is None or weights.steps is None:
        if bias.steps is None:
            raise source.fail(node, "its bias has no scale")
        return bias
    scale = np.asarray(np.float32(x.quant.scale) * weights.scale, np.float32)
    real = (steps.astype(np.float64) * scale.astype(np.float64)).astype(np.float32)
    return Constant(real, steps.astype(np.int32), scale, 0 if scale.ndim else None, 0, 32)


# --- elementwise ---


def _binary(op: str) -> Callable[[TfliteSource, FileOperator], None]:
    def row(source: TfliteSource, node: FileOperator) -> None:
        _elementwise(source, node, op, [_operand(source, node, i) for i in range(2)])

    return row


def _divide(source: TfliteSource, node: FileOperator) -> None:
    divisor = source.require(node, 1, "divisor").value.astype(np.float64)
    if not np.all(np.isfinite(divisor)) or np.any(divisor == 0):
        raise source.fail(node, "the divisor holds a zero or a value that is not finite")
    factor = Constant((1.0 / divisor).astype(np.float32))
    _elementwise(source, node, "mul", [source.value(node, 0), factor])


def _operand(source: TfliteSource, node: FileOperator, index: int) -> Value | Constant:
    found = source.constant(node, index)
    return source.value(node, index) if found is None else found


def _elementwise(source: TfliteSource, node: FileOperator, op: str, operands: Sequence[Value | Constant]) -> None:
    values = [operand for operand in operands if isinstance(operand, Value)]
    rank = max(len(value.shape) for value in values)
    image = rank == 4 and any(value.image for value in values)
    inputs = []
    for operand in operands:
        if isinstance(operand, Constant):
            if operand.value.dtype.kind != "f" or operand.value.ndim > rank:
                raise source.fail(node, "its constant operand is an integer without a scale, or has more axes")
            full = operand.changed(lambda v: _full_rank(v, rank, image))
            inputs.append(source.add_constant(f"{node.label}.constant", full))
            continue
        if len(operand.shape) < rank:
            # A batch of one broadcasts like any axis in the file; here it is the batch of the other operand.
            ones = (1,) * (rank - len(operand.shape))
            target = ReshapeAttrs((operand.shape[0], *ones, *operand.shape[1:]))
            given = source.plain(operand)
            spread = source.step("reshape", f"{given}.spread", [given], target)
            operand = Value(target.target, operand.quant, spread)
        inputs.append(source.held(operand, image))
    source.emit(op, node, inputs, ElementwiseAttrs(source.clamp(node)), image=image)


def _full_rank(value: Array, rank: int, image: bool) -> Array:
    """A constant operand with as many axes as the other has, in its order."""
    full = value.reshape((1,) * (rank - value.ndim) + value.shape)
    return full.transpose(0, 3, 1, 2) if image else full


def _extreme(source: TfliteSource, node: FileOperator) -> None:
    """MAXIMUM and MINIMUM: with one number a clip; the larger of two activations is a maximum over both, stacked."""
    found = [_operand(source, node, i) for i in range(2)]
    values = [operand for operand in found if isinstance(operand, Value)]
    constants = [operand for operand in found if isinstance(operand, Constant)]
    for index, operand in enumerate(found):
        if isinstance(operand, Value):
            source.keeps_codes(node, index)
    if len(constants) == 1 and constants[0].value.size == 1:
        bound = float(constants[0].value.reshape(-1)[0])
        attrs = ClipAttrs(low=bound) if node.op == "MAXIMUM" else ClipAttrs(high=bound)
        _unary_of(source, node, values[0], "clip", attrs)
        return
    if len(values) != 2 or node.op != "MAXIMUM" or values[0].shape != values[1].shape:
        raise source.fail(node, "only a bound by one number, or the maximum of two activations of one shape, is known")
    shape = values[0].shape
    image = len(shape) == 4 and any(value.image for value in values)
    channels, pixels = (shape[3], shape[1] * shape[2]) if image else (1, math.prod(shape[1:]))
    rows = []
    for value in values:
        given = source.held(value, image)
        target = ReshapeAttrs((shape[0], channels, 1, pixels))
        rows.append(source.step("reshape", f"{given}.row", [given], target))
    both = source.step("concat", f"{node.label}.both", rows, ConcatAttrs(2))
    window = MaxPoolAttrs(Window((2, 1)))
    largest = source.step("max_pool", f"{node.label}.largest", [both], window)
    back = ReshapeAttrs((shape[0], shape[3], *shape[1:3]) if image else shape)
    source.emit("reshape", node, [largest], back, image=image)


# --- functions of one tensor ---


def _unary(op: str, attrs: Attrs | None = None) -> Callable[[TfliteSource, FileOperator], None]:
    def row(source: TfliteSource, node: FileOperator) -> None:
        _unary_of(source, node, source.value(node), op, attrs or Attrs())

    return row


def _unary_of(source: TfliteSource, node: FileOperator, x: Value, op: str, attrs: Attrs) -> None:
    image = bool(x.image)
    source.emit(op, node, [source.held(x, image)], attrs, image=image)


def _bounded(clamp: Clamp) -> Callable[[TfliteSource, FileOperator], None]:
    def row(source: TfliteSource, node: FileOperator) -> None:
        low, high = source.bounds(clamp, source.quant(node))
        _unary_of(source, node, source.value(node), "clip", ClipAttrs(low, high))

    return row


def _leaky_relu(source: TfliteSource, node: FileOperator) -> None:
    _unary_of(source, node, source.value(node), "leaky_relu", LeakyReluAttrs(float(node.option("alpha"))))


def _gelu(source: TfliteSource, node: FileOperator) -> None:
    _unary_of(source, node, source.value(node), "gelu", GeluAttrs(tanh=bool(node.option("approximate", False))))


def _pow(source: TfliteSource, node: FileOperator) -> None:
    exponent = source.require(node, 1, "exponent").value
    if exponent.size != 1:
        raise source.fail(node, "the exponent must be one number")
    _unary_of(source, node, source.value(node), "pow", PowAttrs(float(exponent.reshape(-1)[0])))


def _prelu(source: TfliteSource, node: FileOperator) -> None:
    x, slope = source.value(node), source.require(node, 1, "slope").value
    if slope.dtype.kind != "f" or (slope.size != 1 and (slope.size != x.shape[-1] or slope.shape[-1] != slope.size)):
        raise source.fail(node, f"the slope {list(slope.shape)} must have one value, or one a channel")
    image = len(x.shape) == 4
    name = source.add_constant(f"{node.label}.slope", Constant(slope.reshape(-1)))
    source.emit("prelu", node, [source.held(x, image), name], Attrs(), image=image)


def _softmax(source: TfliteSource, node: FileOperator) -> None:
    x, beta = source.value(node), float(node.option("beta", 0.0))
    if beta != 1.0:
        raise source.fail(node, f"beta {beta:g} is not supported, only 1")
    # Nothing may stand between it and the output that it becomes, so its axes are the file's.
    source.emit("softmax", node, [source.plain(x)], SoftmaxAttrs(len(x.shape) - 1), image=False)


def _behind_softmax(source: TfliteSource, node: FileOperator) -> Value | None:
    """What goes into the softmax whose output this operator moves, if one does; it is moved there instead."""
    before = source.made_by.get(node.inputs[0]) if node.inputs else None
    return source.value(before) if before is not None and before.op == "SOFTMAX" else None


# --- pools, means, sizes ---


def _max_pool(source: TfliteSource, node: FileOperator) -> None:
    x = source.image_input(node)
    source.keeps_codes(node)
    window = _window(source, node, x.shape, _sizes(source, node, ("filter_height", "filter_width")), dilated=False)
    source.emit("max_pool", node, [source.image(x)], MaxPoolAttrs(window), image=True, clamp=source.clamp(node))


def _average_pool(source: TfliteSource, node: FileOperator) -> None:
    x, clamp = source.image_input(node), source.clamp(node)
    source.keeps_codes(node)
    window = _window(source, node, x.shape, _sizes(source, node, ("filter_height", "filter_width")), dilated=False)
    if x.quant is not None and not any(window.pads) and math.prod(window.kernel) % 2 == 0:
        _average_with_halves(source, node, x, x.quant, window, clamp)
    elif window.kernel == x.shape[1:3] and not any(window.pads):
        source.emit("mean", node, [source.image(x)], MeanAttrs(keep_dims=True), image=True, clamp=clamp)
    else:
        source.emit("avg_pool", node, [source.image(x)], AvgPoolAttrs(window), image=True, clamp=clamp)


def _average_with_halves(
    source: TfliteSource, node: FileOperator, x: Value, quant: QuantParams, window: Window, clamp: Clamp
) -> None:
    """An average of an even number of codes, which can lie halfway between two.

    AVERAGE_POOL_2D rounds halves away from code 0 of the file, edgeq's pools to even: a step of difference on one value
    in 2 n, too many for a layer before a classifier. A depthwise convolution with weights 127 / (127 n) (1 + e)
    averages too. Its bias moves the point that e stretches from the zero point to code 0, so that halves fall as in the
    file. Other averages lie at least 1 / n from a half and move by at most 1 / (4 n).
    """
    count, channels = math.prod(window.kernel), x.shape[3]
    unsigned = source.file.tensors[node.inputs[0]].element == "uint8"
    zero = int(quant.zero_point) + (128 if unsigned else 0)
    stretch = 1 / ((1024 if unsigned else 512) * count)
    bias = int(zero * _HEAVIEST * count * stretch)
    if bias:
        stretch = bias / (zero * _HEAVIEST * count)
    scale = np.asarray((1 + stretch) / (_HEAVIEST * count), np.float32)
    steps = np.full((channels, 1, *window.kernel), _HEAVIEST, np.int32)
    weights = Constant(steps * scale, steps, scale, None, 0, 8)
    bias_scale = np.asarray(np.float32(quant.scale) * scale, np.float32)
    offsets = np.full(channels, bias, np.int32)
    inputs = [
        source.image(x),
        source.add_constant(f"{node.label}.weight", weights),
        source.add_constant(f"{node.label}.bias", Constant(offsets * bias_scale, offsets, bias_scale, None, 0, 32)),
    ]
    source.emit("conv", node, inputs, ConvAttrs(window, channels, clamp), image=True)


def _mean(source: TfliteSource, node: FileOperator) -> None:
    """The mean over height and width, or over one axis before the channels of a rank-3 tensor."""
    x, keep = source.value(node), bool(node.option("keep_dims", False))
    rank = len(x.shape)
    axes = sorted({source.axis(node, axis, rank) for axis in source.numbers(node, 1, "axes")})
    if axes == [1, 2] and rank == 4:
        source.emit("mean", node, [source.image(x)], MeanAttrs(keep), image=keep)
        return
    if axes != list(range(1, rank - 1)) or rank > 5:
        raise source.fail(node, f"only the mean over all axes but the last is supported, got axes {axes} of {rank}")
    image = (x.shape[0], x.shape[-1], math.prod(x.shape[1:-1]), 1)
    flat = source.step(
        "reshape", f"{node.label}.flat", [source.plain(x)], ReshapeAttrs((x.shape[0], image[2], 1, image[1]))
    )
    mean = MeanAttrs(keep_dims=False)
    given = source.image(Value((x.shape[0], image[2], 1, image[1]), x.quant, flat))
    if not keep:
        source.emit("mean", node, [given], mean, image=False)
        return
    out = source.step("mean", f"{node.label}.mean", [given], mean)
    target = (x.shape[0], *(1,) * (rank - 2), x.shape[-1])
    source.emit("reshape", node, [out], ReshapeAttrs(target), image=False)


def _resize_bilinear(source: TfliteSource, node: FileOperator) -> None:
    x, size = source.image_input(node), _new_size(source, node)
    source.keeps_codes(node)
    coordinates = Coordinates.ASYMMETRIC
    if node.option("half_pixel_centers", False):
        coordinates = Coordinates.HALF_PIXEL
    elif node.option("align_corners", False):
        coordinates = Coordinates.ALIGN_CORNERS
    attrs = ResizeAttrs(size, ResizeMode.BILINEAR, coordinates)
    source.emit("resize", node, [source.image(x)], attrs, image=True)


def _resize_nearest(source: TfliteSource, node: FileOperator) -> None:
    x, size = source.image_input(node), _new_size(source, node)
    source.keeps_codes(node)
    centres, corners = (bool(node.option(name, False)) for name in ("half_pixel_centers", "align_corners"))
    wanted = [tflite_nearest_index(x.shape[axis + 1], size[axis], centres, corners) for axis in range(2)]
    if not _nearest(source, node, x, wanted):
        raise source.fail(node, f"no rule of edgeq picks its pixels from {shown(x.shape)}")


def _new_size(source: TfliteSource, node: FileOperator) -> tuple[int, int]:
    size = source.numbers(node, 1, "size")
    if len(size) != 2 or min(size) < 1 or max(size) > MAX_SIDE:
        raise source.fail(node, f"size {size} must be a height and a width up to {MAX_SIDE}")
    return size[0], size[1]


# --- movements ---


def _reshape(source: TfliteSource, node: FileOperator) -> None:
    x = source.value(node)
    if _channel_shuffle(source, node):
        return
    if source.has(node, 1) and source.is_constant(node, 1):
        target = source.numbers(node, 1, "shape")
    else:
        target = node.numbers("new_shape") or list(source.file.tensors[node.outputs[0]].signature)
    _reshape_to(source, node, x, target)


def _reshape_to(source: TfliteSource, node: FileOperator, x: Value, target: Sequence[int]) -> None:
    """Reshapes to a shape that holds at batch 1, in which one size may be left open."""
    source.keeps_codes(node)
    total, sizes = math.prod(x.shape[1:]), list(target)
    rest = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or min(sizes, default=1) < -1 or rest == 0 or total % rest:
        raise source.fail(node, f"{shown(x.shape)} does not reshape to {sizes}")
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = total // rest
    if not sizes or sizes[0] != 1 or math.prod(sizes) != total:
        raise source.fail(node, f"it turns {shown(x.shape)} into {sizes}; the batch must stay axis 0 by itself")
    attrs, logits = ReshapeAttrs((x.shape[0], *sizes[1:])), _behind_softmax(source, node)
    if logits is not None and len(sizes) > 1 and sizes[-1] == x.shape[-1]:
        moved = source.step("reshape", f"{node.label}.logits", [source.plain(logits)], attrs)
        source.emit("softmax", node, [moved], SoftmaxAttrs(len(sizes) - 1), image=False)
        return
    source.emit("reshape", node, [source.plain(x)], attrs, image=False)


def _channel_shuffle(source: TfliteSource, node: FileOperator) -> bool:
    """Recognises [..., C] -> [..., g, C / g] -> swap -> [..., C] and emits a channel shuffle for it."""
    turn = source.made_by.get(node.inputs[0])
    split = source.made_by.get(turn.inputs[0]) if turn is not None and turn.op == "TRANSPOSE" else None
    if turn is None or split is None or split.op != "RESHAPE":
        return False
    x, parts = source.value(split), source.value(turn)
    order, declared = source.numbers(turn, 1, "permutation"), source.file.tensors[node.outputs[0]]
    rank = len(parts.shape)
    if (
        len(x.shape) not in (2, 4)
        or rank < 3
        or order != [*range(rank - 2), rank - 1, rank - 2]
        or parts.shape[-1] * parts.shape[-2] != x.shape[-1]
        or declared.shape[1:] != x.shape[1:]
    ):
        return False
    source.keeps_codes(node)
    image = len(x.shape) == 4
    attrs = ChannelShuffleAttrs(parts.shape[-2])
    source.emit("channel_shuffle", node, [source.held(x, image)], attrs, image=image)
    return True


def _squeeze(source: TfliteSource, node: FileOperator) -> None:
    x = source.value(node)
    dims = node.numbers("squeeze_dims")
    chosen = (
        {source.axis(node, axis, len(x.shape)) for axis in dims}
        if dims
        else {axis for axis, size in enumerate(x.shape) if size == 1}
    )
    if any(x.shape[axis] != 1 for axis in chosen):
        raise source.fail(node, f"axes {sorted(chosen)} of {shown(x.shape)} are not all 1")
    _reshape_to(source, node, x, [1, *(x.shape[a] for a in range(1, len(x.shape)) if a not in chosen)])


def _expand_dims(source: TfliteSource, node: FileOperator) -> None:
    x, axes = source.value(node), source.numbers(node, 1, "axis")
    if len(axes) != 1:
        raise source.fail(node, "it adds exactly one axis")
    axis = source.axis(node, axes[0], len(x.shape) + 1)
    _reshape_to(source, node, x, [1, *x.shape[1:axis], 1, *x.shape[axis:]])


def _transpose(source: TfliteSource, node: FileOperator) -> None:
    x, order = source.value(node), source.numbers(node, 1, "permutation")
    source.keeps_codes(node)
    if sorted(order) != list(range(len(x.shape))) or order[0] != 0:
        raise source.fail(node, f"permutation {order} of {shown(x.shape)} moves the batch axis or is none")
    logits = _behind_softmax(source, node)
    if logits is not None:
        turned = source.step("transpose", f"{node.label}.logits", [source.plain(logits)], TransposeAttrs(tuple(order)))
        source.emit("softmax", node, [turned], SoftmaxAttrs(order.index(len(order) - 1)), image=False)
        return
    source.emit("transpose", node, [source.plain(x)], TransposeAttrs(tuple(order)), image=False)


def _depth_to_space(source: TfliteSource, node: FileOperator) -> None:
    x, block = source.image_input(node), int(node.option("block_size"))
    n, h, w, c = x.shape
    if block < 1 or c % (block * block):
        raise source.fail(node, f"block size {block} does not divide {c} channels")
    inner = (n, h, w, block, block, c // (block * block))
    _rearranged(source, node, x, inner, (0, 1, 3, 2, 4, 5), (n, h * block, w * block, c // (block * block)))


def _space_to_depth(source: TfliteSource, node: FileOperator) -> None:
    x, block = source.image_input(node), int(node.option("block_size"))
    n, h, w, c = x.shape
    if block < 1 or h % block or w % block:
        raise source.fail(node, f"block size {block} does not divide {shown(x.shape)}")
    inner = (n, h // block, block, w // block, block, c)
    _rearranged(source, node, x, inner, (0, 1, 3, 2, 4, 5), (n, h // block, w // block, c * block * block))


def _rearranged(
    source: TfliteSource, node: FileOperator, x: Value, inner: Shape, order: tuple[int, ...], outer: Shape
) -> None:
    source.keeps_codes(node)
    split = source.step("reshape", f"{node.label}.split", [source.plain(x)], ReshapeAttrs(inner))
    turned = source.step("transpose", f"{node.label}.turned", [split], TransposeAttrs(order))
    source.emit("reshape", node, [turned], ReshapeAttrs(outer), image=False)


def _pad(source: TfliteSource, node: FileOperator) -> None:
    x, amounts = source.value(node), source.numbers(node, 1, "padding")
    source.keeps_codes(node)
    if len(amounts) != 2 * len(x.shape) or min(amounts) < 0 or any(amounts[:2]):
        raise source.fail(node, f"padding {amounts} of {shown(x.shape)} is negative, of the batch, or does not fit")
    border = 0.0
    if source.has(node, 2):
        value = source.require(node, 2, "border value")
        border = float(value.value.reshape(-1)[0]) if value.value.size == 1 else math.nan
        if x.quant is not None and value.steps is not None and value.steps.size == 1:
            # The smallest code stands for whatever lies below it: a maximum pool then takes the padding with it.
            code = int(value.steps.reshape(-1)[0]) + value.zero_point
            border = LOWEST if code == x.quant.qmin else (code - int(x.quant.zero_point)) * float(x.quant.scale)
    if not math.isfinite(border):
        raise source.fail(node, "its border must be one finite number")
    image = bool(x.image)
    attrs = PadAttrs(_moved(amounts[0::2], image), _moved(amounts[1::2], image), border)
    source.emit("pad", node, [source.held(x, image)], attrs, image=image)


def _moved(values: Sequence[int], image: bool) -> tuple[int, ...]:
    """Entries of the file's axes in the order of the graph's."""
    return tuple(values[axis] for axis in (0, 3, 1, 2)) if image else tuple(values)


def _slice(source: TfliteSource, node: FileOperator) -> None:
    x = source.value(node)
    begin, size = source.numbers(node, 1, "begin"), source.numbers(node, 2, "size")
    if len(begin) != len(x.shape) or len(size) != len(x.shape) or begin[0] != 0 or size[0] not in (-1, 1):
        raise source.fail(node, f"begin {begin} and size {size} cut the batch axis or do not fit {shown(x.shape)}")
    kept = [x.shape[a] - begin[a] if size[a] == -1 else size[a] for a in range(len(x.shape))]
    attrs = SliceAttrs(tuple(begin), (1,) * len(begin), (x.shape[0], *kept[1:]))
    _cut(source, node, attrs)


def _cut(source: TfliteSource, node: FileOperator, attrs: SliceAttrs, output: int = 0, index: int = 0) -> None:
    """Emits a slice of an input, given with the file's axes."""
    source.keeps_codes(node, index, output)
    x = source.value(node, index)
    image = bool(x.image)
    moved = SliceAttrs(_moved(attrs.begin, image), _moved(attrs.stride, image), _moved(attrs.size, image))
    source.emit("slice", node, [source.held(x, image)], moved, image=image, output=output)


def _strided_slice(source: TfliteSource, node: FileOperator) -> None:
    x = source.value(node)
    shape = (1, *x.shape[1:])
    parts = [np.array(source.numbers(node, i, name)) for i, name in enumerate(("begin", "end", "strides"), 1)]
    try:
        slices, dropped = strided(node, shape, parts)
    except ValueError as error:
        raise source.fail(node, str(error)) from None
    begin, stride, size = [], [], []
    for axis, part in enumerate(slices):
        reach = range(*part.indices(shape[axis]))
        if not reach or reach.step < 1:
            raise source.fail(node, f"it keeps nothing of axis {axis} of {shown(x.shape)}, or turns it round")
        begin.append(reach.start)
        stride.append(reach.step if len(reach) > 1 else 1)
        size.append(len(reach))
    if 0 in dropped:
        raise source.fail(node, "it drops the batch axis")
    attrs = SliceAttrs((0, *begin[1:]), (1, *stride[1:]), (x.shape[0], *size[1:]))
    if not dropped:
        _cut(source, node, attrs)
        return
    source.keeps_codes(node)
    part_name = source.step("slice", f"{node.label}.part", [source.plain(x)], attrs)
    target = tuple(size for axis, size in enumerate(attrs.size) if axis not in dropped)
    source.emit("reshape", node, [part_name], ReshapeAttrs(target), image=False)


def _split(source: TfliteSource, node: FileOperator) -> None:
    value, where = (1, 0) if node.op == "SPLIT" else (0, 2)
    x, count = source.value(node, value), len(node.outputs)
    axes = source.numbers(node, where, "axis")
    axis = source.axis(node, axes[0] if axes else 0, len(x.shape))
    if node.op == "SPLIT":
        sizes = [x.shape[axis] // count] * count
    else:
        sizes = source.numbers(node, 1, "sizes")
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = x.shape[axis] - sum(size for size in sizes if size != -1)
    if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes) < 1:
        raise source.fail(node, f"parts of {sizes} do not make up axis {axis} of {shown(x.shape)}")
    begin = 0
    for output, size in enumerate(sizes):
        _cut(source, node, part_of(x.shape, axis, begin, size), output, value)
        begin += size


def _unpack(source: TfliteSource, node: FileOperator) -> None:
    x = source.value(node)
    axis = source.axis(node, int(node.option("axis")), len(x.shape))
    if len(node.outputs) != x.shape[axis]:
        raise source.fail(node, f"{len(node.outputs)} parts do not make up axis {axis} of {shown(x.shape)}")
    target = ReshapeAttrs(x.shape[:axis] + x.shape[axis + 1 :])
    for output in range(len(node.outputs)):
        source.keeps_codes(node, 0, output)
        attrs = part_of(x.shape, axis, output, 1)
        part = source.step("slice", f"{node.label}.part", [source.plain(x)], attrs)
        source.emit("reshape", node, [part], target, image=False, output=output)


def _concatenation(source: TfliteSource, node: FileOperator) -> None:
    values = [source.value(node, i) for i in range(len(node.inputs))]
    rank = len(values[0].shape) if values else 0
    axis = source.axis(node, int(node.option("axis")), rank)
    if any(len(value.shape) != rank for value in values):
        raise source.fail(node, f"its inputs {[shown(value.shape) for value in values]} differ in rank")
    quant = source.quant(node)
    image = rank == 4 and any(value.image for value in values)
    inputs = []
    for value in values:
        tensor = source.held(value, image)
        if quant is not None and value.quant is not None and not quant.same_as(value.quant):
            # Old uint8 models join inputs of different scales: each is rounded to the output's first.
            tensor = source.step("fake_quant", f"{tensor}.rounded", [tensor], FakeQuantAttrs(quant))
        inputs.append(tensor)
    attrs = ConcatAttrs(_IMAGE_AXES[axis] if image else axis)
    source.emit("concat", node, inputs, attrs, image=image, clamp=source.clamp(node))


def _pack(source: TfliteSource, node: FileOperator) -> None:
    values = [source.value(node, i) for i in range(len(node.inputs))]
    if not values:
        raise source.fail(node, "it has no inputs")
    axis = source.axis(node, int(node.option("axis")), len(values[0].shape) + 1)
    inputs = []
    for index, value in enumerate(values):
        source.keeps_codes(node, index)
        given = source.plain(value)
        target = ReshapeAttrs((*value.shape[:axis], 1, *value.shape[axis:]))
        inputs.append(source.step("reshape", f"{given}.row", [given], target))
    source.emit("concat", node, inputs, ConcatAttrs(axis), image=False)


# --- codes ---


def _quantize(source: TfliteSource, node: FileOperator) -> None:
    """A rounding, or nothing where the value has these parameters already (int8 to uint8, float ends)."""
    x, quant = source.value(node), source.quant(node)
    if quant is None:
        raise source.fail(node, "its output is not quantized")
    if quant.same_as(x.quant):
        source.alias(node, x)
        return
    image = bool(x.image)
    source.define(node, 0, source.held(x, image), image)


def _dequantize(source: TfliteSource, node: FileOperator) -> None:
    source.alias(node, source.value(node))


def _cast(source: TfliteSource, node: FileOperator) -> None:
    """The first step of looking a code up in a table (`edgeq.ops.tflite_forms.table_lookup`)."""
    x = source.value(node)
    if x.quant is None or ELEMENTS[node.option("to")] != "int32":
        raise source.fail(node, "only the codes of an 8-bit tensor can be cast, to look them up in a table")
    unsigned = source.file.tensors[node.inputs[0]].element == "uint8"
    source.indices[node.outputs[0]] = (x, np.full(1, 128 if unsigned else 0, np.int64))


def _index(source: TfliteSource, node: FileOperator) -> bool:
    """ADD of an offset, one or one a channel, to what `_cast` began."""
    found = source.indices.get(node.inputs[0]) if len(node.inputs) == 2 else None
    offset = source.constant(node, 1)
    if found is None or offset is None:
        return False
    value, before = found
    if offset.value.dtype.kind != "i" or offset.value.size not in (1, value.shape[-1]) or node.option("activation"):
        raise source.fail(node, "only one number, or one a channel, can be added to the codes of a table")
    source.indices[node.outputs[0]] = (value, before + offset.value.reshape(-1).astype(np.int64))
    return True


def _add(source: TfliteSource, node: FileOperator) -> None:
    if not _index(source, node):
        _binary("add")(source, node)


def _gather(source: TfliteSource, node: FileOperator) -> None:
    if len(node.inputs) == 2 and node.inputs[1] in source.indices:
        _lookup(source, node)
        return
    x, picked = source.value(node), source.require(node, 1, "indices").value
    axis = source.axis(node, int(node.option("axis")), len(x.shape))
    source.keeps_codes(node)
    indices = picked.reshape(-1).astype(np.int64)
    count = x.shape[axis]
    if node.option("batch_dims") or picked.ndim > 1 or not indices.size or picked.dtype.kind not in "iu":
        raise source.fail(node, "only a list of indices along one axis is supported")
    if indices.min() < 0 or indices.max() >= count or indices.size > MAX_SIDE or count > MAX_SIDE:
        raise source.fail(node, f"an index does not lie in axis {axis} of {shown(x.shape)}")
    if picked.ndim == 0:
        part = source.step("slice", f"{node.label}.part", [source.plain(x)], part_of(x.shape, axis, int(indices[0]), 1))
        source.emit("reshape", node, [part], ReshapeAttrs(x.shape[:axis] + x.shape[axis + 1 :]), image=False)
        return
    steps = np.unique(np.diff(indices))
    if steps.size <= 1 and (not steps.size or steps[0] > 0):
        stride = int(steps[0]) if steps.size else 1
        _cut(source, node, part_of(x.shape, axis, int(indices[0]), indices.size, stride))
        return
    if not _nearest_rows_and_columns(source, node, x, axis, indices):
        raise source.fail(node, "only indices with one positive step, or those of a nearest resize, are supported")


def _nearest_rows_and_columns(source: TfliteSource, node: FileOperator, x: Value, axis: int, indices: Array) -> bool:
    """Recognises rows, columns, or first rows and then columns, as a nearest resize picks them, and emits one."""
    if len(x.shape) != 4 or axis == 3:
        return False
    wanted = [np.arange(size) for size in x.shape[1:3]]
    wanted[axis - 1] = indices
    before = source.made_by.get(node.inputs[0])
    if before is not None and before.op == "GATHER" and axis == 2 and before.option("axis") == 1:
        first = source.value(before)
        rows = source.require(before, 1, "indices").value.reshape(-1).astype(np.int64)
        if _nearest(source, node, first, [rows, indices]):
            return True
    return _nearest(source, node, x, wanted)


def _nearest(source: TfliteSource, node: FileOperator, x: Value, wanted: Sequence[Array]) -> bool:
    """Emits the nearest resize that picks these rows and columns, if there is one."""
    size = (wanted[0].size, wanted[1].size)
    if max(*x.shape[1:3], *size) > MAX_SIDE:
        raise source.fail(node, f"an image of {shown(x.shape)} is too large to be resized")
    for coordinates, rounding in itertools.product(_COORDINATES, NearestRounding):
        attrs = ResizeAttrs(size, ResizeMode.NEAREST, coordinates, rounding)
        if all(np.array_equal(nearest_index(x.shape[a + 1], size[a], attrs), wanted[a]) for a in range(2)):
            source.emit("resize", node, [source.image(x)], attrs, image=True)
            return True
    return False


def _lookup(source: TfliteSource, node: FileOperator) -> None:
    value, offset = source.indices[node.inputs[1]]
    data, quant = source.file.tensors[node.inputs[0]].data, source.quant(node)
    image = bool(value.image) or (offset.size > 1 and len(value.shape) == 4)
    if data is None or data.ndim != 1 or data.dtype.itemsize != 1 or data.size > 256 * MAX_NUMBERS or quant is None:
        raise source.fail(node, "a table must be a constant list of codes, and its output quantized")
    if offset.size > 1 and len(value.shape) not in (2, 4):
        raise source.fail(node, "tables a channel need an input [N, C] or [N, H, W, C]")
    index = offset[:, None] + np.arange(-128, 128)
    if index.min() < 0 or index.max() >= data.size:
        raise source.fail(node, f"a code would be looked up beyond the {data.size} entries of its table")
    unsigned = source.file.tensors[node.outputs[0]].element == "uint8"
    codes = data.astype(np.int16) - (128 if unsigned else 0)
    table = codes.astype(np.int8)[index]
    name = source.fresh(f"{node.label}.table")
    source.graph.add_tensor(Tensor.constant(name, table[0] if offset.size == 1 else table))
    source.emit("lut", node, [source.held(value, image), name], Attrs(), image=image)


Row = Callable[[TfliteSource, FileOperator], None]

ROWS: dict[str, Row] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average_pool,
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "DEQUANTIZE": _dequantize,
    "DIV": _divide,
    "ELU": _unary("elu", EluAttrs()),
    "EXPAND_DIMS": _expand_dims,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "GELU": _gelu,
    "HARD_SWISH": _unary("hard_swish"),
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _unary("sigmoid"),
    "MAXIMUM": _extreme,
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "MINIMUM": _extreme,
    "MUL": _binary("mul"),
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "POW": _pow,
    "PRELU": _prelu,
    "QUANTIZE": _quantize,
    "RELU": _unary("relu"),
    "RELU6": _bounded((0.0, 6.0)),
    "RELU_0_TO_1": _bounded((0.0, 1.0)),
    "RELU_N1_TO_1": _bounded((-1.0, 1.0)),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "RSQRT": _unary("pow", PowAttrs(-0.5)),
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQRT": _unary("pow", PowAttrs(0.5)),
    "SQUARE": _unary("pow", PowAttrs(2.0)),
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _binary("sub"),
    "TANH": _unary("tanh"),
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
    "UNPACK": _unpack,
}
"""How each builtin operator is read."""
