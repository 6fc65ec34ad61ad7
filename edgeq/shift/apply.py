"""Applies a corruption to a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError, UsageError
from edgeq.shift import blur, digital, digits, noise, weather
from edgeq.shift.draws import Floats, generators
from edgeq.shift.suites import SUITES, Cell

CORRUPTIONS: Mapping[str, Callable[..., Floats]] = {
    function.__name__: function
    for function in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        noise.speckle_noise,
        blur.gaussian_blur,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.brightness,
        weather.spatter,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
        digital.saturate,
        digits.shear,
        digits.scale,
        digits.rotate,
        digits.translate,
        digits.stripe,
        digits.dotted_line,
        digits.zigzag,
        digits.canny_edges,
    )
}
"""Every corruption by its name: it takes float32 images in [0, 1], a generator an image and the severity's parameters,
and gives float32 images, not yet clipped."""

_BLOCK_BYTES = 16 << 20
_SMALLEST_SIDE = 16


def apply(
    images: NDArray[np.uint8], cell: Cell, indices: Sequence[int] | None = None, workers: int = 1
) -> NDArray[np.uint8]:
    """The images under a corruption.

    What becomes of an image depends on suite, type, severity and its index alone, not on the batch or the workers.

    Args:
        images: uint8, shape (n, h, w, 1 or 3), sides of at least 16.
        cell: What to apply; see `parse`.
        indices: Of the images in their data set; 0 to n - 1 without.
        workers: Threads that share the batch.

    Returns:
        uint8, the same shape.

    Raises:
        DataError: If the images have another form.
        UsageError: If the cell is none of its suite, or the indices are not one an image.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(f"Corruptions take uint8 images of shape (n, h, w, 1 or 3), not {images.dtype} {images.shape}.")
    if min(images.shape[1:3]) < _SMALLEST_SIDE:
        raise DataError(
            f"Images of {images.shape[1]}x{images.shape[2]} cannot be corrupted: the least side is {_SMALLEST_SIDE}."
        )
    suite = SUITES.get(cell.suite)
    levels = () if suite is None else suite.parameters.get(cell.kind, ())
    if not 1 <= cell.severity <= len(levels):
        raise UsageError(f"There is no corruption {cell}; edgeq.shift.parse names those there are.")
    places = range(len(images)) if indices is None else indices
    if len(places) != len(images):
        raise UsageError(f"{len(images)} images need as many indices, not {len(places)}.")
    function, values = CORRUPTIONS[cell.kind], levels[cell.severity - 1]

    def corrupted(start: int) -> NDArray[np.uint8]:
        part = images[start : start + size].astype(np.float32) / np.float32(255.0)
        rngs = generators(cell, [int(place) for place in places[start : start + size]])
        changed = np.clip(function(part, rngs, *values), 0.0, 1.0)
        result: NDArray[np.uint8] = np.rint(changed * np.float32(255.0)).astype(np.uint8)
        return result

    per_image = int(np.prod(images.shape[1:])) * 4
    share = -(-len(images) // max(workers, 1))
    size = max(1, min(share, _BLOCK_BYTES // per_image))
    starts = range(0, len(images), size)
    if len(images) == 0:
        return images
    if workers <= 1 or len(starts) == 1:
        return np.concatenate([corrupted(start) for start in starts])
    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(corrupted, starts)))
