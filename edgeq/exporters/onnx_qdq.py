"""The quantized graph as an ONNX model in QDQ form: every operator between DequantizeLinear and QuantizeLinear.

The names are the graph's: the real value of tensor `t` is `t`, what an operator computes before it is quantized is
`t.raw`, the codes are `t.codes`. Activations are stored as unsigned codes q + 128 unless asked otherwise: the same
numbers, and the only form that ONNX Runtime computes in integers on x86. docs/conformance.md says how the results of
each operator agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.exporters.onnx_float import ModelSink, value_info
from edgeq.ir import Graph, Node, QuantParams
from edgeq.ir.int4 import pack_int4
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import NO_CLAMP, Clamp, Window, attrs_of, clamp_codes, quantize
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.conv import emit_clamp
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.gelu import GeluAttrs
from edgeq.ops.resize import ResizeAttrs, ResizeMode

if TYPE_CHECKING:
    import onnx

OPSET, OPSET_SIZES, OPSET_GELU, OPSET_INT4 = 17, 18, 20, 21
"""The lowest opset that a model needs is declared: 17 is read by every runtime of the last years, 18 resizes some axes
to sizes, 20 has Gelu, and only 21 has 4-bit integers."""

IR_VERSIONS = {OPSET: 8, OPSET_SIZES: 8, OPSET_GELU: 9, OPSET_INT4: 10}

RAW, CODES = ".raw", ".codes"
"""Suffixes of what an operator computes before it is quantized, and of its codes."""

_MOVES_CODES = frozenset({"channel_shuffle", "mean"})
"""Operators that may become several ONNX nodes, between which nothing but codes flows."""


@dataclass(frozen=True, slots=True)
class QdqOptions:
    """How the numbers are stored.

    Attributes:
        activations: "uint8" (codes + 128) or "int8"; 4-bit activations are uint4 or int4 alike.
        io: "float" for real inputs and outputs, "int8" for codes at both ends (of a softmax: always float32).
        packed_int4: Whether 4-bit weights are stored as INT4, two to a byte, and cast to INT8 where they are read (a
            constant expression); else as INT8, the same values, for runtimes without 4-bit types.
    """

    activations: Literal["uint8", "int8"] = "uint8"
    io: Literal["float", "int8"] = "float"
    packed_int4: bool = True


@dataclass(frozen=True, slots=True)
class RuntimeNote:
    """Where ONNX Runtime does not compute a node in integers.

    Attributes:
        nodes: Names of the nodes.
        text: What it does with them and why, a clause.
    """

    nodes: tuple[str, ...]
    text: str


def to_qdq_onnx(
    graph: Graph, options: QdqOptions | None = None, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """Writes a quantized NCHW graph as a QDQ ONNX model; the same graph and options give the same bytes.

    Args:
        graph: Quantized, NCHW; functions by name rather than as tables wherever they have one (before `lower`).
        options: How the numbers are stored.
        metadata: Kept in the model's metadata_props, in that order.

    Returns:
        A model that passes onnx.checker with full_check and strict shape inference. Its batch axis is free and named
        `batch`; its inputs and outputs have the names and order of the graph's.

    Raises:
        GraphError: If the graph is float or NHWC, or an operator has no ONNX row.
    """
    model = _Writer(graph, options or QdqOptions()).write()
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return model


def runtime_notes(graph: Graph, options: QdqOptions | None = None) -> list[RuntimeNote]:
    """Returns what ONNX Runtime (1.31, x86) computes in float although its codes are integers, for the summary.

    What is not named here it computes in integers or copies. A test compares this with the graphs it optimizes.
    """
    options = options or QdqOptions()
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        reason = _float_reason(node, graph)
        if reason:
            found.setdefault(reason, []).append(node.name)
    if options.activations == "int8":
        found[
            "signed activations: on x86 only what can be turned to unsigned codes runs in integers (all of it if the "
            "session sets session.qdqisint8allowed to 1); on ARM all of it"
        ] = [node.name for node in graph.nodes if node.op in _INTEGER]
    return [RuntimeNote(tuple(names), text) for text, names in found.items()]


_INTEGER = frozenset({"add", "avg_pool", "concat", "conv", "leaky_relu", "linear", "mean", "mul", "sigmoid"})
_COPIED = frozenset({"channel_shuffle", "lut", "max_pool", "reshape", "resize", "slice", "transpose"})


def _float_reason(node: Node, graph: Graph) -> str:
    """Why ONNX Runtime computes a node in float; empty when it does not."""
    if isinstance(node.attrs, AvgPoolAttrs) and _averages_whole_windows(node.attrs):
        return ""
    quants = [graph.tensor(name).quant for name in (node.inputs[0], node.outputs[0])]
    if any(quant is not None and quant.bits == 4 for quant in quants):
        return "4-bit activations: unpacked to float, computed in float"
    if node.op == "linear" and len(graph.tensor(node.inputs[0]).shape) > 2:
        return "integer product, its bias and requantization in float"
    bilinear = isinstance(node.attrs, ResizeAttrs) and node.attrs.mode is ResizeMode.BILINEAR
    if (node.op in _INTEGER or node.op in _COPIED) and not bilinear:
        clamp: Clamp = getattr(node.attrs, "clamp", NO_CLAMP)
        return "its activation clips codes through float" if _is_narrow(clamp, quants[1]) else ""
    return f"no integer form of {node.op}"


def _averages_whole_windows(attrs: AvgPoolAttrs) -> bool:
    return attrs.count_include_pad or not any(attrs.window.pads)


def _is_narrow(clamp: Clamp, quant: QuantParams | None) -> bool:
    """Whether a fused activation forbids codes that saturation allows."""
    return clamp != NO_CLAMP and quant is not None and clamp_codes(clamp, quant) != (quant.qmin, quant.qmax)


@dataclass(slots=True)
class _QdqSink(ModelSink):
    """A sink that also writes QuantizeLinear and DequantizeLinear.

    Attributes:
        unsigned: Whether activations are stored as unsigned codes.
        parameters: Initializers of scales and zero points by value.
        final: The output of the row that is being written; what it computes on the way there is quantized as `between`.
        between: None where values on the way stay real.
        four_bits: Whether the output of the row is quantized to 4 bits.
        codes: The codes of each quantized activation, by the name of its real value.
    """

    unsigned: bool = True
    parameters: dict[tuple[int, bytes, tuple[int, ...]], str] = field(default_factory=dict)
    final: str = ""
    between: QuantParams | None = None
    four_bits: bool = False
    codes: dict[str, str] = field(default_factory=dict)

    def emit(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any) -> None:
        """Appends a node; where codes flow between the nodes of a row, its output is quantized and dequantized."""
        if self.four_bits and op_type in ("Relu", "Clip"):
            bounds = [self.initializer(f"{name}.min", np.float32(0))] if op_type == "Relu" else list(inputs[1:])
            self._bounded(inputs[0], [*bounds, ""][:2], outputs[0], name)
            return
        if self.between is None or outputs[0] == self.final:
            ModelSink.emit(self, op_type, inputs, outputs, name, **attributes)
            return
        raw = self.fresh(f"{outputs[0]}{RAW}")
        ModelSink.emit(self, op_type, inputs, [raw], name, **attributes)
        quant, self.between = self.between, None
        self.requantized(raw, outputs[0], quant)
        self.between = quant

    def _bounded(self, x: str, bounds: Sequence[str], out: str, name: str) -> None:
        """Appends Max and Min for the bounds that there are.

        ONNX Runtime 1.31 drops a Relu, and fails on a Clip, in front of QuantizeLinear to 4 bits.
        """
        steps = [(op, bound) for op, bound in zip(("Max", "Min"), bounds, strict=True) if bound]
        for index, (op, bound) in enumerate(steps):
            result = out if index == len(steps) - 1 else self.fresh(f"{out}.bounded")
            ModelSink.emit(self, op, [x, bound], [result], f"{name}.{op.lower()}")
            x = result

    def add(self, name: str, kind: int, values: Array, bits: int) -> None:
        """Adds an initializer of an ONNX element type; 4-bit values are packed, the first in the low half."""
        import onnx

        if bits == 4:
            raw = pack_int4(np.asarray(values)).tobytes()
        else:
            raw = np.ascontiguousarray(values).tobytes()
        self.initializers.append(onnx.TensorProto(dims=np.shape(values), data_type=kind, raw_data=raw, name=name))

    def signed_type(self) -> int:
        """The ONNX element type of 8-bit weights."""
        import onnx

        kind: int = onnx.TensorProto.INT8
        return kind

    def stored_type(self, bits: int) -> tuple[int, int, type[Any]]:
        """The ONNX element type of an activation, what is added to its codes, and the numpy type of a code."""
        import onnx

        if bits == 4:
            return (
                (onnx.TensorProto.UINT4, 8, np.uint8) if self.unsigned else (onnx.TensorProto.INT4, 0, np.int8)
            )
        return (onnx.TensorProto.UINT8, 128, np.uint8) if self.unsigned else (onnx.TensorProto.INT8, 0, np.int8)

    def scale(self, scale: npt.NDArray[np.float32]) -> str:
        """The initializer of a scale; equal ones share one."""
        import onnx

        return self._parameter("scale", onnx.TensorProto.FLOAT, np.asarray(scale, np.float32), 32)

    def zero(self, kind: int, value: Array, bits: int) -> str:
        """The initializer of a zero point; equal ones share one."""
        return self._parameter("zero_point", kind, value, bits)

    def _parameter(self, stem: str, kind: int, value: Array, bits: int) -> str:
        key = (kind, value.tobytes(), value.shape)
        if key not in self.parameters:
            name = self.fresh(stem)
            self.add(name, kind, value, bits)
            self.parameters[key] = name
        return self.parameters[key]

    def quantized(self, real: str, codes: str, quant: QuantParams, as_int8: bool = False) -> None:
        """Appends QuantizeLinear of an activation."""
        self.emit("QuantizeLinear", [real, *self._activation(quant, as_int8)], [codes], f"{codes}.quantize")

    def dequantized(self, codes: str, real: str, quant: QuantParams, as_int8: bool = False) -> None:
        """Appends DequantizeLinear of an activation."""
        self.emit("DequantizeLinear", [codes, *self._activation(quant, as_int8)], [real], f"{real}.dequantize")

    def requantized(self, raw: str, real: str, quant: QuantParams) -> None:
        """Appends QuantizeLinear and DequantizeLinear."""
        codes = self.codes[real] = self.fresh(f"{real}{CODES}")
        self.quantized(raw, codes, quant)
        self.dequantized(codes, real, quant)

    def _activation(self, quant: QuantParams, as_int8: bool) -> tuple[str, str]:
        import onnx

        kind, offset, dtype = (onnx.TensorProto.INT8, 0, np.int8) if as_int8 else self.stored_type(quant.bits)
        zero = np.asarray(int(quant.zero_point) + offset).astype(dtype)
        return self.scale(quant.scale), self.zero(kind, zero, 8 if as_int8 else quant.bits)


class _Writer:
    def __init__(self, graph: Graph, options: QdqOptions) -> None:
        if graph.layout != "nchw" or any(graph.tensor(name).quant is None for name in graph.inputs):
            raise GraphError(f"graph {graph.name} must be quantized and NCHW to be written as a QDQ ONNX model")
        self.options = options
        self.integer_ends = options.io == "int8"
        self.graph, self.real = _with_ends_apart(graph, self.integer_ends)
        self.ends = graph
        # Every tensor keeps its name; nothing else may take it.
        self.sink = _QdqSink({*self.graph.tensors, *graph.tensors}, unsigned=options.activations == "uint8")
        self.written: set[str] = set()

    def write(self) -> onnx.ModelProto:
        import onnx

        import edgeq

        graph, sink = self.graph, self.sink
        for name in self.ends.inputs:
            self._input(name)
        for node in graph.nodes:
            self._node(node)
        for name in self.ends.outputs:
            self._output(name)
        used = {name for node in sink.nodes for name in node.input}
        opset = self._opset()
        kind = "int8" if self.integer_ends else "float32"
        return onnx.helper.make_model(
            onnx.helper.make_graph(
                sink.nodes,
                graph.name,
                [value_info(self.ends.tensor(name).with_(dtype=kind), name) for name in self.ends.inputs],
                [
                    value_info(tensor if tensor.quant is None else tensor.with_(dtype=kind), tensor.name)
                    for tensor in map(self.ends.tensor, self.ends.outputs)
                ],
                [tensor for tensor in sink.initializers if tensor.name in used],
            ),
            opset_imports=[onnx.helper.make_opsetid("", opset)],
            ir_version=IR_VERSIONS[opset],
            producer_name="edgeq",
            producer_version=edgeq.__version__,
        )

    def _opset(self) -> int:
        import onnx

        four = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
        if any(tensor.data_type in four for tensor in self.sink.initializers):
            return OPSET_INT4
        if any(isinstance(node.attrs, GeluAttrs) for node in self.graph.nodes):
            return OPSET_GELU
        by_sizes = any(node.op_type == "Resize" and len(node.input) == 4 for node in self.sink.nodes)
        return OPSET_SIZES if by_sizes else OPSET

    # --- the ends ---

    def _input(self, name: str) -> None:
        quant, real, sink = self.ends.quant(name), self.real[name], self.sink
        if not self.integer_ends:
            sink.requantized(name, real, quant)
        elif sink.unsigned:
            signed = sink.fresh(f"{name}.signed")
            sink.dequantized(name, signed, quant, as_int8=True)
            sink.requantized(signed, real, quant)
        else:
            sink.codes[real] = name
            sink.dequantized(name, real, quant, as_int8=True)

    def _output(self, name: str) -> None:
        quant = self.ends.tensor(name).quant
        if self.integer_ends and quant is not None:
            self.sink.quantized(self.real[name], name, quant, as_int8=True)

    # --- constants ---

    def _operand(self, name: str) -> None:
        """A constant that is read like an activation, and stored like one."""
        tensor = self.graph.tensor(name)
        if tensor.data is None or tensor.quant is None or name in self.written:
            return
        self.written.add(name)
        kind, offset, dtype = self.sink.stored_type(tensor.quant.bits)
        codes = self.sink.fresh(f"{name}{CODES}")
        self.sink.add(codes, kind, (tensor.data.astype(np.int16) + offset).astype(dtype), tensor.quant.bits)
        self.sink.dequantized(codes, name, tensor.quant)

    def _weights(self, name: str, data: Array, real: str, axis: int, four_bit_ends: bool = False) -> None:
        """Weights, or a bias: symmetric, one scale an index of `axis` or one for all.

        Args:
            name: Of the constant in the graph.
            data: Its codes as ONNX wants them.
            real: Name for the real values.
            axis: Of `data`, along which the scales lie.
            four_bit_ends: Whether the layer's input and output have 4 bits, so that it is computed in float anyway.
        """
        import onnx

        quant = self.graph.quant(name)
        if real in self.written:
            return
        self.written.add(real)
        bits = 8 if quant.bits == 4 else quant.bits
        kind = onnx.TensorProto.INT8 if bits == 8 else onnx.TensorProto.INT32
        codes = self.sink.fresh(f"{real}{CODES}")
        if bits != quant.bits and self.options.packed_int4 and four_bit_ends:
            # ONNX Runtime 1.31 would take 4-bit activations and 8-bit weights for a case of QLinearConv, which fails.
            kind, bits = onnx.TensorProto.INT4, 4
            self.sink.add(codes, kind, data, 4)
        elif bits != quant.bits and self.options.packed_int4:
            packed = self.sink.fresh(f"{real}.packed")
            self.sink.add(packed, onnx.TensorProto.INT4, data, 4)
            # Folded when the model is loaded: a runtime that computes 8-bit weights in integers does so with these.
            self.sink.emit("Cast", [packed], [codes], f"{real}.unpack", to=kind)
        else:
            self.sink.add(codes, kind, data, bits)
        zeros = np.zeros(quant.zero_point.shape, data.dtype)
        operands = [codes, self.sink.scale(quant.scale), self.sink.zero(kind, zeros, bits)]
        where = {} if quant.axis is None else {"axis": axis}
        self.sink.emit("DequantizeLinear", operands, [real], f"{real}.dequantize", **where)

    # --- nodes ---

    def _node(self, node: Node) -> None:
        sink, y = self.sink, self.graph.tensor(node.outputs[0])
        if y.quant is None:  # Softmax; a table that `lower` gave it has no place in ONNX.
            get(node.op).to_onnx(sink, node.with_(inputs=node.inputs[:1]), self.graph)
            return
        raw = sink.fresh(f"{y.name}{RAW}")
        plain, clamp = _without_clamp(node)
        narrow = _is_narrow(clamp, y.quant)
        clamp = _float_bounds(clamp, y.quant, narrow)
        sink.four_bits = y.quant.bits == 4
        if sink.four_bits and not narrow:
            clamp = NO_CLAMP  # Saturation does it.
        if node.op == "lut":
            self._table(node)
            return
        if node.attrs == ClipAttrs():  # A change of quantization, nothing else.
            sink.requantized(node.inputs[0], y.name, y.quant)
            return
        computed = raw if clamp == NO_CLAMP or narrow else sink.fresh(f"{y.name}.preactivation")
        sink.final, sink.between = computed, y.quant if node.op in _MOVES_CODES else None
        x_bits = self.graph.quant(node.inputs[0]).bits
        if node.op == "max_pool" and sink.four_bits:
            pooled = sink.fresh(f"{y.name}.pooled")
            self._row(self._apart(plain), pooled)
            sink.emit("Max", [pooled, self._lowest(node.name, y.quant)], [computed], f"{node.name}.after")
        elif node.op == "conv" and sink.four_bits and x_bits == 4 and self.graph.quant(node.inputs[1]).bits == 8:
            self._row(self._apart(plain), computed)
        else:
            self._row(plain, computed)
        sink.between = None
        if not narrow:
            emit_clamp(sink, clamp, computed, raw, node.name)
            sink.requantized(raw, y.name, y.quant)
            return
        # Clamping codes that are quantized already: the operator before it stays one that runtimes fuse.
        unclamped, clamped = sink.fresh(f"{y.name}.unclamped"), sink.fresh(f"{y.name}.clamped")
        sink.requantized(raw, unclamped, y.quant)
        emit_clamp(sink, clamp, unclamped, clamped, node.name)
        sink.requantized(clamped, y.name, y.quant)

    def _apart(self, node: Node) -> Node:
        """Returns the node with something between the DequantizeLinear of its 4-bit input and itself.

        It has no effect, but ONNX Runtime 1.31 would compute with the 4-bit codes, for which it has no kernel.
        """
        x = self.graph.tensor(node.inputs[0])
        assert x.quant is not None
        name = self.sink.fresh(f"{node.name}.input")
        self.sink.emit("Max", [x.name, self._lowest(node.name, x.quant)], [name], f"{node.name}.before")
        self.graph.add_tensor(x.with_(name=name))
        return node.with_(inputs=(name, *node.inputs[1:]))

    def _lowest(self, stem: str, quant: QuantParams) -> str:
        """The initializer of the smallest value of a tensor."""
        lowest = np.float32(quant.qmin - int(quant.zero_point)) * quant.scale
        return self.sink.initializer(f"{stem}.lowest", lowest)

    def _row(self, node: Node, raw: str) -> None:
        """Emits the operator itself, from real values to `raw`."""
        graph, written = self.graph, node.with_(outputs=(raw,))
        if isinstance(node.attrs, AvgPoolAttrs) and _averages_whole_windows(node.attrs):
            self._average(node, node.attrs.window, raw)
            return
        if node.op not in ("conv", "conv_transpose", "linear"):
            for name in node.inputs:
                self._operand(name)
            get(node.op).to_onnx(self.sink, written, graph)
            return
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        if bias:
            data = graph.constant(bias)
            assert data is not None
            self._weights(bias, data, bias, 0)
        weights = graph.constant(node.inputs[1])
        assert weights is not None
        if node.op == "conv_transpose":
            self._conv_transpose(written, weights, bias)
        elif node.op == "linear" and len(graph.tensor(node.inputs[0]).shape) != 2:
            turned, product = f"{node.inputs[1]}.transposed", raw
            self._weights(node.inputs[1], np.ascontiguousarray(weights.T), turned, 1)
            if bias:
                product = self.sink.fresh(f"{node.outputs[0]}.product")
            self.sink.emit("MatMul", [node.inputs[0], turned], [product], node.name)
            if bias:
                self.sink.emit("Add", [product, bias], [raw], f"{node.name}.bias")
        else:
            ends = [graph.quant(node.inputs[0]).bits, self.sink.four_bits]
            self._weights(node.inputs[1], weights, node.inputs[1], 0, four_bit_ends=ends == [4, True])
            get(node.op).to_onnx(self.sink, written, graph)

    def _average(self, node: Node, window: Window, raw: str) -> None:
        """An average of whole windows as a depthwise convolution with weights of one.

        It is exact where runtimes compute convolutions in integers; they average in float, and a quarter of the means
        of four codes lies halfway between two codes, where the last bit of a float decides. 4-bit codes take an
        8-bit type for it.
        """
        sink, x, y = self.sink, self.graph.tensor(node.inputs[0]), self.graph.tensor(node.outputs[0])
        assert x.quant is not None
        assert y.quant is not None
        source, result = x.name, raw
        if x.quant.bits == 4:
            source, result = sink.fresh(f"{node.name}.wide"), sink.fresh(f"{raw}.narrow")
            sink.requantized(x.name, source, replace(x.quant, bits=8))
        channels, count = x.shape[1], window.kernel[0] * window.kernel[1]
        scale = _scale_of_one(float(x.quant.scale), float(y.quant.scale), count)
        codes, weights = sink.fresh(f"{node.name}.ones{CODES}"), sink.fresh(f"{node.name}.ones")
        ones = np.ones((channels, 1, *window.kernel), np.int8)
        sink.add(codes, sink.signed_type(), ones, 8)
        operands = [codes, sink.scale(scale), sink.zero(sink.signed_type(), np.zeros((), np.int8), 8)]
        sink.emit("DequantizeLinear", operands, [weights], f"{weights}.dequantize")
        sink.emit(
            "Conv",
            [source, weights],
            [result],
            node.name,
            kernel_shape=list(window.kernel),
            strides=list(window.strides),
            pads=list(window.pads),
            group=channels,
        )
        if result != raw:
            sink.requantized(result, raw, replace(y.quant, bits=8))

    def _conv_transpose(self, node: Node, weights: Array, bias: str) -> None:
        """ONNX wants [I, O / groups, kh, kw]; with groups no axis of that is the output channels."""
        attrs, name, sink = attrs_of(node, ConvTransposeAttrs), node.inputs[1], self.sink
        o, ci, kh, kw = weights.shape
        g = attrs.groups
        real = f"{name}.turned"
        if g == 1 or self.graph.quant(name).axis is None:
            turned = weights.reshape(g, o // g, ci, kh, kw).transpose(0, 2, 1, 3, 4).reshape(g * ci, o // g, kh, kw)
            self._weights(name, np.ascontiguousarray(turned), real, 1)
        elif real not in self.written:
            self._weights(name, weights, name, 0)
            self.written.add(real)
            split, swapped = sink.fresh(f"{name}.split"), sink.fresh(f"{name}.swapped")
            shapes = ((g, o // g, ci, kh, kw), (g * ci, o // g, kh, kw))
            first, last = (sink.initializer(f"{node.name}.shape", np.array(shape, np.int64)) for shape in shapes)
            sink.emit("Reshape", [name, first], [split], f"{node.name}.split")
            sink.emit("Transpose", [split], [swapped], f"{node.name}.swap", perm=[0, 2, 1, 3, 4])
            sink.emit("Reshape", [swapped, last], [real], f"{node.name}.join")
        sink.emit(
            "ConvTranspose",
            [node.inputs[0], real, *([bias] if bias else [])],
            list(node.outputs),
            node.name,
            kernel_shape=list(attrs.window.kernel),
            strides=list(attrs.window.strides),
            pads=list(attrs.window.pads),
            dilations=list(attrs.window.dilations),
            group=g,
            output_padding=list(attrs.output_padding),
        )

    def _table(self, node: Node) -> None:
        """A table without a name of its own: the codes select from it."""
        import onnx

        sink, graph = self.sink, self.graph
        x, y, table = node.inputs[0], graph.tensor(node.outputs[0]), graph.constant(node.inputs[1])
        assert table is not None
        assert y.quant is not None
        _, offset, _ = sink.stored_type(graph.quant(x).bits)
        kind, shift, dtype = sink.stored_type(8)
        # The first entry stands for code -128.
        first: Array = np.asarray(128 - offset, np.int32)
        if table.ndim == 2:
            rows = np.arange(table.shape[0], dtype=np.int32) * 256
            first = first + rows.reshape(-1, *[1] * (len(graph.tensor(x).shape) - 2))
        index = sink.fresh(f"{y.name}.index")
        sink.emit("Cast", [sink.codes[x]], [index], f"{node.name}.index", to=onnx.TensorProto.INT32)
        if np.any(first):
            moved = sink.fresh(f"{y.name}.entry")
            sink.emit("Add", [index, sink.initializer(f"{node.name}.first", first)], [moved], f"{node.name}.entry")
            index = moved
        entries = sink.fresh(f"{node.inputs[1]}.entries")
        sink.add(entries, kind, (table.reshape(-1).astype(np.int16) + shift).astype(dtype), 8)
        found = sink.fresh(f"{y.name}{CODES}")
        sink.emit("Gather", [entries, index], [found], node.name, axis=0)
        if y.quant.bits == 8:
            sink.codes[y.name] = found
            sink.dequantized(found, y.name, y.quant)
        else:
            raw = sink.fresh(f"{y.name}{RAW}")
            sink.dequantized(found, raw, replace(y.quant, bits=8))
            sink.requantized(raw, y.name, y.quant)


def _float_bounds(clamp: Clamp, quant: QuantParams, narrow: bool) -> Clamp:
    """The bounds with which float32 arithmetic clamps to the same codes.

    A bound that lies halfway between two codes may be rounded to the other one there. Of codes that are quantized
    already the code's own value is as good a bound; before that, one that allows all codes can be left out.
    """
    codes, result = clamp_codes(clamp, quant), list(clamp)
    for side, (bound, code) in enumerate(zip(clamp, codes, strict=True)):
        rounded = quantize(np.float32(bound), quant) if np.isfinite(bound) else code
        if int(rounded) != code and narrow:
            result[side] = float(np.float32(code - int(quant.zero_point)) * quant.scale)
        elif int(rounded) != code:
            result[side] = -np.inf if side == 0 else np.inf
    return result[0], result[1]


def _scale_of_one(scale_in: float, scale_out: float, count: int) -> Array:
    """The float32 near 1 / count with which a convolution has the multiplier (s_x / s_y) / count of an average."""
    x, y, taps = np.float32(scale_in), np.float32(scale_out), np.float32(count)
    wanted, best = (x / y) / taps, np.float32(1) / taps
    for towards in (np.float32(0), np.float32(1)):
        candidate = best
        for _ in range(4):
            if (x * candidate) / y == wanted:
                return np.asarray(candidate)
            candidate = np.nextafter(candidate, towards)
    return np.asarray(best)


def _with_ends_apart(graph: Graph, integer_ends: bool) -> tuple[Graph, dict[str, str]]:
    """Returns the graph with new names where an end's own name stands for what a caller gives or gets, and these names.

    A caller's input is not yet quantized, and an integer output is not what the next operator reads.
    """
    renamed = list(graph.inputs)
    if integer_ends:
        renamed += [name for name in graph.outputs if graph.tensor(name).quant is not None and name not in renamed]
    real = {name: graph.fresh_name(f"{name}.real") for name in renamed}
    result = graph.copy()
    result.tensors = {
        real.get(name, name): tensor.with_(name=real.get(name, name)) for name, tensor in graph.tensors.items()
    }
    result.nodes = [
        node.with_(
            inputs=tuple(real.get(name, name) for name in node.inputs),
            outputs=tuple(real.get(name, name) for name in node.outputs),
        )
        for node in graph.nodes
    ]
    return result, real


def _without_clamp(node: Node) -> tuple[Node, Clamp]:
    """Returns the node without its fused activation, and that."""
    clamp: Clamp = getattr(node.attrs, "clamp", NO_CLAMP)
    if clamp == NO_CLAMP:
        return node, NO_CLAMP
    return node.with_(attrs=replace(node.attrs, clamp=NO_CLAMP)), clamp  # type: ignore[call-arg]
