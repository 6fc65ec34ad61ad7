from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgeq import shift
from edgeq.data import open_dataset
from edgeq.errors import DataError, UsageError
from edgeq.shift import SUITES, Cell
from edgeq.shift.colour import from_hsv, to_hsv

CELLS = [Cell(suite.name, kind, 1) for suite in SUITES.values() for kind in suite.parameters]


def pictures(n: int = 6, side: int = 40, channels: int = 3) -> np.ndarray:
    """Smooth colours with edges in them."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, side)
    waves = rng.uniform(1, 9, (n, 2, channels))
    x = np.sin(grid[:, None, None] * waves[:, None, None, 0] + grid[None, :, None] * waves[:, None, None, 1])
    x[:, side // 4 : side // 2, side // 3 : 2 * side // 3] *= -0.7
    return np.rint((x + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_its_company(cell: Cell, channels: int) -> None:
    images = pictures(channels=channels)
    whole = shift.apply(images, cell)
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8
    parts = [shift.apply(images[i : i + 1], cell, indices=[i]) for i in (3, 0)]
    np.testing.assert_array_equal(parts[0][0], whole[3])
    np.testing.assert_array_equal(parts[1][0], whole[0])
    np.testing.assert_array_equal(shift.apply(images, cell, workers=3), whole)


RANDOM = [
    kind for kind in SUITES["imagenet-c"].parameters
    if kind not in {"gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate",
                    "jpeg_compression", "saturate"}
]


@pytest.mark.parametrize("kind", RANDOM)
def test_the_index_is_the_seed(kind: str) -> None:
    images = pictures(2, side=64)
    cell = Cell("imagenet-c", kind, 3)
    here, there = shift.apply(images, cell, indices=[7, 7]), shift.apply(images, cell, indices=[7, 8])
    np.testing.assert_array_equal(here[0], there[0])
    assert (here[1] != there[1]).any()


@pytest.mark.parametrize("suite", ["imagenet-c", "cifar10-c"])
@pytest.mark.parametrize("kind", SUITES["imagenet-c"].parameters)
def test_severity_takes_images_further_away(suite: str, kind: str) -> None:
    images = pictures(8, side=224 if suite == "imagenet-c" else 32)
    far = [
        float(np.abs(shift.apply(images, Cell(suite, kind, severity)).astype(int) - images).mean())
        for severity in (1, 5)
    ]
    # Elastic sheets and saturation change their kind with the severity, not their strength alone.
    assert far[0] > 0
    assert far[1] > (0.2 if kind in {"elastic_transform", "saturate", "glass_blur"} else 1.0) * far[0]


def test_grey_digits_under_mnist_c_keep_their_background_or_say_why() -> None:
    dataset = open_dataset("digits:test")
    images = np.stack(dataset.images(range(16)))
    if min(images.shape[1:3]) < 28:
        images = np.kron(images, np.ones((1, 4, 4, 1), np.uint8))
    for kind in ("shear", "scale", "rotate", "translate"):
        moved = shift.apply(images, Cell("mnist-c", kind, 1))
        # Ink is moved, not made: within a third of what was there.
        assert 0.3 * images.sum() < moved.sum() < 1.1 * images.sum()
        assert (moved != images).any(axis=(1, 2, 3)).all()
    edges = shift.apply(images, Cell("mnist-c", "canny_edges", 1))
    assert set(np.unique(edges)) == {0, 255}
    assert 0.01 < (edges == 255).mean() < 0.3


def test_noise_has_the_published_strength() -> None:
    grey = np.full((4, 224, 224, 3), 128, dtype=np.uint8)
    noise = shift.apply(grey, Cell("imagenet-c", "gaussian_noise", 1)).astype(float) / 255
    assert noise.std() == pytest.approx(0.08, rel=0.02)
    shot = shift.apply(grey, Cell("imagenet-c", "shot_noise", 1)).astype(float) / 255
    assert shot.std() == pytest.approx(np.sqrt(128 / 255 / 60), rel=0.02)
    salt = shift.apply(grey, Cell("imagenet-c", "impulse_noise", 5))
    assert (salt == 255).mean() == pytest.approx(0.135, abs=0.005)
    assert (salt == 0).mean() == pytest.approx(0.135, abs=0.005)


def test_defocus_spreads_a_point_over_its_disk() -> None:
    point = np.zeros((1, 65, 65, 1), dtype=np.uint8)
    point[0, 32, 32] = 255
    spread = shift.apply(np.repeat(point, 1, axis=3), Cell("imagenet-c", "defocus_blur", 1))[0, :, :, 0]
    rows = np.flatnonzero(spread.any(axis=1))
    assert (rows[0], rows[-1]) == (29, 35)
    assert spread[32, 32] == spread[32, 34] == round(255 / 29)


def test_colours_survive_the_round_trip() -> None:
    colours = np.random.default_rng(1).random((2, 9, 9, 3), dtype=np.float32)
    np.testing.assert_allclose(from_hsv(to_hsv(colours), 3), colours, atol=2e-6)
    matplotlib = pytest.importorskip("matplotlib.colors")
    np.testing.assert_allclose(to_hsv(colours), matplotlib.rgb_to_hsv(colours), atol=2e-6)


def test_the_wide_gaussian_equals_the_narrow_form() -> None:
    from scipy.ndimage import gaussian_filter

    from edgeq.shift.filters import gaussian

    images = np.random.default_rng(2).random((2, 50, 60)).astype(np.float32)
    wide = gaussian(images, 9.0)
    for image, found in zip(images, wide, strict=True):
        np.testing.assert_allclose(found, gaussian_filter(image, 9.0, mode="reflect", truncate=6), atol=1e-5)


def test_malformed_images_and_cells() -> None:
    cell = Cell("imagenet-c", "fog", 1)
    for images in (np.zeros((2, 32, 32, 3)), np.zeros((32, 32, 3), np.uint8), np.zeros((2, 32, 32, 4), np.uint8)):
        with pytest.raises(DataError, match="uint8 images"):
            shift.apply(images, cell)
    with pytest.raises(DataError, match="cannot be corrupted"):
        shift.apply(np.zeros((2, 8, 8, 3), np.uint8), cell)
    good = np.zeros((2, 32, 32, 3), np.uint8)
    for wrong in (Cell("imagenet-c", "fog", 6), Cell("imagenet-c", "rain", 1), Cell("x", "fog", 1)):
        with pytest.raises(UsageError, match="no corruption"):
            shift.apply(good, wrong)
    with pytest.raises(UsageError, match="as many indices"):
        shift.apply(good, cell, indices=[1])
    assert shift.apply(good[:0], cell).shape == (0, 32, 32, 3)


def test_draws_stay_the_same_from_version_to_version() -> None:
    # Figures of two releases are compared: whoever changes a draw on purpose changes this sum and says so.
    noisy = shift.apply(np.full((2, 32, 32, 3), 100, np.uint8), Cell("cifar10-c", "impulse_noise", 5))
    assert hashlib.sha256(noisy.tobytes()).hexdigest()[:16] == DIGEST


DIGEST = "f2f1060a507d2b15"
