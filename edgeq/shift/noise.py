"""Noise of the sensor and of the line. Images are float32 in [0, 1], shape (n, h, w, c)."""

from __future__ import annotations

from edgeq.shift.draws import Floats, Generators, drawn, normals, uniforms


def gaussian_noise(images: Floats, rngs: Generators, deviation: float) -> Floats:
    """Noise of low light: a normal number added to each value."""
    noisy: Floats = images + normals(rngs, images.shape[1:]) * deviation
    return noisy


def shot_noise(images: Floats, rngs: Generators, photons: float) -> Floats:
    """Noise of counting: Poisson numbers with `photons` for white."""
    pairs = iter(images)
    return drawn(rngs, lambda rng: rng.poisson(next(pairs) * photons) / photons)


def impulse_noise(images: Floats, rngs: Generators, share: float) -> Floats:
    """Salt and pepper: a share of the values becomes 0 or 1."""
    noise = uniforms(rngs, images.shape[1:])
    result: Floats = images.copy()
    result[noise < share / 2] = 0.0
    result[noise >= 1 - share / 2] = 1.0
    return result


def speckle_noise(images: Floats, rngs: Generators, deviation: float) -> Floats:
    """Noise that is proportional to the value."""
    result: Floats = images + images * normals(rngs, images.shape[1:]) * deviation
    return result
