"""Linear filters of batches of images, float32, shape (n, h, w) or (n, h, w, c)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_WIDE = 8.0
"""From this sigma on, cosine transforms take less time than a kernel of four sigmas to each side."""


def gaussian(images: Floats, sigma: float, mode: str = "nearest") -> Floats:
    """Gaussian blur over height and width.

    Wide ones are taken in the domain of the cosine transform, in which reflecting borders and the Gaussian are exact:
    only there is `mode` always `reflect`.

    Args:
        images: Shape (n, h, w) or (n, h, w, c).
        sigma: In pixels; 0 does nothing.
        mode: What lies beyond the border, as `scipy.ndimage` calls it.
    """
    if sigma <= 0.0:
        return images
    if sigma >= _WIDE:
        return _wide_gaussian(images, sigma)
    from scipy.ndimage import gaussian_filter

    sigmas = (0.0, sigma, sigma, *([0.0] * (images.ndim - 3)))
    result: Floats = gaussian_filter(images, sigmas, mode=mode)
    return result


def _wide_gaussian(images: Floats, sigma: float) -> Floats:
    from scipy.fft import dctn, idctn

    spectrum = dctn(images, type=2, axes=(1, 2))
    for axis in (1, 2):
        length = images.shape[axis]
        frequency = np.pi * np.arange(length) / length
        shape = [1] * images.ndim
        shape[axis] = length
        spectrum *= np.exp(-0.5 * (sigma * frequency) ** 2).astype(np.float32).reshape(shape)
    result: Floats = idctn(spectrum, type=2, axes=(1, 2)).astype(np.float32)
    return result


def disk_blur(images: Floats, radius: float, edge: float) -> Floats:
    """Defocus: convolution with a disk whose edge is softened by a Gaussian.

    Args:
        images: Shape (n, h, w, c).
        radius: Of the disk in pixels.
        edge: Sigma of its softening, over 3 x 3 pixels up to a radius of 8, else 5 x 5.
    """
    reach = 8 if radius <= 8 else math.ceil(radius)
    grid = np.arange(-reach, reach + 1)
    kernel = (grid[:, None] ** 2 + grid[None, :] ** 2 <= radius**2).astype(np.float64)
    side = 1 if radius <= 8 else 2
    weights = np.exp(-0.5 * (np.arange(-side, side + 1) / edge) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        kernel = np.apply_along_axis(np.convolve, axis, kernel, weights, mode="same")
    kernel /= kernel.sum()
    used = np.flatnonzero(kernel.sum(axis=0))
    kernel = kernel[used[0] : used[-1] + 1, used[0] : used[-1] + 1]
    return _convolve(images, kernel.astype(np.float32))


def _convolve(images: Floats, kernel: Floats) -> Floats:
    """Convolution of every channel with a small odd kernel, borders mirrored without repeating the edge."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    reach = kernel.shape[0] // 2
    if reach == 0:
        alone: Floats = images * kernel[0, 0]
        return alone
    height, width = images.shape[1:3]
    widths = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = np.pad(images, widths, "reflect" if min(height, width) > reach else "symmetric")
    shape = [next_fast_len(length, real=True) for length in padded.shape[1:3]]
    spectrum = rfft2(padded, shape, axes=(1, 2))
    spectrum *= rfft2(kernel, shape)[None, :, :, None]
    down, right = (slice(2 * reach, 2 * reach + length) for length in (height, width))
    result: Floats = irfft2(spectrum, shape, axes=(1, 2))[:, down, right].astype(np.float32)
    return result


def motion_blur(images: Floats, length: int, sigma: float, degrees: NDArray[np.float64]) -> Floats:
    """A one-sided Gaussian streak along a line, to whole pixels; borders repeat their edge.

    Args:
        images: Shape (n, h, w, c).
        length: Radius of the streak: it has 2 * length + 1 taps.
        sigma: Of its weights, in pixels.
        degrees: Direction of each image's streak, shape (n,).
    """
    taps = 2 * length + 1
    weights = np.exp(-0.5 * (np.arange(taps) / sigma) ** 2)
    weights /= weights.sum()
    result = np.empty_like(images)
    for image, angle, out in zip(images, np.deg2rad(degrees), result, strict=True):
        height, width = image.shape[:2]
        pad = taps
        edged = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
        merged: dict[tuple[int, int], float] = {}
        for tap, weight in enumerate(weights):
            if weight < 1e-4:
                break
            at = round(tap * math.sin(angle)), round(tap * math.cos(angle))
            merged[at] = merged.get(at, 0.0) + float(weight)
        total = sum(merged.values())
        out[:] = 0.0
        for (down, right), weight in merged.items():
            top, left = pad + down, pad + right
            out += np.float32(weight / total) * edged[top : top + height, left : left + width]
    return result
