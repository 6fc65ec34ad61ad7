"""One factor for a classifier's scores."""

from __future__ import annotations

import numpy as np
import pytest
from small_graphs import NO_CLAMP, Builder, mean

import edgeq
from edgeq.ir import Graph
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.quantize import QuantizeOptions, Recipe, Scheme, calibrate, quantize
from edgeq.quantize.confidence import FEWEST, find_scores, fit_factor, multiply_scores
from edgeq.quantize.recipe import recipe_for
from edgeq.simulate import simulate, simulate_codes


def _classifier(end: str = "linear") -> Graph:
    b = Builder()
    wide = b.conv("wide", b.conv("stem", "x", 8), 16)
    if end == "linear":
        return b.done(b.linear("head", mean(b, "pool", wide), 10))
    scores = mean(b, "pool", b.conv("head", wide, 10, clamp=NO_CLAMP if end != "relu6" else (0.0, 6.0)))
    return b.done(b.node("softmax", "end", [scores], SoftmaxAttrs(1)) if end == "softmax" else scores)


def _scores(count: int, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    exact = (3 * rng.standard_normal((count, 10))).astype(np.float32)
    return exact, (exact + noise * rng.standard_normal(exact.shape)).astype(np.float32)


def test_factor_is_found() -> None:
    exact, _ = _scores(200)
    found = fit_factor([exact], [exact / 1.4], probabilities=False)
    assert found is not None
    assert found.best == pytest.approx(1.4, abs=1e-4)
    assert found.factor == pytest.approx(1.4, abs=1e-3)
    assert found.samples == 200


def test_factor_is_the_least_divergence() -> None:
    exact, disturbed = _scores(500, noise=1.0)
    found = fit_factor([exact], [disturbed], probabilities=False)
    assert found is not None

    def divergence(factor: float) -> float:
        p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (exact, factor * disturbed))
        return float((p * np.log(p / q)).sum(axis=1).mean())

    least = divergence(found.best)
    assert least < divergence(found.best * 1.01)
    assert least < divergence(found.best / 1.01)
    # Independent noise spreads scores: the factor draws them together.
    assert found.factor < 1.0


def test_probabilities_are_taken_for_what_they_are() -> None:
    exact, disturbed = _scores(100, noise=0.5)
    shares = [np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (exact, disturbed)]
    one = fit_factor([exact], [disturbed], probabilities=False)
    other = fit_factor([shares[0]], [shares[1]], probabilities=True)
    assert one is not None
    assert other is not None
    assert other.best == pytest.approx(one.best, rel=1e-4)


def test_chance_changes_nothing() -> None:
    factors = []
    for seed in range(20):
        # Scores that are as far apart on average, with errors that no factor explains.
        exact, disturbed = _scores(12, noise=0.0, seed=seed)
        errors = np.random.default_rng(100 + seed).choice([0.8, 1.25], size=(12, 1)).astype(np.float32)
        found = fit_factor([exact], [disturbed * errors], probabilities=False)
        assert found is not None
        assert abs(found.factor - 1.0) <= abs(found.best - 1.0)
        factors.append(found.factor)
    assert factors.count(1.0) >= 15


def test_no_factor_without_scores() -> None:
    exact, disturbed = _scores(FEWEST)
    assert fit_factor([exact], [disturbed], probabilities=False) is not None
    assert fit_factor([exact[1:]], [disturbed[1:]], probabilities=False) is None
    assert fit_factor([exact, exact], [disturbed, disturbed], probabilities=False) is None
    maps = exact.reshape(FEWEST, 2, 5)
    assert fit_factor([maps], [maps], probabilities=False) is None


@pytest.mark.parametrize(
    ("end", "layer"), [("linear", "head"), ("mean", "head"), ("softmax", "head"), ("relu6", None)]
)
def test_scores_are_found(end: str, layer: str | None) -> None:
    found = find_scores(_classifier(end))
    assert (None if found is None else found.layer.name) == layer


def test_scores_that_something_else_reads_stay() -> None:
    b = Builder()
    stem = b.conv("stem", "x", 8, clamp=NO_CLAMP)
    pooled = mean(b, "pool", stem)
    assert find_scores(b.done(b.add("end", pooled, b.linear("head", pooled, 8)))) is None


@pytest.mark.parametrize("end", ["linear", "mean", "softmax"])
def test_codes_stay(end: str) -> None:
    graph = _classifier(end)
    x = np.random.default_rng(0).standard_normal((32, *graph.tensor("x").shape[1:])).astype(np.float32)
    model = quantize(graph, Scheme.parse("w4a8"), calibrate(graph, [x]), QuantizeOptions(Recipe()))
    scores = find_scores(graph)
    assert scores is not None
    after = multiply_scores(model.graph, scores, 1.25)
    for name, tensor in model.graph.tensors.items():
        if tensor.is_constant:
            np.testing.assert_array_equal(tensor.data, after.tensor(name).data)
    if end == "softmax":
        [before], [found] = (simulate(one, {"x": x}) for one in (model.graph, after))
        wanted = before.astype(np.float64) ** 1.25
        np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-4)
        return
    codes = np.random.default_rng(1).integers(-128, 128, x.shape).astype(np.int8)
    np.testing.assert_array_equal(
        simulate_codes(model.graph, {"x": codes})[0], simulate_codes(after, {"x": codes})[0]
    )
    np.testing.assert_allclose(
        simulate(after, {"x": x})[0], 1.25 * simulate(model.graph, {"x": x})[0], rtol=1e-6, atol=1e-6
    )


def test_levels_match_it_with_4_bits_alone() -> None:
    for effort in ("fast", "good", "best"):
        assert not recipe_for(effort, Scheme.parse("w8a8")).match_confidence
        assert recipe_for(effort, Scheme.parse("w4a8")).match_confidence
        assert recipe_for(effort, Scheme.parse("w4a4")).match_confidence


@pytest.mark.parametrize("rounding", ["nearest", "second-order"])
def test_confidence_is_nearer_with_it(rounding: str) -> None:
    graph = _classifier()
    rng = np.random.default_rng(5)
    x = rng.standard_normal((120, *graph.tensor("x").shape[1:])).astype(np.float32)
    fresh = rng.standard_normal((400, *x.shape[1:])).astype(np.float32)
    # A head that is sure of its answers, so that there is a confidence to lose.
    weight = graph.constant("head.weight")
    assert weight is not None
    graph.add_tensor(graph.tensor("head.weight").with_(data=np.float32(40) * weight))
    wanted = edgeq.simulate.run_float_graph(graph, {"x": fresh})[0].astype(np.float64)
    calibration = calibrate(graph, [x])

    def divergence(match: bool) -> tuple[float, np.ndarray]:
        recipe = Recipe(rounding=rounding, match_confidence=match)
        model = quantize(graph, Scheme.parse("w4a4"), calibration, QuantizeOptions(recipe))
        assert (model.confidence is not None) == match
        found = simulate(model.graph, {"x": fresh})[0].astype(np.float64)
        p, q = (np.exp(z - np.logaddexp.reduce(z, axis=1)[:, None]) for z in (wanted, found))
        return float((p * (np.log(p) - np.log(q))).sum(axis=1).mean()), found.argmax(axis=1)

    (before, classes), (after, others) = divergence(False), divergence(True)
    np.testing.assert_array_equal(classes, others)
    assert after <= before * 1.001
