"""Blurs. Images are float32 in [0, 1], shape (n, h, w, c)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.data.pillow import pillow_image
from edgeq.shift import filters
from edgeq.shift.draws import Floats, Generators


def gaussian_blur(images: Floats, rngs: Generators, sigma: float) -> Floats:
    """A Gaussian of `sigma` pixels."""
    return filters.gaussian(images, sigma)


def defocus_blur(images: Floats, rngs: Generators, radius: float, edge: float) -> Floats:
    """A lens out of focus: a disk."""
    return filters.disk_blur(images, radius, edge)


def glass_blur(images: Floats, rngs: Generators, sigma: float, reach: int, rounds: int) -> Floats:
    """Frosted glass: pixels change places with others up to `reach` away, between two Gaussians.

    The original visits the pixels one after the other. Here those of a lattice change places together, and the
    lattice moves: pixels further apart than two reaches cannot meet.
    """
    result = filters.gaussian(images, sigma).copy()
    height, width = result.shape[1:3]
    spacing = 2 * reach + 1
    rows = np.arange(len(result))[:, None, None]
    for _ in range(rounds):
        for top in range(spacing):
            for left in range(spacing):
                y = np.arange(reach + top, height - reach, spacing)
                x = np.arange(reach + left, width - reach, spacing)
                if y.size == 0 or x.size == 0:
                    continue
                moves = np.stack([rng.integers(-reach, reach, (2, y.size, x.size)) for rng in rngs])
                other_y, other_x = y[None, :, None] + moves[:, 0], x[None, None, :] + moves[:, 1]
                here = result[:, y[:, None], x[None, :]]
                result[:, y[:, None], x[None, :]] = result[rows, other_y, other_x]
                result[rows, other_y, other_x] = here
    return filters.gaussian(result, sigma)


def motion_blur(images: Floats, rngs: Generators, length: int, sigma: float) -> Floats:
    """A camera that moves in a direction within 45 degrees of the horizontal."""
    angles = np.array([rng.uniform(-45.0, 45.0) for rng in rngs])
    return filters.motion_blur(images, length, sigma, angles)


def zoom_blur(images: Floats, rngs: Generators, end: float, step: float) -> Floats:
    """A camera that moves towards the middle: the mean of the image and its enlargements."""
    factors = np.arange(1.0, end - 1e-9, step)
    total = images.copy()
    for image, sum_of in zip(images, total, strict=True):
        for factor in factors:
            sum_of += _enlarged(image, float(factor))
    result: Floats = total / np.float32(len(factors) + 1)
    return result


def _enlarged(image: Floats, factor: float) -> Floats:
    """`enlarged` of one image to whole steps of 1/255, which is what a mean of many leaves, in a tenth of the time."""
    module = pillow_image()
    height, width = image.shape[:2]
    pixels: NDArray[np.uint8] = np.rint(image * np.float32(255.0)).astype(np.uint8)
    top, left = (height - height / factor) / 2.0, (width - width / factor) / 2.0
    picture = module.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    larger = picture.resize((width, height), module.Resampling.BILINEAR, box=(left, top, width - left, height - top))
    result: Floats = np.asarray(larger, dtype=np.float32).reshape(image.shape) / np.float32(255.0)
    return result


def enlarged(images: Floats, factor: float) -> Floats:
    """The middle of the images, enlarged linearly to their size; shape (n, h, w, c)."""
    if factor == 1.0:
        return images
    height, width = images.shape[1:3]
    top, up = _linear(height, factor)
    left, across = _linear(width, factor)
    rows = images[:, top] + (images[:, top + 1] - images[:, top]) * up[None, :, None, None]
    result: Floats = rows[:, :, left] + (rows[:, :, left + 1] - rows[:, :, left]) * across[None, None, :, None]
    return result


def _linear(length: int, factor: float) -> tuple[NDArray[np.int64], Floats]:
    """For each pixel of an axis, the pixel before its source and how far the source lies beyond it."""
    middle = (length - 1) / 2.0
    source = middle + (np.arange(length) - middle) / factor
    before = np.clip(np.floor(source).astype(np.int64), 0, max(length - 2, 0))
    return before, (source - before).astype(np.float32)
