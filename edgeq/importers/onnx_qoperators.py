"""Rewrites integer operators (QLinearConv, QGemm, ...) as float ones between DequantizeLinear and QuantizeLinear.

ONNX has a few of them, ONNX Runtime many in its own domain; quantize_static writes them with QuantFormat.QOperator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeq.errors import ImportModelError, UnsupportedOperatorError
from edgeq.ir.names import take_name
from edgeq.ir.tensor import Array

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

DYNAMIC = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
    }
)
"""Operators whose scales are found while the model runs, or that end in int32."""


@dataclass(slots=True)
class Rewriter:
    """Collects the nodes that integer operators become.

    Attributes:
        constant: The value of an initializer or Constant by name, or None.
        taken: Every value name in use.
        nodes: The rewritten nodes.
        initializers: New constants by name.
    """

    constant: Callable[[str], Array | None]
    taken: set[str]
    nodes: list[Any] = field(default_factory=list)
    initializers: dict[str, Array] = field(default_factory=dict)

    def fresh(self, stem: str) -> str:
        """Returns an unused value name."""
        return take_name(stem, self.taken)

    def add(self, node: Any) -> None:
        """Appends a node, rewritten where it is an integer operator.

        Raises:
            UnsupportedOperatorError: If its scales are not constant by nature.
            ImportModelError: If its inputs are malformed.
        """
        if node.op_type in DYNAMIC:
            raise UnsupportedOperatorError(
                f"node {node.name or node.output[0]!r}: operator {node.op_type} belongs to dynamic quantization, which "
                "finds scales while it runs. Quantize the model statically (onnxruntime: quantize_static), or give "
                "edgeq the float model"
            )
        if node.domain == CONTRIB and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            plain = type(node)()
            plain.CopyFrom(node)
            plain.domain = ""
            self.nodes.append(plain)
            return
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is None:
            self.nodes.append(node)
            return
        try:
            rewrite(_Source(self, node))
        except (IndexError, TypeError, ValueError) as error:
            where = f"node {node.name or node.output[0]!r} ({node.op_type})"
            raise ImportModelError(f"{where}: its inputs or attributes are malformed ({error})") from None


@dataclass(frozen=True, slots=True)
class _Source:
    """One integer operator that is being rewritten."""

    into: Rewriter
    node: Any

    def input(self, index: int) -> str:
        return str(self.node.input[index]) if index < len(self.node.input) else ""

    def attributes(self, *dropped: str) -> list[Any]:
        return [attribute for attribute in self.node.attribute if attribute.name not in dropped]

    def emit(
        self, op_type: str, inputs: Sequence[str], output: str, attributes: Sequence[Any] = (), **more: Any
    ) -> None:
        import onnx

        name = "" if op_type.endswith("Linear") else self.node.name or self.node.output[0]
        made = onnx.helper.make_node(op_type, list(inputs), [output], name, **more)
        made.attribute.extend(attributes)
        self.into.nodes.append(made)

    def real(self, first: int, axis: int | None = None) -> str:
        """Dequantizes inputs (codes, scale, zero point) from `first` on; scales of several values lie along `axis`."""
        codes, scale, zero = (self.input(first + i) for i in range(3))
        name = self.into.fresh(f"{codes}.real")
        self.dequantize([codes, scale, zero], name, axis)
        return name

    def dequantize(self, inputs: Sequence[str], output: str, axis: int | None) -> None:
        names = [name for name in inputs if name]
        if axis is None or self.require(inputs[1]).size == 1:
            self.emit("DequantizeLinear", names, output)
        else:
            self.emit("DequantizeLinear", names, output, axis=axis)

    def bias(self, index: int, x_scale: int, w_scale: int) -> list[str]:
        """Dequantizes an int32 bias, whose scale is the product of two others."""
        if not self.input(index):
            return []
        with np.errstate(all="ignore"):  # A scale that is not finite is refused where it is used.
            scale = self.require(self.input(x_scale)) * self.require(self.input(w_scale)).reshape(-1)
        name = self.into.fresh(f"{self.input(index)}.scale")
        scale = scale.reshape(()) if scale.size == 1 else scale
        self.into.initializers[name] = scale.astype(np.float32)
        real = self.into.fresh(f"{self.input(index)}.real")
        self.emit("DequantizeLinear", [self.input(index), name], real, axis=0)  # One scale has no axis to go along.
        return [real]

    def require(self, name: str) -> Array:
        value = self.into.constant(name)
        if value is None:
            raise ImportModelError(f"{self.where()}: its scale {name!r} must be constant")
        return value

    def where(self) -> str:
        return f"node {self.node.name or self.node.output[0]!r} ({self.node.op_type})"

    def finish(
        self, op_type: str, inputs: Sequence[str], first: int, attributes: Sequence[Any] = (), **more: Any
    ) -> None:
        """Emits the float operator and quantizes its output with the parameters that begin at input `first`."""
        out = str(self.node.output[0])
        if not self.input(first):
            self.emit(op_type, inputs, out, attributes, **more)
            return
        raw = self.into.fresh(f"{out}.raw")
        self.emit(op_type, inputs, raw, attributes, **more)
        self.emit("QuantizeLinear", [raw, *(n for n in (self.input(first), self.input(first + 1)) if n)], out)

    def flag(self, name: str) -> int:
        return next((int(attribute.i) for attribute in self.node.attribute if attribute.name == name), 0)

    def refuse_channels_last(self) -> None:
        if self.flag("channels_last"):
            raise ImportModelError(
                f"{self.where()} works on NHWC: the model was saved after ONNX Runtime optimized it; give the model as "
                "it was before"
            )


def _conv(source: _Source) -> None:
    source.refuse_channels_last()
    operands = [source.real(0), source.real(3, axis=0), *source.bias(8, 1, 4)]
    source.finish("Conv", operands, 6, source.attributes("channels_last"))


def _matmul(source: _Source) -> None:
    source.finish("MatMul", [source.real(0), source.real(3, axis=1)], 6)


def _gemm(source: _Source) -> None:
    columns = 0 if source.flag("transB") else 1
    operands = [source.real(0), source.real(3, axis=columns), *source.bias(6, 1, 4)]
    source.finish("Gemm", operands, 7, source.attributes())


def _binary(op_type: str) -> Callable[[_Source], None]:
    return lambda source: source.finish(op_type, [source.real(0), source.real(3)], 6)


def _unary(op_type: str) -> Callable[[_Source], None]:
    return lambda source: source.finish(op_type, [source.real(0)], 3, source.attributes("opset"))


def _pool(op_type: str) -> Callable[[_Source], None]:
    def rewrite(source: _Source) -> None:
        source.refuse_channels_last()
        source.finish(op_type, [source.real(0)], 3, source.attributes("channels_last"))

    return rewrite


def _concat(source: _Source) -> None:
    out = str(source.node.output[0])
    parts = [source.real(first) for first in range(2, len(source.node.input), 3)]
    raw = source.into.fresh(f"{out}.raw")
    source.emit("Concat", parts, raw, source.attributes())
    source.emit("QuantizeLinear", [raw, *(name for name in (source.input(0), source.input(1)) if name)], out)


_REWRITES: dict[str, Callable[[_Source], None]] = {
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _pool("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _pool("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearMatMul": _matmul,
    "QLinearMul": _binary("Mul"),
    "QLinearReduceMean": _unary("ReduceMean"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _unary("Softmax"),
}


def integer_operators() -> list[str]:
    """The operator types that are rewritten, sorted."""
    return sorted(_REWRITES)
