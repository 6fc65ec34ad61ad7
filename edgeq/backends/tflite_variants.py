"""Variants of an exported .tflite file that a bench needs: in float32, and with operators that are fast, not exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError
from edgeq.exporters.tflite.builder import FILE_IDENTIFIER, schema

_CLAMPING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL")
"""Operators with a fused activation that a float file needs: in an int8 one the range of the codes clamps."""

_FARTHEST = 2
"""Codes by which TFLite's own hard-swish may differ from the table that stands for it."""


def with_builtin_functions(data: bytes) -> bytes:
    """Replaces tables of hard-swish (CAST, ADD, GATHER) with TFLite's operator.

    edgeq writes the table where the operator's 16-bit arithmetic would differ by a code. TFLite's own converter always
    writes the operator.
    """
    return _Model(data).replace_tables().pack()


def with_integer_ends(data: bytes) -> bytes:
    """Drops the change to int8 behind a float input and the change from int8 before a float output."""
    return _Model(data).drop_ends().pack()


def to_float(data: bytes) -> bytes:
    """Returns the same network in float32: weights hold the values that their codes stand for.

    Raises:
        GraphError: If it holds something other than int8 activations and weights and int32 biases.
    """
    return _Model(data).replace_tables().widen().pack()


class _Model:
    """A model of one subgraph, in flatbuffers' object interface."""

    def __init__(self, data: bytes) -> None:
        self._schema = schema()
        self._model: Any = self._schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
        if len(self._model.subgraphs) != 1:
            raise GraphError("a .tflite file with several subgraphs has no variants here")
        self._graph: Any = self._model.subgraphs[0]
        self._codes = {
            value: name for name, value in vars(self._schema.BuiltinOperator).items() if isinstance(value, int)
        }

    def replace_tables(self) -> _Model:
        """Puts HARD_SWISH where a table is one."""
        producers = {op.outputs[0]: op for op in self._graph.operators}
        dropped: list[Any] = []
        for gather in self._graph.operators:
            if self._name(gather) != "GATHER":
                continue
            add = producers.get(gather.inputs[1])
            cast = producers.get(add.inputs[0]) if add is not None and self._name(add) == "ADD" else None
            if cast is None or self._name(cast) != "CAST":
                continue
            source, result = cast.inputs[0], gather.outputs[0]
            table = self._constant(gather.inputs[0])
            if table is None or np.abs(self._hard_swish(source, result) - table.reshape(-1)).max() > _FARTHEST:
                continue
            gather.opcodeIndex = self._opcode("HARD_SWISH")
            gather.inputs = [source]
            gather.builtinOptionsType = self._schema.BuiltinOptions.HardSwishOptions
            gather.builtinOptions = self._schema.HardSwishOptionsT()
            dropped += [add, cast]
        self._graph.operators = [op for op in self._graph.operators if op not in dropped]
        return self

    def drop_ends(self) -> _Model:
        """Makes what lies behind the first QUANTIZE and before the last DEQUANTIZE the model's ends."""
        alias: dict[int, int] = {}
        kept = []
        for op in self._graph.operators:
            source, result = int(op.inputs[0]), int(op.outputs[0])
            if self._name(op) == "QUANTIZE" and source in self._graph.inputs:
                alias[source] = result
            elif self._name(op) == "DEQUANTIZE" and result in self._graph.outputs:
                alias[result] = source
            else:
                kept.append(op)
        self._graph.operators = kept
        self._graph.inputs = [alias.get(int(one), int(one)) for one in self._graph.inputs]
        self._graph.outputs = [alias.get(int(one), int(one)) for one in self._graph.outputs]
        for definition in self._model.signatureDefs or ():
            for end in (*definition.inputs, *definition.outputs):
                end.tensorIndex = alias.get(end.tensorIndex, end.tensorIndex)
        return self

    def widen(self) -> _Model:
        """Turns every quantized tensor into float32 and drops the changes of quantization."""
        types = self._schema.TensorType
        for op in self._graph.operators:
            if self._name(op) in _CLAMPING:
                op.builtinOptions.fusedActivationFunction = self._activation(self._graph.tensors[op.outputs[0]])
        alias: dict[int, int] = {}
        kept = []
        for op in self._graph.operators:
            op.inputs = [alias.get(int(one), int(one)) for one in op.inputs]
            if self._name(op) in ("QUANTIZE", "DEQUANTIZE"):
                alias[int(op.outputs[0])] = int(op.inputs[0])
            else:
                kept.append(op)
        self._graph.operators = kept
        self._graph.outputs = [alias.get(int(one), int(one)) for one in self._graph.outputs]
        for definition in self._model.signatureDefs or ():
            for end in definition.outputs:
                end.tensorIndex = alias.get(end.tensorIndex, end.tensorIndex)
        for index, tensor in enumerate(self._graph.tensors):
            if tensor.quantization is None or tensor.quantization.scale is None or len(tensor.quantization.scale) == 0:
                continue
            if tensor.type not in (types.INT8, types.INT32):
                raise GraphError(f"tensor {tensor.name!r} is neither int8 nor int32: the file has no float form here")
            codes = self._constant(index)
            if codes is not None:
                # Equal constants share a buffer, whatever their scales.
                buffer: Any = self._schema.BufferT()
                buffer.data = np.frombuffer(self._real(tensor, codes).tobytes(), np.uint8)
                self._model.buffers.append(buffer)
                tensor.buffer = len(self._model.buffers) - 1
            tensor.type, tensor.quantization = types.FLOAT32, None
        return self

    def pack(self) -> bytes:
        """Returns the file."""
        import flatbuffers

        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _name(self, op: Any) -> str:
        return str(self._codes[self._model.operatorCodes[op.opcodeIndex].builtinCode])

    def _opcode(self, name: str) -> int:
        code: Any = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self._schema.BuiltinOperator, name)
        code.version = 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1

    def _activation(self, tensor: Any) -> int:
        """The activation that the range of a tensor's codes amounts to."""
        kinds = self._schema.ActivationFunctionType
        scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        if zero != -128:
            return int(kinds.NONE)
        return int(kinds.RELU6 if abs(255 * scale - 6) < scale else kinds.RELU)

    def _constant(self, index: int) -> npt.NDArray[Any] | None:
        tensor = self._graph.tensors[index]
        data = self._model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        dtype = np.int8 if tensor.type == self._schema.TensorType.INT8 else np.int32
        shape = () if tensor.shape is None else tuple(tensor.shape)
        found: npt.NDArray[Any] = np.frombuffer(bytes(data), dtype).reshape(shape)
        return found

    def _real(self, tensor: Any, codes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        scale = np.asarray(tensor.quantization.scale, np.float32)
        zero = np.asarray(tensor.quantization.zeroPoint, np.int64)
        if scale.size > 1:
            axis = [1] * codes.ndim
            axis[tensor.quantization.quantizedDimension] = scale.size
            scale, zero = scale.reshape(axis), zero.reshape(axis)
        return np.ascontiguousarray((codes.astype(np.int64) - zero).astype(np.float32) * scale, np.float32)

    def _hard_swish(self, source: int, result: int) -> npt.NDArray[np.float64]:
        """The codes of hard-swish for the input codes -128..127."""
        quant_in, quant_out = (self._graph.tensors[index].quantization for index in (source, result))
        x = (np.arange(-128, 128) - int(quant_in.zeroPoint[0])) * float(quant_in.scale[0])
        y = x * np.clip(x / 6 + 0.5, 0, 1) / float(quant_out.scale[0]) + int(quant_out.zeroPoint[0])
        codes: npt.NDArray[np.float64] = np.clip(np.rint(y), -128, 127)
        return codes
