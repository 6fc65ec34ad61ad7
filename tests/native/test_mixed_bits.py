"""W4A4 as the policy makes it, 4- and 8-bit activations beside each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from native_sessions import expect_exact
from small_graphs import NO_CLAMP, Builder, mean

from edgeq.ir import Attrs, Graph
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.silu import SiluAttrs
from edgeq.quantize import QuantizeOptions, Scheme, calibrate, quantize
from edgeq.quantize.recipe import Recipe


def residual() -> Graph:
    """Bottlenecks whose linear outputs only additions read, and sums that only an average or layers read."""
    b = Builder(4)
    x = b.conv("stem", "x", 8, 3)
    for name in ("one", "two"):
        deep = b.conv(f"{name}.depthwise", b.conv(f"{name}.expand", x, 24), 24, 3, groups=24)
        x = b.add(f"{name}.sum", x, b.conv(f"{name}.project", deep, 8, clamp=NO_CLAMP))
    return b.done(b.linear("head", mean(b, "pool", b.conv("wide", x, 16)), 10))


def gated() -> Graph:
    """Tables and products of activations, which no layer with weights reads; a concat of both kinds."""
    b = Builder(5)
    x = b.node("silu", "swish", [b.conv("stem", "x", 8, 3, NO_CLAMP)], SiluAttrs())
    gate = b.node("sigmoid", "gate", [b.conv("squeeze", x, 8, clamp=NO_CLAMP)], Attrs())
    scaled = b.node("mul", "scaled", [x, gate], ElementwiseAttrs())
    side = b.conv("side", scaled, 8, clamp=NO_CLAMP)
    return b.done(b.conv("last", b.node("concat", "both", [side, scaled], ConcatAttrs(1)), 4))


GRAPHS: dict[str, Callable[[], Graph]] = {"residual": residual, "gated": gated}


def quantized(name: str) -> Graph:
    graph = GRAPHS[name]()
    samples = np.random.default_rng(0).normal(0, 1, (16, 3, 8, 8)).astype(np.float32)
    calibration = calibrate(graph, [samples], observer="mse")
    return quantize(graph, Scheme.parse("w4a4"), calibration, QuantizeOptions(Recipe(weight_observer="mse"))).graph


@pytest.mark.parametrize("name", GRAPHS)
def test_native_equals_the_statements(name: str) -> None:
    graph = quantized(name)
    ends = [(graph.quant(node.inputs[0]).bits, graph.quant(node.outputs[0]).bits) for node in graph.nodes]
    assert {(4, 8), (8, 4), (4, 4)} <= set(ends)
    expect_exact(lambda: quantized(name))
