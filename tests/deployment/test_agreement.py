"""Whether the files of an export compute the same thing, where rounding grows: networks that were not trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.deployment import formats
from edgeq.deployment.formats import check_agreement, is_rounding
from edgeq.errors import QuantizationError
from edgeq.exporters.folder import REFERENCE_FILE

torch = pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch


def untrained(seed: int, depth: int = 30) -> Any:
    """A deep network whose layers keep the variance: what is rounded at its head grows to its end."""
    torch.manual_seed(seed)
    layers: list[Any] = []
    for i in range(depth):
        layers += [torch.nn.Conv2d(3 if i == 0 else 16, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.SiLU()]
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(16 * 64, 10))
    with torch.no_grad():
        module.train()(torch.randn(64, 3, 8, 8))
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None
                layer.reset_running_stats()
        module(torch.randn(64, 3, 8, 8))
    return module.eval()


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step on average, which this network exceeds by rounding alone; larger ones three."""
    monkeypatch.setattr(formats, "LARGEST_MEAN_STEPS", 1.0)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)


def test_rounding_that_grows_is_no_other_model(tmp_path: Path, inputs: np.ndarray) -> None:
    done = edgeq.export(untrained(0), calibration=inputs, out=tmp_path / "one")
    found = {one["file"]: one for one in json.loads((tmp_path / "one" / "manifest.json").read_text())["agreement"]}
    # LiteRT rounds the gate of a SiLU (docs/tflite.md).
    assert found["model.tflite"]["mean_steps"] > 1.0
    assert found["model.onnx"]["mean_steps"] < 0.1

    edgeq.export(untrained(1), calibration=inputs, out=tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.tflite", tmp_path / "one" / "model.tflite")
    with pytest.raises(QuantizationError, match=r"model\.tflite in .*not the same model"):
        check_agreement(tmp_path / "one", done.graph, ["model.edgeq", "model.tflite"], inputs, REFERENCE_FILE)


def test_without_a_float_model_nothing_explains_a_difference(tmp_path: Path, inputs: np.ndarray) -> None:
    done = edgeq.export(untrained(0), calibration=inputs, out=tmp_path / "one")
    files = ["model.edgeq", "model.tflite"]
    [agreement] = check_agreement(tmp_path / "one", done.graph, files, inputs, REFERENCE_FILE)
    assert agreement.mean_steps is not None
    assert agreement.mean_steps > 1.0
    with pytest.raises(QuantizationError, match="not the same model"):
        check_agreement(tmp_path / "one", done.graph, files, inputs)


def test_what_rounding_may_do(rng: np.random.Generator) -> None:
    native = rng.normal(5.0, 1.0, (64, 10))
    noise = rng.normal(0.0, 1.0, (2, 64, 10))
    assert is_rounding(native + 0.5 * noise[0], native, native + 0.3 * noise[1])
    # Much farther than quantization has gone.
    assert not is_rounding(native + 0.5 * noise[0], native, native + 0.2 * noise[1])
    # As far from the answer to a sample as from that to another, however poor the quantization.
    assert not is_rounding(native + 1.2 * noise[0], native, native + 3.0 * noise[1])
    assert not is_rounding(native[::-1].copy(), native, native + 3.0 * noise[1])
    # Of one sample nothing is known.
    assert not is_rounding(native[:1] + 0.01, native[:1], native[:1] + 1)


def dense(seed: int) -> Any:
    """Two images of different sizes."""

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.small = torch.nn.Conv2d(8, 4, 1)
            self.large = torch.nn.ConvTranspose2d(8, 4, 2, stride=2)

        def forward(self, x: Any) -> Any:
            found = self.head(x).relu()
            return self.small(found), self.large(found)

    torch.manual_seed(seed)
    return Net().eval()


def test_images_and_several_outputs_are_compared(tmp_path: Path, inputs: np.ndarray) -> None:
    done = edgeq.export(dense(0), calibration=inputs, out=tmp_path / "one")
    edgeq.export(dense(1), calibration=inputs, out=tmp_path / "other")
    # A file that takes and gives channels last itself, as a source.
    again = edgeq.export(tmp_path / "one" / "model.tflite", out=tmp_path / "again")
    for result in (done, again):
        assert [one.file for one in result.agreements] == ["model.onnx", "model.tflite"]
        for one in result.agreements:
            assert one.runtime is not None
            assert one.same_top1 is None
            assert one.mean_steps is not None
            assert one.mean_steps < 0.1
    shutil.copy(tmp_path / "other" / "model.tflite", tmp_path / "one" / "model.tflite")
    with pytest.raises(QuantizationError, match=r"model\.tflite in .*not the same model"):
        check_agreement(tmp_path / "one", done.graph, ["model.edgeq", "model.tflite"], inputs, REFERENCE_FILE)
