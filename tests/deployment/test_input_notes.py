"""Inputs that look like a mistake are mentioned; those that are not finite are refused, whoever reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import edgeq
from edgeq.data import ArrayDataset, Preprocessing
from edgeq.errors import DataError
from edgeq.verification.blame import blame
from edgeq.verification.capture import capture
from edgeq.verification.guard import guard


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


class Own(ArrayDataset):
    """A data set of one's own, which looks at nothing."""

    def _floats(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.asarray(self._x[positions], np.float32)


def test_inputs_that_are_not_finite_are_refused_by_number(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.random((24, 1, 8, 8)).astype(np.float32)
    good = Own(x.copy(), np.arange(24) % 10, source="own")
    x[17, 0, 3, 3] = np.nan
    bad = Own(x, np.arange(24) % 10, source="own")
    folder = tmp_path / "out"
    edgeq.export(bits="w8a8", calibration=good, out=folder, to="edgeq")
    for run in (
        lambda: edgeq.export(bits="w8a8", calibration=bad, out=tmp_path / "none", to="edgeq"),
        lambda: edgeq.verify(folder, data=bad),
        lambda: edgeq.verify(folder, data=bad, samples=18),
        lambda: edgeq.verify(folder, data=good, shift_data=bad),
        lambda: capture(folder, data=bad),
        lambda: blame(folder, data=bad, samples=24),
        lambda: guard(folder, data=bad),
    ):
        with pytest.raises(DataError, match="own: sample 17 holds NaN or infinite values"):
            run()
    assert not (tmp_path / "none").exists()
    edgeq.verify(folder, data=bad, samples=17)
