"""What one layer's 4-bit weights do, alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_graphs import Builder, inverted_residual, mean

from edgeq.errors import QuantizationError
from edgeq.ir import Graph
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.quantize import QuantizeOptions, Scheme, calibrate, quantize
from edgeq.quantize.layers import WEIGHTS, acc_channel_axis, is_layer, layer_operator
from edgeq.quantize.sensitivity import alone, combine, divergence, measure
from edgeq.simulate import simulate
from edgeq.simulate.executor import execute, run_float_graph

pytest.importorskip("onnxruntime", reason="needs the extra edgeq[export]")


def quantized(graph: Graph, x: np.ndarray) -> tuple[Graph, Graph]:
    """The network with 8-bit and with 4-bit weights everywhere."""
    ranges = calibrate(graph, [x], threads=1)
    layers = [node.name for node in graph.nodes if is_layer(node)]
    eight, four = (
        quantize(graph, Scheme(4, 8), ranges, QuantizeOptions(layer_bits=dict.fromkeys(layers, bits), threads=1)).graph
        for bits in (8, 4)
    )
    return eight, four


def run(graph: Graph, feeds) -> list[np.ndarray]:
    return simulate(graph, feeds)


@pytest.fixture(scope="module")
def network() -> tuple[Graph, np.ndarray, Graph, Graph]:
    graph = inverted_residual(1)
    x = np.random.default_rng(0).normal(0, 1, (24, 3, 8, 8)).astype(np.float32)
    return graph, x, *quantized(graph, x)


def test_one_layer_changes_and_keeps_its_mean(network: tuple[Graph, np.ndarray, Graph, Graph]) -> None:
    _, x, eight, four = network
    codes = {"x": np.clip(np.rint(x / eight.quant("x").scale) + eight.quant("x").zero_point, -128, 127).astype(np.int8)}
    for node in (node for node in eight.nodes if is_layer(node)):
        other = next(one for one in four.nodes if one.name == node.name)
        inputs = execute(eight, codes, [node.inputs[0]])[node.inputs[0]]
        graph, sqnr = alone(eight, node, four, other, inputs)
        changed = {name for name in graph.tensors if graph.tensors[name] is not eight.tensors[name]}
        assert changed == set(node.inputs[1:])
        assert graph.quant(node.inputs[WEIGHTS]).bits == 4
        np.testing.assert_array_equal(graph.constant(node.inputs[WEIGHTS]), four.constant(other.inputs[WEIGHTS]))

        reals = []
        for one in (eight, graph):
            acc = layer_operator(node).accumulate(node, (inputs, *(one.constant(n) for n in node.inputs[1:])), one)
            moved = np.moveaxis(acc, acc_channel_axis(node, acc.ndim), 0).reshape(acc.shape[1], -1)
            reals.append(moved * one.quant(node.inputs[2]).scale[:, None].astype(np.float64))
        exact, found = reals
        noise = ((exact - found) ** 2).sum()
        assert sqnr == pytest.approx(10 * math.log10((exact**2).sum() / noise), abs=0.2)
        # The mean is kept as far as it is no chance: a part of the spread of the error over samples is left.
        error = exact - found
        assert (np.abs(error.mean(axis=1)) <= 0.5 * error.std(axis=1) + 1e-6).all()


def test_figures_are_those_of_the_candidates(network: tuple[Graph, np.ndarray, Graph, Graph]) -> None:
    graph, x, eight, four = network
    reference = run_float_graph(graph, x)
    seen: list[tuple[int, int]] = []
    runs: list[list[np.ndarray]] = []

    def record(one: Graph, feeds) -> list[np.ndarray]:
        runs.append(run(one, feeds))
        return runs[-1]

    found = measure(eight, four, {"x": x}, reference, record, lambda done, count: seen.append((done, count)))
    layers = [node.name for node in eight.nodes if is_layer(node)]
    assert [one.layer for one in found] == layers
    assert seen == [(index + 1, len(layers)) for index in range(len(layers))]
    base = divergence(reference, runs[0], False)
    for one, outputs in zip(found, runs[1:], strict=True):
        beyond = divergence(reference, outputs, False) - base
        assert one.divergence == pytest.approx(beyond.mean())
        assert one.error == pytest.approx(beyond.std(ddof=1) / math.sqrt(len(beyond)))
        assert one.value > 0
        assert 5 < one.sqnr_db < 50


def test_equal_weights_cost_nothing(network: tuple[Graph, np.ndarray, Graph, Graph]) -> None:
    graph, x, eight, _ = network
    found = measure(eight, eight, {"x": x}, run_float_graph(graph, x), run)
    assert [(one.value, one.divergence, one.sqnr_db) for one in found] == [(0.0, 0.0, math.inf)] * len(found)


def test_networks_that_quantize_activations_otherwise_are_refused(
    network: tuple[Graph, np.ndarray, Graph, Graph],
) -> None:
    graph, x, eight, _ = network
    _, other = quantized(graph, 2 * x)
    with pytest.raises(QuantizationError, match=r"stem.*do not quantize its input alike"):
        measure(eight, other, {"x": x}, run_float_graph(graph, x), run)


def test_divergence_is_kl_of_the_class_probabilities(rng: np.random.Generator) -> None:
    p, q = (rng.normal(0, 2, (5, 7)) for _ in range(2))
    probabilities = [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (p, q)]
    expected = (probabilities[0] * np.log(probabilities[0] / probabilities[1])).sum(axis=1)
    np.testing.assert_allclose(divergence([p], [q], False), expected)
    np.testing.assert_allclose(divergence(probabilities[:1], probabilities[1:], True), expected)
    np.testing.assert_allclose(divergence([p[:, :, None, None]], [q[:, :, None, None]], False), expected)
    assert (divergence([p], [p], False) == 0).all()
    zero = [np.array([[1.0, 0.0]])], [np.array([[0.0, 1.0]])]
    assert np.isfinite(divergence(*zero, True)).all()


def test_divergence_of_other_outputs_is_their_relative_error(rng: np.random.Generator) -> None:
    a = rng.normal(0, 1, (4, 3, 5, 5))
    b = a + 0.1 * rng.normal(0, 1, a.shape)
    found = divergence([a], [b], False)
    assert found.shape == (4,)
    assert found.mean() == pytest.approx(((a - b) ** 2).sum() / (a**2).sum())
    logits = rng.normal(0, 1, (4, 6))
    both = divergence([a, logits], [b, 2 * logits], False)
    np.testing.assert_allclose(both, found + divergence([logits], [2 * logits], False))
    assert np.isfinite(divergence([np.zeros((2, 3, 3))], [np.ones((2, 3, 3))], False)).all()


def test_a_network_that_ends_in_a_softmax_is_measured_by_its_probabilities() -> None:
    b = Builder(3)
    logits = b.linear("head", mean(b, "pool", b.conv("stem", "x", 8, 3)), 6)
    graph = b.done(b.node("softmax", "softmax", [logits], SoftmaxAttrs(1)))
    x = np.random.default_rng(1).normal(0, 1, (16, 3, 8, 8)).astype(np.float32)
    eight, four = quantized(graph, x)
    reference = run_float_graph(graph, x)
    found = measure(eight, four, {"x": x}, reference, run)
    assert all(0 < one.value < 1 for one in found)
    p, q = (np.maximum(one.astype(np.float64), 1e-12) for one in (reference[0], run(eight, x)[0]))
    q /= q.sum(axis=1, keepdims=True)
    p /= p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(divergence(reference, run(eight, x), True), (p * np.log(p / q)).sum(axis=1), atol=1e-9)


def test_certain_measurements_stand_and_uncertain_ones_follow_the_layers_error() -> None:
    sqnr = np.array([20.0, 20.0, 10.0])
    measured = np.array([0.3, 0.0, 0.9])
    noise = 10 ** (-sqnr / 10)
    expected = noise * measured.sum() / noise.sum()
    np.testing.assert_allclose(combine(measured, np.zeros(3), sqnr)[[0, 2]], [0.3, 0.9])
    np.testing.assert_allclose(combine(measured, np.full(3, 1e9), sqnr), expected)
    assert combine(measured, np.zeros(3), sqnr)[1] == pytest.approx(expected[1] / 20)
    between = combine(measured, np.array([0.1, 0.1, 0.1]), sqnr)
    assert expected[0] < between[0] < 0.3
    assert (combine(np.zeros(3), np.zeros(3), sqnr) == 0).all()
    assert np.isfinite(combine(measured, np.full(3, 0.1), np.array([math.inf, -math.inf, 20.0]))).all()
    assert (combine(np.array([-1.0, -2.0]), np.ones(2), np.full(2, math.inf)) == 0).all()
