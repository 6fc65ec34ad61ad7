from __future__ import annotations

import math

import pytest

from edgeq import metrics


@pytest.mark.parametrize("count", [1, 10, 400, 100_000])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_bounds_solve_the_score_equation(count: int, share: float, level: float) -> None:
    """Wilson's bounds p are where |successes / n - p| = z sqrt(p (1 - p) / n)."""
    special = pytest.importorskip("scipy.special")
    z = float(special.ndtri(0.5 + level / 2))
    successes = round(share * count)
    low, high = metrics.wilson_interval(successes, count, level)
    assert 0.0 <= low <= successes / count <= high <= 1.0
    for bound in (low, high):
        assert abs(successes / count - bound) == pytest.approx(
            z * math.sqrt(bound * (1 - bound) / count), abs=1e-9
        )


def test_a_published_value() -> None:
    # 81 of 263: Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    ("successes", "count", "level"), [(0, 0, 0.95), (2, 1, 0.95), (-1, 1, 0.95), (0, 1, 0), (0, 1, 1)]
)
def test_senseless_arguments(successes: int, count: int, level: float) -> None:
    with pytest.raises(ValueError, match="must"):
        metrics.wilson_interval(successes, count, level)
