"""Resizing of height and width: nearest and bilinear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Attrs, Graph, Node
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
    from_nchw,
    nchw_shape,
    operand,
    register,
    shape_from_nchw,
    to_nchw,
    torch_operand,
)


class ResizeMode(IntEnum):
    """How values between the pixels are made; the numbers are those of docs/format.md."""

    NEAREST = 0
    BILINEAR = 1


class Coordinates(IntEnum):
    """Where output pixel i lies in the input; the names are ONNX's, the numbers those of docs/format.md."""

    HALF_PIXEL = 0
    ALIGN_CORNERS = 1
    ASYMMETRIC = 2
    PYTORCH_HALF_PIXEL = 3


class NearestRounding(IntEnum):
    """Which pixel is nearest; the names are ONNX's, the numbers those of docs/format.md."""

    ROUND_PREFER_FLOOR = 0
    ROUND_PREFER_CEIL = 1
    FLOOR = 2
    CEIL = 3


@dataclass(frozen=True, slots=True)
class ResizeAttrs(Attrs):
    """Attributes of `resize`.

    Attributes:
        size: Output height and width.
        mode: Nearest or bilinear.
        coordinates: Mapping of positions.
        rounding: For nearest.
    """

    size: tuple[int, int]
    mode: ResizeMode = ResizeMode.NEAREST
    coordinates: Coordinates = Coordinates.HALF_PIXEL
    rounding: NearestRounding = NearestRounding.ROUND_PREFER_FLOOR


WEIGHT_STEPS = 2048
"""Bilinear weights are integers that sum to this along each axis."""


def source_positions(size: int, outputs: int, coordinates: Coordinates) -> Array:
    """Returns where each output pixel lies along an axis of the input: float64, shape (outputs,), unclamped.

    The order of operations is fixed: `(i + 0.5) * size / outputs - 0.5`, `i * (size - 1) / (outputs - 1)`,
    `i * size / outputs`.
    """
    index = np.arange(outputs, dtype=np.float64)
    if coordinates is Coordinates.ALIGN_CORNERS:
        return index * (size - 1) / (outputs - 1) if outputs > 1 else np.zeros(1)
    if coordinates is Coordinates.ASYMMETRIC:
        return index * size / outputs
    if coordinates is Coordinates.PYTORCH_HALF_PIXEL and outputs == 1:
        return np.zeros(1)
    return (index + 0.5) * size / outputs - 0.5


def nearest_index(size: int, outputs: int, attrs: ResizeAttrs) -> Array:
    """Returns the input pixel of each output pixel along an axis: int64, shape (outputs,)."""
    position = source_positions(size, outputs, attrs.coordinates)
    rounded = {
        NearestRounding.ROUND_PREFER_FLOOR: np.ceil(position - 0.5),
        NearestRounding.ROUND_PREFER_CEIL: np.floor(position + 0.5),
        NearestRounding.FLOOR: np.floor(position),
        NearestRounding.CEIL: np.ceil(position),
    }[attrs.rounding]
    return np.clip(rounded.astype(np.int64), 0, size - 1)


def bilinear_taps(size: int, outputs: int, attrs: ResizeAttrs) -> tuple[Array, Array, Array]:
    """Returns (first pixel, second pixel, fraction towards the second) along an axis; pixels clamped to the image."""
    position = source_positions(size, outputs, attrs.coordinates)
    first = np.floor(position)
    low, high = (np.clip(pixel.astype(np.int64), 0, size - 1) for pixel in (first, first + 1))
    return low, high, position - first


def tflite_nearest_index(size: int, outputs: int, half_pixel_centers: bool, align_corners: bool) -> Array:
    """Returns the input pixel that RESIZE_NEAREST_NEIGHBOR takes for each output pixel, in its float32 arithmetic."""
    scale = np.float32(size) / np.float32(outputs)
    if align_corners and outputs > 1:
        scale = np.float32(size - 1) / np.float32(outputs - 1)
    offset = np.float32(0.5 if half_pixel_centers else 0.0)
    position = (np.arange(outputs, dtype=np.float32) + offset) * scale
    index = np.floor(position + np.float32(0.5)) if align_corners else np.floor(position)
    inside: Array = np.clip(index.astype(np.int64), 0, size - 1)
    return inside


@register
class Resize(Operator):
    """y = x with another height and width; the scale of each axis is output size / input size."""

    name = "resize"
    attrs_type = ResizeAttrs
    quant_rule = QuantRule.SAME
    onnx_types = ("Resize",)

    def infer(self, node: Node, graph: Graph) -> list[tuple[Shape, str]]:
        attrs = attrs_of(node, ResizeAttrs)
        n, c, _, _ = nchw_shape(graph.tensor(node.inputs[0]), graph.layout, node)
        if min(attrs.size) < 1:
            raise GraphError(f"{node.name}: output size {attrs.size} must be positive")
        return [(shape_from_nchw(n, c, *attrs.size, graph.layout), "float32")]

    def _nearest(self, x: Array, attrs: ResizeAttrs) -> Array:
        rows = nearest_index(x.shape[2], attrs.size[0], attrs)
        return x[:, :, rows][:, :, :, nearest_index(x.shape[3], attrs.size[1], attrs)]

    def run_float(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        attrs, x = attrs_of(node, ResizeAttrs), to_nchw(operand(values, 0), graph.layout)
        if attrs.mode is ResizeMode.NEAREST:
            return [from_nchw(self._nearest(x, attrs), graph.layout)]
        low, high, part = bilinear_taps(x.shape[2], attrs.size[0], attrs)
        rows = x[:, :, low] * (1 - part)[:, None] + x[:, :, high] * part[:, None]
        low, high, part = bilinear_taps(x.shape[3], attrs.size[1], attrs)
        y = rows[..., low] * (1 - part) + rows[..., high] * part
        return [from_nchw(y.astype(np.float32), graph.layout)]

    def run_torch(self, node: Node, values: Sequence[TorchTensor | None], graph: Graph) -> list[TorchTensor]:
        import torch

        attrs, x = attrs_of(node, ResizeAttrs), torch_operand(values, 0)

        def taken(source: TorchTensor, axis: int, pixels: Array) -> TorchTensor:
            return source.index_select(axis, torch.as_tensor(pixels, device=source.device))

        for axis, outputs in zip((2, 3), attrs.size, strict=True):
            if attrs.mode is ResizeMode.NEAREST:
                x = taken(x, axis, nearest_index(x.shape[axis], outputs, attrs))
                continue
            low, high, part = bilinear_taps(x.shape[axis], outputs, attrs)
            weight = torch.as_tensor(part, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (3 - axis))
            x = taken(x, axis, low) * (1 - weight) + taken(x, axis, high) * weight
        return [x]

    def run_integer(self, node: Node, values: Sequence[Array | None], graph: Graph) -> list[Array]:
        attrs, x = attrs_of(node, ResizeAttrs), to_nchw(operand(values, 0), graph.layout)
        if attrs.mode is ResizeMode.NEAREST:
            return [from_nchw(self._nearest(x, attrs), graph.layout)]
        wide = x.astype(np.int64)
        low, high, part = bilinear_taps(x.shape[2], attrs.size[0], attrs)
        weight = np.rint(part * WEIGHT_STEPS).astype(np.int64)[:, None]
        rows = wide[:, :, low] * (WEIGHT_STEPS - weight) + wide[:, :, high] * weight
        low, high, part = bilinear_taps(x.shape[3], attrs.size[1], attrs)
        weight = np.rint(part * WEIGHT_STEPS).astype(np.int64)
        total = rows[..., low] * (WEIGHT_STEPS - weight) + rows[..., high] * weight
        return [from_nchw(((total + (1 << 21)) >> 22).astype(np.int8), graph.layout)]

    def from_onnx(self, source: OnnxSource, node: Any) -> None:
        attrs = _attrs_from_onnx(source, node)
        source.emit("resize", source.name_of(node), [node.input[0]], [node.output[0]], attrs)

    def to_onnx(self, sink: OnnxSink, node: Node, graph: Graph) -> None:
        attrs, shape = attrs_of(node, ResizeAttrs), graph.tensor(node.inputs[0]).shape
        scales = np.array([1, 1, attrs.size[0] / shape[2], attrs.size[1] / shape[3]], np.float32)
        # Runtimes take the scale times the size, rounded down: 2.3333333 * 3 is less than 7. Sizes of two axes alone,
        # which leave the batch open, need opset 18.
        exact = all(float(scales[axis]) * shape[axis] == attrs.size[axis - 2] for axis in (2, 3))
        sizes: dict[str, Any] = {} if exact else {"axes": [2, 3]}
        if exact:
            extent = ["", sink.initializer(f"{node.name}.scales", scales)]
        else:
            extent = ["", "", sink.initializer(f"{node.name}.sizes", np.array(attrs.size, np.int64))]
        sink.emit(
            "Resize",
            [node.inputs[0], *extent],
            list(node.outputs),
            node.name,
            mode="nearest" if attrs.mode is ResizeMode.NEAREST else "linear",
            coordinate_transformation_mode=attrs.coordinates.name.lower(),
            nearest_mode=attrs.rounding.name.lower(),
            **sizes,
        )

    def to_tflite(self, sink: TfliteSink, node: Node, graph: Graph) -> None:
        attrs, x, y = attrs_of(node, ResizeAttrs), node.inputs[0], node.outputs[0]
        shape = graph.tensor(x).shape
        sides = list(zip(shape[1:3], attrs.size, strict=True))
        size = sink.constant(f"{node.name}.size", np.array(attrs.size, np.int32))
        if attrs.mode is ResizeMode.BILINEAR:
            centres = attrs.coordinates is Coordinates.HALF_PIXEL
            corners = attrs.coordinates is Coordinates.ALIGN_CORNERS
            if attrs.coordinates is Coordinates.PYTORCH_HALF_PIXEL:
                if 1 in attrs.size and attrs.size != shape[1:3]:
                    raise sink.fail(node, "RESIZE_BILINEAR to one pixel takes the middle, PyTorch's form the first")
                centres = True
            sink.emit(
                "RESIZE_BILINEAR",
                [x, size],
                [y],
                version=3 if centres else 2,
                align_corners=corners,
                half_pixel_centers=centres,
            )
            return
        for centres, corners in ((False, False), (True, False), (False, True)):
            if all(
                np.array_equal(
                    nearest_index(size_in, size_out, attrs),
                    tflite_nearest_index(size_in, size_out, centres, corners),
                )
                for size_in, size_out in sides
            ):
                sink.emit(
                    "RESIZE_NEAREST_NEIGHBOR",
                    [x, size],
                    [y],
                    version=3 if centres or corners else 2,
                    align_corners=corners,
                    half_pixel_centers=centres,
                )
                return
        rows, columns = (nearest_index(*side, attrs).astype(np.int32) for side in sides)
        tall = sink.activation(f"{y}.rows", (shape[0], attrs.size[0], *shape[2:]), graph.quant(x))
        sink.emit("GATHER", [x, sink.constant(f"{node.name}.rows", rows)], [tall], version=2, axis=1, batch_dims=0)
        sink.emit(
            "GATHER", [tall, sink.constant(f"{node.name}.columns", columns)], [y], version=2, axis=2, batch_dims=0
        )


def _attrs_from_onnx(source: OnnxSource, node: Any) -> ResizeAttrs:
    def text(name: str, default: str) -> str:
        value = source.attribute(node, name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    shape = source.graph.tensor(node.input[0]).shape
    if len(shape) != 4:
        raise source.fail(node, f"only images can be resized, the input has shape {list(shape)}")
    mode = {"nearest": ResizeMode.NEAREST, "linear": ResizeMode.BILINEAR}.get(text("mode", "nearest"))
    if mode is None:
        raise source.fail(node, f"mode {text('mode', '')} is not supported, only nearest and linear")
    spelled = text("coordinate_transformation_mode", "half_pixel")
    size, whole = _output_size(source, node, shape)
    # With sizes that are whole multiples, half_pixel_symmetric is half_pixel.
    known = {c.name.lower(): c for c in Coordinates} | (
        {"half_pixel_symmetric": Coordinates.HALF_PIXEL} if whole else {}
    )
    if spelled not in known:
        raise source.fail(node, f"coordinate_transformation_mode {spelled} is not supported, only {', '.join(known)}")
    if source.attribute(node, "antialias", 0) and (size[0] < shape[2] or size[1] < shape[3]):
        raise source.fail(node, "antialiased shrinking is not supported")
    rounding = {r.name.lower(): r for r in NearestRounding}.get(text("nearest_mode", "round_prefer_floor"))
    if rounding is None:
        raise source.fail(node, f"nearest_mode {text('nearest_mode', '')} is not known")
    return ResizeAttrs(size, mode, known[spelled], rounding)


def _output_size(source: OnnxSource, node: Any, shape: Shape) -> tuple[tuple[int, int], bool]:
    axes = [int(a) % 4 for a in source.attribute(node, "axes", [0, 1, 2, 3])]
    policy = source.attribute(node, "keep_aspect_ratio_policy", b"stretch")
    if policy not in (b"stretch", "stretch"):
        raise source.fail(node, f"keep_aspect_ratio_policy {policy!r} is not supported")
    pair = source.shape_pair(node, 3) if len(node.input) > 3 else None
    scales = source.constant_input(node, 2) if len(node.input) > 2 and node.input[2] else None
    result = [0, shape[1], shape[2], shape[3]]
    whole = True
    if pair is not None and pair[0].size:
        for i, axis in enumerate(axes):
            result[axis] = int(pair[0].reshape(-1)[i])
        if 0 in axes and [int(p.reshape(-1)[axes.index(0)]) for p in pair] not in ([2, 3], [1, 1]):
            raise source.fail(node, "it resizes the batch axis")
        whole = all(result[a] % shape[a] == 0 for a in (2, 3))
    elif scales is not None and scales.size:
        for i, axis in enumerate(axes):
            scale = float(scales.reshape(-1)[i])
            if axis == 0 and scale != 1.0:
                raise source.fail(node, "it resizes the batch axis")
            if axis and not 0 < scale * shape[axis] < 1 << 24:
                raise source.fail(node, f"scale {scale} of axis {axis} is not usable")
            if axis:
                result[axis] = int(np.floor(scale * shape[axis] + 1e-4))
                if abs(scale * shape[axis] - result[axis]) > 1e-3:
                    raise source.fail(
                        node,
                        f"scale {scale:g} makes {scale * shape[axis]:g} pixels of {shape[axis]}; give a whole size",
                    )
    else:
        raise source.fail(node, "its scales or sizes must be constant")
    if result[1] != shape[1]:
        raise source.fail(node, "it resizes the channel axis")
    return (result[2], result[3]), whole
