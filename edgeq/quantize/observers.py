"""Observers: from a stream of activations to the range that quantization represents, in memory of constant size."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from edgeq.errors import QuantizationError
from edgeq.ir.tensor import Array
from edgeq.quantize.counting import histogram, minmax

Range = tuple[float, float]


class Observer(ABC):
    """Sees one tensor (or several that share quantization), batch by batch, and proposes a range."""

    @abstractmethod
    def observe(self, x: Array) -> None:
        """Takes a batch of float32 values of any shape; raises QuantizationError when one is not finite."""

    @abstractmethod
    def range(self, bits: int) -> Range:
        """Returns (low, high) for codes of that many bits; raises QuantizationError when nothing was observed."""


def _finite_minmax(x: Array) -> Range:
    low, high = minmax(x)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise QuantizationError("an activation is NaN or infinite on the calibration data")
    return low, high


class MinMaxObserver(Observer):
    """The smallest and largest value of the whole stream."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def observe(self, x: Array) -> None:
        if x.size:
            low, high = _finite_minmax(x)
            self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self, bits: int) -> Range:
        return _observed(self.low, self.high)


class MovingAverageMinMaxObserver(Observer):
    """Exponential averages of each batch's smallest and largest value.

    Attributes:
        averaging: Weight of a new batch; 0.01 as in torch.ao.quantization.MovingAverageMinMaxObserver.
    """

    def __init__(self, averaging: float = 0.01) -> None:
        self.averaging = averaging
        self.low, self.high = math.inf, -math.inf

    def observe(self, x: Array) -> None:
        if not x.size:
            return
        low, high = _finite_minmax(x)
        if math.isinf(self.low):
            self.low, self.high = low, high
        else:
            self.low += self.averaging * (low - self.low)
            self.high += self.averaging * (high - self.high)

    def range(self, bits: int) -> Range:
        return _observed(self.low, self.high)


class StreamingHistogram:
    """Counts over the range seen so far; grows by moving old counts into wider bins.

    A move splits each old bin into `SPLIT` equal parts and adds each part to the new bin that its middle falls into, as
    torch.ao.quantization.HistogramObserver does.

    Attributes:
        counts: float64, shape (bins,).
        low: Start of the first bin.
        high: End of the last bin; equal to low when one single value was seen (all counts are then in the middle bin).
    """

    SPLIT = 16

    def __init__(self, bins: int = 2048) -> None:
        self.counts: npt.NDArray[np.float64] = np.zeros(bins)
        self.low, self.high = math.inf, -math.inf

    @property
    def bins(self) -> int:
        """The number of bins."""
        return self.counts.size

    def add(self, x: Array) -> None:
        """Counts float32 values; raises QuantizationError when one is not finite."""
        if not x.size:
            return
        low, high = _finite_minmax(x)
        low, high = min(low, self.low), max(high, self.high)
        if (low, high) != (self.low, self.high):
            if self.counts.any():
                self.counts = self._moved(low, high)
            self.low, self.high = low, high
        if low == high:
            self.counts[self.bins // 2] += x.size
        else:
            self.counts += histogram(x, low, high, self.bins)

    def _moved(self, low: float, high: float) -> npt.NDArray[np.float64]:
        if self.low == self.high:
            middles, weights = np.array([self.low]), np.array([self.counts.sum()])
        else:
            parts = self.bins * self.SPLIT
            middles = self.low + (self.high - self.low) * ((np.arange(parts) + 0.5) / parts)
            weights = np.repeat(self.counts / self.SPLIT, self.SPLIT)
        index = np.clip(np.floor((middles - low) * (self.bins / (high - low))), 0, self.bins - 1).astype(np.int64)
        moved: npt.NDArray[np.float64] = np.bincount(index, weights=weights, minlength=self.bins).astype(np.float64)
        return moved

    def edges(self) -> npt.NDArray[np.float64]:
        """Returns the bins' bounds, shape (bins + 1,)."""
        return np.linspace(self.low, self.high, self.bins + 1)


class _HistogramBased(Observer):
    """Keeps a streaming histogram; subclasses choose a range from it.

    Attributes:
        seen: The histogram.
    """

    def __init__(self, bins: int = 2048) -> None:
        self.seen = StreamingHistogram(bins)

    def observe(self, x: Array) -> None:
        self.seen.add(x)

    def range(self, bits: int) -> Range:
        low, high = _observed(self.seen.low, self.seen.high)
        return (low, high) if low == high else self._choose(bits)

    @abstractmethod
    def _choose(self, bits: int) -> Range: ...


class HistogramObserver(_HistogramBased):
    """Narrows the range from both ends while that lowers the squared quantization error (the default).

    The search is that of torch.ao.quantization.HistogramObserver (from caffe2's norm_minimization.cc): quantiles move
    inwards by 1e-5 of the mass a step, on the side where that removes more bins, until the error grows. The error
    takes values as spread evenly inside a bin.
    """

    STEP = 1e-5

    def _choose(self, bits: int) -> Range:
        counts = self.seen.counts
        last = self.seen.bins - 1
        width = (self.seen.high - self.seen.low) / self.seen.bins
        cumulative = np.cumsum(counts)
        total = float(cumulative[-1])
        steps = np.arange(1, int(1 / self.STEP) + 1) * self.STEP
        # For the k-th step of either side: where the quantile lies.
        lefts = np.searchsorted(cumulative, steps * total, side="left").tolist()
        rights = (np.searchsorted(cumulative, (1 - steps) * total, side="right") - 1).tolist()
        start, end, best = 0, last, math.inf
        taken_left = taken_right = 0
        while taken_left + taken_right < len(steps):
            left = max(start, min(lefts[taken_left], end))
            right = min(end, max(rights[taken_right], start))
            # `right` is the last bin whose cumulative mass does not exceed the quantile.
            if left - start > end - right:
                next_start, next_end = left, end
                taken_left += 1
            else:
                next_start, next_end = start, right
                taken_right += 1
            if (next_start, next_end) == (start, end):
                continue
            error = self._error(next_start, next_end, 1 << bits, counts, width)
            if error > best:
                break
            best, start, end = error, next_start, next_end
        return self.seen.low + width * start, self.seen.low + width * (end + 1)

    @staticmethod
    def _error(start: int, end: int, levels: int, counts: npt.NDArray[np.float64], width: float) -> float:
        """Squared error, in units of the source bins, when bins start..end are spread over `levels` codes."""
        step = (end - start + 1) / levels
        begins = np.arange(counts.size, dtype=np.float64) - start
        ends = begins + 1
        first = np.clip(np.floor(begins / step), 0, levels - 1)
        final = np.clip(np.floor(ends / step), 0, levels - 1)
        half = step / 2

        def moment(a: Array | float, b: Array | float) -> Array:
            return np.asarray((b**3 - a**3) / 3)

        spread = moment(begins - (first + 0.5) * step, half)
        spread = spread + (final - first - 1) * moment(-half, half)
        spread = spread + moment(-half, ends - (final + 0.5) * step)
        return float((spread * counts).sum()) * width * width


class PercentileObserver(_HistogramBased):
    """Leaves out the smallest and largest values, the same share at both ends.

    Attributes:
        percent: What stays: 99.99 leaves out 0.005 % at each end.
    """

    def __init__(self, percent: float = 99.99, bins: int = 2048) -> None:
        super().__init__(bins)
        if not 50 < percent <= 100:
            raise QuantizationError(f"a percentile observer keeps more than 50 and at most 100 percent, not {percent}")
        self.percent = percent

    def _choose(self, bits: int) -> Range:
        cumulative = np.concatenate([[0.0], np.cumsum(self.seen.counts)])
        tail = (1 - self.percent / 100) / 2 * cumulative[-1]
        edges = self.seen.edges()
        # Inside a bin the mass is taken as evenly spread. Empty bins at an end belong to neither side.
        low = float(np.interp(tail, cumulative, edges))
        high = float(np.interp(cumulative[-1] - tail, cumulative, edges))
        return low, max(low, high)


class MseObserver(_HistogramBased):
    """The range of smallest mean squared error, clipping included, found by search over both bounds.

    Each bin counts as its middle value. Zero keeps a code of its own, so that the codes are those of the range after
    its zero point is rounded. With 4 bits that leaves out much more of the tails than `histogram` does: it steps
    inwards from the whole range and stops at the first minimum.
    """

    def _choose(self, bits: int) -> Range:
        filled = np.nonzero(self.seen.counts)[0]
        edges = self.seen.edges()
        middles = ((edges[:-1] + edges[1:]) / 2)[filled]
        counts = self.seen.counts[filled]
        low, high = min(self.seen.low, 0.0), max(self.seen.high, 0.0)

        def error(bounds: Range) -> float:
            step = (bounds[1] - bounds[0]) / ((1 << bits) - 1)
            if step <= 0:
                return math.inf
            zero = np.rint(-bounds[0] / step)
            codes = np.clip(np.rint(middles / step) + zero, 0, (1 << bits) - 1)
            return float((((codes - zero) * step - middles) ** 2 * counts).sum())

        return search_range((low, high), error)


class KlObserver(_HistogramBased):
    """The range that keeps most of the distribution's information: entropy calibration as in TensorRT.

    For each candidate range the histogram of the values inside it, what lies outside added to its outermost bins, is
    compared with the same histogram without what lies outside, merged into 2^bits levels, each spread evenly over
    those of its bins that are not empty: the Kullback-Leibler divergence of the second from the first, as in
    Migacz, "8-bit inference with TensorRT" (GTC 2017), there for |x| and 128 levels, here for both bounds. The bin of
    zero counts as much as the larger of its neighbours, or the zeros behind a ReLU, which have a code of their own in
    any range, would decide everything.
    """

    SMALLEST = 1e-6

    def _choose(self, bits: int) -> Range:
        edges = self.seen.edges()
        middles = (edges[:-1] + edges[1:]) / 2
        counts = self.seen.counts.copy()
        if self.seen.low <= 0.0 <= self.seen.high:
            zero = min(int(np.searchsorted(edges, 0.0, side="right")) - 1, self.seen.bins - 1)
            around = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < counts.size]
            counts[zero] = min(float(self.seen.counts[zero]), max(around))
        levels = 1 << bits

        def divergence(bounds: Range) -> float:
            low, high = bounds
            inside = np.nonzero((middles >= low) & (middles <= high))[0]
            # Fewer bins than twice the levels: every distribution looks like itself.
            if inside.size < 2 * levels:
                return math.inf
            first, last = int(inside[0]), int(inside[-1])
            kept = counts[first : last + 1]
            if kept.sum() <= 0:
                return math.inf
            whole = kept.copy()
            whole[0] += counts[:first].sum()
            whole[-1] += counts[last + 1 :].sum()
            step = (high - low) / (levels - 1)
            level = np.clip(np.rint(middles[first : last + 1] / step) + np.rint(-low / step), 0, levels - 1).astype(int)
            filled = kept > 0
            mass = np.bincount(level, weights=kept, minlength=levels)
            number = np.bincount(level, weights=filled, minlength=levels)
            merged = np.where(filled, (mass / np.maximum(number, 1))[level], 0.0)
            p, q = whole / whole.sum(), merged / merged.sum()
            seen = p > 0
            return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], self.SMALLEST))).sum())

        return search_range((min(self.seen.low, 0.0), max(self.seen.high, 0.0)), divergence)


def search_range(bounds: Range, error: Callable[[Range], float]) -> Range:
    """Returns the shrunk bounds of least error, zero always among what they enclose.

    First both bounds over a coarse grid of their own shares, since the error has several minima where one side is a
    long tail and the other is not; then each alone in ever finer steps. The whole range is always compared.

    Args:
        bounds: The widest range, low <= 0 <= high.
        error: The cost of a range.
    """
    low, high = bounds
    shares = np.geomspace(0.02, 1.0, 24)
    lows = [low * share for share in shares] if low < 0 else [0.0]
    highs = [high * share for share in shares] if high > 0 else [0.0]
    best = min(((a, b) for a in lows for b in highs), key=error)
    for step in (0.08, 0.04, 0.02, 0.01, 0.005):
        moves = 1 + step * np.arange(-3, 4)
        for _ in range(2):
            if low < 0:
                best = min(((max(best[0] * move, low), best[1]) for move in moves), key=error)
            if high > 0:
                best = min(((best[0], min(best[1] * move, high)) for move in moves), key=error)
    return float(best[0]), float(best[1])


def _observed(low: float, high: float) -> Range:
    if low > high:
        raise QuantizationError("an observer saw no values; give calibration data")
    return low, high


OBSERVERS: dict[str, Callable[[], Observer]] = {
    "histogram": HistogramObserver,
    "kl": KlObserver,
    "minmax": MinMaxObserver,
    "moving-average": MovingAverageMinMaxObserver,
    "mse": MseObserver,
    "percentile": PercentileObserver,
}
"""What `--observer` takes; `percentile` also as `percentile=99.9`."""


def make_observer(name: str) -> Observer:
    """Returns a new observer by its name in OBSERVERS, or e.g. "percentile=99.9".

    Raises:
        QuantizationError: If there is none of that name.
    """
    return observer_factory(name)()


def observer_factory(name: str) -> Callable[[], Observer]:
    """Returns what makes observers of that name; raises QuantizationError when there is none."""
    kind, _, parameter = name.partition("=")
    if kind == "percentile" and parameter:
        try:
            percent = float(parameter)
        except ValueError:
            raise QuantizationError(f"{name!r}: {parameter!r} is not a number; write e.g. percentile=99.9") from None
        PercentileObserver(percent)
        return partial(PercentileObserver, percent)
    if kind not in OBSERVERS or parameter:
        raise QuantizationError(f"{name!r} is not an observer; choose one of {', '.join(sorted(OBSERVERS))}.")
    return OBSERVERS[kind]
