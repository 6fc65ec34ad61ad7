"""The highest level of effort: reconstruction after second-order rounding, resumed where it was interrupted."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from small_graphs import inverted_residual

import edgeq
from edgeq.cli.export import command
from edgeq.errors import UsageError
from edgeq.quantize import QuantizeOptions, Recipe, Scheme, calibrate, quantize
from edgeq.quantize.layers import WEIGHTS, is_layer
from edgeq.quantize.training_options import ReconstructionOptions

pytestmark = pytest.mark.needs_torch

QUICK = ReconstructionOptions(steps=20, batch=8)
RECIPE = Recipe(weight_observer="mse", observer="mse", rounding="second-order", reconstruct=True, reconstruction=QUICK)


def samples(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, 8, 8)).astype(np.float32)


def codes(graph) -> list[np.ndarray]:
    return [graph.constant(node.inputs[WEIGHTS]) for node in graph.nodes if is_layer(node)]


def test_reconstruction_follows_rounding_and_resumes(tmp_path) -> None:
    graph = inverted_residual()
    calibration = calibrate(graph, [samples(0, 60)])
    bits = Scheme.parse("w4a4")
    plain = quantize(graph, bits, calibration, QuantizeOptions(RECIPE.with_(reconstruct=False), threads=1)).graph
    seen: list[tuple[int, int]] = []
    options = QuantizeOptions(RECIPE, threads=1, checkpoint=tmp_path / "resume")
    first = quantize(graph, bits, calibration, options, lambda done, total: seen.append((done, total))).graph
    assert any((one != two).any() for one, two in zip(codes(plain), codes(first), strict=True))
    assert seen[-1][0] == seen[-1][1]
    assert list((tmp_path / "resume").iterdir())
    again = quantize(graph, bits, calibration, options).graph  # From the finished blocks.
    fresh = quantize(graph, bits, calibration, QuantizeOptions(RECIPE, threads=1)).graph
    for other in (again, fresh):
        for one, two in zip(codes(first), codes(other), strict=True):
            np.testing.assert_array_equal(one, two)


def test_what_gains_too_little_gives_way_to_rounding_with_all_samples() -> None:
    graph = inverted_residual()
    calibration, bits = calibrate(graph, [samples(0, 60)]), Scheme.parse("w4a8")
    idle = ReconstructionOptions(steps=1, batch=8, rounding_rate=0.0, bias_rate=0.0, scale_rate=0.0)
    plain = quantize(graph, bits, calibration, QuantizeOptions(RECIPE.with_(reconstruct=False), threads=1))
    found = quantize(graph, bits, calibration, QuantizeOptions(RECIPE.with_(reconstruction=idle), threads=1))
    for one, two in zip(codes(plain.graph), codes(found.graph), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not plain.notes
    assert len(found.notes) == 1
    assert "held-out" in found.notes[0]


def test_export_removes_what_it_resumes_from(tmp_path) -> None:
    out = tmp_path / "out"
    result = edgeq.export(None, bits="w4a4", recipe=RECIPE, calib_samples=40, out=out, to="edgeq")
    assert result.manifest["calibration"]["recipe"]["reconstruct"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_recipe_file_with_reconstruction(tmp_path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('reconstruct = true\n[reconstruction]\nunit = "layer"\nminutes = 3\n')
    found = Recipe.load(path)
    assert (found.reconstruct, found.reconstruction.unit, found.reconstruction.minutes) == (True, "layer", 3.0)
    assert Recipe.from_dict(found.to_dict()).reconstruction.unit == "layer"
    path.write_text('[reconstruction]\nunit = "house"\n')
    with pytest.raises(UsageError, match="house"):
        Recipe.load(path)
    result = CliRunner().invoke(command, ["--recipe", str(path), "--effort", "best", "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, UsageError)
