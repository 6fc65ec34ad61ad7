"""Output scales of additions on which the runtimes round alike.

An addition of two tensors of codes has at most 65,536 different operand pairs. Runtimes compute it in different
arithmetic (docs/conformance.md): where the exact sum of a pair lies next to a tie, one rounds up and another down. In
a deep network one such step grows until every later layer differs. A scale a fraction of a percent larger moves all
sums, and among a few dozen candidates there is one on which the arithmetics agree for every pair that is at all
likely; nothing else changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.ir import Graph, Node, QuantParams

CANDIDATES = 64
"""How many output scales are compared; the first is the calibrated one."""

STEP = 2.0**-12
"""Relative distance of neighbouring candidates: the last one is 1.6 % larger than the first."""

NEAR_TIE = 2.0**-15
"""Sums that lie this near to a tie may be rounded either way by float arithmetic in another order.

The terms are below 2^8 and float32 has 24 bits, so that an operation is off by 2^-17 at most; four follow each other.
"""

SPREAD = 24.0
"""Codes are taken to be spread around the zero point like exp(-|q - z| / SPREAD)."""


def agreeing_scale(node: Node, a: QuantParams, b: QuantParams, y: QuantParams) -> QuantParams:
    """Returns `y` with the smallest scale, not below its own, on which an addition is rounded alike everywhere.

    Args:
        node: An `add` or `sub` of two activations.
        a: Of the first operand.
        b: Of the second operand.
        y: Of the output, as calibrated.
    """
    sign = -1.0 if node.op == "sub" else 1.0
    codes_a = np.arange(a.qmin, a.qmax + 1) - int(a.zero_point)
    codes_b = np.arange(b.qmin, b.qmax + 1) - int(b.zero_point)
    weights = np.exp(-np.abs(codes_a) / SPREAD)[:, None] * np.exp(-np.abs(codes_b) / SPREAD)[None, :]
    weights /= weights.sum()
    best, best_cost = y, np.inf
    for index in range(CANDIDATES):
        scale = np.float32(float(y.scale) * (1.0 + index * STEP))
        ratios = np.float32(a.scale) / scale, np.float32(sign) * (np.float32(b.scale) / scale)
        cost = float(weights[_disagree(codes_a, codes_b, *ratios)].sum())
        if cost < best_cost:
            best, best_cost = QuantParams.per_tensor(float(scale), int(y.zero_point), y.bits), cost
        if cost == 0.0:
            break
    return best


def _disagree(
    a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], ratio_a: np.float32, ratio_b: np.float32
) -> npt.NDArray[np.bool_]:
    """Which operand pairs (zero points subtracted) one arithmetic may round otherwise than another; shape (a, b)."""
    exact = a[:, None] * float(ratio_a) + b[None, :] * float(ratio_b)
    near = np.abs(exact - np.floor(exact) - 0.5) < NEAR_TIE
    # XNNPACK: multipliers of 21 bits, the sum rounded half up by a shift.
    largest = max(abs(float(ratio_a)), abs(float(ratio_b)))
    shift = 20 - int(np.floor(np.log2(largest)))
    factor_a, factor_b = (int(np.rint(float(ratio) * 2.0**shift)) for ratio in (ratio_a, ratio_b))
    whole = a[:, None] * factor_a + b[None, :] * factor_b
    fixed = (whole + (1 << (shift - 1))) >> shift
    found: npt.NDArray[np.bool_] = near | (fixed != np.rint(exact).astype(np.int64))
    return found


def align_additions(graph: Graph, shared: dict[str, tuple[str, ...]]) -> None:
    """Replaces, in a graph whose activations are quantized, the output scales of additions; in execution order.

    Args:
        graph: Changed in place.
        shared: For each activation whose scale may move, the members of the set that shares its quantization.
    """
    for node in graph.nodes:
        if node.op not in ("add", "sub") or any(graph.tensor(name).is_constant for name in node.inputs):
            continue
        a, b, y = (graph.tensor(name).quant for name in (*node.inputs, node.outputs[0]))
        members = shared.get(node.outputs[0], ())
        # A scale that an operand shares would move with the output's. Where outputs have 4 bits, runtimes compute in
        # float throughout, and their differences do not come from the additions.
        if a is None or b is None or y is None or y.bits == 4 or set(node.inputs) & set(members):
            continue
        chosen = agreeing_scale(node, a, b, y)
        for name in members:
            graph.add_tensor(graph.tensor(name).with_(quant=chosen))
