"""Integer statements against plain loops in Python integers, at the ends of the ranges."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from quantized_graphs import QuantizedBuilder, random_codes

from edgeq.errors import GraphError
from edgeq.ir import Graph, QuantParams, Tensor
from edgeq.ops import check_graph, get, unary_table
from edgeq.ops.base import Window
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.resize import Coordinates, ResizeAttrs, ResizeMode, bilinear_taps
from edgeq.ops.softmax import softmax_table


def loops_conv(x: np.ndarray, w: np.ndarray, zero: int, attrs: ConvAttrs) -> np.ndarray:
    """[n, o, h, w] accumulators without bias, tap by tap."""
    n, _, height, width = x.shape
    o, per_group, kh, kw = w.shape
    window = attrs.window
    out_h, out_w = window.output_size(height, width, "conv")
    acc = np.zeros((n, o, out_h, out_w), np.int64)
    for b, k, i, j in itertools.product(range(n), range(o), range(out_h), range(out_w)):
        for c, p, q in itertools.product(range(per_group), range(kh), range(kw)):
            row = i * window.strides[0] - window.pads[0] + p * window.dilations[0]
            col = j * window.strides[1] - window.pads[1] + q * window.dilations[1]
            if 0 <= row < height and 0 <= col < width:
                source = k // (o // attrs.groups) * per_group + c
                acc[b, k, i, j] += (int(x[b, source, row, col]) - zero) * int(w[k, c, p, q])
    return acc


def loops_conv_transpose(
    x: np.ndarray, w: np.ndarray, zero: int, attrs: ConvTransposeAttrs, shape: tuple
) -> np.ndarray:
    n, _, height, width = x.shape
    o, per_group, kh, kw = w.shape
    window = attrs.window
    acc = np.zeros((n, o, *shape), np.int64)
    for b, k, i, j in itertools.product(range(n), range(o), range(height), range(width)):
        for c, p, q in itertools.product(range(per_group), range(kh), range(kw)):
            row = i * window.strides[0] - window.pads[0] + p * window.dilations[0]
            col = j * window.strides[1] - window.pads[1] + q * window.dilations[1]
            if 0 <= row < shape[0] and 0 <= col < shape[1]:
                source = k // (o // attrs.groups) * per_group + c
                acc[b, k, row, col] += (int(x[b, source, i, j]) - zero) * int(w[k, c, p, q])
    return acc


@pytest.mark.parametrize("scheme", ["w8a8", "w4a4"])
@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), (1, 1), (1, 1, 1, 1)),
        Window((3, 2), (2, 1), (0, 1, 2, 0), (1, 2)),
        Window((1, 1), (2, 2)),
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions(window: Window, groups: int, scheme: str) -> None:
    b = QuantizedBuilder(np.random.default_rng(groups), scheme)
    x = b.input(4, 6, 5)
    y = b.conv(x, 8 if groups < 4 else 4, window.kernel, window.strides, window.pads, window.dilations, groups)
    z = b.conv_transpose(x, 4, window.kernel, window.strides, window.pads, window.dilations, groups)
    graph = b.finish(y, z)
    (codes,) = random_codes(graph, 2, seed=1)
    zero = int(graph.quant(x).zero_point)
    for node in graph.nodes:
        w, bias = graph.constant(node.inputs[1]), graph.constant(node.inputs[2])
        assert w is not None
        assert bias is not None
        acc = get(node.op).accumulate(node, [codes, w, bias], graph)  # type: ignore[attr-defined]
        if node.op == "conv":
            wanted = loops_conv(codes, w, zero, node.attrs)  # type: ignore[arg-type]
        else:
            shape = graph.tensor(node.outputs[0]).shape[2:]
            wanted = loops_conv_transpose(codes, w, zero, node.attrs, shape)  # type: ignore[arg-type]
        np.testing.assert_array_equal(acc, wanted + bias[:, None, None])


def linear_graph(k: int, weight: int, zero: int) -> Graph:
    b = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    x = b.input(k)
    b.graph.add_tensor(b.graph.tensor(x).with_(quant=QuantParams.per_tensor(0.1, zero)))
    graph = b.finish(b.linear(x, 2))
    node = graph.nodes[0]
    weights = np.full((2, k), weight, np.int8)
    weights[1, ::2] = -weight
    graph.add_tensor(graph.tensor(node.inputs[1]).with_(data=weights))
    scale = np.float32(0.1) * graph.quant(node.inputs[1]).scale
    bias_quant = QuantParams(scale, np.zeros(2, np.int32), 32, 0)
    graph.add_tensor(Tensor.constant(node.inputs[2], np.array([1, -1], np.int32), bias_quant))
    return graph


@pytest.mark.parametrize("k", [1, 517, 518, 519, 4096, 66000])
def test_products_at_the_ends_of_the_ranges(k: int) -> None:
    """517 products of 127 * 255 are the most that float32 adds exactly; beyond, the statement uses float64."""
    graph = linear_graph(k, 127, -128)
    x = np.full((2, k), 127, np.int8)
    x[1, ::3] = -128
    node = graph.nodes[0]
    w, bias = graph.constant(node.inputs[1]), graph.constant(node.inputs[2])
    acc = get("linear").accumulate(node, [x, w, bias], graph)  # type: ignore[attr-defined]
    wanted = (x.astype(np.int64) + 128) @ w.astype(np.int64).T + bias  # type: ignore[union-attr]
    np.testing.assert_array_equal(acc, wanted)
    check_graph(graph)


def test_an_accumulator_beyond_32_bits_is_refused() -> None:
    with pytest.raises(GraphError, match="beyond 32 bits"):
        check_graph(linear_graph(67000, 127, -128))


def exact_softplus(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))


REFERENCES = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "erf": math.erf,
    "hard_swish": lambda x: x * min(max(x / 6 + 0.5, 0), 1),
    "hard_sigmoid": lambda x: min(max(x / 6 + 0.5, 0), 1),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "elu": lambda x: max(x, 0.0) + math.expm1(min(x, 0.0)),
    "selu": lambda x: 1.0507010221481323 * (max(x, 0.0) + 1.6732631921768188 * math.expm1(min(x, 0.0))),
    "celu": lambda x: max(x, 0.0) + math.expm1(min(x, 0.0)),
    "softplus": exact_softplus,
    "mish": lambda x: x * math.tanh(exact_softplus(x)),
    "softsign": lambda x: x / (1 + abs(x)),
}


@pytest.mark.parametrize("op", REFERENCES)
@pytest.mark.parametrize("scale", [0.004, 0.05, 2.0])
@pytest.mark.parametrize("zero", [-128, 3, 127])
def test_tables_hold_the_rounded_values(op: str, scale: float, zero: int) -> None:
    quant_in, quant_out = QuantParams.per_tensor(scale, zero), QuantParams.per_tensor(scale / 1.3, -zero // 2)
    b = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    y = b.unary(op, b.input(4), get(op).attrs_type())
    graph = b.finish(y)
    for name, quant in ((graph.inputs[0], quant_in), (y, quant_out)):
        graph.add_tensor(graph.tensor(name).with_(quant=quant))
    table = get(op).table(graph.nodes[0], graph)  # type: ignore[attr-defined]
    assert table.shape == (256,)
    for code in range(-128, 128):
        real = REFERENCES[op]((code - zero) * float(quant_in.scale))
        steps = real / float(quant_out.scale)
        if abs(steps - math.floor(steps) - 0.5) < 1e-9:
            continue  # A tie of the exact values may fall either way in float64.
        assert table[code + 128] == min(max(round(steps) + int(quant_out.zero_point), -128), 127)


def test_a_function_without_value_gives_the_code_of_zero() -> None:
    quant = QuantParams.per_tensor(0.1, 5)
    with np.errstate(all="ignore"):
        table = unary_table(lambda x: np.sqrt(x), quant, QuantParams.per_tensor(0.1, -7))
    assert np.all(table[: 128 + 5] == -7)


def test_softmax_table_and_probabilities() -> None:
    scale = np.float32(0.3)
    table = softmax_table(float(scale))
    assert table[0] == 1 << 40
    assert [int(t) for t in table] == [round(Fraction(math.exp(-float(scale) * d)) * (1 << 40)) for d in range(256)]


@pytest.mark.parametrize("coordinates", Coordinates)
@pytest.mark.parametrize(("size", "outputs"), [(1, 1), (1, 5), (4, 1), (5, 3), (7, 14), (13, 29)])
def test_bilinear_positions(size: int, outputs: int, coordinates: Coordinates) -> None:
    """Against exact rational arithmetic: float64 positions differ by far less than half a weight step."""
    low, high, part = bilinear_taps(size, outputs, ResizeAttrs((outputs, 1), ResizeMode.BILINEAR, coordinates))
    for i in range(outputs):
        exact = {
            Coordinates.HALF_PIXEL: (Fraction(2 * i + 1, 2)) * size / outputs - Fraction(1, 2),
            Coordinates.ALIGN_CORNERS: Fraction(i * (size - 1), max(outputs - 1, 1)),
            Coordinates.ASYMMETRIC: Fraction(i * size, outputs),
            Coordinates.PYTORCH_HALF_PIXEL: (Fraction(2 * i + 1, 2)) * size / outputs - Fraction(1, 2)
            if outputs > 1
            else Fraction(0),
        }[coordinates]
        position = low[i] * (1 - part[i]) + high[i] * part[i]
        clamped = min(max(exact, 0), size - 1)
        assert abs(position - clamped) < 1e-9


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_windows_in_the_padding_are_refused(op: str) -> None:
    b = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    x = b.input(2, 3, 3)
    with pytest.raises(GraphError, match="wholly in the padding"):
        b.max_pool(x, (2, 2), (1, 1), (2, 0, 0, 0)) if op == "max_pool" else b.avg_pool(
            x, Window((2, 2), (1, 1), (0, 0, 0, 2))
        )
