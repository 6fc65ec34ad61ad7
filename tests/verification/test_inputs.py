"""Inputs that look unlike the calibration data are noted, and no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.data import ArrayDataset, Preprocessing, open_dataset
from edgeq.verification.inputs import LOOKED_AT, input_note

PIXELS, FRACTIONS, NORMALISED = (0.0, 255.0), (0.0, 1.0), (-2.1, 2.64)
NOTE = "inputs look unlike what the model was calibrated with"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inputs") / "demo"
    edgeq.export(bits="w8a8", calibration="digits", out=out)
    return out


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = open_dataset("digits:test")
    assert data.labels is not None
    return np.stack([image[:, :, 0] for image in data.images(range(len(data)))]), data.labels


def drawn(span: tuple[float, float], dark: float = 0.0) -> np.ndarray:
    """Values over a span, a share of them at its start."""
    rng = np.random.default_rng(0)
    values = rng.uniform(*span, (32, 3, 8, 8))
    return np.where(rng.random(values.shape) < dark, span[0], values).astype(np.float32)


@pytest.mark.parametrize(
    "given, calibrated",
    [(PIXELS, FRACTIONS), (PIXELS, NORMALISED), (FRACTIONS, PIXELS), (NORMALISED, PIXELS), (NORMALISED, FRACTIONS)],
)
def test_other_preprocessing(given: tuple[float, float], calibrated: tuple[float, float]) -> None:
    assert NOTE in (input_note(drawn(given), calibrated) or "")


def test_pixels_that_are_mostly_black() -> None:
    assert "20 % of the values lie outside" in (input_note(drawn(PIXELS, dark=0.8), FRACTIONS) or "")


@pytest.mark.parametrize("span", [PIXELS, FRACTIONS, NORMALISED])
def test_inputs_like_those_of_the_calibration(span: tuple[float, float]) -> None:
    low, high = span
    usual = drawn(span)
    clipped = 0.7 * low + 0.3 * high, 0.3 * low + 0.7 * high
    tailed = np.where(np.random.default_rng(1).random(usual.shape) < 0.01, 100 * high, usual).astype(np.float32)
    for values, calibrated in (
        (usual, span),
        (drawn(span, dark=0.95), span),
        (usual, (0.8 * low, 0.8 * high)),  # ranges that clip
        (usual, (min(low, -3 * high), 3 * high)),  # and ranges with outliers
        (0.1 * usual, span),  # at night
        (tailed, span),
        (usual[:1] * 0 + low, span),  # one black picture
    ):
        assert input_note(values, calibrated) is None
    assert input_note(usual, clipped) is not None


def test_verify(folder: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    right = edgeq.verify(folder, data="digits")
    assert right.notes == ()
    assert right.to_json()["notes"] == []
    assert "note:" not in right.summary()
    wrong = edgeq.verify(folder, data=(images, labels), preprocessing=Preprocessing.identity("gray"))
    (note,) = wrong.notes
    assert NOTE in note
    assert f"the first {LOOKED_AT} span 0 to 255" in note
    assert f"note: {note}" in wrong.summary()
    assert json.loads(json.dumps(wrong.to_json()))["notes"] == [note]
    assert note in wrong.html().replace("&#39;", "'")
    assert NOTE not in right.html()
    # Arrays of floats are network inputs: nothing normalises them.
    assert edgeq.verify(folder, data=(images[:, None].astype(np.float32), labels)).notes
    assert not edgeq.verify(folder, data=(images[:, None].astype(np.float32) / 240, labels)).notes
    assert edgeq.verify(folder, data=(images[:, None].astype(np.float32) / 240 / 240, labels)).notes
    # Shifts are unlike the calibration data because somebody asked for it.
    shifted = images[:20, None].astype(np.float32), labels[:20]
    assert not edgeq.verify(folder, data="digits", shift_data=shifted).notes


@pytest.mark.parametrize("file, backend", [("model.onnx", "onnxruntime"), ("model.edgeq", "simulate")])
def test_files_of_the_folder(
    folder: Path, digits: tuple[np.ndarray, np.ndarray], file: str, backend: str, tmp_path: Path
) -> None:
    images = ArrayDataset(digits[0])
    plain = Preprocessing.identity("gray")
    assert edgeq.verify(folder / file, data=images, preprocessing=plain, backend=backend, samples=40).notes
    assert not edgeq.verify(folder / file, data=images, backend=backend, samples=40, batch_size=7).notes
    # Without model.edgeq nothing says what calibrated the others; a damaged one is not what is verified.
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "model.edgeq").write_bytes(b"damaged")
    alone = edgeq.verify(other / "model.onnx", data=images, preprocessing=plain, backend="onnxruntime", samples=40)
    assert not alone.notes
