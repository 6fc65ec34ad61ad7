"""A torch network with each activation, exported: every format is written, and the engine computes what is stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.importers import from_edgeq
from edgeq.simulate import simulate

torch = pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

ACTIVATIONS = {
    "elu": torch.nn.ELU,
    "elu 0.7": lambda: torch.nn.ELU(0.7),
    "selu": torch.nn.SELU,
    "celu": lambda: torch.nn.CELU(0.5),
    "softplus": torch.nn.Softplus,
    "softplus beta": lambda: torch.nn.Softplus(2.0, 5.0),
    "mish": torch.nn.Mish,
    "softsign": torch.nn.Softsign,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_exported_networks(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    make = ACTIVATIONS[name]
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), make(), torch.nn.Conv2d(16, 16, 3, stride=2), make(),
        torch.nn.Flatten(), torch.nn.Linear(16 * 16, 10), make(),
    )  # fmt: skip
    module = module.eval()
    x = rng.standard_normal((64, 3, 10, 10)).astype(np.float32)
    done = edgeq.export(module, bits="w8a8", calibration=x, out=tmp_path / "out")
    assert set(done.manifest["files"]) >= {"model.edgeq", "model.onnx", "model.tflite"}
    file = tmp_path / "out" / "model.edgeq"
    found = edgeq.Session(file).run(x)
    [stated] = simulate(from_edgeq.load(file)[0], x)
    np.testing.assert_array_equal(found, stated)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    # Seven tensors are rounded to 8 bits, each over about 8 standard deviations: (8 / 256)^2 / 12 = 8e-5 of the
    # variance apiece; the weights add less than that again.
    assert np.square(found - wanted).mean() < 1.1e-3 * wanted.var()
