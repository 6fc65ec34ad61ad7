"""Small pictures inside a page: PNG files as data: URIs, made without an image library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

LARGEST_SIDE = 160
"""Pixels of the longer side of a picture, at most."""


def data_uri(image: NDArray[np.uint8], side: int = LARGEST_SIDE) -> str:
    """A picture as a data: URI.

    Args:
        image: uint8, shape (h, w, 1 or 3).
        side: Pixels of the longer side, at most; larger pictures are averaged down.
    """
    return "data:image/png;base64," + base64.b64encode(png(shrink(image, side))).decode("ascii")


def shrink(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture averaged over areas so that its longer side is `side`; as it is where it is no longer.

    Args:
        image: uint8, shape (h, w, c).
        side: Positive.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return image
    sides = [max(1, round(size * side / longest)) for size in (height, width)]
    rows, columns = (_areas(size, wanted) for size, wanted in zip((height, width), sides, strict=True))
    mixed = np.einsum("ah,hwc,bw->abc", rows, image.astype(np.float64), columns, optimize=True)
    smaller: NDArray[np.uint8] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return smaller


def _areas(size: int, wanted: int) -> NDArray[np.float64]:
    """Weights, shape (wanted, size), of the mean over each of `wanted` equal parts of `size` pixels."""
    edges = np.linspace(0.0, size, wanted + 1)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float64] = np.maximum(covered, 0.0) * (wanted / size)
    return weights


def png(image: NDArray[np.uint8]) -> bytes:
    """The picture as a PNG file (ISO/IEC 15948).

    Args:
        image: uint8, shape (h, w, 1 or 3).

    Raises:
        ValueError: If the shape is another, or has no pixel.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape or image.dtype != np.uint8:
        raise ValueError(f"a picture is uint8 of shape (h, w, 1 or 3), not {image.dtype} of {image.shape}.")
    height, width, channels = image.shape
    # Filter 2: each row less the one above, modulo 256; photographs deflate better so.
    above = np.concatenate([np.zeros_like(image[:1]), image[:-1]])
    rows = np.full((height, 1 + width * channels), 2, dtype=np.uint8)
    rows[:, 1:] = (image - above).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
