from __future__ import annotations

import numpy as np
import pytest

from edgeq import metrics


def test_split_by_hand() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    reference = [0, 0, 1, 2, 1, 1, 0, 3]
    quantized = [0, 1, 0, 3, 1, 2, 2, 3]
    split = metrics.disagreement_split(reference, quantized, labels)
    assert metrics.disagreement_rate(reference, quantized) == 5 / 8
    assert split.reference_only_correct == 2 / 8
    assert split.quantized_only_correct == 1 / 8
    assert split.both_wrong == 2 / 8


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_parts_add_up_to_the_rate_and_to_the_accuracies(n: int) -> None:
    rng = np.random.default_rng(n)
    labels, first, second = rng.integers(0, 4, (3, n))
    split = metrics.disagreement_split(first, second, labels)
    rate = metrics.disagreement_rate(first, second)
    parts = split.reference_only_correct + split.quantized_only_correct + split.both_wrong
    assert parts == pytest.approx(rate, abs=1e-12)
    lost = (first == labels).mean() - (second == labels).mean()
    assert split.reference_only_correct - split.quantized_only_correct == pytest.approx(lost, abs=1e-12)


def test_equal_answers() -> None:
    assert metrics.disagreement_rate([1, 2], [1, 2]) == 0.0


@pytest.mark.parametrize(("first", "second"), [([], []), ([1], [1, 2]), ([1.0], [1]), ([[1]], [[1]])])
def test_senseless_answers(first: list[object], second: list[object]) -> None:
    with pytest.raises(ValueError, match="must"):
        metrics.disagreement_rate(first, second)


def test_overlap_and_divergence_by_hand() -> None:
    reference = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]))
    quantized = np.log(np.array([[0.5, 0.2, 0.3], [0.2, 0.3, 0.5]]))
    assert metrics.top_k_overlap(reference, quantized, 2) == pytest.approx(0.75)
    assert metrics.top_k_overlap(reference, quantized, 3) == 1.0
    np.testing.assert_allclose(
        metrics.kl_divergences(reference, quantized), [0.3 * np.log(1.5) + 0.2 * np.log(2 / 3), 0.0], atol=1e-12
    )
    assert metrics.largest_probability_change(reference, quantized) == pytest.approx(0.1)


def test_overlap_breaks_ties_by_index() -> None:
    assert metrics.top_k_overlap([[1.0, 1.0, 1.0]], [[3.0, 2.0, 1.0]], 2) == 1.0


def test_divergence_equals_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((30, 8)) * 4, rng.standard_normal((30, 8)) * 4
    expected = special.rel_entr(metrics.softmax(first), metrics.softmax(second)).sum(axis=1)
    np.testing.assert_allclose(metrics.kl_divergences(first, second), expected, atol=1e-9)


def test_divergence_survives_underflow() -> None:
    value = metrics.kl_divergences([[0.0, -5000.0]], [[-5000.0, 0.0]])
    assert value[0] == pytest.approx(5000.0)


def test_models_of_other_shapes_are_refused() -> None:
    for function in (metrics.top_k_overlap, metrics.kl_divergences, metrics.largest_probability_change):
        with pytest.raises(ValueError, match="one shape"):
            function(np.zeros((2, 5)), np.zeros((2, 6)))
    with pytest.raises(ValueError, match="k must"):
        metrics.top_k_overlap(np.zeros((2, 3)), np.zeros((2, 3)), 4)
