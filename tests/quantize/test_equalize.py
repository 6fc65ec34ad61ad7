"""Equalisation: the same function, ranges alike, and nothing scaled that does not commute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from small_graphs import NO_CLAMP, RELU, RELU6, Builder, inverted_residual, mean

from edgeq.errors import DataError, QuantizationError
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.ir import Attrs, Graph, Tensor
from edgeq.ops.base import Clamp, Window
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.leaky_relu import LeakyReluAttrs
from edgeq.ops.linear import LinearAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.quantize.calibrate import FloatSession
from edgeq.quantize.equalize import channel_sets, equalize, observe_channels
from edgeq.quantize.layers import is_layer


def samples(seed: int = 0, count: int = 24, channels: int = 3, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, channels, size, size)).astype(np.float32)


def values(graph: Graph, x: np.ndarray, names: list[str] | None = None) -> list[np.ndarray]:
    return FloatSession(to_float_onnx(graph, names), 1).run({"x": x})


def uneven(graph: Graph, seed: int = 0) -> Graph:
    """The graph with its layers' rows multiplied by very different factors, so that there is much to equalise."""
    rng = np.random.default_rng(seed)
    result = graph.copy()
    for node in graph.nodes:
        if is_layer(node):
            value = graph.constant(node.inputs[1])
            factor = np.exp(rng.normal(0, 1.0, value.shape[0])).reshape(-1, *[1] * (value.ndim - 1))
            result.add_tensor(Tensor.constant(node.inputs[1], (value * factor).astype(np.float32)))
    return result


def plain(clamp: Clamp) -> Graph:
    b = Builder(1)
    x = b.conv("first", "x", 12, 3, clamp)
    x = b.conv("second", x, 10, 1, clamp)
    return b.done(b.linear("head", mean(b, "pool", b.conv("third", x, 8, 3, clamp)), 5))


def grouped() -> Graph:
    b = Builder(2)
    x = b.conv("first", "x", 12, 3, RELU)
    x = b.conv("grouped", x, 18, 3, RELU, groups=3)
    x = b.conv("multiplied", x, 36, 3, NO_CLAMP, groups=18)
    return b.done(b.conv("last", x, 4, 1, NO_CLAMP))


def elementwise() -> Graph:
    b = Builder(3)
    a = b.conv("a", "x", 6, 3, NO_CLAMP)
    c = b.conv("c", "x", 6, 3, RELU)
    x = b.add("sum", a, c, RELU)
    x = b.node("sub", "less", [x, b.conv("d", x, 6, 1, NO_CLAMP)], ElementwiseAttrs())
    x = b.node("leaky_relu", "leaky", [x], LeakyReluAttrs(0.1))
    x = b.node("max_pool", "pool", [x], MaxPoolAttrs(Window((2, 2), (2, 2))))
    x = b.node("relu", "relu", [b.conv("e", x, 7, 1, NO_CLAMP)], Attrs())
    x = mean(b, "mean", x)
    x = b.linear("f", x, 9, bias=False)
    return b.done(b.linear("g", x, 5))


def linears() -> Graph:
    b = Builder(4, 3, 1)
    x = b.node("reshape", "flat", [b.conv("first", "x", 8, 1, RELU)], ReshapeAttrs((-1, 8)))
    weights = b.constant("middle.weight", b.rng.normal(0, 1, (12, 8)).astype(np.float32))
    x = b.node("linear", "middle", [x, weights], LinearAttrs(RELU))
    return b.done(b.linear("last", x, 3))


GRAPHS: dict[str, Callable[[], Graph]] = {
    "relu": lambda: plain(RELU),
    "grouped": grouped,
    "elementwise": elementwise,
}


@pytest.mark.parametrize("strength", [None, 0.5, 1.0])
@pytest.mark.parametrize("name", GRAPHS)
def test_function_is_preserved_for_every_input_without_caps(name: str, strength: float | None) -> None:
    graph = uneven(GRAPHS[name]())
    done = equalize(graph, samples(), activation_bits=4, strength=strength, absorb=False)
    assert done.scales
    assert not done.shifts
    # Far beyond the samples too.
    for x in (samples(), samples(1) * 50):
        (wanted,), (found,) = values(graph, x), values(done.graph, x)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_linear_layers_are_scaled() -> None:
    graph = uneven(linears())
    done = equalize(graph, samples(size=1), strength=1.0)
    assert set(done.scales) == {"first.out", "middle.out"}
    x = samples(2, size=1)
    (wanted,), (found,) = values(graph, x), values(done.graph, x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("strength", [None, 0.5, 1.0])
@pytest.mark.parametrize("cap", [RELU6, (-1.5, 2.5)])
def test_function_is_preserved_within_the_range_behind_caps(cap: Clamp, strength: float | None) -> None:
    for graph in (uneven(plain(cap)), inverted_residual(), inverted_residual(5)):
        x = samples()
        done = equalize(graph, x, activation_bits=4, strength=strength)
        assert done.scales
        (wanted,), (found,) = values(graph, x), values(done.graph, x)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_channels_at_their_cap_keep_their_scale_and_others_stay_below() -> None:
    graph = uneven(plain(RELU6))
    x = samples()
    before, after = values(graph, x, ["first.out"])[0], None
    done = equalize(graph, x, strength=1.0, absorb=False, margin=1.25)
    after = values(done.graph, x, ["first.out"])[0]
    largest = before.max(axis=(0, 2, 3))
    factor = done.scales["first.out"]
    assert (largest >= 6).any()
    assert (factor[largest * 1.25 >= 6] == 1).all()
    assert (factor != 1).any()
    assert (after.max(axis=(0, 2, 3))[factor != 1] * 1.25 <= 6 * (1 + 1e-6)).all()
    # Within the margin, where the samples do not reach, the function is the same; the seed finds such an input.
    near = x * 1.02
    assert (values(graph, near, ["first.out"])[0].max(axis=(0, 2, 3)) <= 1.25 * largest + 1e-6)[factor != 1].all()
    (wanted,), (found,) = values(graph, near), values(done.graph, near)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_full_strength_makes_channels_alike() -> None:
    graph = uneven(plain(RELU))
    x = samples(count=64)
    done = equalize(graph, x, strength=1.0, absorb=False)
    for name in ("first.out", "second.out"):
        before, after = (values(g, x, [name])[0].max(axis=(0, 2, 3)) for g in (graph, done.graph))
        live = before > 0
        assert before[live].max() / before[live].min() > 4
        # The scales come from some positions, not from all.
        assert after[live].max() / after[live].min() < 1.6


def test_half_strength_is_the_paper_s_balance() -> None:
    """s = sqrt(column / magnitude): afterwards every channel's width is the same multiple of its column."""
    b = Builder(7, 3, 1)
    graph = uneven(b.done(b.conv("last", b.conv("first", "x", 16, 1, RELU), 1, 1, NO_CLAMP)))
    x = samples(count=512, size=1)
    done = equalize(graph, x, strength=0.5, absorb=False)
    width = values(done.graph, x, ["first.out"])[0].max(axis=(0, 2, 3))
    column = np.abs(done.graph.constant("last.weight")).reshape(-1)
    factor = done.scales["first.out"]
    inner = (factor > 1 / 60) & (factor < 60) & (width > 0)
    assert inner.sum() > 8
    ratio = (width / column)[inner]
    np.testing.assert_allclose(ratio / np.median(ratio), 1.0, rtol=1e-3)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_scales_settle(strength: float) -> None:
    """Sets do not influence each other, so that a second pass changes nothing."""
    graph = uneven(elementwise())
    x = samples(count=64)
    once = equalize(graph, x, strength=strength)
    twice = equalize(once.graph, x, strength=strength)
    assert once.scales
    for name, factor in twice.scales.items():
        # A channel that reached the limit of what one pass does goes on.
        inner = (once.scales[name] > 1 / 63) & (once.scales[name] < 63)
        np.testing.assert_allclose(factor[inner], 1.0, rtol=2e-3)
    for shift in twice.shifts.values():
        np.testing.assert_allclose(shift, 0.0, atol=1e-4)


def test_means_are_absorbed_where_nothing_clips() -> None:
    b = Builder(8)
    x = b.conv("first", "x", 8, 3, NO_CLAMP)
    x = b.add("sum", x, b.conv("second", x, 8, 1, NO_CLAMP))
    graph = b.done(b.conv("third", x, 5, 1, RELU))
    graph.add_tensor(Tensor.constant("first.bias", np.linspace(-9, 9, 8).astype(np.float32)))
    done = equalize(graph, samples())
    assert set(done.shifts) == {"first.out", "second.out", "sum.out"}
    np.testing.assert_allclose(done.shifts["sum.out"], done.shifts["first.out"] + done.shifts["second.out"])
    for name in done.shifts:
        after = values(done.graph, samples(), [name])[0]
        np.testing.assert_allclose(after.mean(axis=(0, 2, 3)), 0.0, atol=1e-4)
    # For every input.
    far = samples(3) * 30
    (wanted,), (found,) = values(graph, far), values(done.graph, far)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kernel", [1, 3])
def test_high_biases_are_absorbed_behind_relu_but_not_before_a_border(kernel: int) -> None:
    b = Builder(9)
    graph = b.done(b.conv("second", b.conv("first", "x", 8, 3, RELU), 5, kernel, NO_CLAMP))
    bias = np.zeros(8, np.float32)
    bias[:4] = 60.0
    graph.add_tensor(Tensor.constant("first.bias", bias))
    x = samples()
    done = equalize(graph, x)
    if kernel == 3:
        assert not done.shifts
    else:
        before = values(graph, x, ["first.out"])[0]
        shift = done.shifts["first.out"]
        assert (shift[:4] > 10).all()
        assert (shift[4:] == 0).all()
        assert (shift <= before.min(axis=(0, 2, 3))).all()
    (wanted,), (found,) = values(graph, x), values(done.graph, x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_other_readers_and_ends_block() -> None:
    b = Builder(10)
    first = b.conv("first", "x", 6, 1, RELU)
    second = b.conv("second", first, 6, 1, RELU)
    third = b.conv("third", second, 6, 1, RELU)
    fourth = b.conv("fourth", third, 6, 1, RELU)
    swish = b.node("silu", "swish", [second], Attrs())
    joined = b.node("concat", "joined", [swish, fourth], ConcatAttrs(1))
    graph = b.done(b.conv("last", joined, 4, 1, NO_CLAMP), "third.out")
    # `second` is read by an operator that does not commute, `third` by the caller, `fourth` by a concat.
    assert [found.name for found in channel_sets(graph)] == ["first.out"]


def test_two_readers_share_the_scales() -> None:
    b = Builder(11)
    first = b.conv("first", "x", 6, 1, RELU)
    graph = uneven(b.done(b.add("sum", b.conv("left", first, 4, 1, NO_CLAMP), b.conv("right", first, 4, 3, RELU))))
    (found,) = channel_sets(graph)
    assert (found.name, [node.name for node in found.readers]) == ("first.out", ["left", "right"])
    done = equalize(graph, samples(), strength=1.0)
    x = samples(4) * 20
    (wanted,), (result,) = values(graph, x), values(done.graph, x)
    np.testing.assert_allclose(result, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_shared_weights_block() -> None:
    b = Builder(12)
    first = b.conv("first", "x", 6, 1, RELU)
    b.constant("w", b.rng.normal(0, 1, (6, 6, 1, 1)).astype(np.float32))
    second = b.node("conv", "second", [first, "w"], ConvAttrs(Window((1, 1)), 1, RELU))
    third = b.node("conv", "third", [second, "w"], ConvAttrs(Window((1, 1)), 1, RELU))
    graph = b.done(b.conv("last", third, 2, 1, NO_CLAMP))
    assert channel_sets(graph) == []
    assert equalize(graph, samples()).graph is graph


def test_a_dead_channel_stays() -> None:
    graph = plain(RELU)
    weights, bias = graph.constant("first.weight").copy(), graph.constant("first.bias").copy()
    weights[3], bias[3] = 0.0, -1.0
    graph.add_tensor(Tensor.constant("first.weight", weights))
    graph.add_tensor(Tensor.constant("first.bias", bias))
    done = equalize(graph, samples(), strength=1.0)
    assert done.scales["first.out"][3] == 1
    (wanted,), (found,) = values(graph, samples(1)), values(done.graph, samples(1))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_statistics_are_numpy_s() -> None:
    graph, x = plain(RELU), samples(5, 9)
    (seen,) = observe_channels(graph, x, ["second.out"], 1).values()
    (reference,) = values(graph, x, ["second.out"])
    np.testing.assert_array_equal(seen.low, reference.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(seen.high, reference.max(axis=(0, 2, 3)))
    np.testing.assert_allclose(seen.mean, reference.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(seen.variance, reference.var(axis=(0, 2, 3)), rtol=1e-4, atol=1e-7)
    rows = reference.transpose(0, 2, 3, 1).reshape(-1, reference.shape[1])
    assert {row.tobytes() for row in seen.rows} <= {row.tobytes() for row in rows}


def test_what_cannot_be_is_refused() -> None:
    graph = plain(RELU)
    with pytest.raises(QuantizationError, match="strength"):
        equalize(graph, samples(), strength=1.5)
    with pytest.raises(QuantizationError, match="margin"):
        equalize(graph, samples(), margin=0.9)
    with pytest.raises(DataError, match="batch size"):
        equalize(graph, samples(count=0))
    bad = samples()
    bad[0, 0, 0, 0] = np.inf
    with pytest.raises(QuantizationError, match="NaN or infinite"):
        equalize(graph, bad)
