"""Confidence intervals."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(successes: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a rate (Wilson 1927, "Probable inference").

    Args:
        successes: From 0 to count.
        count: At least 1.
        level: Coverage, in (0, 1).

    Returns:
        Lower and upper bound, within [0, 1].

    Raises:
        ValueError: If an argument lies outside its range.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(
            f"successes must lie in [0, count] and count be at least 1, not {successes} of {count}."
        )
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / count
    centre = rate + z * z / (2 * count)
    reach = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    lower = 0.0 if successes == 0 else max(0.0, (centre - reach) / scale)
    upper = 1.0 if successes == count else min(1.0, (centre + reach) / scale)
    return lower, upper
