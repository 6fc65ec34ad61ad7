"""Runs a graph node by node with the operators' own statements."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from edgeq.errors import DataError, GraphError
from edgeq.ir import BATCH, Graph, Node, Tensor
from edgeq.ir.printer import format_shape
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import dequantize, quantize

Feeds = Array | Sequence[Array] | Mapping[str, Array]
"""What a graph is given: the array of its one input, arrays in the order of its inputs, or arrays by name."""

CHUNK_ELEMENTS = 1 << 20
"""Samples run together while their largest activation stays below this many elements (or alone), near the caches."""


def simulate(graph: Graph, inputs: Feeds, *, chunk: int | None = None, threads: int | None = None) -> list[Array]:
    """Runs a quantized graph on real inputs, in the integer arithmetic of docs/arithmetic.md.

    Args:
        graph: Quantized, in either layout.
        inputs: float32, as the source model has them (`Graph.is_turned`); the first axis is the batch.
        chunk: Samples to run together; chosen by size without it. The results do not depend on it.
        threads: Chunks that run at once; as many as there are cores without it. Nor on this.

    Returns:
        float32 outputs in the order of `graph.outputs`, as the source model has them.

    Raises:
        DataError: If an input's shape or type is wrong.
        GraphError: If the graph is not quantized.
    """
    _require_quantized(graph)
    feeds = checked_feeds(graph, inputs, np.float32)

    def run(part: Mapping[str, Array]) -> list[Array]:
        codes = {name: quantize(value, graph.quant(name)) for name, value in part.items()}
        found = execute(graph, codes, graph.outputs)
        return [_real(graph.tensor(name), found[name]) for name in graph.outputs]

    return _in_chunks(graph, feeds, run, chunk, threads)


def simulate_codes(graph: Graph, inputs: Feeds, *, chunk: int | None = None, threads: int | None = None) -> list[Array]:
    """Runs a quantized graph on int8 codes and returns int8 codes (float32 where an output is not quantized).

    Arrays are as for `simulate`, but codes.
    """
    _require_quantized(graph)
    feeds = checked_feeds(graph, inputs, np.int8)

    def run(part: Mapping[str, Array]) -> list[Array]:
        found = execute(graph, part, graph.outputs)
        return [found[name] for name in graph.outputs]

    return _in_chunks(graph, feeds, run, chunk, threads)


def run_float_graph(
    graph: Graph, inputs: Feeds, *, chunk: int | None = None, threads: int | None = None
) -> list[Array]:
    """Runs a float graph with the operators' float statements; arrays are as for `simulate`."""
    feeds = checked_feeds(graph, inputs, np.float32)

    def run(part: Mapping[str, Array]) -> list[Array]:
        found = execute(graph, part, graph.outputs)
        return [found[name] for name in graph.outputs]

    return _in_chunks(graph, feeds, run, chunk, threads)


def execute(graph: Graph, feeds: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
    """Runs the nodes in order and returns tensors by name; what nothing needs any more is freed on the way.

    Args:
        graph: Quantized (int8 codes flow) or float.
        feeds: The graph inputs in the graph's own layout and type (codes when it is quantized).
        wanted: Tensors to return: outputs or intermediates, in the graph's own layout.

    Raises:
        GraphError: If no tensor has a wanted name.
    """
    quantized = is_quantized(graph)
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in (*node.outputs, *node.inputs)}
    released: dict[int, list[str]] = {}
    for name, index in last_use.items():
        released.setdefault(index, []).append(name)
    values: dict[str, Array] = dict(feeds)
    kept = {name: values[name] for name in wanted if name in values}
    for index, node in enumerate(graph.nodes):
        operator = get(node.op)
        operands = operands_of(node, graph, values)
        run = operator.run_integer if quantized else operator.run_float
        for name, value in zip(node.outputs, run(node, operands, graph), strict=True):
            values[name] = value
            if name in wanted:
                kept[name] = value
        for name in released.get(index, []):
            values.pop(name, None)
    missing = [name for name in wanted if name not in kept]
    if missing:
        raise GraphError(f"graph {graph.name} computes no tensor named {missing[0]!r}")
    return kept


def operands_of(node: Node, graph: Graph, values: Mapping[str, Array]) -> list[Array | None]:
    """Returns what a node computes with, in order: constants of the graph, activations, None for an absent input.

    Args:
        node: Of the graph.
        graph: Holds the constants.
        values: The activations by name.
    """
    operands: list[Array | None] = []
    for name in node.inputs:
        constant = graph.constant(name)
        operands.append(None if not name else values[name] if constant is None else constant)
    return operands


def is_quantized(graph: Graph) -> bool:
    """Whether integers flow through the graph: its first input has quantization parameters."""
    return graph.tensor(graph.inputs[0]).quant is not None


def checked_feeds(graph: Graph, inputs: Feeds, dtype: npt.DTypeLike) -> dict[str, Array]:
    """Returns the inputs by name, in the graph's own layout, all of one batch size.

    Args:
        graph: Says what is expected.
        inputs: As `simulate` takes them.
        dtype: What every array must be.

    Raises:
        DataError: If an input is missing or too much, or its type or shape is wrong.
    """
    if isinstance(inputs, Mapping):
        if set(inputs) != set(graph.inputs):
            raise DataError(f"The network's inputs are {', '.join(graph.inputs)}, not {', '.join(map(str, inputs))}.")
        arrays = [np.asarray(inputs[name]) for name in graph.inputs]
    else:
        arrays = [np.asarray(inputs)] if isinstance(inputs, np.ndarray) else [np.asarray(x) for x in inputs]
        if len(arrays) != len(graph.inputs):
            raise DataError(f"The network takes {len(graph.inputs)} inputs, not {len(arrays)}.")
    feeds = {}
    batches: set[int] = set()
    for name, array in zip(graph.inputs, arrays, strict=True):
        expected = source_shape(graph.tensor(name), graph)
        if array.ndim != len(expected) or any(
            want not in (BATCH, got) for want, got in zip(expected, array.shape, strict=True)
        ):
            raise DataError(
                f"Input {name!r} must have shape {format_shape(expected)} (N: any batch), not {list(array.shape)}."
            )
        if array.dtype != np.dtype(dtype):
            raise DataError(f"Input {name!r} must be {np.dtype(dtype)}, not {array.dtype}.")
        if expected and expected[0] == BATCH:
            batches.add(array.shape[0])
        feeds[name] = np.moveaxis(array, 1, 3) if graph.is_turned(name) else array
    if len(batches) > 1 or 0 in batches:
        raise DataError(f"The inputs must have one batch size of at least 1, not {sorted(batches)}.")
    return feeds


def source_shape(tensor: Tensor, graph: Graph) -> tuple[int, ...]:
    """Returns the shape of a graph input or output as callers see it: as the source model has it."""
    if graph.is_turned(tensor.name):
        n, h, w, c = tensor.shape
        return (n, c, h, w)
    return tensor.shape


def _in_chunks(
    graph: Graph,
    feeds: Mapping[str, Array],
    run: Callable[[Mapping[str, Array]], list[Array]],
    chunk: int | None,
    threads: int | None,
) -> list[Array]:
    free = {name for name in graph.inputs if graph.tensor(name).shape[:1] == (BATCH,)}
    batch = max((feeds[name].shape[0] for name in free), default=1)
    if chunk is None:
        largest = max(int(np.prod(tensor.shape[1:])) for tensor in graph.activations())
        chunk = max(1, CHUNK_ELEMENTS // max(largest, 1))

    def run_from(begin: int) -> list[Array]:
        return run({name: value[begin : begin + chunk] if name in free else value for name, value in feeds.items()})

    begins = range(0, batch, chunk)
    threads = min(threads or os.cpu_count() or 1, len(begins))
    if threads == 1:
        parts = [run_from(begin) for begin in begins]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(run_from, begins))
    outputs = []
    for index in range(len(graph.outputs)):
        whole = parts[0][index] if len(parts) == 1 else np.concatenate([part[index] for part in parts])
        if graph.is_turned(graph.outputs[index]):
            whole = np.moveaxis(whole, 3, 1)
        outputs.append(np.ascontiguousarray(whole))
    return outputs


def _real(tensor: Tensor, value: Array) -> Array:
    return value if tensor.quant is None else dequantize(value, tensor.quant)


def _require_quantized(graph: Graph) -> None:
    if not is_quantized(graph):
        raise GraphError(f"graph {graph.name} is not quantized, so it cannot be simulated in integers")
