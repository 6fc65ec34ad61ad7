"""Random numbers that depend on the image's place in the data set alone, and textures made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.shift.suites import Cell

Floats = NDArray[np.float32]
Generators = Sequence[np.random.Generator]


def generators(cell: Cell, indices: Sequence[int]) -> list[np.random.Generator]:
    """One generator an image, seeded by suite, type, severity and the image's index, whatever else runs beside it."""
    name = hashlib.sha256(f"{cell.suite}/{cell.kind}/{cell.severity}".encode()).digest()
    words = [int.from_bytes(name[i : i + 4], "little") for i in range(0, 16, 4)]
    return [np.random.Generator(np.random.Philox(np.random.SeedSequence([*words, index]))) for index in indices]


def drawn(rngs: Generators, draw: Callable[[np.random.Generator], NDArray[np.float64] | Floats]) -> Floats:
    """What each generator draws, stacked as float32."""
    return np.stack([np.asarray(draw(rng), dtype=np.float32) for rng in rngs])


def normals(rngs: Generators, shape: tuple[int, ...]) -> Floats:
    """Standard normal numbers, shape (n, *shape)."""
    return drawn(rngs, lambda rng: rng.standard_normal(shape, dtype=np.float32))


def uniforms(rngs: Generators, shape: tuple[int, ...]) -> Floats:
    """Uniform numbers in [0, 1), shape (n, *shape)."""
    return drawn(rngs, lambda rng: rng.random(shape, dtype=np.float32))


def plasma(rngs: Generators, height: int, width: int, decay: float) -> Floats:
    """Clouds: height maps of the diamond-square construction on a torus (Fournier, Fussell and Carpenter 1982,
    "Computer rendering of stochastic models").

    Each halving of the step divides the spread by `decay` squared, as the published suites do.

    Args:
        rngs: One an image.
        height: Of the map.
        width: Of the map.
        decay: Above 1; small values give rough clouds.

    Returns:
        Shape (n, height, width), each map from 0 to 1.
    """
    side = 1 << (max(height, width, 2) - 1).bit_length()
    grid = np.zeros((len(rngs), side, side), dtype=np.float64)
    step, spread = side, 1.0
    while step >= 2:
        half, count = step // 2, side // step

        def noise(part: NDArray[np.float64], spread: float = spread, count: int = count) -> NDArray[np.float64]:
            # Uniform within +- the spread; (n, count, count) for each of the three kinds of points.
            return part / 4.0 + spread * np.stack([rng.uniform(-1.0, 1.0, (count, count)) for rng in rngs])

        corners = grid[:, ::step, ::step]
        right = np.roll(corners, -1, axis=2)
        below = np.roll(corners, -1, axis=1)
        grid[:, half::step, half::step] = noise(corners + right + below + np.roll(right, -1, axis=1))
        centres = grid[:, half::step, half::step]
        grid[:, ::step, half::step] = noise(corners + right + centres + np.roll(centres, 1, axis=1))
        grid[:, half::step, ::step] = noise(corners + below + centres + np.roll(centres, 1, axis=2))
        step, spread = half, spread / decay**2
    low = grid.min(axis=(1, 2), keepdims=True)
    high = grid.max(axis=(1, 2), keepdims=True)
    result: Floats = ((grid - low) / (high - low))[:, :height, :width].astype(np.float32)
    return result
