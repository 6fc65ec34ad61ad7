"""Small TFLite models as converters write them, and what LiteRT makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import interpreter as litert

from edgeq.backends import tflite_runner
from edgeq.exporters.tflite.builder import OPTIONS, schema
from edgeq.importers.from_tflite import TfliteModel, read
from edgeq.ir import QuantParams
from edgeq.ir.int4 import pack_int4
from edgeq.ops.base import quantize
from edgeq.passes import float_pipeline
from edgeq.simulate import run_float_graph, simulate_codes

MORE_OPTIONS = {
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "DIV": "DivOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
    "PACK": "PackOptions",
    "REDUCE_PROD": "ReducerOptions",
    "SHAPE": "ShapeOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "SQUARE": "SquareOptions",
    "SQUEEZE": "SqueezeOptions",
    "UNPACK": "UnpackOptions",
}
ENUMS = {"padding": "Padding", "fused_activation_function": "ActivationFunctionType"}


@dataclass
class ModelBuilder:
    """Collects tensors and operators by name; shapes are the file's, at batch 1."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema().BufferT()])
    codes: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str = "float32",
        quant: tuple[Any, Any] | None = None,
        axis: int = 0,
        data: np.ndarray | None = None,
        signature: Sequence[int] | None = None,
    ) -> str:
        """Adds a tensor; `quant` is (scales, zero points)."""
        s = schema()
        record = s.TensorT()
        record.name, record.shape, record.type = name, list(shape), getattr(s.TensorType, kind.upper())
        if signature is not None:
            record.shapeSignature = list(signature)
        if quant is not None:
            record.quantization = s.QuantizationParametersT()
            record.quantization.scale = np.atleast_1d(np.asarray(quant[0], np.float32))
            record.quantization.zeroPoint = np.atleast_1d(np.asarray(quant[1], np.int64))
            record.quantization.quantizedDimension = axis
        if data is not None:
            buffer = s.BufferT()
            raw = pack_int4(data) if kind == "int4" else np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            buffer.data = raw
            record.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.names.append(name)
        self.tensors.append(record)
        return name

    def constant(
        self, name: str, data: Any, kind: str = "", quant: tuple[Any, Any] | None = None, axis: int = 0
    ) -> str:
        """Adds a constant."""
        value = np.asarray(data)
        return self.tensor(name, value.shape, kind or str(value.dtype), quant, axis, value)

    def op(self, op: str, inputs: Sequence[str], outputs: Sequence[str], version: int = 1, **options: Any) -> None:
        """Appends an operator; "" is an absent input, "custom:NAME" a custom operator."""
        s = schema()
        code = s.OperatorCodeT()
        name = "CUSTOM" if op.startswith("custom:") else op
        code.builtinCode = getattr(s.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        if name == "CUSTOM":
            code.customCode = op.partition(":")[2]
        record = s.OperatorT()
        record.opcodeIndex = len(self.codes)
        self.codes.append(code)
        record.inputs = [self.names.index(n) if n else -1 for n in inputs]
        record.outputs = [self.names.index(n) for n in outputs]
        table = {**OPTIONS, **MORE_OPTIONS}.get(op)
        if table is not None:
            record.builtinOptionsType = getattr(s.BuiltinOptions, table)
            record.builtinOptions = getattr(s, f"{table}T")()
        for key, value in options.items():
            if key in ENUMS:
                value = getattr(getattr(s, ENUMS[key]), value)
            attribute = "".join(part.title() if i else part for i, part in enumerate(key.split("_")))
            assert hasattr(record.builtinOptions, attribute), attribute
            setattr(record.builtinOptions, attribute, value)
        self.operators.append(record)

    def finish(self) -> bytes:
        """Returns the file."""
        s = schema()
        graph, model = s.SubGraphT(), s.ModelT()
        graph.name = "main"
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs = [self.names.index(name) for name in self.inputs]
        graph.outputs = [self.names.index(name) for name in self.outputs]
        model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], self.codes, self.buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def run_litert(data: bytes, inputs: Sequence[np.ndarray], xnnpack: bool = True) -> list[np.ndarray]:
    """Runs a model sample by sample."""
    interpreter = tflite_runner.open_interpreter(litert, data, xnnpack)
    rows = [tflite_runner.run_interpreter(interpreter, [x[i : i + 1] for x in inputs]) for i in range(len(inputs[0]))]
    return [np.concatenate([row[k] for row in rows]) for k in range(len(rows[0]))]


def float_difference(data: bytes, rng: np.random.Generator, batch: int = 2) -> float:
    """Returns max |a - b| / max |b| between the imported float model and LiteRT, on random inputs."""
    graph = read(data).graph
    feeds = [rng.normal(0, 2, (batch, *graph.tensor(n).shape[1:])).astype(np.float32) for n in graph.inputs]
    found = run_float_graph(float_pipeline(graph), feeds)
    differences = []
    for a, b in zip(found, run_litert(data, feeds), strict=True):
        assert a.shape == b.shape
        differences.append(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)))
    return max(differences)


def code_differences(
    data: bytes, rng: np.random.Generator, batch: int = 3, xnnpack: bool = True, model: TfliteModel | None = None
) -> np.ndarray:
    """Returns the differences in steps between the imported quantized model and LiteRT, on random codes.

    The file's ends are int8 or uint8; a softmax at the end is compared as codes.
    """
    graph = (model or read(data)).graph
    interpreter = tflite_runner.open_interpreter(litert, data, xnnpack)
    feeds = [rng.integers(-128, 128, (batch, *graph.tensor(n).shape[1:])).astype(np.int8) for n in graph.inputs]
    given = [as_file(x, d["dtype"]) for x, d in zip(feeds, interpreter.get_input_details(), strict=True)]
    wanted = run_litert(data, given, xnnpack)
    differences = []
    for a, b in zip(simulate_codes(graph, feeds), wanted, strict=True):
        assert a.shape == b.shape
        codes = quantize(a, QuantParams.per_tensor(1 / 256, -128)) if a.dtype == np.float32 else a
        differences.append((as_file(codes, b.dtype).astype(np.int32) - b.astype(np.int32)).reshape(-1))
    return np.abs(np.concatenate(differences))


def as_file(codes: np.ndarray, dtype: Any) -> np.ndarray:
    """Returns signed codes as a file has them."""
    return codes if np.dtype(dtype) == np.int8 else (codes.astype(np.int16) + 128).astype(np.uint8)


SCALE, ZERO = 0.05, 3


def image(b: ModelBuilder, *shape: int, kind: str = "float32", quant: tuple[float, int] | None = None) -> str:
    """Adds the input "x"."""
    b.inputs.append("x")
    return b.tensor("x", (1, *shape), kind, quant, signature=(-1, *shape))


def output(b: ModelBuilder, shape: Sequence[int], kind: str = "float32", quant: tuple[float, int] | None = None) -> str:
    """Adds the output "y"."""
    b.outputs.append("y")
    return b.tensor("y", shape, kind, quant)
