"""torch modules, .pt2 files and factories become graphs that compute what torch does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.errors import ImportModelError, UnsupportedOperatorError
from edgeq.importers import from_torch
from edgeq.passes import float_pipeline
from edgeq.simulate.executor import run_float_graph

torch = pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

from importers.torch_models import Small  # noqa: E402


def agrees(graph: object, module: object, rng: np.random.Generator, *shape: int) -> None:
    """Checks a graph, before and after the passes, against the module at batch 3."""
    x = rng.normal(0, 1, (3, *shape)).astype(np.float32)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x)).numpy()  # type: ignore[attr-defined]
    for candidate in (graph, float_pipeline(graph)):  # type: ignore[arg-type]
        (found,) = run_float_graph(candidate, x)  # type: ignore[arg-type]
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_module(rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    module = Small()
    capsys.readouterr()
    graph, data = from_torch.load(module, torch.zeros(1, 3, 8, 8))
    assert capsys.readouterr() == ("", "")
    agrees(graph, module, rng, 3, 8, 8)
    assert graph.name == "Small"
    assert str(Path.home()).encode() not in data
    assert str(Path(__file__).parent).encode() not in data
    onnx.checker.check_model(onnx.load_model_from_string(data))


@pytest.mark.parametrize(
    "how",
    [{"scale_factor": 2}, {"scale_factor": 1.5}, {"size": 21}, {"size": 50, "align_corners": True}, {"size": 7}],
    ids=str,
)
def test_signals_of_other_lengths(how: dict[str, float], rng: np.random.Generator) -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv1d(3, 4, 3), torch.nn.Upsample(**how, mode="linear"), torch.nn.Conv1d(4, 2, 3)
    )
    graph, _ = from_torch.load(module, torch.zeros(1, 3, 16))
    assert [node.op for node in graph.nodes].count("resize") == 1
    agrees(graph, module, rng, 3, 16)


ACTIVATIONS = [
    (torch.nn.ELU(0.7), "elu"),
    (torch.nn.SELU(), "selu"),
    (torch.nn.CELU(0.5), "celu"),
    (torch.nn.Softplus(), "softplus"),
    (torch.nn.Softplus(2.0, 0.5), "softplus"),
    (torch.nn.Mish(), "mish"),
    (torch.nn.Softsign(), "softsign"),
]


@pytest.mark.parametrize(("activation", "op"), ACTIVATIONS, ids=repr)
def test_activations(activation: object, op: str, rng: np.random.Generator) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), activation)
    graph, _ = from_torch.load(module, torch.zeros(1, 6))
    assert [node.op for node in float_pipeline(graph).nodes] == ["linear", op]
    agrees(graph, module, rng, 6)


def test_program_file(rng: np.random.Generator, tmp_path: Path) -> None:
    module = Small().eval()
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, str(tmp_path / "small.pt2"))
    graph, _ = from_torch.load(tmp_path / "small.pt2")
    assert graph.name == "small"
    agrees(graph, module, rng, 3, 8, 8)


def test_factory() -> None:
    graph, _ = from_torch.load("importers.torch_models:small", np.zeros((1, 3, 8, 8)))
    again, _ = from_torch.load("importers.torch_models:small_with_input")
    assert graph.tensor(graph.inputs[0]).shape == again.tensor(again.inputs[0]).shape == (-1, 3, 8, 8)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("importers.torch_models:none", "cannot find"),
        ("no.such.module:small", "cannot find"),
        ("importers.torch_models:failing", "the weights are not there"),
        ("importers.torch_models:Small.forward", "failed"),
        ("importers.torch_models:__doc__", "failed"),
        ("importers.torch_models:small", "example input"),
        ("missing.pt2", "no file"),
    ],
)
def test_refusals(source: str, message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        from_torch.load(source)


def test_damaged_program(tmp_path: Path) -> None:
    (tmp_path / "bad.pt2").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ImportModelError, match=r"bad\.pt2"):
        from_torch.load(tmp_path / "bad.pt2")


def test_module_that_cannot_be_traced() -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: object) -> object:
            return x if x.sum() > 0 else -x  # type: ignore[attr-defined, operator]

    with pytest.raises(ImportModelError, match="torch cannot export"):
        from_torch.load(Branching(), torch.zeros(1, 4))


def test_unsupported_operator() -> None:
    class Sorting(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: object) -> object:
            return torch.cumsum(x, 1)

    with pytest.raises(UnsupportedOperatorError, match="CumSum"):
        from_torch.load(Sorting(), torch.zeros(1, 4))


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_missing_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportModelError, match=f"needs the package {package}.*pip install"):
        from_torch.load("importers.torch_models:small", np.zeros((1, 3, 8, 8)))
