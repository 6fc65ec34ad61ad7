from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.backends.onnxruntime import OnnxRuntimeBackend
from edgeq.backends.protocol import Backend
from edgeq.errors import BackendError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def mean_model(
    path: Path,
    batch: int | str = "n",
    kind: int = 1,
    output_axes: tuple[int, ...] = (2, 3),
    sizes: tuple[int, ...] = (4, 5),
) -> Path:
    """A classifier whose logits are the means of its three channels."""
    helper = onnx.helper
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [len(output_axes)], output_axes)
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)],
        "mean",
        [helper.make_tensor_value_info("x", kind, [batch, 3, *sizes])],
        [helper.make_tensor_value_info("y", kind, None)],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def inputs(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("batch", ["n", 1, 2])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_runs_any_batch(tmp_path: Path, batch: int | str, n: int) -> None:
    backend = OnnxRuntimeBackend(mean_model(tmp_path / "m.onnx", batch), threads=1)
    assert isinstance(backend, Backend)
    logits = backend.run(inputs(n))
    assert logits.shape == (n, 3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, inputs(n).mean(axis=(2, 3)), atol=1e-6)


def test_half_precision_models(tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(mean_model(tmp_path / "m.onnx", kind=onnx.TensorProto.FLOAT16))
    np.testing.assert_allclose(backend.run(inputs(2)), inputs(2).mean(axis=(2, 3)), atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (1, 1, 4, 5), (1, 60)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    backend = OnnxRuntimeBackend(mean_model(tmp_path / "m.onnx"))
    with pytest.raises(BackendError, match=r"takes inputs of 3x4x5.*--crop"):
        backend.run(np.zeros(shape, np.float32))


def test_other_lengths_are_refused(tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(mean_model(tmp_path / "m.onnx", output_axes=(2,), sizes=(7,)))
    with pytest.raises(BackendError, match=r"3x7 \(channels x length\), but the data give 3x8. Check the data"):
        backend.run(np.zeros((1, 3, 8), np.float32))


def test_models_that_classify_nothing(tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(mean_model(tmp_path / "m.onnx", output_axes=(1,)))
    with pytest.raises(BackendError, match="Give a classifier"):
        backend.run(inputs(2))


def test_models_without_a_float_input(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="one float input"):
        OnnxRuntimeBackend(mean_model(tmp_path / "m.onnx", kind=onnx.TensorProto.INT32))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 50])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BackendError, match="cannot load it") as caught:
        OnnxRuntimeBackend(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no such"):
        OnnxRuntimeBackend(tmp_path / "m.onnx")
