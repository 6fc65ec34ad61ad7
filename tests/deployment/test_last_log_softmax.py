"""A classifier's last LogSoftmax is left out, with a note, and every file gives the scores before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importers.onnx_models import onnx_model, run_onnx

import edgeq
from edgeq.backends.peers import quantize_onnxruntime
from edgeq.backends.registry import backend_kind
from edgeq.errors import ImportModelError
from edgeq.importers import from_edgeq
from edgeq.metrics import log_softmax, softmax
from edgeq.simulate import simulate

NOTE = "LogSoftmax at the end is left out"
FORMATS = ("model.edgeq", "model.onnx", "model.tflite")


def classifier(rng: np.random.Generator, end: str = "y = LogSoftmax<axis=1>(z)") -> Any:
    nodes = f"a = Conv(x, w) b = Relu(a) c = Flatten(b) z = Gemm(c, v) {end}"
    return onnx_model(
        f"(float[N, 3, 8, 8] x) => (float[N, 10] y) {{ {nodes} }}",
        w=rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32),
        v=rng.normal(0, 0.3, (216, 10)).astype(np.float32),
    )


def test_onnx(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((48, 3, 8, 8)).astype(np.float32)
    state = rng.bit_generator.state
    done = edgeq.export(classifier(rng), bits="w8a8", calibration=x, out=tmp_path / "log")
    rng.bit_generator.state = state
    plain = edgeq.export(classifier(rng, "y = Identity(z)"), bits="w8a8", calibration=x, out=tmp_path / "plain")
    assert [note for note in done.manifest["notes"] if NOTE in note] == [done.manifest["notes"][0]]
    assert NOTE in done.summary()
    assert NOTE not in plain.summary()
    assert set(done.manifest["files"]) >= set(FORMATS)
    [stated] = simulate(from_edgeq.load(tmp_path / "log" / "model.edgeq")[0], x)
    for name in FORMATS:
        runner = {".edgeq": "native", ".onnx": "onnxruntime", ".tflite": "litert"}[Path(name).suffix]
        found = [backend_kind(runner).open(tmp_path / folder / name, 1).run(x) for folder in ("log", "plain")]
        np.testing.assert_array_equal(*found)
        if name == "model.edgeq":
            np.testing.assert_array_equal(found[0], stated)
        # Their agreement with the simulator was looked at by the export; a step is the output's scale.
        step = float(done.graph.quant(done.graph.outputs[0]).scale)
        assert np.abs(found[0] - stated).max() <= 1.01 * step


def test_reference_and_session(tmp_path: Path, rng: np.random.Generator) -> None:
    model = classifier(rng)
    x = rng.standard_normal((200, 3, 8, 8)).astype(np.float32)
    edgeq.export(model, bits="w8a8", calibration=x, observer="minmax", out=tmp_path / "out")
    (wanted,) = run_onnx(model, {"x": x})
    session = edgeq.Session(tmp_path / "out" / "model.edgeq")
    found = session.run(x)
    # Three tensors are rounded to 8 bits, each over about 8 standard deviations: (8 / 256)^2 / 12 = 8e-5 of the
    # variance apiece; the weights add less than that again. The scores themselves are another number a sample away.
    assert np.square(log_softmax(found) - wanted).mean() < 5e-4 * wanted.var() < np.square(found - wanted).mean() / 100
    np.testing.assert_array_equal(session.predict(x).classes, found.argmax(axis=1))
    np.testing.assert_allclose(session.predict(x).probability, softmax(found).max(axis=1), atol=1e-6)
    labels = wanted.argmax(axis=1).astype(np.int64)
    result = edgeq.verify(tmp_path / "out", data=(x, labels)).comparison
    assert result.reference is not None
    assert result.reference.top1 == 1.0
    assert result.reference.mean_confidence == pytest.approx(np.exp(wanted).max(axis=1).mean(), abs=1e-5)
    assert result.logit_sqnr_db > 30


def test_quantized_elsewhere(tmp_path: Path, rng: np.random.Generator) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    source.write_bytes(classifier(rng).SerializeToString())
    x = rng.standard_normal((16, 3, 8, 8)).astype(np.float32)
    quantize_onnxruntime(source, target, [x[i : i + 1] for i in range(16)])
    done = edgeq.export(target, calibration=x, out=tmp_path / "out")
    assert NOTE in done.summary()
    ours = edgeq.Session(tmp_path / "out" / "model.edgeq").run(x)
    theirs = backend_kind("onnxruntime").open(target, 1).run(x)
    np.testing.assert_allclose(log_softmax(ours), theirs, atol=1e-5)
    assert edgeq.verify(tmp_path / "out", data=x).comparison.largest_logit_error < 1e-5


@pytest.mark.needs_torch
@pytest.mark.parametrize("form", ["module", "function", "image"])
def test_torch(form: str, tmp_path: Path, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra edgeq[torch]")

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 7, 8)
            self.last = torch.nn.LogSoftmax(dim=1)

        def forward(self, x: Any) -> Any:
            z = self.conv(x)
            if form == "image":
                return torch.nn.functional.log_softmax(z, dim=1).flatten(1)
            z = z.flatten(1)
            return self.last(z) if form == "module" else torch.nn.functional.log_softmax(z, dim=-1)

    torch.manual_seed(0)
    module = Net().eval()
    x = rng.standard_normal((64, 3, 8, 8)).astype(np.float32)
    done = edgeq.export(module, bits="w8a8", calibration=x, out=tmp_path / "out")
    assert sum(NOTE in note for note in done.manifest["notes"]) == 1
    assert set(done.manifest["files"]) >= set(FORMATS)
    file = tmp_path / "out" / "model.edgeq"
    found = edgeq.Session(file).run(x)
    [stated] = simulate(from_edgeq.load(file)[0], x)
    np.testing.assert_array_equal(found, stated)
    with torch.no_grad():
        scores = module.conv(torch.from_numpy(x)).flatten(1).numpy()
    assert np.abs(found - scores).max() < 0.05 * np.abs(scores).max()
    assert edgeq.verify(tmp_path / "out", data=x).comparison.largest_logit_error < 0.1 * np.abs(scores).max()


@pytest.mark.needs_torch
def test_training_is_refused_because_its_loss_would_change() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LogSoftmax(dim=1))
    with pytest.raises(ImportModelError, match="leave it out of the model and train with a loss that takes scores"):
        edgeq.prepare_qat(module, torch.zeros(1, 6))
