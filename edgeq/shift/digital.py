"""What processing and storing does. Images are float32 in [0, 1], shape (n, h, w, c)."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from edgeq.data.pillow import pillow_image
from edgeq.shift import filters
from edgeq.shift.colour import from_hsv, to_hsv
from edgeq.shift.draws import Floats, Generators, uniforms


def contrast(images: Floats, rngs: Generators, factor: float) -> Floats:
    """Less contrast: each channel moves towards its mean."""
    means = images.mean(axis=(1, 2), keepdims=True)
    result: Floats = (images - means) * factor + means
    return result


def saturate(images: Floats, rngs: Generators, factor: float, addend: float) -> Floats:
    """Paler or gaudier colours: the saturation of HSV is changed."""
    hsv = to_hsv(images)
    if images.shape[3] == 1:
        return images
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + addend, 0.0, 1.0)
    return from_hsv(hsv, images.shape[3])


def pixelate(images: Floats, rngs: Generators, share: float) -> Floats:
    """Fewer pixels: a smaller image, enlarged with boxes."""
    module = pillow_image()
    height, width = images.shape[1:3]
    small = max(int(width * share), 1), max(int(height * share), 1)
    box = module.Resampling.BOX
    return _each(images, lambda picture: picture.resize(small, box).resize((width, height), box))


def jpeg_compression(images: Floats, rngs: Generators, quality: int) -> Floats:
    """The artefacts of JPEG at a quality."""
    module = pillow_image()

    def compressed(picture: object) -> object:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)  # type: ignore[attr-defined]
        return module.open(stream)

    return _each(images, compressed)


def _each(images: Floats, change) -> Floats:  # type: ignore[no-untyped-def]
    """Applies a change to each image as a Pillow image."""
    module = pillow_image()
    result = np.empty_like(images)
    pixels: NDArray[np.uint8] = np.rint(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)
    for one, out in zip(pixels, result, strict=True):
        picture = module.fromarray(one[:, :, 0] if one.shape[2] == 1 else one)
        out[:] = np.asarray(change(picture), dtype=np.float32).reshape(out.shape) / np.float32(255.0)
    return result


def elastic_transform(
    images: Floats, rngs: Generators, strength: float, smoothness: float, affine: float
) -> Floats:
    """A sheet that is bent: a random affine map of three points, then a smooth random displacement (Simard, Steinkraus
    and Platt 2003, "Best practices for convolutional neural networks applied to visual document analysis")."""
    from scipy.ndimage import map_coordinates

    height, width = images.shape[1:3]
    down, right = np.meshgrid(np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij")
    shift = np.zeros((len(images), 2, height, width), dtype=np.float32)
    if strength > 0:
        noise = uniforms(rngs, (2, height, width)) * 2.0 - 1.0
        flat = filters.gaussian(noise.reshape(-1, height, width), smoothness, mode="reflect")
        shift = flat.reshape(shift.shape) * np.float32(strength)
    middle = np.array([height // 2, width // 2], dtype=np.float64)
    reach = min(height, width) // 3
    corners = middle + np.array([[reach, reach], [reach, -reach], [-reach, -reach]])
    result = np.empty_like(images)
    for image, move, rng, out in zip(images, shift, rngs, result, strict=True):
        moved = corners + rng.uniform(-affine, affine, corners.shape)
        # The map from where a point comes to lie to where it came from.
        matrix = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
        y, x = down + move[0], right + move[1]
        source = [y * matrix[0, k] + x * matrix[1, k] + matrix[2, k] for k in (0, 1)]
        for channel in range(image.shape[2]):
            out[:, :, channel] = map_coordinates(image[:, :, channel], source, order=1, mode="mirror")
    return result
