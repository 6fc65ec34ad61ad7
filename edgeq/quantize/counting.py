"""Extremes and histograms of large arrays: the native versions where they are built, numpy otherwise, equal results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.ir.tensor import Array

_CHUNK = 1 << 16  # Elements at a time: their temporaries stay in the second-level cache.

Minmax = Callable[[npt.NDArray[np.float32]], tuple[float, float]]
Histogram = Callable[[npt.NDArray[np.float32], float, float, int], npt.NDArray[np.int64]]


def numpy_minmax(x: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Returns the smallest and the largest element; both NaN when an element is NaN. `x` is not empty."""
    return float(x.min()), float(x.max())


def numpy_histogram(x: npt.NDArray[np.float32], low: float, high: float, bins: int) -> npt.NDArray[np.int64]:
    """Counts the elements of a flat array in equal-width bins over [low, high].

    The bin of v is floor((v - low) * (bins / (high - low))), computed in float32 from low, v and the float32
    quotient, clamped to [0, bins - 1]: the last bin holds `high`, and the outermost bins whatever lies outside.

    Args:
        x: Finite values, shape (n,).
        low: Start of the first bin, a float32 value.
        high: End of the last bin, a float32 value above `low`.
        bins: At least 1.
    """
    start, factor = np.float32(low), np.float32(bins / (high - low))
    counts = np.zeros(bins, dtype=np.int64)
    for begin in range(0, x.size, _CHUNK):
        position = (x[begin : begin + _CHUNK] - start) * factor
        index = np.clip(position, 0, np.float32(bins - 1)).astype(np.int32)
        counts += np.bincount(index, minlength=bins)
    return counts


def _native() -> Any:
    try:
        from edgeq import _native  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    return _native


def minmax(x: Array) -> tuple[float, float]:
    """Returns the smallest and the largest element of a non-empty float32 array; NaN when an element is NaN."""
    native = _native()
    found: Minmax = getattr(native, "minmax", numpy_minmax)
    low, high = found(np.ascontiguousarray(x, dtype=np.float32).reshape(-1))
    return float(low), float(high)


def histogram(x: Array, low: float, high: float, bins: int) -> npt.NDArray[np.int64]:
    """Counts elements in equal-width bins; `numpy_histogram` says exactly how."""
    native = _native()
    found: Histogram = getattr(native, "histogram", numpy_histogram)
    return found(np.ascontiguousarray(x, dtype=np.float32).reshape(-1), low, high, bins)
