"""The executors: memory, batches, layouts, inputs."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import inverted_residual

from edgeq.errors import DataError, GraphError
from edgeq.ir import Graph
from edgeq.ops.base import dequantize, quantize
from edgeq.quantize import Scheme, calibrate
from edgeq.quantize import quantize as quantize_graph
from edgeq.simulate import execute, run_float_graph, simulate, simulate_codes

pytest.importorskip("onnxruntime")


def x(count: int = 4) -> np.ndarray:
    return np.random.default_rng(count).normal(0, 1, (count, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def quantized() -> Graph:
    graph = inverted_residual()
    return quantize_graph(graph, Scheme.parse("w4a8"), calibrate(graph, [x(32)])).graph


@pytest.mark.parametrize("chunk", [1, 3, 5, 100])
def test_chunks_change_nothing(quantized: Graph, chunk: int) -> None:
    np.testing.assert_array_equal(simulate(quantized, x(5), chunk=chunk)[0], simulate(quantized, x(5))[0])


def test_codes_and_reals_agree(quantized: Graph) -> None:
    codes = simulate_codes(quantized, quantize(x(), quantized.quant("x")))[0]
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(dequantize(codes, quantized.quant("head.out")), simulate(quantized, x())[0])


def test_channels_last_changes_nothing(quantized: Graph) -> None:
    from edgeq.passes import channels_last

    last = channels_last(quantized)
    assert last.layout == "nhwc"
    np.testing.assert_array_equal(simulate(last, x())[0], simulate(quantized, x())[0])


def test_intermediates_are_returned_and_others_freed(quantized: Graph) -> None:
    feeds = {"x": quantize(x(), quantized.quant("x"))}
    found = execute(quantized, feeds, ["expand.out", "x", "head.out"])
    assert set(found) == {"expand.out", "x", "head.out"}
    assert found["expand.out"].shape == (4, 24, 8, 8)
    with pytest.raises(GraphError, match=r"nothing\.out"):
        execute(quantized, feeds, ["nothing.out"])


def test_a_float_graph_runs_in_float_only() -> None:
    graph = inverted_residual()
    assert run_float_graph(graph, x())[0].shape == (4, 10)
    with pytest.raises(GraphError, match="not quantized"):
        simulate(graph, x())


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 3, 8, 9), np.float32),
        np.zeros((3, 8, 8), np.float32),
        np.zeros((1, 3, 8, 8), np.float64),
        np.zeros((0, 3, 8, 8), np.float32),
        [np.zeros((1, 3, 8, 8), np.float32)] * 2,
        {"image": np.zeros((1, 3, 8, 8), np.float32)},
    ],
)
def test_wrong_inputs(quantized: Graph, bad: object) -> None:
    with pytest.raises(DataError):
        simulate(quantized, bad)  # type: ignore[arg-type]
