"""3x3 windows by Winograd's method, where the instruction set has one for them: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from native_sessions import ISAS, expect_exact
from quantized_graphs import Build, QuantizedBuilder

from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.passes import channels_last, lower
from edgeq.session import Session

SCHEMES = ("w8a8", "w4a8", "w4a4")


def _residual(b: QuantizedBuilder) -> Graph:
    x = b.conv(b.input(8, 11, 10), 24)
    y = b.conv(b.conv(x, 32, (3, 3), pads=(1, 1, 1, 1), clamp=True), 24, (3, 3), pads=(1, 1, 1, 1))
    return b.finish(b.unary("hard_swish", b.binary("add", y, x)))


def _dense(b: QuantizedBuilder) -> Graph:
    """Reads and writes slices of wider pixels."""
    x = b.conv(b.input(8, 9, 12), 16)
    for _ in range(2):
        y = b.conv(x, 24, (3, 3), pads=(1, 1, 1, 1))
        b.graph.add_tensor(b.graph.tensor(y).with_(quant=b.graph.quant(x)))
        x = b.concat([x, y])
    return b.finish(b.conv(x, 5))


WINDOWS: dict[str, Build] = {
    "uneven padding": lambda b: b.finish(b.conv(b.input(24, 9, 14), 40, (3, 3), pads=(2, 0, 1, 3))),
    "no padding": lambda b: b.finish(b.conv(b.input(33, 8, 7), 17, (3, 3))),
    "channels of no vector": lambda b: b.finish(b.conv(b.input(30, 13, 13), 27, (3, 3), pads=(1, 1, 1, 1))),
    "a table": lambda b: b.finish(b.unary("hard_swish", b.conv(b.input(24, 9, 9), 24, (3, 3), pads=(1, 1, 1, 1)))),
    "a residual": _residual,
    "slices": _dense,
}


# Stride 2 over a few channels: with 8-bit weights the window goes over squares of 2x2 pixels.
FIRST_LAYERS: dict[str, Build] = {
    "7x7": lambda b: b.finish(b.conv(b.input(3, 37, 31), 20, (7, 7), (2, 2), (3, 3, 3, 3), clamp=True)),
    "uneven kernel and padding": lambda b: b.finish(b.conv(b.input(4, 26, 33), 16, (5, 8), (2, 2), (0, 4, 3, 1))),
    "no padding": lambda b: b.finish(b.conv(b.input(4, 20, 20), 33, (8, 8), (2, 2))),
    "a table": lambda b: b.finish(b.unary("hard_swish", b.conv(b.input(3, 21, 40), 24, (7, 7), (2, 2)))),
    "a pool that wraps its rows": lambda b: b.finish(
        b.max_pool(b.conv(b.input(3, 150, 23), 16, (7, 7), (2, 2), (3, 3, 3, 3)), (3, 3), (2, 2), (1, 1, 1, 1))
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_first_layers_of_stride_2_are_exact(name: str, scheme: str) -> None:
    build = FIRST_LAYERS[name]
    expect_exact(lambda: build(QuantizedBuilder(np.random.default_rng(9), scheme)), threads=(1, 2, 3), batches=(1, 2))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_exact(name: str, scheme: str) -> None:
    expect_exact(lambda: WINDOWS[name](QuantizedBuilder(np.random.default_rng(9), scheme)), threads=(1, 2, 3))


@pytest.mark.skipif("avx2" not in ISAS, reason="needs AVX2: other levels have no kernel of the kind")
def test_winograd_is_chosen_for_deep_windows() -> None:
    assert _kernels("w8a8", 32, 16, "avx2") == ["winograd"]
    assert _kernels("w8a8", 3, 16, "avx2") == ["gemm"]
    assert _kernels("w8a8", 32, 16, "scalar") == ["gemm"]


@pytest.mark.skipif("avx512vnni" not in ISAS, reason="needs AVX-512 with VNNI")
def test_dot_products_of_bytes_leave_winograd_the_larger_images() -> None:
    assert _kernels("w8a8", 64, 28, "avx512vnni") == ["winograd"]
    assert _kernels("w4a8", 64, 28, "avx512vnni") == ["winograd"]
    assert _kernels("w8a8", 16, 28, "avx512vnni") == ["gemm"]
    assert _kernels("w8a8", 64, 7, "avx512vnni") == ["gemm"]


@pytest.mark.skipif("avx2" not in ISAS, reason="needs AVX2: other levels have no kernel of the kind")
def test_squares_are_chosen_for_first_layers_of_8_bit_weights() -> None:
    assert _kernels("w8a8", 3, 40, "avx2", taps=7, stride=2) == ["phases"]
    assert _kernels("w4a8", 3, 40, "avx2", taps=7, stride=2) == ["gemm"]
    assert _kernels("w8a8", 3, 40, "avx2", taps=3, stride=2) == ["gemm"]
    assert _kernels("w8a8", 3, 40, "avx2", taps=7, stride=1) == ["gemm"]
    assert _kernels("w8a8", 3, 40, "scalar", taps=7, stride=2) == ["gemm"]


def _kernels(scheme: str, channels: int, size: int, isa: str, taps: int = 3, stride: int = 1) -> list[str]:
    b = QuantizedBuilder(np.random.default_rng(9), scheme)
    x = b.input(channels, size, size)
    graph = b.finish(b.conv(x, 32, (taps, taps), (stride, stride), pads=(taps // 2,) * 4))
    session = Session(encode(lower(channels_last(graph))), max_isa=isa)
    return [layer.kernel.split("_")[0] for layer in session.layers]


@pytest.mark.skipif("avx2" not in ISAS, reason="needs AVX2: other levels have no kernel of the kind")
@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa in ("avx2", "avx512vnni")])
def test_sums_that_could_leave_the_bounds_go_by_a_matrix_product(isa: str) -> None:
    """Sixteen outputs a block are exact up to magnitudes of 262,143 a channel: 2,304 weights of 113."""

    assert _deep_kernel(113, isa) == "winograd"
    assert _deep_kernel(-113, isa) == "winograd"
    assert _deep_kernel(114, isa) == "gemm"


@pytest.mark.parametrize("magnitude", [113, -113, 114, 127])
def test_sums_at_the_bounds_are_exact(magnitude: int) -> None:
    expect_exact(lambda: _deep(magnitude))


def _deep(magnitude: int) -> Graph:
    b = QuantizedBuilder(np.random.default_rng(9), "w8a8")
    graph = b.finish(b.conv(b.input(256, 16, 16), 96, (3, 3), pads=(1, 1, 1, 1)))
    name = next(node for node in graph.nodes if node.op == "conv").inputs[1]
    weight = graph.tensor(name)
    assert weight.data is not None
    graph.add_tensor(weight.with_(data=np.full_like(weight.data, magnitude)))
    return graph


def _deep_kernel(magnitude: int, isa: str) -> str:
    (layer,) = Session(encode(lower(channels_last(_deep(magnitude)))), max_isa=isa).layers
    return layer.kernel.split("_")[0]
