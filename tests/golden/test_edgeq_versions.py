"""Files of every version of the format still load and still compute what they did when they were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.data.preprocessing import Preprocessing
from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.edgeq_format import Guard, ModelInfo
from edgeq.importers.from_edgeq import load
from edgeq.simulate import simulate_codes

FOLDER = Path(__file__).parent / "edgeq"
FILES = sorted(FOLDER.glob("*.edgeq"))


def test_there_are_files() -> None:
    assert len(FILES) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loads_and_computes_the_same(path: Path) -> None:
    graph, _ = load(path)
    with np.load(path.with_suffix(".npz")) as arrays:
        for index, found in enumerate(simulate_codes(graph, arrays["x"])):
            np.testing.assert_array_equal(found, arrays[f"y{index}"])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("version1_*.edgeq")), ids=lambda path: path.stem)
def test_version_1_information(path: Path) -> None:
    _, info = load(path)
    assert info == ModelInfo(
        Preprocessing(16, (12, 12), (127.0, 120.5, 99.25), (128.0, 64.0, 32.0), "bgr", "bicubic"),
        ("ant", "bee", "Käfer", "moth", "wasp"),
        Guard(1.25, 0.125),
        {"producer": "edgeq", "scheme": "w4a8"},
    )


@pytest.mark.parametrize("path", sorted(FOLDER.glob("version1_*.edgeq")), ids=lambda path: path.stem)
def test_version_1_is_still_written_so(path: Path) -> None:
    assert encode(*load(path)) == path.read_bytes()
