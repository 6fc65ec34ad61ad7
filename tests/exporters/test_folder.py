"""What an export may replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeq
from edgeq.errors import UsageError
from edgeq.exporters.folder import MANIFEST_FILE, MODEL_FILE, ONNX_FILE, PLAN_FILE, REFERENCE_FILE, TFLITE_FILE


@pytest.fixture
def out(tmp_path: Path) -> Path:
    edgeq.export(bits="w8a8", calibration="digits", calib_samples=32, out=tmp_path / "out", to="edgeq")
    return tmp_path / "out"


def _again(out: Path, model: Path | None = None) -> None:
    edgeq.export(model, bits="w4a8", calibration="digits", calib_samples=32, effort="fast", out=out, to="edgeq")


def test_own_results_are_replaced(out: Path) -> None:
    before = (out / MODEL_FILE).read_bytes()
    _again(out)
    assert (out / MODEL_FILE).read_bytes() != before


def test_model_beside_the_results_stays(out: Path) -> None:
    # A float model.onnx in the folder that the results are to go to, as with `-o .`.
    for folder in (out, out.parent / "fresh"):
        folder.mkdir(exist_ok=True)
        source = folder / ONNX_FILE
        source.write_bytes((out / REFERENCE_FILE).read_bytes())
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(UsageError, match="what is exported"):
            _again(folder, source)
        assert sorted(path.name for path in folder.iterdir()) == before
        assert source.read_bytes() == (out / REFERENCE_FILE).read_bytes()


def test_strangers_stay(out: Path) -> None:
    (out / TFLITE_FILE).write_bytes(b"someone else's")
    with pytest.raises(UsageError, match="not written by edgeq"):
        _again(out)
    assert (out / TFLITE_FILE).read_bytes() == b"someone else's"


def test_manifest_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({"name": "a web page"}))
    with pytest.raises(UsageError, match="not written by edgeq"):
        _again(tmp_path)
    assert json.loads((tmp_path / MANIFEST_FILE).read_text()) == {"name": "a web page"}


def test_edited_plan_stays(tmp_path: Path) -> None:
    given = {"calibration": "digits", "calib_samples": 32, "effort": "fast", "to": "edgeq"}
    out = tmp_path / "out"
    edgeq.export(bits="auto", budget={"size": 0.8}, out=out, **given)
    _again(out)
    assert not (out / PLAN_FILE).exists()
    edgeq.export(bits="auto", budget={"size": 0.8}, out=out, **given)
    text = (out / PLAN_FILE).read_text() + "# edited\n"
    (out / PLAN_FILE).write_text(text)
    with pytest.raises(UsageError, match="edited"):
        _again(out)
    assert (out / PLAN_FILE).read_text() == text
    edgeq.export(bits=out / PLAN_FILE, out=out, **given)
    assert (out / MODEL_FILE).is_file()
