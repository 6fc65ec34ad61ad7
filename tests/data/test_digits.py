"""The digits: fixed splits, exact scaling."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgeq.data import digits
from edgeq.errors import DataError

pytest.importorskip("sklearn", reason="the digits need the extra edgeq[export]")

SPLITS = ("train", "calib", "test")


def test_splits_are_fixed_disjoint_and_balanced():
    from sklearn.datasets import load_digits

    parts = {split: digits.load_digits(split) for split in SPLITS}
    assert {split: len(y) for split, (_, y) in parts.items()} == {"train": 900, "calib": 357, "test": 540}
    together = np.concatenate([x for x, _ in parts.values()]).reshape(-1, 64)
    source = load_digits().data.astype(np.float32) / 16
    assert sorted(map(bytes, together)) == sorted(map(bytes, source))  # Each image is in exactly one split.
    for images, labels in parts.values():
        assert images.shape == (len(labels), 1, 8, 8)
        assert images.dtype == np.float32
        assert labels.dtype == np.int64
        assert (images.min(), images.max()) == (0.0, 1.0)
        counts = np.bincount(labels, minlength=10)
        # The source holds 174 to 183 images of a class.
        assert counts.max() - counts.min() <= 5


@pytest.mark.parametrize("split", SPLITS)
def test_bytes_normalise_to_the_same_floats(split):
    images, labels = digits.load_digits(split)
    pixels, again = digits.load_digits_uint8(split)
    assert pixels.dtype == np.uint8
    normalised = (pixels.astype(np.float32) - np.float32(digits.MEAN[0])) / np.float32(digits.STD[0])
    np.testing.assert_array_equal(normalised, images)
    np.testing.assert_array_equal(labels, again)


def test_errors_name_the_cure(monkeypatch):
    with pytest.raises(DataError, match="train, calib, test"):
        digits.load_digits("validation")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        digits.load_digits("test")
