"""Scales of additions on which float arithmetic in another order and fixed-point arithmetic round alike."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.ir import Node, QuantParams
from edgeq.quantize.additions import CANDIDATES, STEP, agreeing_scale

NODE = Node("add", "add", ("a", "b"), ("y",))


def _sums(a: QuantParams, b: QuantParams, y: QuantParams, order: str) -> np.ndarray:
    """All 65,536 sums rounded, in the contract's order, in another float order, or in XNNPACK's fixed point."""
    codes_a, codes_b = (np.arange(-128, 128)[:, None], np.arange(-128, 128)[None, :])
    ratio_a, ratio_b = (np.float32(q.scale) / np.float32(y.scale) for q in (a, b))
    za, zb = int(a.zero_point), int(b.zero_point)
    if order == "contract":
        left = (codes_a - za).astype(np.float32) * ratio_a
        return np.rint(left + (codes_b - zb).astype(np.float32) * ratio_b).astype(np.int64)
    if order == "folded zero points":
        fixed = np.float32(0) - (ratio_a * np.float32(za) + ratio_b * np.float32(zb))
        left = codes_a.astype(np.float32) * ratio_a + fixed
        return np.rint(codes_b.astype(np.float32) * ratio_b + left).astype(np.int64)
    shift = 20 - int(np.floor(np.log2(max(ratio_a, ratio_b))))
    factors = [int(np.rint(float(ratio) * 2.0**shift)) for ratio in (ratio_a, ratio_b)]
    return ((codes_a - za) * factors[0] + (codes_b - zb) * factors[1] + (1 << (shift - 1))) >> shift


@pytest.mark.parametrize("other", ["folded zero points", "fixed point"])
def test_likely_sums_round_alike_on_the_chosen_scale(rng: np.random.Generator, other: str) -> None:
    before = after = 0.0
    for _ in range(20):
        a, b, y = (QuantParams.per_tensor(rng.uniform(0.01, 0.1), int(rng.integers(-30, 30))) for _ in range(3))
        likely = np.exp(-np.abs(np.arange(-128, 128) - int(a.zero_point)) / 24)[:, None] * np.exp(
            -np.abs(np.arange(-128, 128) - int(b.zero_point)) / 24
        )
        likely /= likely.sum()
        chosen = agreeing_scale(NODE, a, b, y)
        assert float(y.scale) <= float(chosen.scale) <= float(y.scale) * (1 + CANDIDATES * STEP)
        assert int(chosen.zero_point) == int(y.zero_point)
        before += likely[_sums(a, b, y, "contract") != _sums(a, b, y, other)].sum()
        after += likely[_sums(a, b, chosen, "contract") != _sums(a, b, chosen, other)].sum()
    assert after <= before / 5 + 1e-9, (before, after)


def test_a_scale_without_near_ties_stays() -> None:
    same = QuantParams.per_tensor(0.05, 3)
    assert agreeing_scale(NODE, same, same, same).same_as(same)
