"""Chains that run a strip of rows at a time, additions in place and gathered windows: the same bits, less memory."""

from __future__ import annotations

import numpy as np
import pytest
from native_sessions import expect_exact
from quantized_graphs import SCHEMES, Build, QuantizedBuilder

from edgeq import Session
from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.ops.base import Window
from edgeq.passes import channels_last, lower

STRIPS: dict[str, Build] = {
    "expand, window, project": lambda b: b.finish(
        b.conv(b.depthwise(b.conv(b.input(6, 29, 27), 20, clamp=True), 3, clamp=True), 7)
    ),
    "with stride 2": lambda b: b.finish(b.conv(b.depthwise(b.conv(b.input(5, 58, 30), 24), 3, 2), 9)),
    "5x5 windows and a table": lambda b: b.finish(
        b.conv(b.unary("hard_swish", b.depthwise(b.unary("hard_swish", b.conv(b.input(4, 30, 33), 12)), 5)), 8)
    ),
    "first layer before it": lambda b: b.finish(
        b.conv(b.depthwise(b.conv(b.input(3, 61, 57), 16, (3, 3), (2, 2), (1, 1, 1, 1), clamp=True), 3), 8)
    ),
    "any convolution before it": lambda b: b.finish(
        b.conv(b.depthwise(b.conv(b.input(24, 30, 28), 16, (3, 3), pads=(1, 0, 1, 2)), 3), 8)
    ),
    "no projection": lambda b: b.finish(b.mean(b.depthwise(b.conv(b.input(8, 28, 28), 24), 5, 2))),
    "no expansion": lambda b: b.finish(b.conv(b.depthwise(b.input(40, 28, 28), 3), 12)),
    "a residual around it": lambda b: _residual(b, b.input(8, 28, 28)),
    "a residual inside it": lambda b: _inner_residual(b),
    "maximum after the first layer": lambda b: b.finish(
        b.max_pool(b.conv(b.input(3, 64, 60), 16, (7, 7), (2, 2), (3, 3, 3, 3)), (3, 3), (2, 2), (1, 1, 1, 1))
    ),
    "average between products": lambda b: b.finish(
        b.conv(b.avg_pool(b.conv(b.input(6, 28, 30), 24), Window((3, 3), (1, 1), (1, 1, 1, 1))), 5)
    ),
    "two in a row": lambda b: _residual(b, b.conv(b.depthwise(b.conv(b.input(3, 60, 60), 16), 3, 2), 8)),
}


def _residual(b: QuantizedBuilder, x: str) -> Graph:
    y = b.conv(b.depthwise(b.conv(x, 24, clamp=True), 3, clamp=True), b.shape(x)[1])
    return b.finish(b.binary("add", x, y))


def _inner_residual(b: QuantizedBuilder) -> Graph:
    x = b.input(12, 28, 28)
    y = b.binary("add", b.conv(b.conv(x, 20), 12), x)
    return b.finish(b.conv(b.depthwise(y, 3), 5))


def _strips(session: Session) -> int:
    """Layers that run in strips with another one."""
    return sum(" in " in layer.kernel for layer in session.layers)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", STRIPS)
def test_strips_are_exact(name: str, scheme: str) -> None:
    session = expect_exact(
        lambda: STRIPS[name](QuantizedBuilder(np.random.default_rng(3), scheme)), threads=(1, 2, 3), batches=(1, 2)
    )
    assert _strips(session) > 0


def test_strips_keep_no_whole_map_between_their_layers() -> None:
    graph = STRIPS["expand, window, project"](QuantizedBuilder(np.random.default_rng(3), "w8a8"))
    arena = Session(encode(lower(channels_last(graph)))).arena_bytes()
    assert arena < 29 * 27 * (6 + 7) + 1024 < 29 * 27 * 20


def test_small_maps_run_whole() -> None:
    b = QuantizedBuilder(np.random.default_rng(3), "w8a8")
    graph = b.finish(b.conv(b.depthwise(b.conv(b.input(16, 7, 7), 96), 3), 16))
    assert _strips(Session(encode(lower(channels_last(graph))))) == 0


def _chain_of_additions(b: QuantizedBuilder) -> Graph:
    """Residual blocks whose operands may be overwritten, and one that is read again later."""
    x = b.conv(b.input(6, 10, 9), 24)
    for _ in range(2):
        y = b.conv(b.conv(x, 8), 24)
        x = b.binary("add", y, x)
    kept = x
    y = b.binary("add", b.conv(b.conv(x, 8), 24), x)
    return b.finish(b.conv(y, 4), b.conv(kept, 4))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_additions_in_place_are_exact(scheme: str) -> None:
    expect_exact(lambda: _chain_of_additions(QuantizedBuilder(np.random.default_rng(5), scheme)))


def test_additions_write_over_their_operand() -> None:
    def arena(blocks: int) -> int:
        b = QuantizedBuilder(np.random.default_rng(5), "w8a8")
        x = b.conv(b.input(4, 32, 32), 64)
        for _ in range(blocks):
            x = b.binary("add", b.conv(b.conv(x, 4), 64), x)
        return Session(encode(lower(channels_last(b.finish(b.conv(x, 4)))))).arena_bytes()

    # One map of 64 channels, never two.
    assert arena(3) == arena(1) < 32 * 32 * 64 * 3 // 2


GATHERED: dict[str, Build] = {
    "3x3 on three channels, stride 2": lambda b: b.finish(
        b.conv(b.input(3, 17, 19), 20, (3, 3), (2, 2), (1, 1, 1, 1), clamp=True)
    ),
    "padding wider than the image": lambda b: b.finish(b.conv(b.input(1, 2, 3), 8, (5, 7), (1, 1), (4, 6, 4, 6))),
    "uneven padding and strides": lambda b: b.finish(b.conv(b.input(2, 9, 14), 8, (4, 5), (3, 2), (0, 3, 2, 1))),
    "rows with dilation": lambda b: b.finish(
        b.conv(b.input(3, 15, 12), 8, (3, 3), pads=(2, 1, 2, 1), dilations=(2, 1))
    ),
    "a window as wide as the image": lambda b: b.finish(b.conv(b.input(4, 6, 9), 8, (2, 9), (1, 4))),
    "rows of 64 bytes": lambda b: b.finish(b.conv(b.input(16, 9, 9), 12, (3, 4), pads=(1, 1, 1, 1))),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", GATHERED)
def test_gathered_windows_are_exact(name: str, scheme: str) -> None:
    expect_exact(lambda: GATHERED[name](QuantizedBuilder(np.random.default_rng(6), scheme)))
