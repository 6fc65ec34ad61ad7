"""Several exports of the demo beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgeq
from edgeq.cli import cli
from edgeq.errors import UsageError
from edgeq.verification import several, verify
from edgeq.verification.several import Several, verify_several
from edgeq.verification.subject import stored_facts


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of the demo."""
    base = tmp_path_factory.mktemp("exports")
    for bits in ("w8a8", "w4a4"):
        edgeq.export(bits=bits, calibration="digits", out=base / bits, effort="fast", calib_samples=64)
    return {bits: base / bits for bits in ("w8a8", "w4a4")}


@pytest.fixture(scope="module")
def found(folders: dict[str, Path]) -> Several:
    """Both exports, and one's .onnx file as another tool's."""
    targets = [*folders.values(), folders["w4a4"] / "model.onnx"]
    return verify_several(targets, data="digits", samples=120, rounds=2)


def test_each_has_the_figures_that_it_has_alone(found: Several, folders: dict[str, Path]) -> None:
    assert found.names() == ("FP32", "w8a8", "w4a4", "model.onnx")
    for one, bits in zip(found.models[:2], folders, strict=True):
        alone = verify(folders[bits], data="digits", samples=120)
        assert one.verification.comparison == alone.comparison
        assert one.bytes == (folders[bits] / "model.edgeq").stat().st_size
        assert one.verification.provenance.scheme == bits
    # The .onnx file computes what the .edgeq file does, with the preprocessing that the folders stored.
    assert found.models[2].verification.comparison.quantized == found.models[1].verification.comparison.quantized
    assert found.reference_bytes == (folders["w8a8"] / "reference.onnx").stat().st_size


def test_every_model_is_timed_in_rounds(found: Several) -> None:
    times = found.latencies()
    assert times is not None
    assert len(times) == 4
    assert min(times) > 0


def test_the_float_model_runs_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Counted:
        name = "counted"

        def __init__(self, inner: object) -> None:
            self.inner = inner

        def run(self, x: np.ndarray) -> np.ndarray:
            started.append(len(x))
            return self.inner.run(x)  # type: ignore[attr-defined]

    open_reference = several.open_reference
    monkeypatch.setattr(several, "open_reference", lambda *args: Counted(open_reference(*args)))
    verify_several(list(folders.values()), data="digits", samples=50, timed=False)
    assert sum(started) == 50


def test_json_and_page(found: Several) -> None:
    pytest.importorskip("jinja2")
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [one["name"] for one in values["models"]] == ["w8a8", "w4a4", "model.onnx"]
    assert set(values["fronts"]) == {"size", "latency"}
    page = found.html()
    for text in ("Accuracy over size", "Accuracy over latency", "With their intervals", "w4a4", "Do it again"):
        assert text in page
    assert "http:" not in page
    assert "https:" not in page
    assert "<a " not in page


@pytest.mark.parametrize("backend", ["native", "simulate"])
def test_a_tflite_file_gets_its_own_layout(folders: dict[str, Path], backend: str) -> None:
    """Its inputs have their channels last; the data have them first."""
    folder = folders["w8a8"]
    record = stored_facts(folder / "model.edgeq", folder).preprocessing
    compared = verify_several(
        [folder / "model.tflite"],
        data="digits",
        reference=folder,
        backend=backend,
        preprocessing=record,
        samples=30,
        rounds=2,
    )
    alone = verify(folder, data="digits", samples=30)
    assert compared.models[0].verification.comparison == alone.comparison


def test_command_line(folders: dict[str, Path], tmp_path: Path) -> None:
    words = ["compare", *map(str, folders.values()), "--data", "digits", "--samples", "40", "--no-latency"]
    result = CliRunner().invoke(cli, [*words, "--json", str(tmp_path / "a.json")], catch_exceptions=False)
    assert result.exit_code == 0
    assert "FP32" in result.output
    assert "latency" not in result.output
    values = json.loads((tmp_path / "a.json").read_text())
    assert values["reference"]["latency"] is None
    assert values["command"].endswith("--no-latency")


def test_inputs_that_look_wrong_are_noted_once(found: Several, folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    assert found.notes() == ()
    assert "<p class=\"note\">Note:" not in found.html()
    images = np.random.default_rng(0).uniform(0, 255, (20, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "pixels.npz", x=images, y=np.zeros(20, np.int64))
    words = ["compare", *map(str, folders.values()), "--data", str(tmp_path / "pixels.npz"), "--no-latency"]
    result = CliRunner().invoke(cli, [*words, "--report", str(tmp_path / "a.html")], catch_exceptions=False)
    assert result.output.count("note: w8a8, w4a4: the inputs look unlike") == 1
    assert "Note: w8a8, w4a4: the inputs look unlike" in (tmp_path / "a.html").read_text()


def test_float_models_that_differ_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(folders["w8a8"], other)
    with (other / "reference.onnx").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(UsageError, match="different float models"):
        verify_several([folders["w4a4"], other], data="digits")


def test_the_same_model_twice_and_none_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="named twice"):
        verify_several([folders["w8a8"]] * 2, data="digits", samples=10)
    with pytest.raises(UsageError, match="at least one"):
        verify_several([], data="digits")
