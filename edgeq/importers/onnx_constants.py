"""Evaluates the parts of an ONNX graph that hang on constants and shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeq.ir.tensor import Array

MAX_ELEMENTS = 1 << 24
"""A folded value may not be larger than this: what the weights of a layer never reach, and an attack would."""

Attributes = Mapping[str, Any]
Fold = Callable[[Sequence[Any], Attributes], Array]


def fold(
    op_type: str, inputs: Sequence[Array | None], attributes: Attributes, outputs: int
) -> list[Array] | None:
    """Returns the outputs of an ONNX node whose inputs are all known, or None when the operator is not known here.

    Args:
        op_type: ONNX operator type (of the default domain, opset 13 or newer).
        inputs: Values; None marks an absent one.
        attributes: By name.
        outputs: How many outputs the node has.

    Raises:
        ValueError: If the inputs do not fit or the result would be too large.
    """
    if op_type == "Split":
        return _split(inputs, attributes, outputs)
    function = _FOLDS.get(op_type)
    if function is None:
        return None
    with np.errstate(all="ignore"):
        value = np.asarray(function(inputs, attributes))
    _bounded(value.shape)
    return [value]


def foldable() -> list[str]:
    """The operator types that `fold` knows."""
    return sorted([*_FOLDS, "Split"])


def _bounded(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError(f"a constant of shape {list(sizes)} is too large")
    return sizes


def _binary(function: Callable[[Array, Array], Array]) -> Fold:
    def run(inputs: Sequence[Any], attributes: Attributes) -> Array:
        a, b = inputs
        _bounded(np.broadcast_shapes(a.shape, b.shape))
        return np.asarray(function(a, b))

    return run


def _unary(function: Callable[[Array], Array]) -> Fold:
    return lambda inputs, attributes: np.asarray(function(inputs[0])).astype(inputs[0].dtype)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        if np.any(b == 0):
            raise ValueError("an integer division by zero")
        # ONNX truncates towards zero.
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return np.asarray(a / b)


def _modulo(inputs: Sequence[Any], attributes: Attributes) -> Array:
    a, b = inputs
    if a.dtype.kind in "iu" and np.any(b == 0):
        raise ValueError("an integer remainder of zero")
    return np.asarray(np.fmod(a, b) if attributes.get("fmod", 0) else np.mod(a, b))


def _variadic(function: Callable[[Array, Array], Array]) -> Fold:
    def run(inputs: Sequence[Any], attributes: Attributes) -> Array:
        total = np.asarray(inputs[0])
        for value in inputs[1:]:
            _bounded(np.broadcast_shapes(total.shape, value.shape))
            total = np.asarray(function(total, value))
        return total

    return run


def _cast(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return np.asarray(inputs[0]).astype(number_type(int(attributes["to"])))


def number_type(code: int) -> Any:
    """The numpy type of an ONNX element type; half precision becomes float32. Raises ValueError for others."""
    import onnx

    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, TypeError):
        raise ValueError(f"element type {code} is not known") from None
    if dtype.name in ("float16", "bfloat16"):
        return np.float32
    if dtype.kind not in "fiub":
        raise ValueError(f"element type {dtype.name} is not supported")
    return dtype


def _gather(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, indices = inputs
    axis = int(attributes.get("axis", 0))
    rest = x.size // max(x.shape[axis], 1)
    _bounded((rest, indices.size))
    return np.asarray(np.take(x, indices, axis=axis))


def _slice(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else np.arange(starts.size)
    steps = inputs[4] if len(inputs) > 4 and inputs[4] is not None else np.ones(starts.size, np.int64)
    index: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(
        starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True
    ):
        # A negative step may end before index 0, which Python spells None.
        stop = None if step < 0 and end < -x.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return np.asarray(x[tuple(index)])


def _axes(inputs: Sequence[Any], attributes: Attributes) -> list[int] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(axis) for axis in np.asarray(inputs[1]).reshape(-1)]
    found = attributes.get("axes")
    return None if found is None else [int(axis) for axis in found]


def _squeeze(inputs: Sequence[Any], attributes: Attributes) -> Array:
    axes = _axes(inputs, attributes)
    return np.asarray(np.squeeze(inputs[0], None if axes is None else tuple(axes)))


def _unsqueeze(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return np.expand_dims(inputs[0], tuple(_axes(inputs, attributes) or ()))


def _reshape(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, shape = inputs[0], [int(v) for v in inputs[1].reshape(-1)]
    if not attributes.get("allowzero", 0):
        shape = [x.shape[i] if v == 0 else v for i, v in enumerate(shape)]
    return np.asarray(x.reshape(shape))


def _flatten(inputs: Sequence[Any], attributes: Attributes) -> Array:
    axis = int(attributes.get("axis", 1))
    shape = inputs[0].shape
    axis = axis + len(shape) if axis < 0 else axis
    return np.asarray(inputs[0].reshape(math.prod(shape[:axis]), -1))


def _constant_of_shape(inputs: Sequence[Any], attributes: Attributes) -> Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return np.full(_bounded(inputs[0].reshape(-1)), fill.reshape(-1)[0], fill.dtype)


def _expand(inputs: Sequence[Any], attributes: Attributes) -> Array:
    shape = _bounded(inputs[1].reshape(-1))
    return np.array(np.broadcast_to(inputs[0], _bounded(np.broadcast_shapes(inputs[0].shape, shape))))


def _tile(inputs: Sequence[Any], attributes: Attributes) -> Array:
    repeats = [int(v) for v in inputs[1].reshape(-1)]
    _bounded([size * count for size, count in zip(inputs[0].shape, repeats, strict=True)])
    return np.tile(inputs[0], repeats)


def _range(inputs: Sequence[Any], attributes: Attributes) -> Array:
    start, limit, step = (value.reshape(-1)[0] for value in inputs)
    _bounded([max(math.ceil((float(limit) - float(start)) / float(step)), 0)])
    return np.arange(start, limit, step, dtype=inputs[0].dtype)


def _transpose(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return np.transpose(inputs[0], attributes.get("perm"))


def _concat(inputs: Sequence[Any], attributes: Attributes) -> Array:
    _bounded([sum(value.size for value in inputs)])
    return np.concatenate([np.asarray(value) for value in inputs], axis=int(attributes["axis"]))


def _where(inputs: Sequence[Any], attributes: Attributes) -> Array:
    _bounded(np.broadcast_shapes(*(value.shape for value in inputs)))
    return np.asarray(np.where(*inputs))


def _matmul(inputs: Sequence[Any], attributes: Attributes) -> Array:
    a, b = inputs
    _bounded((a.size // max(a.shape[-1], 1), b.size // max(b.shape[-2 if b.ndim > 1 else -1], 1)))
    return np.asarray(np.matmul(a, b))


def _clip(inputs: Sequence[Any], attributes: Attributes) -> Array:
    low, high = (inputs[i] if len(inputs) > i else None for i in (1, 2))
    return np.asarray(inputs[0]) if low is None and high is None else np.clip(inputs[0], low, high)


def _reduce(function: Callable[..., Array]) -> Fold:
    def run(inputs: Sequence[Any], attributes: Attributes) -> Array:
        axes = _axes(inputs, attributes)
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return np.asarray(inputs[0])
        keep = bool(attributes.get("keepdims", 1))
        value = function(inputs[0], axis=tuple(axes) if axes else None, keepdims=keep)
        return np.asarray(value).astype(inputs[0].dtype)

    return run


def _batch_norm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    """Standardized weights are a batch normalization of constants (Qiao et al., Weight Standardization, 2019)."""
    x, scale, shift, mean, variance = inputs
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    if attributes.get("training_mode", 0):
        others = tuple(axis for axis in range(x.ndim) if axis != 1)
        mean, variance = x.mean(axis=others), x.var(axis=others)
    factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
    y = (x - mean.reshape(per_channel)) * factor.reshape(per_channel) + shift.reshape(per_channel)
    return np.asarray(y).astype(x.dtype)


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


_FOLDS: dict[str, Fold] = {
    "Abs": _unary(np.abs),
    "Add": _binary(np.add),
    "And": _binary(np.logical_and),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": lambda inputs, attributes: np.asarray(inputs[0]).astype(inputs[1].dtype),
    "Ceil": _unary(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _binary(_divide),
    "Equal": _binary(np.equal),
    "Erf": _unary(_erf),
    "Exp": _unary(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _unary(np.floor),
    "Gather": _gather,
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "Identity": lambda inputs, attributes: np.asarray(inputs[0]),
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "Log": _unary(np.log),
    "MatMul": _matmul,
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Mod": _modulo,
    "Mul": _binary(np.multiply),
    "Neg": _unary(np.negative),
    "Not": lambda inputs, attributes: np.logical_not(inputs[0]),
    "Or": _binary(np.logical_or),
    "Pow": _binary(lambda a, b: np.power(a.astype(np.float64), b).astype(a.dtype)),
    "Range": _range,
    "Reciprocal": _unary(np.reciprocal),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Relu": _unary(lambda x: np.maximum(x, 0)),
    "Reshape": _reshape,
    "Round": _unary(np.rint),
    "Shape": lambda inputs, attributes: np.array(inputs[0].shape, np.int64)[
        attributes.get("start", 0) : attributes.get("end", None)
    ],
    "Sign": _unary(np.sign),
    "Size": lambda inputs, attributes: np.asarray(inputs[0].size, np.int64),
    "Slice": _slice,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Sum": _variadic(np.add),
    "Tanh": _unary(np.tanh),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}


def _split(inputs: Sequence[Any], attributes: Attributes, outputs: int) -> list[Array]:
    x, axis = inputs[0], int(attributes.get("axis", 0))
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = [int(v) for v in inputs[1].reshape(-1)]
    else:
        chunk = -(-x.shape[axis] // outputs)
        sizes = [min(chunk, x.shape[axis] - i * chunk) for i in range(outputs)]
    if len(sizes) != outputs or sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ValueError(f"parts {sizes} do not make up axis {axis} of {list(x.shape)}")
    return list(np.split(x, np.cumsum(sizes)[:-1], axis=axis))
