from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeq import export
from edgeq.cli.capture import command as capture_command
from edgeq.cli.verify import command as verify_command
from edgeq.data import Preprocessing, open_dataset
from edgeq.errors import DataError, UsageError
from edgeq.verification import verify
from edgeq.verification.capture import capture, input_hashes, load_capture


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("capture") / "w8a8"
    export(None, bits="w8a8", calibration="digits", out=folder, to="edgeq,onnx")
    return folder


@pytest.fixture
def captured(exported: Path, tmp_path: Path) -> Path:
    path = tmp_path / "answers.npz"
    capture(exported, data="digits:test", samples=100).save(path)
    return path


def test_captured_answers_verify_like_the_model(exported: Path, captured: Path) -> None:
    direct = verify(exported, data="digits:test", samples=100)
    later = verify(exported, data="digits:test", samples=100, outputs=captured)
    assert later.comparison == direct.comparison
    assert later.provenance.backend.startswith("captured from native")
    assert "--outputs" in later.provenance.command
    # The batch of the capture and of the verification differ; the first part alone is as good.
    assert verify(exported, data="digits:test", samples=40, batch_size=7, outputs=captured).comparison.n == 40


def test_another_runtime_is_captured_too(exported: Path, tmp_path: Path) -> None:
    found = capture(exported, data="digits:test", samples=20, backend="onnxruntime")
    found.save(tmp_path / "ort.npz")
    assert verify(exported, data="digits:test", samples=20, outputs=tmp_path / "ort.npz").comparison.n == 20
    assert found.backend.startswith("onnxruntime")


def changed(path: Path, out: Path, **arrays: np.ndarray) -> Path:
    with np.load(path) as held:
        values = {name: held[name] for name in held.files}
    facts = json.loads(values["facts"].tobytes().decode()) | arrays.pop("facts", {})  # type: ignore[arg-type, operator]
    values["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez(out, **(values | arrays))
    return out


def refused(exported: Path, path: Path, message: str, **more: object) -> None:
    with pytest.raises(DataError, match=message):
        verify(exported, data="digits:test", **{"samples": 100, "outputs": path, **more})  # type: ignore[arg-type]


def test_what_does_not_belong_together_is_refused(exported: Path, captured: Path, tmp_path: Path) -> None:
    capturing = load_capture(captured)
    order = np.arange(100)
    order[[3, 70]] = order[[70, 3]]
    shuffled = changed(captured, tmp_path / "a.npz", logits=capturing.logits[order], inputs=capturing.inputs[order])
    refused(exported, shuffled, "input 3 .*place 70 .*another order")
    logits = capturing.logits.copy()
    logits[17, 2] = np.nan
    refused(exported, changed(captured, tmp_path / "b.npz", logits=logits), "NaN .*1 of 100.*input 17")
    refused(exported, changed(captured, tmp_path / "c.npz", facts={"model_sha256": "0" * 64}), "another model")
    refused(exported, captured, "fewer than there are inputs.*--samples 100", samples=101)
    refused(exported, captured, "another preprocessing", preprocessing=Preprocessing(mean=1.0, channels="gray"))
    with pytest.raises(DataError, match=r"input 0 .*does not have it"):
        verify(exported, data="digits:train", samples=50, outputs=captured)
    refused(exported, tmp_path / "nowhere.npz", "no such file")


def test_damaged_files_are_refused(exported: Path, captured: Path, tmp_path: Path) -> None:
    data = captured.read_bytes()
    bad = tmp_path / "bad.npz"
    for content in (b"", data[: len(data) // 2], b"PK" + data[7:], np.random.default_rng(0).bytes(500)):
        bad.write_bytes(content)
        refused(exported, bad, "not a whole capture")
    capturing = load_capture(captured)
    refused(exported, changed(captured, bad, logits=capturing.logits.astype(np.float64)), "not a whole capture")
    refused(exported, changed(captured, bad, inputs=capturing.inputs[:5]), "not a whole capture")
    refused(exported, changed(captured, bad, facts={"format": 2}), "of this version")


def test_captures_do_not_mix_with_what_needs_the_model(exported: Path, captured: Path) -> None:
    with pytest.raises(UsageError, match="leave out"):
        verify(exported, data="digits:test", outputs=captured, shift="mnist-c")
    with pytest.raises(UsageError, match="at least 1"):
        capture(exported, data="digits:test", samples=0)


def test_command_lines(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.npz"
    words = [str(exported), "--data", "digits:test", "--samples", "30"]
    done = CliRunner().invoke(capture_command, [*words, "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "30 answers of native" in done.output
    assert "n = 30" in CliRunner().invoke(verify_command, [*words, "--outputs", str(out)], standalone_mode=False).output


def test_hashes_see_values_and_shapes_but_not_the_sign_of_zero() -> None:
    x = open_dataset("digits:test")
    rows = next(iter(x.batches(4, None))).inputs
    hashes = input_hashes(rows)
    assert hashes.shape == (4, 16)
    np.testing.assert_array_equal(input_hashes(np.where(rows == 0, np.float32(-0.0), rows)), hashes)
    np.testing.assert_array_equal(input_hashes(rows[2:]), hashes[2:])
    assert (input_hashes(rows.reshape(4, -1)) != hashes).any(axis=1).all()
    changed_rows = rows.copy()
    changed_rows[1].flat[5] += np.float32(1e-4)
    assert (input_hashes(changed_rows) != hashes).any(axis=1).tolist() == [False, True, False, False]
