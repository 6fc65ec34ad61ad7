"""The peers: their forms of one small network, and that each runs it right."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.backends import peers, tflite_variants
from edgeq.backends.protocol import TimedBackend
from edgeq.backends.registry import KINDS, backend_kind, target_file
from edgeq.data import open_dataset
from edgeq.errors import BackendError, UsageError

pytest.importorskip("onnxruntime")

PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "litert": "ai_edge_litert",
    "ncnn": "ncnn",
    "mnn": "MNN",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded network with every form that edgeq exports."""
    out = tmp_path_factory.mktemp("peers") / "out"
    edgeq.export(bits="w8a8", out=out)
    return out


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    batches = open_dataset("digits").batches(1, None, list(range(0, 160, 10)))
    return [batch.inputs for batch in batches]


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    noise = np.square(expected.astype(np.float64) - found).sum()
    return float(10 * np.log10(np.square(expected).sum() / max(noise, 1e-30)))


def check(backend: str, path: Path, reference: Path, inputs: list[np.ndarray], least: float) -> None:
    """`run` and what benches time give the same, near the float model."""
    made = backend_kind(backend).open(path, 1)
    assert isinstance(made, TimedBackend)
    x = np.concatenate(inputs[:3])
    found = made.run(x)
    assert found.dtype == np.float32
    assert decibels(backend_kind("onnxruntime").open(reference, 1).run(x), found) > least
    for i in range(3):
        bound = made.bind(x[i : i + 1])
        for _ in range(2):
            np.testing.assert_allclose(bound.logits(bound.run()), found[i : i + 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["native", "onnxruntime", "openvino", "litert"])
def test_exported_files(backend: str, folder: Path, digits: list[np.ndarray]) -> None:
    if backend in PACKAGES:
        pytest.importorskip(PACKAGES[backend], reason=f"needs {backend}: the extra edgeq[peers]")
    check(backend, target_file(folder, backend_kind(backend)), folder / "reference.onnx", digits, 15)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_float_model(backend: str, folder: Path, digits: list[np.ndarray]) -> None:
    pytest.importorskip(PACKAGES[backend], reason=f"needs {backend}: the extra edgeq[peers]")
    check(backend, folder / "reference.onnx", folder / "reference.onnx", digits, 80)


def test_onnxruntime_quantizes(folder: Path, digits: list[np.ndarray], tmp_path: Path) -> None:
    peers.quantize_onnxruntime(folder / "reference.onnx", tmp_path / "own.onnx", digits)
    check("onnxruntime", tmp_path / "own.onnx", folder / "reference.onnx", digits, 15)


@pytest.mark.parametrize(("integers", "least"), [(False, 40), (True, 12)])
def test_ncnn(integers: bool, least: float, folder: Path, digits: list[np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("ncnn", reason="needs ncnn: the extra edgeq[peers]")
    path = tmp_path / "model.param"
    peers.convert_ncnn(folder / "reference.onnx", path, digits if integers else None)
    check("ncnn", path, folder / "reference.onnx", digits, least)
    with pytest.raises(BackendError, match="one image at a time"):
        backend_kind("ncnn").open(path, 1).bind(np.concatenate(digits[:2]))  # type: ignore[attr-defined]
    path.with_suffix(".bin").unlink()
    with pytest.raises(BackendError, match="beside it"):
        backend_kind("ncnn").open(path, 1)


@pytest.mark.parametrize(("method", "least"), [(None, 60), ("EMA", 12)])
def test_mnn(method: str | None, least: float, folder: Path, digits: list[np.ndarray], tmp_path: Path) -> None:
    """In a process of its own, as a bench does it: the converter prints and may end its process."""
    pytest.importorskip("_tools", reason="needs MNN: the extra edgeq[peers]")
    path = tmp_path / "model.mnn"
    np.save(tmp_path / "digits.npy", np.concatenate(digits))
    call = "peers.convert_mnn(r, o)" if method is None else f"peers.quantize_mnn(r, o, x, {method!r})"
    code = f"""
import sys; from pathlib import Path; import numpy as np; from edgeq.backends import peers
r, o = Path(sys.argv[1]), Path(sys.argv[2]); x = [one[None] for one in np.load(sys.argv[3])]
{call}
"""
    words = [sys.executable, "-c", code, str(folder / "reference.onnx"), str(path), str(tmp_path / "digits.npy")]
    package = Path(edgeq.__file__).parents[1]
    done = subprocess.run(
        words, cwd=tmp_path, env={"PYTHONPATH": str(package)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    check("mnn", path, folder / "reference.onnx", digits, least)


def test_tflite_variants(folder: Path, digits: list[np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")
    data = (folder / "model.tflite").read_bytes()
    (tmp_path / "integer.tflite").write_bytes(tflite_variants.with_integer_ends(data))
    (tmp_path / "float.tflite").write_bytes(tflite_variants.to_float(data))
    check("litert", tmp_path / "integer.tflite", folder / "reference.onnx", digits, 15)
    check("litert", tmp_path / "float.tflite", folder / "reference.onnx", digits, 20)
    exported = backend_kind("litert").open(folder / "model.tflite", 1)
    integer = backend_kind("litert").open(tmp_path / "integer.tflite", 1)
    np.testing.assert_array_equal(exported.run(digits[0]), integer.run(digits[0]))
    assert integer.inputs[0]["type"] == integer.outputs[0]["type"] == "int8"  # type: ignore[attr-defined]


def test_an_operator_without_a_form_is_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.parser.parse_graph("g (float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) { y = Softmax<axis = 1>(x) }")
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), tmp_path / "m.onnx")
    with pytest.raises(edgeq.errors.GraphError, match="softmax is not written to ncnn models"):
        peers.convert_ncnn(tmp_path / "m.onnx", tmp_path / "m.param")


@pytest.mark.parametrize("backend", ["openvino", "ncnn", "mnn"])
def test_missing_and_malformed_files(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[backend], reason=f"needs {backend}: the extra edgeq[peers]")
    kind = backend_kind(backend)
    with pytest.raises(BackendError, match="no such"):
        kind.open(tmp_path / f"none{kind.suffix}", 1)
    bad = tmp_path / f"bad{kind.suffix}"
    bad.write_bytes(b"not a model at all, but long enough to look at")
    bad.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(BackendError, match="cannot load it"):
        kind.open(bad, 1)


@pytest.mark.parametrize("backend", ["openvino", "ncnn", "mnn"])
def test_a_missing_package_is_named(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[backend], None)
    module = import_module(f"edgeq.backends.{backend}")
    made = next(value for name, value in vars(module).items() if name.lower() == f"{backend}backend")
    with pytest.raises(BackendError, match=r"not installed: pip install 'edgeq\[peers\]'"):
        made(tmp_path / "model")


def test_a_folder_without_a_peers_file_says_where_it_comes_from(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"edgeq\.backends\.peers"):
        target_file(folder, backend_kind("mnn"))
    assert {"openvino", "ncnn", "mnn"} <= {kind.name for kind in KINDS}
