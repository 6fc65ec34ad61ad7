"""Colour spaces of images that are float32 in [0, 1]."""

from __future__ import annotations

import numpy as np

from edgeq.shift.draws import Floats

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def luma(images: Floats) -> Floats:
    """ITU-R 601-2 luma, shape (n, h, w, 1); grey images as they are."""
    return images if images.shape[3] == 1 else (images @ _LUMA)[..., None]


def to_hsv(images: Floats) -> Floats:
    """Hue, saturation and value (Smith 1978, "Color gamut transform pairs"), each in [0, 1], shape (n, h, w, 3). Grey
    images have hue and saturation 0."""
    value = images.max(axis=3)
    spread = value - images.min(axis=3)
    hsv = np.zeros((*images.shape[:3], 3), dtype=np.float32)
    hsv[..., 2] = value
    if images.shape[3] == 1:
        return hsv
    np.divide(spread, value, out=hsv[..., 1], where=value > 0)
    red, green, blue = np.moveaxis(images, 3, 0)
    safe = np.where(spread > 0, spread, 1.0)
    hue = np.where(
        value == red,
        (green - blue) / safe % 6.0,
        np.where(value == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hsv[..., 0] = np.where(spread > 0, hue / 6.0, 0.0)
    return hsv


def from_hsv(hsv: Floats, channels: int) -> Floats:
    """The inverse of `to_hsv`, for 3 channels or, where there is no saturation, 1."""
    hue, saturation, value = np.moveaxis(hsv, 3, 0)
    if channels == 1:
        grey: Floats = value[..., None].copy()
        return grey
    # Foley and van Dam's form without cases: channel n of 5, 3, 1 falls off around its own hue.
    planes = []
    for offset in (5.0, 3.0, 1.0):
        place = (offset + hue * 6.0) % 6.0
        planes.append(value - value * saturation * np.clip(np.minimum(place, 4.0 - place), 0.0, 1.0))
    return np.stack(planes, axis=3).astype(np.float32)
