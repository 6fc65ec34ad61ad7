"""Writes float graphs as ncnn models, in float32 or int8.

ncnn's wheels bring neither its converter nor its quantizer. This is what they would write for the operators of image
classifiers: weights symmetric per output channel, activations symmetric per tensor by their largest magnitude, and
layers that hand int8 on to each other where no other layer reads the result.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node

FloatArray = npt.NDArray[np.float32]

_MAGIC = 7767517
_INT8_TAG = 0x000D4B38
_BINARY = {"add": 0, "sub": 1, "mul": 2}
_WITH_WEIGHTS = ("conv", "linear")


@dataclass(frozen=True, slots=True)
class NcnnModel:
    """A model in ncnn's two files.

    Attributes:
        param: Text of the .param file.
        weights: Bytes of the .bin file.
    """

    param: str
    weights: bytes


def to_ncnn(graph: Graph, largest: Mapping[str, float] | None = None) -> NcnnModel:
    """Writes a float NCHW graph, as `float_pipeline` gives it, with one input and one output.

    Args:
        graph: The graph.
        largest: The largest magnitude of every activation that a convolution or linear layer reads or writes, for an
            int8 model; None for float32.

    Raises:
        GraphError: If the graph has an operator that is not written here.
    """
    writer = _Writer(graph, largest)
    for node in graph.nodes:
        writer.add(node)
    return writer.finish()


class _Writer:
    """Collects layers and weights."""

    def __init__(self, graph: Graph, largest: Mapping[str, float] | None) -> None:
        self._graph = graph
        self._largest = largest
        self._consumers = graph.consumers()
        self._layers: list[tuple[str, str, list[str], list[str], str]] = []
        self._weights: list[bytes] = []
        self._done: set[str] = set()
        self._copies: dict[str, list[str]] = {}
        self._layer("Input", "input", [], [graph.inputs[0]])

    def add(self, node: Node) -> None:
        """Appends the layer or layers of a node."""
        if node.name in self._done:
            return
        write: Callable[[Node], None] | None = getattr(self, f"_{node.op}", None)
        if node.op in _BINARY:
            write = self._binary
        if write is None:
            raise GraphError(f"{node.name}: {node.op} is not written to ncnn models")
        write(node)

    def finish(self) -> NcnnModel:
        blobs = sum(len(layer[3]) for layer in self._layers)
        lines = [str(_MAGIC), f"{len(self._layers)} {blobs}"]
        for kind, name, inputs, outputs, options in self._layers:
            ends = " ".join([*inputs, *outputs])
            lines.append(f"{kind} {name} {len(inputs)} {len(outputs)} {ends} {options}".rstrip())
        return NcnnModel("\n".join(lines) + "\n", b"".join(self._weights))

    def _layer(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        options: Mapping[int, Any] | None = None,
    ) -> None:
        text = " ".join(f"{key}={_value(value)}" for key, value in (options or {}).items())
        read, written = [self._read(one) for one in inputs], [_plain(one) for one in outputs]
        self._layers.append((kind, _plain(name), read, written, text))
        for output in outputs:
            self._split(output)

    def _split(self, blob: str) -> None:
        """A blob is read once: one with several readers goes through a Split."""
        readers = self._readers(blob)
        if readers > 1:
            copies = [f"{_plain(blob)}_copy{i}" for i in range(readers)]
            self._layers.append(("Split", f"{_plain(blob)}_split", [_plain(blob)], copies, ""))
            self._copies[blob] = list(copies)

    def _readers(self, blob: str) -> int:
        nodes = self._consumers.get(blob, [])
        # Slices of one tensor become one layer.
        slices = [node for node in nodes if node.op == "slice"]
        return len(nodes) - max(len(slices) - 1, 0)

    def _read(self, blob: str) -> str:
        copies = self._copies.get(blob)
        return copies.pop(0) if copies else _plain(blob)

    def _conv(self, node: Node) -> None:
        attrs: Any = node.attrs
        weights = self._constant(node, 1)
        window = attrs.window
        (top, left, bottom, right), (rows, columns) = window.pads, window.kernel
        options: dict[int, Any] = {
            0: weights.shape[0],
            1: columns,
            11: rows,
            2: window.dilations[1],
            12: window.dilations[0],
            3: window.strides[1],
            13: window.strides[0],
            4: left,
            15: right,
            14: top,
            16: bottom,
            5: int(len(node.inputs) > 2),
            6: weights.size,
        }
        kind = "Convolution"
        if attrs.groups > 1:
            kind, options[7] = "ConvolutionDepthWise", attrs.groups
        self._weighted(kind, node, weights, options)

    def _linear(self, node: Node) -> None:
        weights = self._constant(node, 1)
        options = {0: weights.shape[0], 1: int(len(node.inputs) > 2), 2: weights.size}
        self._weighted("InnerProduct", node, weights, options)

    def _weighted(self, kind: str, node: Node, weights: FloatArray, options: dict[int, Any]) -> None:
        output = node.outputs[0]
        follower = self._only_reader(output)
        attrs: Any = node.attrs
        clamp = attrs.clamp
        if clamp == (-math.inf, math.inf) and follower is not None and follower.op == "hard_swish":
            options.update({9: 6, -23310: [1 / 6, 0.5]})
            self._done.add(follower.name)
            output = follower.outputs[0]
        elif clamp == (0.0, math.inf):
            options[9] = 1
        elif clamp != (-math.inf, math.inf):
            options.update({9: 3, -23310: [max(clamp[0], -3.4e38), min(clamp[1], 3.4e38)]})
        bias = self._constant(node, 2).tobytes() if len(node.inputs) > 2 else b""
        if self._largest is None:
            self._weights += [struct.pack("<I", 0), weights.tobytes(), bias]
        else:
            hands_on = kind != "InnerProduct" and self._only_integers_read(output)
            options[8] = 101 if hands_on else 1
            # Grouped layers have a scale a group; with one output channel a group that is a scale a channel.
            rows = weights.reshape(options.get(7, 1) if kind == "ConvolutionDepthWise" else len(weights), -1)
            scale = (127 / np.maximum(np.abs(rows).max(axis=1), 1e-9)).astype(np.float32)
            codes = np.clip(np.rint(rows * scale[:, None]), -127, 127).astype(np.int8).tobytes()
            padding = bytes(-len(codes) % 4)
            scales = [scale, self._scale(node.inputs[0]), *([self._scale(output)] if hands_on else [])]
            self._weights += [struct.pack("<I", _INT8_TAG), codes, padding, bias, *(one.tobytes() for one in scales)]
        self._layer(kind, node.name, node.inputs[:1], [output], options)

    def _only_integers_read(self, blob: str) -> bool:
        readers = self._consumers.get(blob, [])
        return bool(readers) and all(reader.op in _WITH_WEIGHTS for reader in readers)

    def _scale(self, blob: str) -> FloatArray:
        assert self._largest is not None
        return np.array([127 / max(self._largest[blob], 1e-9)], np.float32)

    def _only_reader(self, blob: str) -> Node | None:
        readers = self._consumers.get(blob, [])
        return readers[0] if len(readers) == 1 and blob not in self._graph.outputs else None

    def _binary(self, node: Node) -> None:
        attrs: Any = node.attrs
        low, high = attrs.clamp
        if (low, high) == (-math.inf, math.inf):
            self._layer("BinaryOp", node.name, node.inputs, node.outputs, {0: _BINARY[node.op]})
        elif (low, high) == (0.0, math.inf):
            between = f"{node.outputs[0]}_before"
            self._layer("BinaryOp", node.name, node.inputs, [between], {0: _BINARY[node.op]})
            self._layer("ReLU", f"{node.name}_relu", [between], node.outputs)
        else:
            raise GraphError(f"{node.name}: its clamp is not written to ncnn models")

    def _max_pool(self, node: Node) -> None:
        attrs: Any = node.attrs
        window = attrs.window
        (rows, columns), (down, across), (top, left, bottom, right) = window.kernel, window.strides, window.pads
        options = {0: 0, 1: columns, 11: rows, 2: across, 12: down, 3: left, 14: right, 13: top, 15: bottom, 5: 1}
        self._layer("Pooling", node.name, node.inputs, node.outputs, options)

    def _mean(self, node: Node) -> None:
        attrs: Any = node.attrs
        options = {0: 1, 4: 1}
        if not attrs.keep_dims:
            self._layer("Pooling", node.name, node.inputs, node.outputs, options)
            return
        between = f"{node.outputs[0]}_flat"
        self._layer("Pooling", node.name, node.inputs, [between], options)
        channels = self._graph.tensor(node.outputs[0]).shape[1]
        self._layer("Reshape", f"{node.name}_shape", [between], node.outputs, {0: 1, 1: 1, 2: channels})

    def _reshape(self, node: Node) -> None:
        if len(self._graph.tensor(node.outputs[0]).shape) != 2:
            raise GraphError(f"{node.name}: only flattening is written to ncnn models")
        self._layer("Reshape", node.name, node.inputs, node.outputs, {0: -1})

    def _hard_swish(self, node: Node) -> None:
        self._layer("HardSwish", node.name, node.inputs, node.outputs, {0: 1 / 6, 1: 0.5})

    def _hard_sigmoid(self, node: Node) -> None:
        attrs: Any = node.attrs
        self._layer("HardSigmoid", node.name, node.inputs, node.outputs, {0: attrs.alpha, 1: attrs.beta})

    def _concat(self, node: Node) -> None:
        attrs: Any = node.attrs
        self._layer("Concat", node.name, node.inputs, node.outputs, {0: attrs.axis - 1})

    def _channel_shuffle(self, node: Node) -> None:
        attrs: Any = node.attrs
        self._layer("ShuffleChannel", node.name, node.inputs, node.outputs, {0: attrs.groups})

    def _slice(self, node: Node) -> None:
        readers = self._consumers[node.inputs[0]]
        parts: list[tuple[Any, Node]] = [(one.attrs, one) for one in readers if one.op == "slice"]
        parts.sort(key=lambda part: part[0].begin[1])
        siblings = [one for _, one in parts]
        total = self._graph.tensor(node.inputs[0]).shape[1]
        sizes = [self._graph.tensor(one.outputs[0]).shape[1] for one in siblings]
        begins = [attrs.begin[1] for attrs, _ in parts]
        if begins != [sum(sizes[:i]) for i in range(len(sizes))] or sum(sizes) != total:
            raise GraphError(f"{node.name}: only slices that part the channels are written to ncnn models")
        self._done.update(one.name for one in siblings)
        outputs = [one.outputs[0] for one in siblings]
        self._layer("Slice", node.name, node.inputs, outputs, {-23300: sizes, 1: 0})

    def _constant(self, node: Node, index: int) -> FloatArray:
        value = self._graph.constant(node.inputs[index])
        if value is None:
            raise GraphError(f"{node.name}: weights that are computed are not written to ncnn models")
        return np.ascontiguousarray(value, np.float32)


def _plain(name: str) -> str:
    """Names end at white space in a .param file."""
    return "".join("_" if letter.isspace() else letter for letter in name)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join([str(len(value)), *(_value(one) for one in value)])
    return f"{value:.9g}" if isinstance(value, float) else str(value)
