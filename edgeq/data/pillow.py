"""Decodes image files through Pillow, with limits, so that a hostile file ends in a sentence."""

from __future__ import annotations

import io
import warnings
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff", ".gif")
MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 64 << 20


def pillow_image() -> ModuleType:
    """The module PIL.Image.

    Raises:
        DataError: If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise DataError(
            "Reading or resizing images needs Pillow, which is not installed: pip install 'edgeq[export]' or "
            "pip install Pillow."
        ) from None
    module: ModuleType = Image
    return module


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decodes one 8-bit image file.

    Args:
        data: The whole file.
        name: What an error calls it.

    Returns:
        uint8, shape (h, w, 3) RGB, or (h, w, 1) for a grey file. Transparency is dropped; of an animation the
        first frame is taken.

    Raises:
        DataError: If the file is broken, not an image, too large, or has more than 8 bits a channel.
    """
    module = pillow_image()
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images and of damaged metadata; the limits below decide instead.
            warnings.simplefilter("ignore")
            with module.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS or min(width, height) < 1:
                    raise DataError(
                        f"{name}: {width}x{height} pixels; at most {MAX_PIXELS >> 20} million are read. "
                        "Scale it down."
                    )
                if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                    raise DataError(
                        f"{name}: has more than 8 bits a channel (mode {image.mode}). Convert it to 8 bits "
                        "first."
                    )
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on hostile bytes
        reason = str(error).split("<_io")[0].strip() or type(error).__name__
        raise DataError(
            f"{name}: cannot be decoded as an image ({reason}). Replace or remove the file."
        ) from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
