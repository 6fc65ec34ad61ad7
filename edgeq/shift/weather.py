"""Weather. Images are float32 in [0, 1], shape (n, h, w, c). Textures are drawn, where the published sets took
photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.shift import filters
from edgeq.shift.blur import enlarged
from edgeq.shift.colour import from_hsv, luma, to_hsv
from edgeq.shift.draws import Floats, Generators, normals, plasma

_ICE = np.array([0.80, 0.90, 1.0], dtype=np.float32)
_WATER = np.array([175, 238, 238], dtype=np.float32) / 255
_MUD = np.array([63, 42, 20], dtype=np.float32) / 255


def fog(images: Floats, rngs: Generators, height: float, decay: float) -> Floats:
    """Clouds of a plasma fractal over the image, scaled back to the brightest value of the image."""
    clouds = plasma(rngs, images.shape[1], images.shape[2], decay)[..., None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    result: Floats = (images + height * clouds) * brightest / (brightest + height)
    return result


def frost(images: Floats, rngs: Generators, keep: float, weight: float) -> Floats:
    """Ice on the window: bright ridges of two crossed fractals, drawn where the original crops photographs."""
    height, width = images.shape[1:3]
    fine, coarse = plasma(rngs, height, width, 1.35), plasma(rngs, height, width, 1.9)
    # Ridges stand where a fractal crosses its middle; needles where the fine one does within them.
    ridges = np.clip(1.0 - np.abs(2.0 * fine - 1.0) * 2.5, 0.0, 1.0)
    cover = np.clip((coarse - 0.35) * 2.2, 0.0, 1.0)
    ice = 0.25 + 0.75 * np.clip(0.55 * cover + 0.75 * ridges * (0.3 + 0.7 * cover), 0.0, 1.0)
    colour = _ICE if images.shape[3] == 3 else _ICE.mean(keepdims=True)
    result: Floats = keep * images + weight * ice[..., None] * colour
    return result


def snow(
    images: Floats,
    rngs: Generators,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    length: int,
    sigma: float,
    keep: float,
) -> Floats:
    """Flakes that fall in streaks, over a paler image."""
    flakes = enlarged(normals(rngs, images.shape[1:3])[..., None] * deviation + mean, zoom)
    flakes = np.clip(np.where(flakes < threshold, 0.0, flakes), 0.0, 1.0).astype(np.float32)
    angles = np.array([rng.uniform(-135.0, -45.0) for rng in rngs])
    flakes = filters.motion_blur(flakes, length, sigma, angles)
    pale = keep * images + (1 - keep) * np.maximum(images, luma(images) * 1.5 + 0.5)
    result: Floats = pale + flakes + flakes[:, ::-1, ::-1]
    return result


def brightness(images: Floats, rngs: Generators, addend: float) -> Floats:
    """More light: the value of HSV is raised."""
    hsv = to_hsv(images)
    hsv[..., 2] = np.clip(hsv[..., 2] + addend, 0.0, 1.0)
    return from_hsv(hsv, images.shape[3])


def spatter(
    images: Floats,
    rngs: Generators,
    mean: float,
    deviation: float,
    smoothness: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> Floats:
    """Drops of water or mud on the lens."""
    liquid = filters.gaussian(normals(rngs, images.shape[1:3]) * deviation + mean, smoothness)
    colour = _MUD if mud else _WATER
    if images.shape[3] == 1:
        colour = colour[:1]
    if mud:
        cover = filters.gaussian((liquid > threshold).astype(np.float32), strength)
        cover[cover < 0.8] = 0.0
        covered = images * (1 - cover[..., None]) + colour * cover[..., None]
        return covered.astype(np.float32)
    liquid = np.where(liquid < threshold, 0.0, liquid).astype(np.float32)
    shine = liquid * _rims(liquid > 0)
    brightest = shine.max(axis=(1, 2), keepdims=True)
    shine = np.divide(shine, brightest, out=np.zeros_like(shine), where=brightest > 0) * strength
    result: Floats = images + shine[..., None] * colour
    return result


def _rims(drops: NDArray[np.bool_]) -> Floats:
    """How a drop shines: brighter towards its lower right rim, as with light from the upper left."""
    from scipy.ndimage import distance_transform_edt

    rims = np.zeros(drops.shape, dtype=np.float32)
    for drop, rim in zip(drops, rims, strict=True):
        if drop.any():
            depth = np.minimum(distance_transform_edt(drop), 20.0)
            down, right = np.gradient(depth)
            rim[:] = np.clip(0.5 + depth / 20.0 - 0.35 * (down + right), 0.0, None)
    return filters.gaussian(rims, 0.8)
