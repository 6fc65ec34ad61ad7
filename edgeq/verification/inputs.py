"""Whether the inputs of a verification look like those that the quantized model was calibrated with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.data import Batch

LOOKED_AT = 64
"""Samples, the first ones, that are looked at."""

_FEWEST = 8
"""Fewer samples may be dark by chance."""

_OUTSIDE = 0.5
"""More of the values than this lie outside of the range: clipping takes a per mille of what calibrated it."""

_TIMES = 20.0
"""How far apart ranges are that cannot be of the same preprocessing. Pixels beside normalised ones are some 50 times
wider, beside fractions 255 times."""

_FAR = 0.05
"""More of the values than this lie so far out: pictures that are dark but for a few strokes have few others."""

Range = tuple[float, float]


def input_note(values: NDArray[np.float32], calibrated: Range) -> str | None:
    """What looks like a mistake in inputs but may be meant, or None.

    Args:
        values: The first samples, finite, the batch first.
        calibrated: The least and the largest value that the quantized model's input can hold.
    """
    low, high = calibrated
    least, largest = float(values.min()), float(values.max())
    step = (high - low) / 255
    outside = float(((values < low - step) | (values > high + step)).mean())
    far = float((np.abs(values - (low + high) / 2) > _TIMES * (high - low) / 2).mean())
    if outside > _OUTSIDE or far > _FAR:
        found = f"{100 * outside:.0f} % of the values lie outside of"
    elif len(values) >= _FEWEST and (largest - least) * _TIMES < high - low:
        found = "they take up little of"
    else:
        return None
    return (
        f"the inputs look unlike what the model was calibrated with: the first {len(values)} span {least:.4g} to "
        f"{largest:.4g}, and {found} {low:.4g} to {high:.4g}, what its input holds. Check the data, and that they are "
        "preprocessed as for the export (--mean, --std; not applied to arrays of floats)"
    )


class Watched:
    """Passes batches on and keeps the first samples, to look at them later.

    Args:
        batches: What to pass on.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._kept: list[NDArray[np.float32]] = []

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            left = LOOKED_AT - sum(map(len, self._kept))
            if left > 0 and isinstance(batch.inputs, np.ndarray):
                self._kept.append(batch.inputs[:left])
            yield batch

    def note(self, calibrated: Range | None) -> str | None:
        """As `input_note`; None also where nothing says what calibrated the model."""
        if calibrated is None or not self._kept:
            return None
        return input_note(np.concatenate(self._kept), calibrated)
