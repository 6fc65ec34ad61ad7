"""Rounding weights with the layer's input second moments: GPTQ, coordinate descent, a search for few taps.

A layer gets the inputs x of the already quantized network and should give t, what the float layer gives in the float
network. With weights w and a free bias, the expected squared error of one output channel is, up to a constant,

    (w - w*)^T H (w - w*),    H = Cov(x),    w* = w_float + H^-1 Cov(x, t - w_float x),

so the best real weights are w*, which make good in part what earlier layers got wrong, and rounding is a search for
the point of a scaled integer grid that is nearest to w* in the metric H. Channels do not influence each other.

- The start is that of GPTQ (Frantar et al. 2022, arXiv 2210.17323), the closed form of OBQ (Frantar and Alistarh 2022,
  arXiv 2208.11580): weights are rounded one after the other, in the order of falling variance of their inputs, and the
  error of each is made good by those that are still to come.
- Coordinate descent then moves each code to the best integer with all others fixed, until nothing moves: a local
  minimum of the same quadratic.
- For few taps (a depthwise channel) a search over all codes follows, a breadth-first sphere decoder that keeps the
  BEAM best beginnings; its answer is the global minimum wherever no beginning was dropped that could still win.
- The scale is chosen by the same error among shares of the channel's largest weight, then fitted to the codes in
  closed form, s = (q^T H w*) / (q^T H q), and the codes settle again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)
"""Scales that are tried, as shares of the one at which nothing is clipped."""

SHARES_8BIT = (1.0, 0.9)
"""With 127 steps a side clipping hardly pays."""

BLOCK = 64
"""Columns whose updates are gathered before they reach the columns to the right: a matrix product instead of rank-one
updates of the whole matrix."""

PASSES = 4
"""Rounds of coordinate descent at most; after three nearly nothing moves."""

FEW_TAPS = 32
"""Channels with at most so many weights are searched."""

NOISE = 2.0**-22
"""Error of a sum of products, as a share of the inputs' mean square and for each weight of a channel."""

BEAM = 48
"""Beginnings that the search keeps for each channel."""

NEIGHBOURS = 4
"""Codes tried for each weight: the nearest ones to the real-valued optimum given the weights before it."""


@dataclass(frozen=True, slots=True)
class Moments:
    """What rounding needs to know about a layer's inputs, for G groups of O / G channels with K weights each.

    Attributes:
        covariance: Of the inputs that meet the weights, shape (G, K, K).
        cross: Covariance of each output's error t - w x with these inputs, shape (O, K).
        input_mean: Shape (G, K).
        error_mean: Mean of t - w x, bias not subtracted: what the bias should be with these weights. Shape (O,).
        rows: How many positions were seen.
    """

    covariance: Floats
    cross: Floats
    input_mean: Floats
    error_mean: Floats
    rows: int


class MomentSums:
    """Sums up moments over batches.

    Args:
        groups: G.
        taps: K.
        outputs: O.
    """

    def __init__(self, groups: int, taps: int, outputs: int) -> None:
        self._products = np.zeros((groups, taps, taps))
        self._cross = np.zeros((outputs, taps))
        self._inputs = np.zeros((groups, taps))
        self._errors = np.zeros(outputs)
        self._rows = 0

    def add(self, x: npt.NDArray[np.float32], errors: npt.NDArray[np.float32]) -> None:
        """Takes n positions.

        Args:
            x: The inputs that meet each weight, shape (G, K, n).
            errors: t - w x, shape (O, n).
        """
        groups, _taps, rows = x.shape
        turned = x.transpose(0, 2, 1)
        self._products += np.matmul(x, turned)
        grouped = errors.reshape(groups, -1, rows)
        self._cross += np.matmul(grouped, turned).reshape(self._cross.shape)
        self._inputs += x.sum(axis=2, dtype=np.float64)
        self._errors += errors.sum(axis=1, dtype=np.float64)
        self._rows += rows

    def moments(self) -> Moments:
        """Returns what was seen so far; at least one position must have been."""
        mean, error = self._inputs / self._rows, self._errors / self._rows
        groups, taps = mean.shape
        per_group = error.reshape(groups, -1, 1) * mean[:, None, :]
        second = self._products / self._rows
        # Products are summed in single precision. Where inputs hardly vary, the difference of the two terms is but the
        # noise of that, which no decomposition takes; as much is added to the variances.
        noise = NOISE * taps * np.diagonal(second, axis1=1, axis2=2).mean(axis=1)
        return Moments(
            second - mean[:, :, None] * mean[:, None, :] + noise[:, None, None] * np.eye(taps),
            self._cross / self._rows - per_group.reshape(-1, taps),
            mean,
            error,
            self._rows,
        )


def damped(covariance: Floats, share: float) -> Floats:
    """Adds `share` of each group's mean variance to the diagonal; a group without variance gets ones there."""
    diagonal = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)
    added = np.where(diagonal > 0, share * diagonal + 1e-10 * diagonal, 1.0)
    result: Floats = covariance + added[:, None, None] * np.eye(covariance.shape[1])
    return result


def best_weights(weights: Floats, moments: Moments, damping: float) -> Floats:
    """Returns w*, the real weights with the least error on the quantized network's inputs.

    Args:
        weights: The float network's, shape (O, K).
        moments: The layer's.
        damping: Share of the mean variance that is added to the covariance: pulls w* to the float weights where few
            samples say little (ridge regression).
    """
    groups, taps, _ = moments.covariance.shape
    cross = moments.cross.reshape(groups, -1, taps)
    solved = np.linalg.solve(damped(moments.covariance, damping), cross.transpose(0, 2, 1))
    result: Floats = weights + solved.transpose(0, 2, 1).reshape(weights.shape)
    return result


def bias_of(weights: Floats, rounded: Floats, moments: Moments) -> Floats:
    """Returns the bias that keeps each channel's mean output.

    Args:
        weights: The float network's, shape (O, K).
        rounded: The real values of the codes, shape (O, K).
        moments: The layer's.
    """
    groups, taps, _ = moments.covariance.shape
    change = (rounded - weights).reshape(groups, -1, taps)
    result: Floats = moments.error_mean - np.matmul(change, moments.input_mean[:, :, None]).reshape(-1)
    return result


def errors_of(codes: Floats, scales: Floats, targets: Floats, covariance: Floats) -> Floats:
    """Returns (w - w*)^T H (w - w*) of each channel, shape (G, R); arguments as for `descend`."""
    difference = codes * scales[:, None] - targets
    found: Floats = (np.matmul(covariance, difference) * difference).sum(axis=1)
    return found


def round_feeding_forward(targets: Floats, scales: Floats, covariance: Floats, limit: int) -> Floats:
    """GPTQ: rounds weights in order, each error fed forward to those not yet rounded.

    Args:
        targets: w*, shape (G, K, R): the weights of a channel are a column, in the order in which they are rounded.
        scales: Shape (G, R).
        covariance: Positive definite, shape (G, K, K).
        limit: Largest code, 7 or 127.

    Returns:
        Codes, shape (G, K, R).
    """
    taps = targets.shape[1]
    inverse = np.linalg.inv(covariance)
    # Row k of the upper factor of H^-1 says how an error in weight k is best spread over those still free.
    upper = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1).astype(targets.dtype)
    waiting = targets.copy()
    codes = np.empty_like(targets)
    for begin in range(0, taps, BLOCK):
        end = min(taps, begin + BLOCK)
        errors = np.empty_like(waiting[:, begin:end])
        for k in range(begin, end):
            row = waiting[:, k]
            codes[:, k] = np.clip(np.rint(row / scales), -limit, limit)
            error = (row - codes[:, k] * scales) / upper[:, k, k, None]
            errors[:, k - begin] = error
            waiting[:, k + 1 : end] -= upper[:, k, k + 1 : end, None] * error[:, None]
        waiting[:, end:] -= np.matmul(upper[:, begin:end, end:].transpose(0, 2, 1), errors)
    return codes


def descend(
    codes: Floats, targets: Floats, scales: Floats, covariance: Floats, limit: int, passes: int = PASSES
) -> Floats:
    """Coordinate descent: each code becomes the best integer with all others fixed; returns the new codes.

    Args:
        codes: Where to start, shape (G, K, R).
        targets: w*, shape (G, K, R).
        scales: Shape (G, R).
        covariance: Shape (G, K, K).
        limit: Largest code.
        passes: At most so many rounds over all weights.
    """
    taps = targets.shape[1]
    codes = codes.copy()
    slope = np.matmul(covariance, codes * scales[:, None] - targets)
    for _ in range(passes):
        moved = False
        for begin in range(0, taps, BLOCK):
            end = min(taps, begin + BLOCK)
            near = slope[:, begin:end].copy()
            steps = np.empty_like(near)
            for k in range(begin, end):
                curvature = covariance[:, k, k, None] * scales
                new = np.clip(np.rint(codes[:, k] - near[:, k - begin] / curvature), -limit, limit)
                step = (new - codes[:, k]) * scales
                codes[:, k] = new
                steps[:, k - begin] = step
                near += covariance[:, begin:end, k, None] * step[:, None]
            if steps.any():
                moved = True
                slope += np.matmul(covariance[:, :, begin:end], steps)
        if not moved:
            break
    return codes


def search(
    start: Floats, targets: Floats, scales: Floats, covariance: Floats, limit: int, beam: int = BEAM
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Breadth-first sphere decoding of few weights; never worse than `start`.

    With the Cholesky factor L of the covariance, the error is |L^T (q s - w*)|^2: a sum over the weights from the last
    to the first in which the k-th term depends on weights k.. only. So beginnings can be compared: their error so far
    bounds the final one from below.

    Args:
        start: Codes of shape (G, R, K) that bound the search.
        targets: w*, shape (G, R, K).
        scales: Shape (G, R).
        covariance: Positive definite, shape (G, K, K).
        limit: Largest code.
        beam: Beginnings that are kept for each channel.

    Returns:
        Codes, and for each channel (G, R) whether they are proven to be the best of all: whatever was dropped or not
        tried on the way had a larger error already.
    """
    groups, rows, taps = targets.shape
    factor = np.linalg.cholesky(covariance)  # Lower; L^T is what multiplies.
    bound = errors_of(start.transpose(0, 2, 1), scales, targets.transpose(0, 2, 1), covariance)
    width = min(NEIGHBOURS, 2 * limit + 1)
    chosen = np.zeros((groups, rows, 1, taps))
    partial = np.zeros((groups, rows, 1))
    dropped = np.full((groups, rows), np.inf)
    for k in range(taps - 1, -1, -1):
        pivot = factor[:, k, k, None, None]
        # What weights k + 1.. have done to the k-th term, in units of the k-th weight.
        later = (chosen[..., k + 1 :] * scales[:, :, None, None] - targets[:, :, None, k + 1 :]) * (
            factor[:, None, None, k + 1 :, k]
        )
        centre = (targets[:, :, None, k] - later.sum(axis=-1) / pivot) / scales[:, :, None]
        first = np.clip(np.floor(centre) + 1 - width // 2, -limit, limit + 1 - width)
        candidates = first[..., None] + np.arange(width)
        unit = scales[:, :, None] * pivot
        cost = partial[..., None] + ((candidates - centre[..., None]) * unit[..., None]) ** 2
        # The nearest codes on either side that are not tried.
        for code in (first - 1, first + width):
            skipped = partial + ((code - centre) * unit) ** 2
            dropped = np.minimum(dropped, np.where(np.abs(code) <= limit, skipped, np.inf).min(axis=2))
        flat, values = cost.reshape(groups, rows, -1), candidates.reshape(groups, rows, -1)
        kept = min(beam, flat.shape[2])
        order = np.argpartition(flat, kept - 1, axis=2) if kept < flat.shape[2] else np.argsort(flat, axis=2)
        if kept < flat.shape[2]:
            rest = np.take_along_axis(flat, order[:, :, kept:], axis=2).min(axis=2)
            dropped = np.minimum(dropped, rest)
        order = order[:, :, :kept]
        partial = np.take_along_axis(flat, order, axis=2)
        chosen = np.take_along_axis(chosen, order[..., None] // width, axis=2)
        chosen[..., k] = np.take_along_axis(values, order, axis=2)
    best = partial.argmin(axis=2)[:, :, None]
    least = np.take_along_axis(partial, best, axis=2)[:, :, 0]
    codes = np.take_along_axis(chosen, best[..., None], axis=2)[:, :, 0]
    better = least < bound
    result: Floats = np.where(better[..., None], codes, start)
    return result, dropped >= np.minimum(least, bound)


@dataclass(frozen=True, slots=True)
class Rounded:
    """A layer's rounded weights.

    Attributes:
        codes: Shape (O, K).
        scales: Shape (O,).
        error: (w - w*)^T H (w - w*) of each channel, shape (O,).
        proven: Share of the channels whose codes the search has proven to be the best; None where it did not run.
    """

    codes: npt.NDArray[np.int8]
    scales: Floats
    error: Floats
    proven: float | None


def round_weights(
    targets: Floats, covariance: Floats, limit: int, damping: float, shares: tuple[float, ...] | None = None
) -> Rounded:
    """Chooses scales and codes of a layer's weights.

    Args:
        targets: w*, shape (O, K).
        covariance: Of the inputs, shape (G, K, K); output channels are ordered by group.
        limit: Largest code, 7 or 127.
        damping: Share of the mean variance added to the covariance.
        shares: Scales to try; by the limit without it.
    """
    shares = shares or (SHARES if limit < 127 else SHARES_8BIT)
    outputs, taps = targets.shape
    groups = len(covariance)
    per_group = outputs // groups
    exact = taps <= FEW_TAPS
    metric = damped(covariance, damping)
    order = np.argsort(-np.diagonal(metric, axis1=1, axis2=2).mean(axis=0), kind="stable")
    ordered = metric[:, order][:, :, order]
    # (G, K, R): the weights that are rounded together lie side by side.
    wanted = np.ascontiguousarray(targets[:, order].reshape(groups, per_group, taps).transpose(0, 2, 1))
    largest = np.abs(wanted).max(axis=1)
    largest = np.where(largest > 0, largest, 1.0)
    # The loop over a wide layer's weights is bound by memory; single precision is enough for integers up to 127.
    narrow = np.float64 if exact else np.float32
    tried = (largest[:, :, None] * np.asarray(shares) / limit).reshape(groups, -1).astype(narrow)
    repeated = np.repeat(wanted, len(shares), axis=2).astype(narrow)
    codes = round_feeding_forward(repeated, tried, ordered, limit)
    errors = errors_of(codes, tried, repeated, ordered.astype(narrow)).reshape(groups, per_group, len(shares))
    place = np.arange(per_group)[None] * len(shares) + errors.argmin(axis=2)
    found = np.take_along_axis(codes, place[:, None], axis=2).astype(np.float64)
    chosen = np.take_along_axis(tried, place, axis=1).astype(np.float64)
    found = descend(found, wanted, chosen, ordered, limit)
    proven = None
    if exact:
        best, sure = search(found.transpose(0, 2, 1), wanted.transpose(0, 2, 1), chosen, ordered, limit)
        found, proven = np.ascontiguousarray(best.transpose(0, 2, 1)), float(sure.mean())
    for _ in range(2):
        fitted = _fitted_scales(found, chosen, wanted, ordered)
        moved = descend(found, wanted, fitted, ordered, limit)
        better = errors_of(moved, fitted, wanted, ordered) < errors_of(found, chosen, wanted, ordered)
        found, chosen = np.where(better[:, None], moved, found), np.where(better, fitted, chosen)
    error = errors_of(found, chosen, wanted, ordered)
    result = np.empty((outputs, taps), dtype=np.int8)
    result[:, order] = found.transpose(0, 2, 1).reshape(outputs, taps)
    return Rounded(result, chosen.reshape(-1), error.reshape(-1), proven)


def _fitted_scales(codes: Floats, scales: Floats, targets: Floats, covariance: Floats) -> Floats:
    """The scales that fit the codes best; the old one where all codes are zero or the fit is not positive."""
    weighted = np.matmul(covariance, codes)
    numerator, denominator = (weighted * targets).sum(axis=1), (weighted * codes).sum(axis=1)
    fits = (denominator > 0) & (numerator > 0)
    result: Floats = np.where(fits, numerator / np.where(denominator > 0, denominator, 1.0), scales)
    return result
