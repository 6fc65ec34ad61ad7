"""Thresholds that keep a promise on new data: split conformal prediction."""

from __future__ import annotations

import math


def conformal_rank(count: int, share: float, confidence: float | None = None) -> int | None:
    """Which order statistic of `count` scores at least `share` of new scores will not exceed.

    Where old and new scores are exchangeable, a new one is at most the k-th smallest of n with probability k / (n + 1)
    or more (equal with distinct scores), hence k = ceil((n + 1) share) (Vovk et al. 2005, "Algorithmic Learning in a
    Random World"; Angelopoulos and Bates 2021, arXiv 2107.07511, section 1). That is a mean over draws of the n
    scores. For given ones the share is a draw from Beta(k, n + 1 - k) (Vovk 2012, arXiv 1209.2673), and with
    `confidence` k is the least for which that share is at least the asked one so often.

    Args:
        count: Of scores, at least 0.
        share: Of new scores, in (0, 1).
        confidence: In (0, 1), or None for the mean.

    Returns:
        From 1 to count, or None where so few scores promise no such share.

    Raises:
        ValueError: If an argument lies outside its range.
    """
    if count < 0 or not 0.0 < share < 1.0 or not (confidence is None or 0.0 < confidence < 1.0):
        raise ValueError(
            f"count must be at least 0, share and confidence lie in (0, 1), not {count}, {share}, {confidence}."
        )
    if confidence is None:
        # Less a part in 10^9, so that 0.9 of 10, which is 9.000000000000002 in binary, is nine.
        rank = math.ceil((count + 1) * share * (1.0 - 1e-9))
        return rank if rank <= count else None
    for rank in range(1, count + 1):
        # P(Beta(k, n + 1 - k) >= share) is the chance of fewer than k of n uniform scores below the share.
        if 1.0 - _binomial_tail(rank, count, share) >= confidence:
            return rank
    return None


def coverage_interval(rank: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Where the share of new scores lies that do not exceed the `rank`-th smallest of `count` old ones.

    Quantiles of Beta(rank, count + 1 - rank) (Vovk 2012, arXiv 1209.2673); with ties among the scores the share is
    higher.

    Args:
        rank: From 1 to count.
        count: Of scores.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If an argument lies outside its range.
    """
    if not 1 <= rank <= count or not 0.0 < level < 1.0:
        raise ValueError(f"rank must lie in 1..count and level in (0, 1), not {rank} of {count} and {level}.")
    return _beta_quantile(rank, count, 0.5 - level / 2), _beta_quantile(rank, count, 0.5 + level / 2)


def _beta_quantile(rank: int, count: int, chance: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _binomial_tail(rank, count, middle) < chance else (low, middle)
    return (low + high) / 2


def _binomial_tail(least: int, count: int, chance: float) -> float:
    """P(at least `least` of `count`), which is P(Beta(least, count + 1 - least) <= chance)."""
    if chance <= 0.0 or chance >= 1.0:
        return float(chance >= 1.0)
    log_yes, log_no = math.log(chance), math.log1p(-chance)
    whole = math.lgamma(count + 1)
    terms = (
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * log_yes + (count - k) * log_no)
        for k in range(least, count + 1)
    )
    return min(1.0, math.fsum(terms))
