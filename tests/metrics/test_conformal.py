from __future__ import annotations

import numpy as np
import pytest

from edgeq.metrics import conformal_rank, coverage_interval

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(
    ("count", "share", "rank"), [(9, 0.9, 9), (8, 0.9, None), (19, 0.9, 18), (100, 0.9, 91), (0, 0.5, None)]
)
def test_rank(count: int, share: float, rank: int | None) -> None:
    assert conformal_rank(count, share) == rank


@pytest.mark.parametrize("count", [9, 29, 64])
def test_the_share_is_kept_on_new_scores(count: int, rng: np.random.Generator) -> None:
    draws = rng.random((4000, count))
    rank = conformal_rank(count, 0.9)
    assert rank is not None
    # Of uniform scores, the share below a threshold is the threshold.
    shares = np.sort(draws, axis=1)[:, rank - 1]
    error = shares.std() / np.sqrt(len(shares))
    assert shares.mean() == pytest.approx(rank / (count + 1), abs=4 * error)
    assert shares.mean() >= 0.9 - 4 * error
    low, high = coverage_interval(rank, count)
    assert np.mean((low <= shares) & (shares <= high)) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("count", [29, 100, 999])
def test_confidence(count: int) -> None:
    rank = conformal_rank(count, 0.9, 0.95)
    assert rank is not None

    def sure(k: int) -> float:
        return float(scipy_stats.beta.sf(0.9, k, count + 1 - k))

    assert sure(rank) >= 0.95 > sure(rank - 1)


def test_too_few_for_confidence() -> None:
    # 0.9^28 is above 0.05, 0.9^29 below.
    assert conformal_rank(28, 0.9, 0.95) is None
    assert conformal_rank(29, 0.9, 0.95) == 29


@pytest.mark.parametrize(("rank", "count"), [(1, 1), (9, 9), (18, 20), (450, 500), (5000, 5000)])
def test_interval_equals_scipy(rank: int, count: int) -> None:
    wanted = scipy_stats.beta.ppf([0.025, 0.975], rank, count + 1 - rank)
    assert coverage_interval(rank, count) == pytest.approx(tuple(wanted), rel=1e-9)


@pytest.mark.parametrize("arguments", [(-1, 0.9), (5, 0.0), (5, 1.0), (5, 0.9, 1.0), (5, float("nan"))])
def test_senseless_rank(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="share"):
        conformal_rank(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(0, 5), (6, 5), (1, 5, 1.0)])
def test_senseless_interval(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rank"):
        coverage_interval(*arguments)  # type: ignore[arg-type]
