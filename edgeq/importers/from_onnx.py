"""ONNX -> Graph: float, NCHW, the batch axis free.

What hangs on constants and shapes alone is computed here; every other node goes to the operator's own `from_onnx` row.
Shape arithmetic is computed twice, for batch 2 and batch 3: what differs depends on the batch, and how it differs tells
where the batch axis went.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError, ImportModelError, UnsupportedOperatorError
from edgeq.importers.onnx_constants import fold, number_type
from edgeq.importers.onnx_file import MAX_NODES, read_model, tensor_value
from edgeq.importers.onnx_joins import join_activations
from edgeq.importers.onnx_signals import lifted, lifts
from edgeq.ir import BATCH, Attrs, Graph, Node, Tensor
from edgeq.ir.names import take_name
from edgeq.ir.tensor import Array
from edgeq.ops import Operator, all_operators, check_graph, get
from edgeq.ops.pooling import reduced_axes
from edgeq.ops.reshape import ReshapeAttrs

OLDEST_OPSET = 13
BATCHES = (2, 3)
"""The batch sizes for which shape arithmetic is computed."""
MAX_DIMENSION = 1 << 24
MAX_ACTIVATION = (1 << 31) - 1
"""Elements at batch 1: what a .edgeq file can describe."""
PASSED_THROUGH = ("Cast", "CastLike", "Dropout", "Expand", "Identity")
"""Handled here: they change nothing of a float activation, or are refused."""

_CHANGE_NO_ORDER = ("Cast", "CastLike", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""What may stand between a classifier's last LogSoftmax and the output."""

Known = tuple[Array, Array]


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A float ONNX model, read.

    Attributes:
        graph: Float, NCHW.
        notes: (node, sentence) pairs: where the graph does not do literally what the file says.
    """

    graph: Graph
    notes: tuple[tuple[str, str], ...]


def load(source: Any, name: str | None = None) -> Graph:
    """Reads an ONNX model as a float graph; `read` has the details."""
    return read(source, name).graph


def read(source: Any, name: str | None = None) -> OnnxModel:
    """Reads an ONNX model as a float graph.

    A classifier's last LogSoftmax is left out, and a note says so: the scores before it have the same order and the
    same softmax.

    Args:
        source: A path, the bytes of a file, or an onnx.ModelProto; opset 13 or newer.
        name: The graph's name; else the model's own.

    Returns:
        The model; in its checked graph every activation's axis 0 is the free batch axis.

    Raises:
        UnsupportedOperatorError: If an operator is not supported, naming node, operator and what is.
        ImportModelError: If the model is malformed or cannot be expressed.
    """
    model = read_model(source)
    importer = OnnxImporter(model, name or model.graph.name or "model")
    graph = importer.run()
    return OnnxModel(graph, tuple(importer.notes))


def supported_operators() -> list[str]:
    """The ONNX operator types that may take activations, sorted."""
    types = {op_type for operator in all_operators() for op_type in operator.onnx_types}
    return sorted(types | set(PASSED_THROUGH))


_CURES = {
    "LogSoftmax": "edgeq leaves it out where it is a classifier's last operator, over the classes of a whole sample. "
    "Here, leave it out of the model yourself: the scores before it have the same softmax and the same largest class.",
}
"""What to do about operators that users' models often have, where there is more to say than to replace them."""


class OnnxImporter:
    """Walks the ONNX nodes in order; an `edgeq.ops.base.OnnxSource`.

    Attributes:
        notes: As `OnnxModel.notes`.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model = model
        self.graph = Graph(name)
        self.opset = _opset(model)
        self.known: dict[str, Known] = {}
        self.aliases: dict[str, str] = {}
        self.rows: dict[str, Operator] = {
            op_type: operator for operator in all_operators() for op_type in operator.onnx_types
        }
        self.taken: set[str] = set()
        self.notes: list[tuple[str, str]] = []
        self.current: Any = None

    def run(self) -> Graph:
        proto = self.model.graph
        if len(proto.node) > MAX_NODES:
            raise ImportModelError(f"the model has {len(proto.node)} nodes, more than {MAX_NODES}")
        if proto.sparse_initializer:
            raise ImportModelError(
                "the model holds sparse weights, which are not supported; store them densely"
            )
        for tensor in proto.initializer:
            if not tensor.name or tensor.name in self.known:
                raise ImportModelError(f"two initializers are named {tensor.name!r}, or one has no name")
            value = tensor_value(tensor, "initializer")
            self.known[tensor.name] = (value, value)
        self._inputs()
        nodes = self._joined(self._ordered())
        self.taken = {*self.known, *self.graph.tensors, *(out for node in nodes for out in node.output)}
        for node in nodes:
            self.current = node
            # Damaged numbers are found by `add_constant`; on the way they may overflow.
            with np.errstate(all="ignore"):
                self._node(node)
        self._outputs()
        graph = self.graph.prune()
        check_graph(graph)
        return graph

    # --- the walk ---

    def _inputs(self) -> None:
        for info in self.model.graph.input:
            if info.name in self.known:
                continue
            if info.name in self.graph.tensors:
                raise ImportModelError(f"two inputs are named {info.name!r}")
            self.graph.add_tensor(Tensor(info.name, _input_shape(info)))
            self.graph.inputs.append(info.name)
        if not self.graph.inputs:
            raise ImportModelError("the model has no input")

    def _ordered(self) -> list[Any]:
        """The nodes in an order in which every input is defined before it is used."""
        proto = self.model.graph
        producers: dict[str, int] = {}
        available = {"", *self.known, *self.graph.inputs}
        for index, node in enumerate(proto.node):
            for out in node.output:
                if out and (out in producers or out in available):
                    raise ImportModelError(f"tensor {out!r} is defined twice, again by node {_name(node)}")
                if out:
                    producers[out] = index
        missing = {
            name: node
            for node in proto.node
            for name in node.input
            if name not in available and name not in producers
        }
        for name, node in missing.items():
            raise ImportModelError(
                f"node {_name(node)} ({node.op_type}) reads {name!r}, which is neither an input nor an initializer nor "
                "the output of a node; the file is damaged or its weights were removed"
            )
        waiting = [len({name for name in node.input if name in producers}) for node in proto.node]
        readers: dict[str, list[int]] = {}
        for index, node in enumerate(proto.node):
            for name in set(node.input):
                if name in producers:
                    readers.setdefault(name, []).append(index)
        ready = [index for index, count in enumerate(waiting) if count == 0]
        order: list[int] = []
        while ready:
            index = ready.pop()
            order.append(index)
            for out in proto.node[index].output:
                for reader in readers.get(out, ()):
                    waiting[reader] -= 1
                    if waiting[reader] == 0:
                        ready.append(reader)
        if len(order) < len(proto.node):
            left = next(node for index, node in enumerate(proto.node) if waiting[index])
            raise ImportModelError(
                f"node {_name(left)} ({left.op_type}) depends on its own output: the graph has a cycle"
            )
        # The file's own order is kept where it is a valid one.
        if all(
            producers[name] < i
            for i, node in enumerate(proto.node)
            for name in node.input
            if name in producers
        ):
            return list(proto.node)
        return [proto.node[index] for index in order]

    def _joined(self, nodes: list[Any]) -> list[Any]:
        constants = {node.output[0]: node for node in nodes if node.op_type == "Constant" and node.output}

        def number(name: str) -> float | None:
            value = self._constant(constants[name]) if name in constants else self.known.get(name, (None,))[0]
            return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

        return join_activations(nodes, [info.name for info in self.model.graph.output], number)

    def _node(self, node: Any) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise self._unsupported(node, f"{node.domain}.{node.op_type}")
        if node.op_type == "Constant":
            value = self._constant(node)
            self.known[node.output[0]] = (value, value)
            return
        node = self._resolved(node)
        if self._fold(node):
            return
        self.current = node
        try:
            if node.op_type in PASSED_THROUGH:
                self._pass_through(node)
            elif node.op_type == "LogSoftmax" and self._ranks_classes(node):
                self._leave_out(node)
            elif lifts(node, self.graph, self.known):
                for part in self._lifted(node):
                    self._real_node(part)
            elif node.op_type in self.rows:
                self.rows[node.op_type].from_onnx(self, node)
            else:
                raise self._unsupported(node, node.op_type)
        except EdgeqError as error:
            if isinstance(error, ImportModelError):
                raise
            raise self.fail(node, str(error)) from None
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise self.fail(node, f"its inputs or attributes are malformed ({error})") from None

    def _real_node(self, node: Any) -> None:
        """Reads a node whose inputs are real values by the names that they have in the graph."""
        OnnxImporter._node(self, node)

    def _resolved(self, node: Any) -> Any:
        if not any(name in self.aliases for name in node.input):
            return node
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(copy.input):
            copy.input[i] = self.aliases.get(name, name)
        return copy

    def _constant(self, node: Any) -> Array:
        import onnx

        if len(node.attribute) != 1 or not node.output:
            raise self.fail(node, "a Constant needs exactly one value")
        attribute = node.attribute[0]
        if attribute.name == "value":
            return tensor_value(attribute.t, f"node {_name(node)}")
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        raise self.fail(node, f"its value is given as {attribute.name}, which is not supported")

    def _fold(self, node: Any) -> bool:
        """Computes a node that hangs on constants, or on the shape of an activation, alone."""
        values: list[Known | None] = []
        for name in node.input:
            if name == "":
                values.append(None)
            elif name in self.known:
                values.append(self.known[name])
            elif node.op_type in ("Shape", "Size"):
                shape = self.graph.tensor(name).shape
                # Only the shape is read, so the arrays take no memory.
                values.append(
                    (_hollow((BATCHES[0], *shape[1:])), _hollow((BATCHES[1], *shape[1:])))
                    if shape[:1] == (BATCH,)
                    else (_hollow(shape),) * 2
                )
            elif node.op_type == "CastLike" and values and values[0] is not None:
                # The type of an activation is always float.
                values.append((np.zeros((), np.float32),) * 2)
            else:
                return False
        if not values:
            if node.op_type in ("RandomNormal", "RandomUniform"):
                raise self._unsupported(node, node.op_type)
            return False
        attributes = self._attributes(node)
        same = all(value is None or value[0] is value[1] for value in values)
        results: list[list[Array]] = []
        for which in range(1 if same else 2):
            try:
                found = fold(
                    node.op_type,
                    [None if v is None else v[which] for v in values],
                    attributes,
                    len(node.output),
                )
            except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
                raise self.fail(node, f"it cannot be computed from its constants ({error})") from None
            if found is None:
                raise self.fail(
                    node,
                    "all its inputs are constant, and edgeq does not fold this operator; simplify the model",
                )
            results.append(found)
        for i, out in enumerate(node.output[: len(results[0])]):
            first, second = results[0][i], results[-1][i]
            agree = first is second or (
                first.dtype == second.dtype and first.shape == second.shape and np.array_equal(first, second)
            )
            self.known[out] = (first, first if agree else second)
        return True

    def _pass_through(self, node: Any) -> None:
        if node.op_type == "Cast":
            target = np.dtype(number_type(int(self.attribute(node, "to", 0))))
            if target.kind != "f":
                raise self.fail(node, f"it turns an activation into {target.name}; activations stay float")
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            training = self.require_constant(node, 2, "training mode").reshape(-1)
            if training[0]:
                raise self.fail(node, "it is in training mode; export the model in evaluation mode")
        if node.op_type == "Expand":
            shape, pair = self.graph.tensor(node.input[0]).shape, self.shape_pair(node, 1)
            for which, batch in enumerate(BATCHES):
                known = (batch, *shape[1:])
                if pair is None or np.broadcast_shapes(known, tuple(int(v) for v in pair[which])) != known:
                    raise self.fail(
                        node,
                        "it enlarges an activation; only broadcasting inside Add, Sub and Mul is supported",
                    )
        if len(node.output) > 1 and node.output[1]:
            raise self.fail(node, "its second output is not supported")
        self.aliases[node.output[0]] = node.input[0]

    def _lifted(self, node: Any) -> list[Any]:
        reduced = reduced_axes(self, node) if node.op_type.startswith("Reduce") else None
        found = lifted(node, self._attributes(node), reduced, self.known, self._fresh)
        if isinstance(found, str):
            raise self.fail(node, found)
        return found

    def _ranks_classes(self, node: Any) -> bool:
        """Whether a node turns the scores of a whole sample into others, which an output gives as they are."""
        shape = self.graph.tensor(node.input[0]).shape
        axis = int(self.attribute(node, "axis", -1)) % len(shape)
        if axis == 0 or shape[axis] < 2 or math.prod(shape[1:]) != shape[axis]:
            return False
        nodes, ends = self.model.graph.node, {info.name for info in self.model.graph.output}
        name = node.output[0]
        while True:
            readers = [reader for reader in nodes if name in reader.input]
            if name in ends:
                return not readers
            if len(readers) != 1 or readers[0].op_type not in _CHANGE_NO_ORDER or readers[0].input[0] != name:
                return False
            name = readers[0].output[0]

    def _leave_out(self, node: Any) -> None:
        self.aliases[node.output[0]] = node.input[0]
        said = (
            f"{node.op_type} at the end is left out: the outputs are the scores before it, which have the same order "
            "and the same softmax"
        )
        self.notes.append((node.name or node.output[0], said))

    def _outputs(self) -> None:
        """Names the outputs as the model does, also where a node that changes nothing stood in between."""
        names = [info.name for info in self.model.graph.output]
        if not names or len(set(names)) != len(names):
            raise ImportModelError("the model has no output, or two of the same name")
        for name in names:
            if name in self.known:
                raise ImportModelError(f"output {name!r} does not depend on the input")
            if name not in self.graph.tensors and name not in self.aliases:
                raise ImportModelError(f"output {name!r} is not computed by any node")
        for name in names:
            if name in self.graph.inputs or name in self.aliases:
                source = self.aliases.get(name, name)
                out = f"{name}.output" if name in self.graph.inputs else name
                target = self.graph.tensor(source).shape
                self.emit("reshape", self._fresh(f"{out}.identity"), [source], [out], ReshapeAttrs(target))
                self.graph.outputs.append(out)
            else:
                self.graph.outputs.append(name)

    # --- what the operators' rows ask for ---

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        return self._attributes(node).get(name, default)

    def constant_input(self, node: Any, index: int) -> Array | None:
        name = node.input[index] if index < len(node.input) else ""
        if name not in self.known:
            return None
        first, second = self.known[name]
        if first is second:
            return first
        # Filled for every sample alike, e.g. expanded to the batch: one row stands for all.
        row = first[:1]
        pairs = zip((first, second), BATCHES, strict=True)
        if first.ndim and all(np.array_equal(value, row.repeat(batch, 0)) for value, batch in pairs):
            return row
        raise self.fail(node, f"its input {name!r} is computed from the batch size")

    def require_constant(self, node: Any, index: int, meaning: str) -> Array:
        value = self.constant_input(node, index)
        if value is None:
            raise self.fail(node, f"its {meaning} (input {index}) must be constant")
        return value

    def shape_pair(self, node: Any, index: int) -> Known | None:
        return self.known.get(node.input[index]) if index < len(node.input) else None

    def add_constant(self, stem: str, value: Array) -> str:
        if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
            raise self.fail(self.current, f"{stem} holds NaN or infinity; the weights are damaged")
        return self.graph.add_tensor(Tensor.constant(self._fresh(stem), value))

    def name_of(self, node: Any) -> str:
        return self._fresh(node.name or node.output[0])

    def emit(self, op: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Attrs) -> None:
        node = Node(op, name, tuple(inputs), tuple(outputs), attrs)
        for source in inputs:
            if source and source not in self.graph.tensors:
                raise self.fail(self.current, f"its input {source!r} must be an activation, it is constant")
        for out, (shape, dtype) in zip(outputs, get(op).infer(node, self.graph), strict=True):
            if max(shape, default=1) > MAX_DIMENSION or math.prod(shape[1:]) > MAX_ACTIVATION:
                raise self.fail(self.current, f"its output of shape {list(shape)} is too large")
            self.graph.add_tensor(Tensor(out, shape, dtype))
        self.graph.nodes.append(node)

    def fail(self, node: Any, why: str) -> ImportModelError:
        return ImportModelError(f"node {_name(node)} ({node.op_type}): {why}")

    # --- helpers ---

    def _attributes(self, node: Any) -> dict[str, Any]:
        import onnx

        found: dict[str, Any] = {}
        for attribute in node.attribute:
            try:
                value = onnx.helper.get_attribute_value(attribute)
            except ValueError:
                raise self.fail(node, f"its attribute {attribute.name!r} has no known type") from None
            if isinstance(value, onnx.TensorProto):
                value = tensor_value(value, f"node {_name(node)}")
            found[attribute.name] = value
        return found

    def _fresh(self, stem: str) -> str:
        return take_name(stem, self.taken, self.graph.tensors)

    def _unsupported(self, node: Any, op_type: str) -> UnsupportedOperatorError:
        cure = _CURES.get(op_type, "Replace it in the model, or export the part before it.")
        return UnsupportedOperatorError(
            f"node {_name(node)}: operator {op_type} is not supported. Supported are "
            f"{', '.join(supported_operators())}, and whatever can be computed from constants. {cure}"
        )


def _hollow(shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(np.float32(0), shape)


def _name(node: Any) -> str:
    return repr(node.name or (node.output[0] if node.output else "without a name"))


def _opset(model: Any) -> int:
    import onnx

    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= newest:
        found = ", ".join(str(version) for version in versions) or "none"
        raise ImportModelError(
            f"the model declares ONNX opset {found}; {OLDEST_OPSET} to {newest} are supported. Export it again with a "
            "newer opset, or convert it with onnx.version_converter"
        )
    return int(versions[0])


def _input_shape(info: Any) -> tuple[int, ...]:
    import onnx

    kind = info.type.tensor_type
    floats = (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    )
    if not info.name or not info.type.HasField("tensor_type") or kind.elem_type not in floats:
        raise ImportModelError(f"input {info.name!r} must be a tensor of floating-point numbers")
    if not kind.HasField("shape") or not kind.shape.dim:
        raise ImportModelError(
            f"input {info.name!r} has no shape; export the model with static shapes and a free batch axis"
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else BATCH for dim in kind.shape.dim]
    if sizes[0] not in (BATCH, 1):
        raise ImportModelError(
            f"input {info.name!r} has a fixed batch of {sizes[0]}; export the model with a free batch axis (or batch 1)"
        )
    if any(not 1 <= size <= MAX_DIMENSION for size in sizes[1:]) or len(sizes) > 6:
        shown = ["?" if size == BATCH else size for size in sizes]
        raise ImportModelError(
            f"input {info.name!r} has the shape {shown}; every axis but the batch must have a fixed size"
        )
    return (BATCH, *sizes[1:])
