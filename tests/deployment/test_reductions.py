"""Torch networks that end in a maximum over the image, exported: every format computes what is stated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.backends.registry import backend_kind
from edgeq.importers import from_edgeq
from edgeq.simulate import simulate

torch = pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

MAXIMA: dict[str, Callable[[Any], Any]] = {
    "amax": lambda x: torch.amax(x, dim=(2, 3)),
    "amax kept": lambda x: torch.amax(x, dim=(-2, -1), keepdim=True).flatten(1),
    "adaptive": lambda x: torch.nn.functional.adaptive_max_pool2d(x, 1).flatten(1),
    "by row, by column": lambda x: x.amax(dim=2, keepdim=True).amax(dim=(2, 3)) + x.amax(3, True).amax((2, 3)),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_exported_networks(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
            self.last = torch.nn.Linear(16, 10)

        def forward(self, x: Any) -> Any:
            return self.last(MAXIMA[name](self.first(x)))

    torch.manual_seed(0)
    module = Net().eval()
    x = rng.standard_normal((64, 3, 9, 20)).astype(np.float32)
    done = edgeq.export(module, bits="w8a8", calibration=x, observer="minmax", out=tmp_path / "out")
    folder = tmp_path / "out"
    [stated] = simulate(from_edgeq.load(folder / "model.edgeq")[0], x)
    np.testing.assert_array_equal(edgeq.Session(folder / "model.edgeq", threads=2).run(x), stated)
    step = float(done.graph.quant(done.graph.outputs[0]).scale)
    for file, runner in (("model.onnx", "onnxruntime"), ("model.tflite", "litert")):
        found = backend_kind(runner).open(folder / file, 1).run(x)
        assert np.abs(found - stated).max() <= 1.01 * step
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    # Four tensors are rounded to 8 bits, each over about 8 standard deviations: (8 / 256)^2 / 12 = 8e-5 of the variance
    # apiece. The weights add less than that again, and maxima vary less than what they are of.
    assert np.square(stated - wanted).mean() < 1.1e-3 * wanted.var()
