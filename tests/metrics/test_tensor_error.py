from __future__ import annotations

import math

import numpy as np
import pytest

from edgeq import metrics


def test_sqnr_by_hand() -> None:
    assert metrics.sqnr_db([10.0, 0.0], [9.0, 0.0]) == pytest.approx(20.0)
    assert metrics.sqnr_db([3.0, 4.0], [3.0, 4.5]) == pytest.approx(20.0)


def test_sqnr_extremes() -> None:
    assert metrics.sqnr_db([1.0], [1.0]) == math.inf
    assert metrics.sqnr_db([0.0], [0.0]) == math.inf
    assert metrics.sqnr_db([0.0], [1.0]) == -math.inf
    assert metrics.sqnr_db([1e200], [0.9e200]) == pytest.approx(20.0)
    assert metrics.sqnr_db([1e-200], [0.9e-200]) == pytest.approx(20.0)


def test_sqnr_does_not_depend_on_shape_or_scale() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4, 5, 6)).astype(np.float32)
    other = exact + rng.normal(size=exact.shape).astype(np.float32) * 0.1
    assert metrics.sqnr_db(exact, other) == pytest.approx(
        metrics.sqnr_db(exact.ravel() * 8, other.ravel() * 8)
    )


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([1.0], [np.inf])]
)
def test_senseless_tensors(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="must"):
        metrics.sqnr_db(first, second)


def test_cosine_and_steps_by_hand() -> None:
    assert metrics.cosine_similarity([3.0, 4.0], [4.0, 3.0]) == pytest.approx(0.96)
    assert metrics.cosine_similarity([1e200, 0.0], [1e-200, 0.0]) == 1.0
    assert metrics.cosine_similarity([0.0, 0.0], [0.0, 0.0]) == 1.0
    assert metrics.cosine_similarity([0.0, 0.0], [0.0, 1.0]) == 0.0
    assert metrics.largest_error_steps([1.0, 2.0], [1.5, 2.0], 0.25) == 2.0
    with pytest.raises(ValueError, match="scale"):
        metrics.largest_error_steps([1.0], [1.0], 0.0)
