"""Calibration and quantization of whole (small) graphs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from small_graphs import NO_CLAMP, RELU, RELU6, Builder, inverted_residual, mean

from edgeq.errors import DataError, QuantizationError
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.ir import Attrs, Graph, Tensor
from edgeq.ops.check import check_graph
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.quantize import OBSERVERS, SCHEMES, QuantizeOptions, Recipe, Scheme, calibrate, quantize
from edgeq.quantize.bias_correction import shrunk_mean
from edgeq.quantize.calibrate import FloatSession
from edgeq.simulate import execute, run_float_graph, simulate

pytest.importorskip("onnxruntime")


def data(seed: int, count: int, channels: int = 3, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, channels, size, size)).astype(np.float32)


def sqnr(reference: np.ndarray, x: np.ndarray) -> float:
    return 10 * float(np.log10((reference**2).sum() / ((reference - x) ** 2).sum()))


def make(graph: Graph, scheme: str = "w8a8", observer: str = "histogram", **options: object):
    calibration = calibrate(graph, [data(1, 40), data(2, 24)], observer=observer)
    return quantize(graph, Scheme.parse(scheme), calibration, QuantizeOptions(**options))  # type: ignore[arg-type]


def mixed_graph() -> Graph:
    """Concat, gate, constants, dense weights shared by two layers, a layer without bias, no clamp and ReLU."""
    b = Builder(3)
    stem = b.conv("stem", "x", 8, 3, clamp=RELU)
    factor = b.constant("factor", np.full((1, 8, 1, 1), 0.7, np.float32))
    offset = b.constant("offset", b.rng.normal(0, 1, (1, 16, 1, 1)).astype(np.float32))
    scaled = b.node("mul", "scale", [stem, factor], ElementwiseAttrs())
    left, right = b.conv("left", scaled, 8, clamp=NO_CLAMP), b.conv("right", stem, 8, 3, clamp=RELU6)
    gate = b.node("sigmoid", "gate", [left], Attrs())
    gated = b.node("mul", "gated", [gate, right], ElementwiseAttrs())
    joined = b.node("concat", "join", [gated, right], ConcatAttrs(1))
    shifted = b.node("add", "shift", [joined, offset], ElementwiseAttrs(RELU))
    pooled = mean(b, "pool", shifted)
    one = b.linear("one", pooled, 12, bias=False)
    two = b.node("linear", "two", [pooled, "one.weight"], b.graph.nodes[-1].attrs)
    return b.done(b.add("sum", one, two), "gate.out")


@pytest.mark.parametrize("make_graph", [inverted_residual, mixed_graph])
@pytest.mark.parametrize("observer", sorted(OBSERVERS))
def test_w8a8_is_close_to_float(make_graph, observer: str) -> None:
    graph = make_graph()
    model = make(graph, observer=observer)
    x = data(5, 32)
    for reference, found in zip(run_float_graph(graph, x), simulate(model.graph, x), strict=True):
        # A moving average forgets most of what 64 samples show; the others lose little.
        assert sqnr(reference, found) > (15 if observer == "moving-average" else 25)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("make_graph", [inverted_residual, mixed_graph])
def test_schemes_check_and_order(make_graph, scheme: str) -> None:
    graph = make_graph()
    model = make(graph, scheme)
    check_graph(model.graph)
    x = data(5, 64)
    floor = {"w8a8": 25, "w4a8": 10, "w4a4": 3}[scheme]
    assert sqnr(run_float_graph(graph, x)[0], simulate(model.graph, x)[0]) > floor
    for node in model.graph.nodes:
        if node.op in ("conv", "linear"):
            weights = model.graph.tensor(node.inputs[1])
            assert weights.quant is not None
            assert weights.data is not None
            assert np.abs(weights.data).max() <= (7 if weights.quant.bits == 4 else 127)
    assert [node.name for node in model.graph.nodes] == [node.name for node in graph.nodes]
    assert [node.op for node in model.graph.nodes] == [node.op for node in graph.nodes]


def test_the_float_graph_is_untouched_and_the_result_repeatable() -> None:
    graph = inverted_residual()
    before = {name: (t.dtype, None if t.data is None else t.data.copy()) for name, t in graph.tensors.items()}
    first, second = make(graph, "w4a4"), make(graph, "w4a4")
    for name, (dtype, value) in before.items():
        assert graph.tensor(name).dtype == dtype
        if value is not None:
            np.testing.assert_array_equal(graph.constant(name), value)
    for name, tensor in first.graph.tensors.items():
        other = second.graph.tensor(name)
        assert (tensor.quant is None) == (other.quant is None)
        assert tensor.quant is None or tensor.quant.same_as(other.quant)
        if tensor.data is not None:
            np.testing.assert_array_equal(tensor.data, other.data)


def test_means_within_two_standard_errors_count_for_nothing(rng: np.random.Generator) -> None:
    noise = rng.normal(0, 1, (400, 1000))
    assert (shrunk_mean(noise) == 0).mean() > 0.9
    np.testing.assert_allclose(shrunk_mean(noise + 5), (noise + 5).mean(axis=0), rtol=1e-3)
    np.testing.assert_array_equal(shrunk_mean(np.zeros((3, 2))), 0)
    np.testing.assert_array_equal(shrunk_mean(np.array([[2.0, -1.0]])), [2.0, -1.0])
    np.testing.assert_allclose(shrunk_mean(np.full((3, 1), 2.5)), 2.5)


def test_bias_correction_restores_the_means() -> None:
    graph = inverted_residual()
    calibration = calibrate(graph, [data(1, 64)])
    scheme = Scheme.parse("w4a8")
    plain = quantize(graph, scheme, calibration, QuantizeOptions(Recipe(bias_correction=False))).graph
    corrected = quantize(graph, scheme, calibration).graph

    def offset(quantized: Graph, name: str) -> float:
        x = calibration.samples["x"]
        codes = execute(quantized, {"x": _codes(quantized, x)}, [name])[name]
        quant = quantized.quant(name)
        real = (codes.astype(np.float64) - int(quant.zero_point)) * float(quant.scale)
        reference = execute(graph, {"x": x}, [name])[name]
        axes = tuple(i for i in range(real.ndim) if i != 1)
        return float(np.abs((real - reference).mean(axis=axes)).max() / float(quant.scale))

    # Nothing clamps these two outputs: their means are right up to rounding and what may be chance.
    for name in ("project.out", "head.out"):
        assert offset(corrected, name) < 0.3
        assert offset(plain, name) > 0.5


def _codes(graph: Graph, x: np.ndarray) -> np.ndarray:
    from edgeq.ops.base import quantize as quantize_array

    return quantize_array(x, graph.quant("x"))


def test_shared_tensors_share_bit_for_bit() -> None:
    model = make(mixed_graph(), "w4a4").graph
    assert model.quant("join.out").same_as(model.quant("gated.out"))
    assert model.quant("join.out").same_as(model.quant("right.out"))
    assert model.quant("gate.out").bits == 8  # An output of the network.
    assert float(model.quant("gate.out").scale) == 1 / 256


def test_layers_that_share_weights_get_their_own() -> None:
    model = make(mixed_graph()).graph
    by_name = {node.name: node for node in model.nodes}
    assert by_name["one"].inputs[1] != by_name["two"].inputs[1]
    assert len(by_name["one"].inputs) == 3  # Bias correction gave it a bias.
    bare = make(mixed_graph(), recipe=Recipe(bias_correction=False)).graph
    assert len(next(node for node in bare.nodes if node.name == "one").inputs) == 2


def test_statistics_are_plain_values() -> None:
    import json

    model = make(inverted_residual(), "w4a8")
    assert [layer["name"] for layer in model.statistics] == ["stem", "expand", "depthwise", "project", "head"]
    assert [layer["weight_bits"] for layer in model.statistics] == [8, 4, 4, 4, 4]
    assert model.statistics[0]["weight_sqnr_db"] > 35
    assert 10 < model.statistics[1]["weight_sqnr_db"] < 30
    json.dumps(model.statistics)


def test_float_onnx_agrees_with_the_statements() -> None:
    graph = mixed_graph()
    names = [name for node in graph.nodes for name in node.outputs]
    x = data(7, 3)
    reference = execute(graph, {"x": x}, names)
    for name, found in zip(names, FloatSession(to_float_onnx(graph, names), 1).run({"x": x}), strict=True):
        np.testing.assert_allclose(found, reference[name], rtol=1e-4, atol=1e-4)
    model = to_float_onnx(graph, ["stem.out"], before_clamps=True)
    (raw,) = FloatSession(model, 1).run({"x": x})
    assert raw.min() < -0.1
    np.testing.assert_allclose(np.maximum(raw, 0), reference["stem.out"], rtol=1e-4, atol=1e-4)


def test_calibration_streams() -> None:
    graph = inverted_residual()

    def stream(count: int) -> Iterator[np.ndarray]:
        for seed in range(count):
            yield data(seed, 8)

    calibrate(graph, stream(4))
    peaks = []
    for count in (30, 150):
        tracemalloc.start()
        assert calibrate(graph, stream(count)).count == 8 * count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + (1 << 20)


def test_calibration_does_not_depend_on_batches() -> None:
    graph = inverted_residual()
    x = data(1, 50)
    one, two = (
        calibrate(graph, [x], observer="minmax"),
        calibrate(graph, [x[:1], x[1:33], x[33:]], observer="minmax"),
    )
    for name in one.observers:
        np.testing.assert_allclose(one.observers[name].range(8), two.observers[name].range(8), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(one.samples["x"], x)
    np.testing.assert_array_equal(two.samples["x"], x)


def test_progress_is_told() -> None:
    seen: list[int] = []
    calibrate(inverted_residual(), [data(0, 5), data(1, 4)], progress=seen.append)
    assert seen == [5, 9]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no samples"),
        ([np.zeros((2, 3, 9, 8), np.float32)], r"shape \[N, 3, 8, 8\]"),
        ([np.zeros((3, 8, 8), np.float32)], "shape"),
        ([np.zeros((0, 3, 8, 8), np.float32)], "batch"),
        ([np.zeros((2, 3, 8, 8))], "float32"),
        ([np.full((2, 3, 8, 8), np.nan, np.float32)], "NaN"),
        ([np.full((2, 3, 8, 8), np.inf, np.float32)], "NaN or infinite"),
        ([{"y": np.zeros((2, 3, 8, 8), np.float32)}], "inputs are x"),
    ],
)
def test_bad_calibration_data(batches: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calibrate(inverted_residual(), batches)


def test_a_network_that_overflows_is_named() -> None:
    graph = inverted_residual()
    graph.add_tensor(Tensor.constant("head.weight", np.full((10, 8), 3e38, np.float32)))
    with pytest.raises(QuantizationError, match=r"head\.out"):
        calibrate(graph, [data(0, 2)])


def test_weights_that_are_not_finite_are_named() -> None:
    graph = inverted_residual()
    calibration = calibrate(graph, [data(0, 8)])
    broken = np.array(graph.constant("expand.weight"))
    broken[0] = np.nan
    graph.add_tensor(Tensor.constant("expand.weight", broken))
    with pytest.raises(QuantizationError, match="expand"):
        quantize(graph, Scheme.parse("w8a8"), calibration)


def test_calibration_of_another_graph_is_refused() -> None:
    with pytest.raises(QuantizationError, match="another graph"):
        quantize(mixed_graph(), Scheme.parse("w8a8"), calibrate(inverted_residual(), [data(0, 8)]))


def test_an_input_of_zeros_gives_a_network_that_runs() -> None:
    graph = inverted_residual()
    calibration = calibrate(graph, [np.zeros((4, 3, 8, 8), np.float32)])
    for scheme in SCHEMES:
        model = quantize(graph, Scheme.parse(scheme), calibration)
        assert np.isfinite(simulate(model.graph, data(0, 2))[0]).all()
