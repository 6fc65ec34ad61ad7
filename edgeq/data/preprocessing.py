"""How an image becomes the input of a network: one record, kept in the manifest and in the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError, UsageError

CHANNEL_COUNTS = {"rgb": 3, "bgr": 3, "gray": 1}
INTERPOLATIONS = ("bicubic", "bilinear")
_LARGEST_SIDE = 16384


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize, crop, channel order and normalisation, applied in this order.

    The value of a channel is `(pixel - mean) / std` in float32, with pixel, mean and std on the 0..255 scale.
    No orientation tag of a photograph is applied (torchvision does not either).

    Attributes:
        resize: Length that the shorter side is brought to (the longer one becomes int(resize * longer /
            shorter)), or None. An image whose shorter side has this length already is not touched.
        crop: Height and width of the centre crop, or None. One integer means a square.
        mean: Subtracted; one value, or one for each channel in the order of `channels`.
        std: Divided by; positive; one value, or one for each channel.
        channels: `rgb`, `bgr` or `gray` (ITU-R 601-2 luma, as Pillow's mode L).
        interpolation: `bicubic` (default) or `bilinear`, both Pillow's, with antialiasing.
    """

    resize: int | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.channels not in CHANNEL_COUNTS:
            raise UsageError(f"channels must be rgb, bgr or gray, not {self.channels!r}.")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation must be bicubic or bilinear, not {self.interpolation!r}.")
        if self.resize is not None:
            object.__setattr__(self, "resize", _side("resize", self.resize))
        if self.crop is not None:
            crop = self.crop if isinstance(self.crop, Sequence) else (self.crop, self.crop)
            if isinstance(crop, str) or len(crop) != 2:
                raise UsageError(f"crop must be one integer or a height and a width, not {self.crop!r}.")
            object.__setattr__(self, "crop", (_side("crop", crop[0]), _side("crop", crop[1])))
        object.__setattr__(self, "mean", self._per_channel("mean", self.mean))
        object.__setattr__(self, "std", self._per_channel("std", self.std))
        if min(self.std) <= 0:
            raise UsageError(f"std must be positive, not {list(self.std)}: pixels are divided by it.")

    def _per_channel(self, name: str, values: Any) -> tuple[float, ...]:
        try:
            numbers = tuple(
                float(v) for v in (values if isinstance(values, (Sequence, np.ndarray)) else (values,))
            )
        except (TypeError, ValueError):
            raise UsageError(f"{name} must be numbers on the 0..255 scale, not {values!r}.") from None
        if len(numbers) not in (1, self.channel_count):
            raise UsageError(
                f"{name} has {len(numbers)} values, but channels={self.channels} needs 1 or "
                f"{self.channel_count}."
            )
        if not all(math.isfinite(v) for v in numbers):
            raise UsageError(f"{name} must be finite, not {list(numbers)}.")
        return numbers

    @classmethod
    def identity(cls, channels: str = "rgb") -> Preprocessing:
        """The record that leaves pixel values as they are."""
        return cls(channels=channels)

    @property
    def channel_count(self) -> int:
        """Number of channels of the result: 3, or 1 for gray."""
        return CHANNEL_COUNTS[self.channels]

    @property
    def is_identity(self) -> bool:
        """Whether pixel values and sizes stay as they are."""
        plain = set(self.mean) == {0.0} and set(self.std) == {1.0}
        return plain and self.resize is None and self.crop is None

    def apply(self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Turns images into one network input.

        Args:
            images: uint8, shape (h, w, c), (n, h, w, c), or a sequence of (h, w, c) of any sizes; c is 1 or 3
                (RGB).

        Returns:
            float32, shape (n, channel_count, height, width), contiguous.

        Raises:
            DataError: If an image is not uint8, has another shape, is smaller than the crop, or the sizes
                differ after resize and crop.
        """
        return self.normalise(self.arrange(images))

    def arrange(self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The part of `apply` that leaves pixels: resize and crop.

        Args:
            images: As `apply` takes them.

        Returns:
            uint8, shape (n, height, width, 1 or 3), RGB.

        Raises:
            DataError: As `apply` does.
        """
        if (
            isinstance(images, np.ndarray)
            and images.ndim == 4
            and self._keeps_size(images.shape[1], images.shape[2])
        ):
            return _checked(images, 4)
        several = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else images
        arranged = [self._arrange(_checked(image, 3)) for image in several]
        if not arranged:
            return np.empty((0, *(self.crop or (0, 0)), 3), np.uint8)
        if len({image.shape[2] for image in arranged}) > 1:  # grey among colour: as its own colour
            arranged = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in arranged]
        sizes = sorted({image.shape[:2] for image in arranged})
        if len(sizes) > 1:
            (h0, w0), (h1, w1) = sizes[0], sizes[-1]
            raise DataError(
                f"The images have different sizes ({h0}x{w0}, {h1}x{w1}, height x width) after "
                "preprocessing, and a network takes one size: give a resize and a crop (--resize 256 --crop "
                "224)."
            )
        return np.stack(arranged)

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The part of `apply` that follows `arrange`: channel order, mean and deviation.

        Args:
            images: uint8, shape (n, h, w, 1 or 3), RGB.

        Returns:
            float32, shape (n, channel_count, h, w), contiguous.
        """
        return self._normalise(self._to_channels(images))

    def _keeps_size(self, height: int, width: int) -> bool:
        resized = self.resize is not None and min(height, width) != self.resize
        return not resized and (self.crop is None or self.crop == (height, width))

    def _arrange(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if self.resize is not None and min(height, width) != self.resize:
            image = self._resized(image, self.resize)
            height, width = image.shape[:2]
        if self.crop is not None and self.crop != (height, width):
            crop_height, crop_width = self.crop
            if crop_height > height or crop_width > width:
                raise DataError(
                    f"An image of {height}x{width} (height x width) is smaller than the crop {crop_height}x"
                    f"{crop_width}: give --resize {max(self.crop)} or a smaller --crop."
                )
            # Rounds half to even, as torchvision's CenterCrop does.
            top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
            image = image[top : top + crop_height, left : left + crop_width]
        return image

    def _resized(self, image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
        from edgeq.data.pillow import pillow_image

        module = pillow_image()
        height, width = image.shape[:2]
        short, long = min(height, width), max(height, width)
        scaled = max(int(side * long / short), 1)
        if scaled > _LARGEST_SIDE:
            raise DataError(
                f"An image of {height}x{width} would become {side}x{scaled} by --resize {side}: longer than "
                f"{_LARGEST_SIDE} pixels. Crop or drop this image."
            )
        size = (side, scaled) if width <= height else (scaled, side)
        kind = module.Resampling.BICUBIC if self.interpolation == "bicubic" else module.Resampling.BILINEAR
        source = module.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        result = np.asarray(source.resize(size, kind))
        return result[:, :, None] if result.ndim == 2 else result

    def _to_channels(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.channels == "gray":
            if images.shape[-1] == 1:
                return images
            # Pillow's fixed-point luma: L = (19595 R + 38470 G + 7471 B + 2^15) >> 16.
            luma = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
            return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]
        if images.shape[-1] == 1:
            return np.repeat(images, 3, axis=-1)
        return images[..., ::-1] if self.channels == "bgr" else images

    def _normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        if set(self.mean) != {0.0}:
            values -= np.array(self.mean, np.float32).reshape(1, -1, 1, 1)
        if set(self.std) != {1.0}:
            values /= np.array(self.std, np.float32).reshape(1, -1, 1, 1)
        return values

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            "resize": self.resize,
            "crop": None if self.crop is None else list(self.crop),
            "mean": list(self.mean),
            "std": list(self.std),
            "channels": self.channels,
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The record that `to_dict` wrote; missing keys take their defaults.

        Raises:
            UsageError: If a key is unknown or a value makes no sense.
        """
        known = {"resize", "crop", "mean", "std", "channels", "interpolation"}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UsageError(
                f"Preprocessing has unknown keys {unknown}; known are {sorted(known)}. The file may have "
                "been written by a newer edgeq: update this one."
            )
        return cls(**{key: values[key] for key in values})


def _side(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= _LARGEST_SIDE:
        raise UsageError(f"{name} must be an integer from 1 to {_LARGEST_SIDE}, not {value!r}.")
    return int(value)


def _checked(images: NDArray[np.uint8], ndim: int) -> NDArray[np.uint8]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        raise DataError(
            f"Preprocessing takes uint8 images, not {kind}. Float arrays count as preprocessed already."
        )
    if images.ndim != ndim or images.shape[-1] not in (1, 3) or 0 in images.shape[-3:-1]:
        raise DataError(f"An image must have shape (height, width, 1 or 3), not {tuple(images.shape[-3:])}.")
    return images
