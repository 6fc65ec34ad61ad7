"""Damaged and hostile ONNX files give a clear error, in time and memory that the file's size explains."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from importers.onnx_models import onnx_model

from edgeq.errors import EdgeqError, ImportModelError
from edgeq.importers.from_onnx import load
from edgeq.importers.onnx_file import file_bytes
from edgeq.passes import float_pipeline

TEXT = """(float[N, 3, 8, 8] x) => (float[] y) {
    xp = Pad(x, pads)
    a = Conv<kernel_shape=[3, 3]>(xp, w)
    n = BatchNormalization(a, g, g, g, g)
    s0, s1 = Split<axis=1>(n, parts)
    r = Clip(s0, low, high)
    e = Sigmoid(s1)
    m = Mul(r, e)
    c = Concat<axis=1>(m, s1)
    p = MaxPool<kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1>(c)
    z = Resize(p, , scales)
    v = AveragePool<kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1>(z)
    sh = Shape(v)
    k = Gather(sh, i0)
    k1 = Unsqueeze(k, i00)
    t = Concat<axis=0>(k1, minus)
    f = Reshape(v, t)
    y0 = Gemm<transB=1>(f, fc)
    y = Softmax(y0)
}"""


def valid_model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return onnx_model(
        TEXT,
        w=rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        g=np.ones(4, np.float32),
        parts=np.array([2, 2]),
        low=np.float32(0),
        high=np.float32(6),
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        scales=np.array([1, 1, 2, 2], np.float32),
        i0=np.array(0),
        i00=np.array([0]),
        minus=np.array([-1]),
        fc=rng.normal(size=(10, 64)).astype(np.float32),
    )


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns a damaged copy: truncated, bits flipped, bytes set to extremes, or a piece copied elsewhere."""
    damaged = bytearray(content)
    kind = int(rng.integers(4))
    if kind == 0:
        return bytes(damaged[: int(rng.integers(len(damaged)))])
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(damaged)))
        if kind == 1:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            damaged[at] = int(rng.choice([0, 1, 2, 127, 128, 255]))
        else:
            begin, size = int(rng.integers(len(damaged))), int(rng.integers(1, 40))
            damaged[at : at + size] = damaged[begin : begin + size]
    return bytes(damaged)


def load_or_refuse(content: bytes) -> bool:
    try:
        float_pipeline(load(content))
    except EdgeqError:
        return False
    return True


@pytest.mark.parametrize("part", range(5))
def test_mutations_give_errors_or_graphs(rng: np.random.Generator, part: int) -> None:
    content = valid_model().SerializeToString()
    assert load_or_refuse(content)
    refused = 0
    for _ in range(400):
        damaged = mutate(content, rng)
        started = time.perf_counter()
        refused += not load_or_refuse(damaged)
        assert time.perf_counter() - started < 5
    assert refused > 100


def test_mutations_allocate_little(rng: np.random.Generator) -> None:
    content = valid_model().SerializeToString()
    load_or_refuse(content)
    tracemalloc.start()
    try:
        for _ in range(200):
            load_or_refuse(mutate(content, rng))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89EDGEQ\r\n", b"\x00" * 100, b"\xff" * 1000], ids=repr)
def test_not_onnx(content: bytes) -> None:
    with pytest.raises(ImportModelError, match="not an ONNX model"):
        load(content)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ImportModelError, match=str(path)):
            load(path)


def external_model(folder: Path, **entries: str) -> Path:
    """A model whose weights `fc` lie in weights.bin; `entries` replace how they are described."""
    model = valid_model()
    tensor = next(t for t in model.graph.initializer if t.name == "fc")
    (folder / "weights.bin").write_bytes(bytes(64) + tensor.raw_data)
    described = {"location": "weights.bin", "offset": "64", "length": str(len(tensor.raw_data))} | entries
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in described.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read(tmp_path: Path) -> None:
    inside, outside = load(valid_model()), load(external_model(tmp_path))
    for name, tensor in inside.tensors.items():
        if tensor.data is not None:
            np.testing.assert_array_equal(outside.constant(name), tensor.data)


def test_a_file_with_its_external_data_is_whole(tmp_path: Path) -> None:
    load(file_bytes(external_model(tmp_path)))
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(valid_model().SerializeToString())
    assert file_bytes(plain) == plain.read_bytes()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../weights.bin"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": "none.bin"}, "no such file"),
        ({"location": "."}, "no such file"),
        ({"location": "weights.bin\0"}, "not described properly"),
        ({"offset": "65"}, "truncated"),
        ({"offset": "-4"}, "truncated"),
        ({"offset": "many"}, "not described properly"),
        ({"length": "1"}, "truncated"),
        ({"length": "99999999999999"}, "truncated"),
    ],
)
def test_external_data_stays_inside(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(9999))
    os.symlink(tmp_path / "weights.bin", folder / "link.bin")
    with pytest.raises(ImportModelError, match=message):
        load(external_model(folder, **entries))


def test_external_data_of_bytes(tmp_path: Path) -> None:
    with pytest.raises(ImportModelError, match="give the path"):
        load(external_model(tmp_path).read_bytes())


def test_declared_size_and_stored_bytes_differ() -> None:
    model = valid_model()
    model.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(ImportModelError, match=r"too large|damaged"):
        load(model)
    model.graph.initializer[0].dims[0] = 5
    with pytest.raises(ImportModelError, match="damaged"):
        load(model)


def test_functions_that_explode() -> None:
    model = onnx_model("(float[N, 4] x) => (float[] y) { y = Relu(x) }")
    model.opset_import.add(domain="own", version=1)
    for level in range(24):
        function = model.functions.add(domain="own", name=f"f{level}", input=["a"], output=["c"])
        function.opset_import.add(domain="", version=18)
        function.opset_import.add(domain="own", version=1)
        inner = ("own", f"f{level - 1}") if level else ("", "Relu")
        for source, target in (("a", "b"), ("b", "c")):
            function.node.add(op_type=inner[1], domain=inner[0], input=[source], output=[target])
    model.graph.node[0].domain, model.graph.node[0].op_type = "own", "f23"
    with pytest.raises(ImportModelError, match="expand to more than"):
        load(model)
    model.functions[0].node[0].domain, model.functions[0].node[0].op_type = "own", "f23"
    with pytest.raises(ImportModelError, match=r"cycle|expand to more than"):
        load(model)


def test_without_onnx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for read in (load, file_bytes):
        with pytest.raises(ImportModelError, match=r"needs the package onnx.*pip install"):
            read(tmp_path / "any.onnx")
