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
