"""The embedded data set: the 8x8 handwritten digits that scikit-learn ships.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998
(the 1,797 images of its test part). A pixel counts the set points of a 4x4 block: an integer from 0 to 16.

The one scaling, used by the demo network and by every verification of it, is `pixel / 16`, a float32
in [0, 1]. As camera-like bytes the same images are `15 * pixel` (0 to 240) with mean 0 and standard deviation
240: both forms are exact and give bit-equal float32 inputs.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError

Split = Literal["train", "calib", "test"]

CLASS_NAMES = tuple(str(digit) for digit in range(10))
IMAGE_SHAPE = (1, 8, 8)
MEAN = (0.0,)
"""Mean on the 0..255 scale of `load_digits_uint8`."""
STD = (240.0,)
"""Standard deviation on the 0..255 scale of `load_digits_uint8`."""

_PIXEL_MAX = 16
_BYTE_STEP = 15  # 15 * 16 = 240: the largest whole step that keeps every pixel within a byte.
# The k-th image of a class goes to the split at k modulo 10: half of each class trains, a fifth calibrates,
# three tenths test. No random number decides it, so every version of every library gives the same splits.
_SPLIT_OF_RESIDUE: tuple[Split, ...] = (
    "train", "test", "train", "calib", "test", "train", "train", "test", "calib", "train",
)  # fmt: skip


def load_digits(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Loads one split of the digits as float images.

    Args:
        split: `train` (half of the images), `calib` (a fifth) or `test` (three tenths); disjoint, about
            balanced by class.

    Returns:
        Images of shape (n, 1, 8, 8), float32, `pixel / 16` in [0, 1], and labels of shape (n,), int64, 0
        to 9.

    Raises:
        DataError: If scikit-learn is absent or the split is unknown.
    """
    pixels, labels = _load_pixels(split)
    return pixels.astype(np.float32) / np.float32(_PIXEL_MAX), labels


def load_digits_uint8(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Loads one split of the digits as bytes, `15 * pixel`; (byte - MEAN) / STD equals `load_digits` exactly.

    Args:
        split: As in `load_digits`.

    Returns:
        Images of shape (n, 1, 8, 8), uint8, 0 to 240, and labels of shape (n,), int64, 0 to 9.

    Raises:
        DataError: If scikit-learn is absent or the split is unknown.
    """
    pixels, labels = _load_pixels(split)
    return (pixels * _BYTE_STEP).astype(np.uint8), labels


def _load_pixels(split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of shape (n, 1, 8, 8), 0 to 16, and labels of shape (n,), in the order of the source."""
    if split not in get_args(Split):
        raise DataError(f"The digits have no split {split!r}. Use one of {', '.join(get_args(Split))}.")
    try:
        from sklearn.datasets import load_digits as load_source
    except ImportError as error:
        raise DataError(
            "The digits data set comes with scikit-learn, which is not installed. Install it with: "
            "pip install scikit-learn"
        ) from error
    pixels, labels = load_source(return_X_y=True)
    labels = np.asarray(labels, dtype=np.int64)
    chosen = _split_of_each(labels) == split
    return np.asarray(pixels[chosen], dtype=np.int64).reshape(-1, *IMAGE_SHAPE), labels[chosen]


def _split_of_each(labels: NDArray[np.int64]) -> NDArray[np.str_]:
    """The name of the split of each image, shape (n,)."""
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return np.asarray(_SPLIT_OF_RESIDUE)[rank % len(_SPLIT_OF_RESIDUE)]
