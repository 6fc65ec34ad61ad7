"""Calibration inputs that look like a mistake are mentioned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.data import Preprocessing


@pytest.mark.parametrize(
    "images, preprocessing, words",
    [
        (255, Preprocessing.identity("gray"), "pixels go in as 0..255"),
        (255, Preprocessing(mean=(127,), std=(128,), channels="gray"), None),
        (1, None, None),
        (0, None, "everywhere in the calibration data"),
    ],
)
def test_inputs_are_looked_at(images: int, preprocessing: Any, words: str | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.uniform(0, 1, (24, 8, 8)) * images).astype(np.uint8 if images == 255 else np.float32)
    calibration = x if images == 255 else x[:, None]
    done = edgeq.export(
        bits="w8a8", calibration=calibration, preprocessing=preprocessing, out=tmp_path / "out", to="edgeq"
    )
    notes = [note for note in done.manifest["notes"] if note.startswith("input ")]
    assert len(notes) == (words is not None)
    assert words is None or words in notes[0]
    assert words is None or words in done.summary()
