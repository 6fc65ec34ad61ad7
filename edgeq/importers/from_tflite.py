"""TFLite -> Graph: float models as float graphs, quantized ones as quantized graphs with the file's own numbers.

Inputs and outputs are the file's: an image end is [N, H, W, C], and a session of the exported .edgeq file takes it so.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import EdgeqError, ImportModelError, UnsupportedOperatorError
from edgeq.importers.tflite_constants import FOLDED, fold
from edgeq.importers.tflite_file import FileOperator, read_file
from edgeq.importers.tflite_graph import MAX_ACTIVATION, MAX_DIMENSION, TfliteSource, Value
from edgeq.importers.tflite_operators import ROWS
from edgeq.ir import BATCH, Graph, Tensor
from edgeq.ops import check_graph
from edgeq.ops.fake_quant import FakeQuantAttrs
from edgeq.passes.absorb_quantization import absorb_quantization


@dataclass(frozen=True, slots=True)
class TfliteModel:
    """A TFLite model, read.

    Attributes:
        graph: NCHW; quantized when the file is, else float.
        quantized: Whether it is quantized.
        notes: (node, sentence) pairs: where the graph does not do literally what the file says.
    """

    graph: Graph
    quantized: bool
    notes: tuple[tuple[str, str], ...]


def load(source: str | os.PathLike[str] | bytes, name: str | None = None) -> Graph:
    """Reads a TFLite model as a graph; `read` has the details."""
    return read(source, name).graph


def read(source: str | os.PathLike[str] | bytes, name: str | None = None) -> TfliteModel:
    """Reads a TFLite model.

    The first subgraph is read, at batch 1, with the batch axis free from then on. A model in which a tensor between
    two operators is int8 or uint8 becomes a quantized graph: its scales, zero points and codes stay the file's (uint8
    codes and zero points 128 less); nothing is calibrated. A SOFTMAX at its end gives the float32 probabilities, which
    the file rounds to steps of 1/256. Weights stored as integers or as float16 in a model that computes in float become
    float32 weights: where the model's own runtime rounds activations while it runs ("dynamic range", "hybrid"), edgeq
    does not.

    Args:
        source: A path, or the bytes of a file.
        name: The graph's name; else the file's.

    Raises:
        UnsupportedOperatorError: If an operator is not supported, naming node, operator and what is.
        ImportModelError: If the file is damaged or cannot be expressed, naming the node or tensor.
    """
    file = read_file(source)
    if name is None:
        name = Path(source).stem if not isinstance(source, bytes) else file.name or "model"
    result = TfliteSource(file, Graph(name))
    _inputs(result)
    for node in file.operators:
        _operator(result, node)
    result.finish()
    graph = result.graph.prune()
    quantized = any(isinstance(node.attrs, FakeQuantAttrs) for node in graph.nodes)
    ends = frozenset(name for name in (*graph.inputs, *graph.outputs) if len(graph.tensor(name).shape) == 4)
    notes = tuple(result.notes)
    try:
        if quantized:
            absorbed = absorb_quantization(graph, result.integers)
            graph, notes = absorbed.graph, notes + absorbed.notes
        check_graph(graph)
    except ImportModelError:
        raise
    except EdgeqError as error:
        raise ImportModelError(f"{name}: {error}") from None
    graph.plain_ends = ends
    return TfliteModel(graph, quantized, notes)


def supported_operators() -> list[str]:
    """The builtin operators that may take activations, sorted."""
    return sorted(ROWS)


def _inputs(source: TfliteSource) -> None:
    """Adds the inputs; those of rank 4 as images."""
    ends = [*source.file.inputs, *source.file.outputs]
    source.taken.update(name for _, name in ends)
    for number, name in source.file.inputs:
        tensor = source.file.tensors[number]
        if not name or number in source.values or name in source.graph.tensors:
            raise ImportModelError("two inputs are one tensor or have one name, or an input has none")
        if tensor.data is not None:
            raise ImportModelError(f"input {name!r} is a constant")
        sizes = tensor.signature
        if not sizes or sizes[0] not in (1, BATCH) or tensor.shape[0] not in (1, BATCH):
            raise ImportModelError(
                f"input {name!r} has the shape {list(tensor.shape)}; its first axis must be a batch of 1, or free"
            )
        if any(not 1 <= size <= MAX_DIMENSION for size in sizes[1:]) or math.prod(sizes[1:]) > MAX_ACTIVATION:
            raise ImportModelError(
                f"input {name!r} has the shape {list(sizes)}; every axis but the batch must have a fixed size. Convert "
                "the model for one input size"
            )
        shape = (BATCH, *sizes[1:])
        quant = source.quant_of(tensor)
        held = source.graph.add_tensor(Tensor(name, shape))
        source.graph.inputs.append(name)
        if quant is not None:
            held = source.step("fake_quant", f"{name}.rounded", [name], FakeQuantAttrs(quant))
        value = Value(shape, quant, held)
        source.values[number] = value
        if len(shape) == 4:
            # So that every reader starts from the same turned tensor.
            source.image(value)
    if not source.graph.inputs:
        raise ImportModelError("the model has no input")


def _operator(source: TfliteSource, node: FileOperator) -> None:
    row = ROWS.get(node.op)
    if row is None and node.op not in FOLDED:
        raise _unsupported(node)
    if not node.outputs:
        raise source.fail(node, "it has no output")
    try:
        if fold(source, node):
            return
        if row is None:
            raise _unsupported(node)
        row(source, node)
    except EdgeqError as error:
        if isinstance(error, ImportModelError):
            raise
        raise source.fail(node, str(error)) from None
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise source.fail(node, f"its inputs or options are malformed ({error})") from None


def _unsupported(node: FileOperator) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"node {node.label!r}: operator {node.op} is not supported. Supported are {', '.join(supported_operators())}, "
        f"and on constants and shapes {', '.join(FOLDED)}. Replace it in the model, or convert the part before it."
    )
