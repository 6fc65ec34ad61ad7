from __future__ import annotations

import math

import numpy as np
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


def test_a_paired_change_by_hand() -> None:
    # Right of both: 40, of the first alone: 9, of the second alone: 3, of none: 8; half an input is added to each.
    reference = np.repeat([True, True, False, False], [40, 9, 3, 8])
    quantized = np.repeat([True, False, True, False], [40, 9, 3, 8])
    change = (3.5 - 9.5) / 62
    reach = 1.959964 * math.sqrt((3.5 + 9.5) / 62 - change**2) / math.sqrt(62)
    found = metrics.paired_difference_interval(reference, quantized)
    assert found == pytest.approx((change - reach, change + reach), abs=1e-6)
    assert metrics.paired_difference_interval(quantized, reference) == pytest.approx((-found[1], -found[0]))


def test_equal_models_get_an_interval_around_no_change() -> None:
    right = np.array([True, False, True, True])
    low, high = metrics.paired_difference_interval(right, right)
    assert low < 0 < high
    assert low == pytest.approx(-high)


def test_a_paired_interval_covers_the_true_change() -> None:
    rng = np.random.default_rng(5)
    shares = np.array([0.75, 0.06, 0.03, 0.16])  # both, first alone, second alone, none
    inside = 0
    for _ in range(400):
        kind = rng.choice(4, 300, p=shares)
        low, high = metrics.paired_difference_interval(kind <= 1, (kind == 0) | (kind == 2))
        inside += low <= shares[2] - shares[1] <= high
    # 95 % of 400 with three standard deviations below.
    assert inside >= 380 - 3 * math.sqrt(400 * 0.95 * 0.05)


@pytest.mark.parametrize(
    ("reference", "quantized", "level"),
    [([], [], 0.95), ([True], [True, False], 0.95), ([1], [True], 0.95), ([True], [True], 1.0)],
)
def test_senseless_pairs(reference: list[bool], quantized: list[bool], level: float) -> None:
    with pytest.raises(ValueError, match=r"must|needs"):
        metrics.paired_difference_interval(np.array(reference, None if reference else bool), quantized, level)


@pytest.mark.parametrize("lost, won", [(0, 0), (1, 0), (3, 9), (40, 60), (700, 900)])
def test_mcnemar_equals_the_binomial_test(lost: int, won: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    first = np.array([True] * lost + [False] * won + [True] * 5)
    second = np.array([False] * lost + [True] * won + [True] * 5)
    expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert metrics.mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_refuses_what_is_not_paired() -> None:
    with pytest.raises(ValueError, match="one shape"):
        metrics.mcnemar_p(np.array([True]), np.array([True, False]))
