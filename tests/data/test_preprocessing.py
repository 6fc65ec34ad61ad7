from __future__ import annotations

import numpy as np
import pytest

from edgeq.data import Preprocessing
from edgeq.errors import DataError, UsageError


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_identity_keeps_pixels() -> None:
    pixels = image(5, 7)
    result = Preprocessing.identity().apply(pixels)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result[0], pixels.transpose(2, 0, 1))
    assert Preprocessing().is_identity
    assert not Preprocessing(mean=127).is_identity


def test_normalises_each_channel_in_its_order() -> None:
    pixels = image(4, 4)
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    result = Preprocessing(mean=mean, std=std, channels="bgr").apply(pixels)[0]
    for position, channel in enumerate((2, 1, 0)):
        expected = (pixels[:, :, channel].astype(np.float32) - np.float32(mean[position])) / np.float32(
            std[position]
        )
        np.testing.assert_array_equal(result[position], expected)


def test_gray_equals_pillow() -> None:
    from PIL import Image

    pixels = image(64, 65)
    result = Preprocessing(channels="gray").apply(pixels)
    np.testing.assert_array_equal(result[0, 0], np.asarray(Image.fromarray(pixels).convert("L")))


def test_gray_image_fills_three_channels() -> None:
    pixels = image(3, 3, 1)
    result = Preprocessing().apply(pixels)
    assert result.shape == (1, 3, 3, 3)
    assert (result == pixels[:, :, 0]).all()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("height", "width", "expected"), [(30, 50, (20, 33)), (50, 30, (33, 20)), (20, 41, (20, 41))]
)
def test_resize_brings_the_shorter_side(
    interpolation: str, height: int, width: int, expected: tuple[int, int]
) -> None:
    from PIL import Image

    pixels = image(height, width)
    result = Preprocessing(resize=20, interpolation=interpolation).apply(pixels)[0]
    assert result.shape[1:] == expected
    resample = Image.Resampling[interpolation.upper()]
    pillow = np.asarray(Image.fromarray(pixels).resize(expected[::-1], resample))
    np.testing.assert_array_equal(result, pillow.transpose(2, 0, 1))


def test_resize_leaves_an_image_of_that_size_alone() -> None:
    pixels = image(20, 20)
    np.testing.assert_array_equal(Preprocessing(resize=20).apply(pixels)[0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("side", "top"), [(8, 1), (7, 2), (9, 0), (10, 0)])
def test_crop_is_central(side: int, top: int) -> None:
    # 10 - 7 leaves 3, of which half, 1.5, rounds to the even 2; 10 - 9 leaves 1, whose half rounds to 0.
    pixels = image(10, 10)
    result = Preprocessing(crop=side).apply(pixels)[0]
    np.testing.assert_array_equal(result, pixels[top : top + side, top : top + side].transpose(2, 0, 1))


def test_a_batch_equals_its_images() -> None:
    pixels = np.stack([image(12, 14, seed=seed) for seed in range(3)])
    for record in (Preprocessing(mean=3), Preprocessing(crop=(8, 9)), Preprocessing(resize=6, crop=6)):
        several = record.apply(pixels)
        np.testing.assert_array_equal(several, np.concatenate([record.apply(one) for one in pixels]))


def test_sizes_must_agree() -> None:
    with pytest.raises(DataError, match=r"different sizes.*--resize"):
        Preprocessing().apply([image(4, 4), image(4, 5)])


def test_crop_larger_than_the_image() -> None:
    with pytest.raises(DataError, match="smaller than the crop"):
        Preprocessing(crop=9).apply(image(8, 20))


def test_an_absurd_aspect_ratio_is_refused() -> None:
    with pytest.raises(DataError, match="longer than"):
        Preprocessing(resize=1000).apply(image(1, 400))


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_wrong_images(wrong: np.ndarray) -> None:
    with pytest.raises(DataError):
        Preprocessing().apply(wrong)


def test_json_round_trip() -> None:
    import json

    record = Preprocessing(
        resize=256, crop=(224, 200), mean=(1, 2.5, 3), std=4, channels="bgr", interpolation="bilinear"
    )
    again = Preprocessing.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again == record
    assert Preprocessing.from_dict({}) == Preprocessing()


@pytest.mark.parametrize(
    "values",
    [
        {"std": 0},
        {"std": (1, 1)},
        {"mean": float("nan")},
        {"mean": "a"},
        {"channels": "cmyk"},
        {"interpolation": "nearest"},
        {"resize": 0},
        {"resize": 2.5},
        {"crop": (1, 2, 3)},
        {"crop": 10**9},
        {"colour": 1},
    ],
)
def test_senseless_values(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Preprocessing.from_dict(values)
