"""The TFLite backend: layouts, batches, ends, another environment's Python, errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from quantized_graphs import QuantizedBuilder

from edgeq.backends import tflite_runner
from edgeq.backends.litert import PYTHON_VARIABLE, LitertBackend
from edgeq.backends.protocol import Backend
from edgeq.errors import BackendError
from edgeq.exporters.tflite import to_tflite
from edgeq.ir import Graph
from edgeq.passes import channels_last
from edgeq.simulate import simulate

pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")


@pytest.fixture
def classifier() -> Graph:
    b = QuantizedBuilder(np.random.default_rng(5), "w8a8")
    x = b.conv(b.input(3, 8, 9), 12, (3, 3), pads=(1, 1, 1, 1), clamp=True)
    return b.finish(b.linear(b.mean(x, keep=False), 10))


def images(graph: Graph, count: int) -> np.ndarray:
    (name,) = graph.inputs
    return np.random.default_rng(1).normal(0, 2, (count, *graph.tensor(name).shape[1:])).astype(np.float32)


@pytest.mark.parametrize("ends", ["float", "int8"])
@pytest.mark.parametrize("count", [1, 5, 35])
def test_logits_are_those_of_the_statements(classifier: Graph, tmp_path: Path, ends: str, count: int) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(to_tflite(channels_last(classifier), ends=ends).data)  # type: ignore[arg-type]
    backend = LitertBackend(path)
    assert isinstance(backend, Backend)
    x = images(classifier, count)
    np.testing.assert_array_equal(backend.run(x), simulate(classifier, x)[0])


def test_kernels_and_threads_can_be_chosen(classifier: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(to_tflite(channels_last(classifier)).data)
    x = images(classifier, 4)
    backend = LitertBackend(path, xnnpack=False, threads=2)
    assert backend.name.startswith("ai-edge-litert ")
    assert backend.name.endswith(", built-in kernels")
    step = float(classifier.quant(classifier.outputs[0]).scale)
    np.testing.assert_allclose(backend.run(x), simulate(classifier, x)[0], atol=1.01 * step)


def test_a_file_for_batch_1_runs_samples_one_by_one(tmp_path: Path) -> None:
    b = QuantizedBuilder(np.random.default_rng(5), "w8a8")
    graph = b.finish(b.linear(b.mean(b.conv_transpose(b.input(4, 3, 3), 6), keep=False), 5))
    model = to_tflite(channels_last(graph))
    assert model.fixed_batch
    path = tmp_path / "model.tflite"
    path.write_bytes(model.data)
    x = images(graph, 3)
    np.testing.assert_array_equal(LitertBackend(path).run(x), simulate(graph, x)[0])


def test_wrong_shape_names_both(classifier: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(to_tflite(channels_last(classifier)).data)
    with pytest.raises(BackendError, match=r"8x9x3 .*5x4x3"):
        LitertBackend(path).run(np.zeros((1, 3, 5, 4), np.float32))


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no such"):
        LitertBackend(tmp_path / "none.tflite")
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"not a model at all, but long enough to look at")
    with pytest.raises(BackendError, match="cannot load it"):
        LitertBackend(bad)


def test_unknown_runtime(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"")
    with pytest.raises(BackendError, match="ai-edge-litert or tflite-runtime"):
        LitertBackend(path, runtime="tensorflow")


def test_numpy_2_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_runner.importlib.metadata, "version", lambda package: "2.14.0")
    monkeypatch.setattr(tflite_runner.np, "__version__", "2.4.6")
    with pytest.raises(tflite_runner.RuntimeMissingError, match=r"fails under NumPy 2\.4\.6; .*numpy<2"):
        tflite_runner.find_runtime("tflite-runtime")


def test_no_runtime_at_all(classifier: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(to_tflite(channels_last(classifier)).data)
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(tflite_runner, "RUNTIMES", {"no-such-runtime": "no_such_runtime"})
    with pytest.raises(BackendError, match=r"no-such-runtime is not installed.*edgeq\[tflite\]"):
        LitertBackend(path)


def test_another_environments_python(classifier: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this very Python in the role of the other one."""
    path = tmp_path / "model.tflite"
    path.write_bytes(to_tflite(channels_last(classifier)).data)
    x = images(classifier, 3)
    expected = LitertBackend(path).run(x)
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    find = tflite_runner.find_runtime
    monkeypatch.setattr(tflite_runner, "find_runtime", _missing)
    other = LitertBackend(path)
    assert other.name == "ai-edge-litert " + find()[1]
    np.testing.assert_array_equal(other.run(x), expected)
    with pytest.raises(BackendError, match=f"{PYTHON_VARIABLE} failed"):
        other.run_arrays([x])  # NCHW
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(BackendError, match="cannot be started"):
        LitertBackend(path)


def _missing(wanted: str | None = None) -> None:
    raise tflite_runner.RuntimeMissingError("none here")


@pytest.mark.skipif(PYTHON_VARIABLE not in os.environ, reason=f"{PYTHON_VARIABLE} names no Python")
def test_tflite_runtime_of_its_own_environment(classifier: Graph, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(to_tflite(channels_last(classifier)).data)
    backend = LitertBackend(path, runtime="tflite-runtime")
    assert backend.name.startswith("tflite-runtime 2.14")
    x = images(classifier, 20)
    step = float(classifier.quant(classifier.outputs[0]).scale)
    np.testing.assert_allclose(backend.run(x), simulate(classifier, x)[0], atol=1.01 * step)
