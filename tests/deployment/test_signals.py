"""1-D torch networks, exported: inputs stay [N, C, L] for every format, and each computes what is stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.backends.registry import backend_kind
from edgeq.importers import from_edgeq
from edgeq.session import native_module
from edgeq.simulate import simulate

torch = pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

CHANNELS, LENGTH = 6, 61


def _plain() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.ConstantPad1d((3, 1), 0.0), nn.Conv1d(CHANNELS, 16, 5, stride=2), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Conv1d(16, 16, 3, padding=4, dilation=4, groups=16), nn.BatchNorm1d(16), nn.ReLU6(), nn.Conv1d(16, 24, 1),
        nn.Hardswish(), nn.MaxPool1d(3, 2, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 7),
    )  # fmt: skip


def _flattened() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.BatchNorm1d(CHANNELS), nn.Conv1d(CHANNELS, 12, 4, stride=3, groups=3), nn.PReLU(12),
        nn.AvgPool1d(3, 2), nn.ConvTranspose1d(12, 8, 3, stride=2), nn.Upsample(scale_factor=2), nn.GELU(),
        nn.Flatten(), nn.Linear(8 * 38, 7),
    )  # fmt: skip


class _Joined(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Residual additions, concatenation along both axes, an excitation, two ways to pool over the length."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.first = nn.Conv1d(CHANNELS, 16, 3, padding="same")
        self.second = nn.Conv1d(16, 16, 3, padding=1)
        self.gate = nn.Conv1d(16, 16, 1)
        self.third = nn.Conv1d(32, 16, 3)
        self.last = nn.Linear(32, 7)

    def forward(self, x: Any) -> Any:
        a = self.first(x).relu()
        b = (a + self.second(a)).relu()
        b = b * self.gate(b.mean(2, keepdim=True)).sigmoid()
        c = self.third(torch.cat((a, b), dim=1))
        c = torch.cat((c, c[:, :, :9]), dim=2)
        return self.last(torch.cat((c.mean(-1), c.amax(-1)), dim=1))


NETWORKS = {"plain": _plain, "flattened": _flattened, "joined": _Joined}


def trained(name: str) -> Any:
    """The network with statistics of normalisation that are no longer 0 and 1."""
    torch.manual_seed(0)
    module = NETWORKS[name]()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(32, CHANNELS, LENGTH))
    return module.eval()


@pytest.mark.parametrize("bits", ["w8a8", "w4a8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_exported_networks(name: str, bits: str, tmp_path: Path, rng: np.random.Generator) -> None:
    module = trained(name)
    x = rng.standard_normal((64, CHANNELS, LENGTH)).astype(np.float32)
    folder = tmp_path / "out"
    done = edgeq.export(module, bits=bits, calibration=x, observer="minmax", out=folder)
    assert set(done.manifest["files"]) >= {"model.edgeq", "model.onnx", "model.tflite", "reference.onnx"}
    assert done.graph.tensor(done.graph.inputs[0]).shape[1:] == (CHANNELS, LENGTH)
    [stated] = simulate(from_edgeq.load(folder / "model.edgeq")[0], x)
    np.testing.assert_array_equal(simulate(done.graph, x)[0], stated)
    for isa in native_module().cpu_info()["available"]:
        for threads in (1, 2):
            session = edgeq.Session(folder / "model.edgeq", threads=threads, max_isa=isa)
            np.testing.assert_array_equal(session.run(x), stated, err_msg=f"{isa}, {threads} threads")
    step = float(done.graph.quant(done.graph.outputs[0]).scale)
    for file, runner in (("model.onnx", "onnxruntime"), ("model.tflite", "litert")):
        found = backend_kind(runner).open(folder / file, 1).run(x)
        assert np.abs(found - stated).max() <= 1.01 * step, runner
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    # Sixteen tensors at most are rounded to 8 bits, each over about 8 standard deviations, and weights add less
    # again: 2 * 16 * 8e-5 = 2.6e-3 of the variance. A mean over the length leaves a twentieth of the variance and
    # what rounded weights do to the constant part: 0.05. The first layer's pads swapped make it 0.4.
    assert np.square(stated - wanted).mean() < 0.05 * wanted.var(axis=0).mean()


def test_files_take_signals(tmp_path: Path, rng: np.random.Generator) -> None:
    """What docs/onnx.md and docs/tflite.md say about the layout: [N, C, L] at every file's ends."""
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    x = rng.standard_normal((32, CHANNELS, LENGTH)).astype(np.float32)
    edgeq.export(trained("plain"), bits="w8a8", calibration=x, out=tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_inputs()[0].shape[1:] == [CHANNELS, LENGTH]
    interpreter = Interpreter(str(tmp_path / "out" / "model.tflite"))
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, CHANNELS, LENGTH]
    assert edgeq.Session(tmp_path / "out" / "model.edgeq").run(x[0:1]).shape == (1, 7)


def test_a_signal_as_the_output(tmp_path: Path, rng: np.random.Generator) -> None:
    """The output of a network that keeps the length is [N, C, L] too."""
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(CHANNELS, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 3, 1)).eval()
    x = rng.standard_normal((32, CHANNELS, LENGTH)).astype(np.float32)
    edgeq.export(module, bits="w8a8", calibration=x, out=tmp_path / "out")
    file = tmp_path / "out" / "model.edgeq"
    found = edgeq.Session(file).run(x)
    assert found.shape == (32, 3, LENGTH)
    np.testing.assert_array_equal(found, simulate(from_edgeq.load(file)[0], x)[0])


@pytest.mark.parametrize("backend", ["native", "simulate", "onnxruntime", "litert"])
def test_verified(backend: str, tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((48, CHANNELS, LENGTH)).astype(np.float32)
    edgeq.export(trained("joined"), bits="w8a8", calibration=x, out=tmp_path / "out")
    np.savez(tmp_path / "test.npz", x=x, y=np.arange(48) % 7)
    found = edgeq.verify(tmp_path / "out", data=tmp_path / "test.npz", backend=backend, blame_samples=8)
    assert found.comparison.n == 48


@pytest.mark.parametrize("batch_norm", ["fold", "train"])
def test_trained_with_quantization(batch_norm: str, tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((32, CHANNELS, LENGTH)).astype(np.float32)
    batch = torch.from_numpy(x)
    module = edgeq.prepare_qat(trained("plain"), batch, "w4a8", calibration=x, batch_norm=batch_norm)
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(batch), torch.arange(32) % 7).backward()
        optimizer.step()
    done = edgeq.export(module.eval(), out=tmp_path / "out")
    with torch.no_grad():
        emulated = module(batch).numpy()
    [stated] = simulate(done.graph, x)
    np.testing.assert_array_equal(edgeq.Session(tmp_path / "out" / "model.edgeq").run(x), stated)
    # The emulation's sums are floats: a tie may fall the other way.
    assert np.abs(emulated - stated).max() <= 1.01 * float(done.graph.quant(done.graph.outputs[0]).scale)
