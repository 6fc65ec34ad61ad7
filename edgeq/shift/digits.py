"""The corruptions that MNIST-C adds: movements of the sheet and strokes over it. Images are float32 in [0, 1], shape
(n, h, w, c), bright on dark."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from edgeq.shift import filters
from edgeq.shift.draws import Floats, Generators

_INK = 2.3
"""Distance in pixels, of an image of 28, at which a stroke has faded."""


def _warped(images: Floats, matrices: list[NDArray[np.float64]], offset: NDArray[np.float64] | None = None) -> Floats:
    """Each image with pixel p taken from matrix (p - middle) + middle + offset, linearly; outside is dark."""
    from scipy.ndimage import affine_transform

    middle = (np.array(images.shape[1:3]) - 1) / 2.0
    moves = np.zeros((len(images), 2)) if offset is None else offset
    result = np.empty_like(images)
    for image, matrix, move, out in zip(images, matrices, moves, result, strict=True):
        start = middle - matrix @ middle + move
        for channel in range(image.shape[2]):
            out[:, :, channel] = affine_transform(image[:, :, channel], matrix, start, order=1, mode="constant")
    return result


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def shear(images: Floats, rngs: Generators, slope: float) -> Floats:
    """Slanted writing, to either side."""
    return _warped(images, [np.array([[1.0, 0.0], [-_sign(rng) * slope, 1.0]]) for rng in rngs])


def rotate(images: Floats, rngs: Generators, radians: float) -> Floats:
    """A turned sheet, either way."""
    cosine, sine = math.cos(radians), math.sin(radians)
    turns = [_sign(rng) * sine for rng in rngs]
    return _warped(images, [np.array([[cosine, turn], [-turn, cosine]]) for turn in turns])


def scale(images: Floats, rngs: Generators, factor: float) -> Floats:
    """Smaller writing."""
    return _warped(images, [np.eye(2) * factor] * len(images))


def translate(images: Floats, rngs: Generators, pixels: int) -> Floats:
    """Writing in one of the corners."""
    moves = np.array([[_sign(rng) * pixels, _sign(rng) * pixels] for rng in rngs], dtype=np.float64)
    return _warped(images, [np.eye(2)] * len(images), moves)


def stripe(images: Floats, rngs: Generators, share: float) -> Floats:
    """Inverted bands at both sides."""
    result: Floats = images.copy()
    width = images.shape[2]
    band = round(width * share)
    for part in (slice(0, band), slice(width - band, width)):
        result[:, :, part] = 1.0 - result[:, :, part]
    return result


def dotted_line(images: Floats, rngs: Generators) -> Floats:
    """A dotted line across the image."""
    height, width = images.shape[1:3]
    result: Floats = images.copy()
    for image, rng in zip(result, rngs, strict=True):
        ends = rng.integers(0, height - 1, 2)
        stroke = _stroke(height, width, 0, float(ends[0]), width - 1, float(ends[1]))
        # Two columns without ink, two with it.
        stroke[:, np.arange(width) // 2 % 2 == 0] = 0.0
        image += stroke[..., None]
    return result


def zigzag(images: Floats, rngs: Generators, half: float, height: float) -> Floats:
    """A zigzag across the image."""
    rows, columns = images.shape[1:3]
    result: Floats = images.copy()
    first, last = round(columns * 2 / 28), round(columns * 25 / 28)
    for image, rng in zip(result, rngs, strict=True):
        start = float(rng.integers(0, rows - 1))
        end = start + float(rng.integers(-5, 5))
        angle = math.atan2(end - start, last - first)
        length = math.hypot(end - start, last - first)
        along = np.arange(half, length, 2 * half)
        points = np.concatenate([[[0.0, 0.0]], np.stack([along, height * (-1.0) ** np.arange(len(along))], axis=1)])
        points = np.concatenate([points, [[length, 0.0]]])
        turned = points @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        turned += [first, start]
        for (c0, r0), (c1, r1) in itertools.pairwise(turned):
            image += _stroke(rows, columns, c0, r0, c1, r1)[..., None]
        np.clip(image, 0.0, 1.0, out=image)
    return result


def _stroke(rows: int, columns: int, c0: float, r0: float, c1: float, r1: float) -> Floats:
    """Ink of a line from column c0, row r0 to c1, r1: 1 on it, fading by the logarithm of the vertical distance."""
    if c1 <= c0:
        return np.zeros((rows, columns), dtype=np.float32)
    column = np.arange(columns, dtype=np.float64)
    line = r0 + (r1 - r0) / (c1 - c0) * (column - c0)
    distance = np.minimum(np.abs(np.arange(rows)[:, None] - line[None, :]), _INK - 1e-9)
    ink = np.clip(np.log1p(-distance / _INK) + 1.0, 0.0, 1.0)
    ink[:, (column < math.floor(c0)) | (column >= math.ceil(c1))] = 0.0
    result: Floats = ink.astype(np.float32)
    return result


def canny_edges(images: Floats, rngs: Generators, sigma: float, low: float, high: float) -> Floats:
    """Edges alone (Canny 1986, "A computational approach to edge detection"): maxima of the gradient along its
    direction, above `high` or connected to such above `low`."""
    from scipy.ndimage import label, map_coordinates, sobel

    result = np.zeros_like(images)
    for image, out in zip(images, result, strict=True):
        smooth = filters.gaussian(image.mean(axis=2)[None], sigma, mode="constant")[0]
        down, right = sobel(smooth, axis=0), sobel(smooth, axis=1)
        size = np.hypot(down, right)
        unit = np.where(size > 0, size, 1.0)
        rows, columns = np.indices(size.shape)
        ahead, behind = (
            map_coordinates(size, [rows + way * down / unit, columns + way * right / unit], order=1, mode="constant")
            for way in (1.0, -1.0)
        )
        # An edge at the border is the border of the image, not of what it shows.
        inner = np.zeros(size.shape, dtype=bool)
        inner[1:-1, 1:-1] = True
        ridge = inner & (size >= ahead) & (size >= behind) & (size >= low)
        parts, count = label(ridge, structure=np.ones((3, 3)))
        strong = np.zeros(count + 1, dtype=bool)
        strong[np.unique(parts[ridge & (size >= high)])] = True
        strong[0] = False
        out[:] = strong[parts][..., None]
    return result
