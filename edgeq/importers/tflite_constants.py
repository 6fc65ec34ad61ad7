"""Computes the operators of a TFLite file that hang on constants and shapes alone.

Converters leave shape arithmetic in the file where the batch is free: SHAPE, STRIDED_SLICE, PACK before a RESHAPE. All
of it is computed at batch 1, the batch of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgeq.importers.tflite_file import ELEMENTS, FileOperator
from edgeq.importers.tflite_graph import MAX_FOLDED, Constant, TfliteSource
from edgeq.ir import BATCH
from edgeq.ir.tensor import Array


def fold(source: TfliteSource, node: FileOperator) -> bool:
    """Computes an operator whose inputs are all known; returns whether it was one."""
    if len(node.outputs) != 1:
        return False
    number = node.outputs[0]
    if node.op == "SHAPE":
        shape = source.value(node).shape
        source.known[number] = Constant(np.array([1 if size == BATCH else size for size in shape], np.int32))
        return True
    given = [source.constant(node, i) for i in range(len(node.inputs))]
    if not given or any(value is None for value in given):
        return False
    known = [value for value in given if value is not None]
    if node.op == "DEQUANTIZE":
        # The integers of a quantized constant stay with it.
        source.known[number] = known[0]
        return True
    row = _ROWS.get(node.op)
    if row is None:
        raise source.fail(node, "all its inputs are constant, and edgeq does not fold this operator")
    values = [constant.value if constant.steps is None else constant.steps for constant in known]
    if node.op not in _VIEWS:
        sizes = [value.size for value in values]
        source.fold_budget -= sum(sizes) if node.op in ("CONCATENATION", "PACK") else math.prod(sizes)
        if source.fold_budget < 0:
            raise source.fail(node, f"the constants computed on the way have more than {MAX_FOLDED} elements")
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(row(node, values))
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise source.fail(node, f"it cannot be computed from its constants ({error})") from None
    source.known[number] = Constant(value)
    return True


def _axes(value: Array) -> tuple[int, ...]:
    return tuple(int(v) for v in value.reshape(-1))


def strided(node: FileOperator, shape: Sequence[int], parts: Sequence[Array]) -> tuple[list[slice], list[int]]:
    """Returns what STRIDED_SLICE keeps of each axis, and the axes that it drops.

    Args:
        node: Its options have the masks.
        shape: Of what is sliced.
        parts: Begin, end and strides.

    Raises:
        ValueError: If it adds axes or has an ellipsis, or its operands do not fit.
    """
    begin, end, stride = ([int(v) for v in part.reshape(-1)] for part in parts)
    if node.option("ellipsis_mask") or node.option("new_axis_mask") or node.option("offset", False):
        raise ValueError("new axes, an ellipsis and ends as offsets are not supported")
    if not len(begin) == len(end) == len(stride) <= len(shape) or 0 in stride:
        raise ValueError(f"begin {begin}, end {end} and stride {stride} do not fit {list(shape)}")
    slices: list[slice] = [slice(None)] * len(shape)
    dropped: list[int] = []
    masks = (("begin_mask", begin), ("end_mask", end))
    for axis, step in enumerate(stride):
        bit = 1 << axis
        if node.option("shrink_axis_mask") & bit:
            index = begin[axis] + (shape[axis] if begin[axis] < 0 else 0)
            if not 0 <= index < shape[axis]:
                raise ValueError(f"index {begin[axis]} is not in axis {axis} of {list(shape)}")
            slices[axis] = slice(index, index + 1)
            dropped.append(axis)
            continue
        first, last = (None if node.option(mask) & bit else ends[axis] for mask, ends in masks)
        slices[axis] = slice(first, last, step)
    return slices, dropped


def _strided_slice(node: FileOperator, values: list[Array]) -> Array:
    slices, dropped = strided(node, values[0].shape, values[1:4])
    return np.squeeze(values[0][tuple(slices)], tuple(dropped))


def _gather(node: FileOperator, values: list[Array]) -> Array:
    if node.option("batch_dims"):
        raise ValueError("batch_dims is not supported")
    return np.take(values[0], values[1].astype(np.int64), axis=node.option("axis"))


def _cast(node: FileOperator, values: list[Array]) -> Array:
    return values[0].astype(ELEMENTS[node.option("to")])


def _product(node: FileOperator, values: list[Array]) -> Array:
    keep = bool(node.option("keep_dims", False))
    return np.asarray(np.prod(values[0], _axes(values[1]), dtype=values[0].dtype, keepdims=keep))


_ROWS: dict[str, Callable[[FileOperator, list[Array]], Array]] = {
    "ADD": lambda node, v: v[0] + v[1],
    "CAST": _cast,
    "CONCATENATION": lambda node, v: np.concatenate(v, node.option("axis")),
    "EXPAND_DIMS": lambda node, v: np.expand_dims(v[0], _axes(v[1])),
    "GATHER": _gather,
    "MUL": lambda node, v: v[0] * v[1],
    "PACK": lambda node, v: np.stack(v, node.option("axis")),
    "REDUCE_PROD": _product,
    "RESHAPE": lambda node, v: v[0].reshape(_axes(v[1]) if len(v) > 1 else tuple(node.numbers("new_shape") or ())),
    "SQUEEZE": lambda node, v: np.squeeze(v[0], tuple(node.numbers("squeeze_dims") or ()) or None),
    "STRIDED_SLICE": _strided_slice,
    "SUB": lambda node, v: v[0] - v[1],
    "TRANSPOSE": lambda node, v: v[0].transpose(_axes(v[1])),
}

_VIEWS = ("EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE")
"""Operators that copy nothing."""

FOLDED = tuple(sorted((*_ROWS, "DEQUANTIZE", "SHAPE")))
"""Operators that are computed here."""
