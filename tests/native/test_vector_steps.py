"""Elementwise steps in place and shuffles without concatenations: the same bits, less memory and fewer copies."""

from __future__ import annotations

import numpy as np
import pytest
from native_sessions import expect_exact
from quantized_graphs import SCHEMES, Build, QuantizedBuilder

from edgeq import Session
from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.passes import channels_last, lower


def _shuffle(b: QuantizedBuilder, parts: list[str], groups: int) -> str:
    for part in parts[1:]:
        b.graph.add_tensor(b.graph.tensor(part).with_(quant=b.graph.quant(parts[0])))
    return b.node("channel_shuffle", [b.concat(parts)], ChannelShuffleAttrs(groups))


def _shuffle_units(b: QuantizedBuilder) -> Graph:
    """Two units of ShuffleNetV2: each passes the first half of the last shuffle on."""
    x = b.conv(b.input(8, 9, 7), 58)
    for _ in range(2):
        left, right = b.part(x, 1, 0, 29), b.part(x, 1, 29, 29)
        x = _shuffle(b, [left, b.conv(b.depthwise(b.conv(right, 29), 3), 29)], 2)
    return b.finish(b.conv(x, 12))


def _excited(b: QuantizedBuilder, channels: int) -> Graph:
    x = b.depthwise(b.conv(b.input(6, 11, 9), channels), 3)
    gate = b.unary("sigmoid", b.conv(b.conv(b.mean(x), 4, clamp=True), channels))
    return b.finish(b.conv(b.binary("mul", x, gate), 8))


def _read_again(b: QuantizedBuilder) -> Graph:
    """Elementwise steps whose operands are read later, are outputs or are views."""
    x = b.conv(b.input(6, 10, 9), 24)
    doubled = b.binary("add", x, x)
    table = b.unary("sigmoid", x)
    half = b.part(x, 1, 0, 12)
    scaled = b.binary("mul", half, b.part(table, 1, 12, 12))
    return b.finish(b.binary("sub", doubled, table), scaled, x)


STEPS: dict[str, Build] = {
    "shuffle units": _shuffle_units,
    "shuffle of three parts": lambda b: b.finish(
        b.conv(_shuffle(b, [b.conv(x, 24) for x in [b.input(5, 6, 6)] for _ in range(3)], 6), 8)
    ),
    "shuffle across its parts": lambda b: b.finish(
        b.conv(_shuffle(b, [b.conv(x, 12) for x in [b.input(5, 6, 6)] for _ in range(3)], 2), 8)
    ),
    "shuffle of an output": lambda b: _shuffle_of_output(b),
    "squeeze and excite over 16 channels": lambda b: _excited(b, 16),
    "squeeze and excite over 72 channels": lambda b: _excited(b, 72),
    "squeeze and excite over 30 channels": lambda b: _excited(b, 30),
    "operands that are read again": _read_again,
    "table behind an addition that repeats": lambda b: b.finish(
        b.unary("hard_swish", b.binary("add", b.depthwise(b.conv(b.input(5, 37, 41), 40), 3), b.constant(40, 1, 1)))
    ),
    "table behind a run": lambda b: _table_behind_a_run(b),
    "table behind a product and an addition": lambda b: _table_behind_a_residual(b),
    "chain of tables": lambda b: b.finish(
        b.conv(b.prelu(b.unary("tanh", b.binary("mul", b.conv(b.input(3, 8, 8), 20), b.constant(20, 1, 1))), True), 4)
    ),
}


def _table_behind_a_run(b: QuantizedBuilder) -> Graph:
    x = b.depthwise(b.input(24, 37, 41), 3)
    return b.finish(b.unary("sigmoid", b.binary("sub", x, b.max_pool(x, (3, 3), (1, 1), (1, 1, 1, 1)))))


def _table_behind_a_residual(b: QuantizedBuilder) -> Graph:
    x = b.conv(b.input(5, 9, 9), 24)
    y = b.unary("tanh", b.binary("add", b.conv(b.conv(x, 8), 24), x))
    return b.finish(b.conv(y, 4))


def _shuffle_of_output(b: QuantizedBuilder) -> Graph:
    x = b.input(5, 6, 6)
    left, right = b.conv(x, 10), b.conv(x, 10)
    b.graph.add_tensor(b.graph.tensor(right).with_(quant=b.graph.quant(left)))
    joined = b.concat([left, right])
    return b.finish(joined, b.node("channel_shuffle", [joined], ChannelShuffleAttrs(2)))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", STEPS)
def test_vector_steps_are_exact(name: str, scheme: str) -> None:
    expect_exact(
        lambda: STEPS[name](QuantizedBuilder(np.random.default_rng(9), scheme)), threads=(1, 3), batches=(1, 2)
    )


def _session(graph: Graph) -> Session:
    return Session(encode(lower(channels_last(graph))))


def test_shuffles_read_the_parts_of_their_concatenation() -> None:
    session = _session(_shuffle_units(QuantizedBuilder(np.random.default_rng(9), "w8a8")))
    copies = [layer for layer in session.layers if layer.op in {"concat", "slice"}]
    assert len(copies) == 6
    assert all(layer.kernel == "free" or layer.kernel.startswith("in ") for layer in copies)


def test_tables_join_the_elementwise_step_before_them() -> None:
    session = _session(_table_behind_a_run(QuantizedBuilder(np.random.default_rng(9), "w8a8")))
    (table,) = [layer for layer in session.layers if layer.op == "lut"]
    assert table.kernel.startswith("in ")


def test_elementwise_steps_write_over_their_operand() -> None:
    def arena(steps: int) -> int:
        b = QuantizedBuilder(np.random.default_rng(9), "w8a8")
        x = b.conv(b.input(4, 32, 32), 64)
        for _ in range(steps):
            x = b.unary("tanh", b.binary("mul", x, b.constant(64, 1, 1)))
        return _session(b.finish(b.conv(x, 4))).arena_bytes()

    # One map of 64 channels, never two.
    assert arena(3) == arena(0) < 32 * 32 * 64 * 3 // 2
