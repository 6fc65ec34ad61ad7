"""Damaged and hostile TFLite files give a clear error, in time and memory that the file's size explains."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")

from importers.tflite_models import ModelBuilder, image, output

from edgeq.errors import EdgeqError, ImportModelError
from edgeq.importers.from_tflite import load
from edgeq.importers.tflite_file import BUILTINS, read_file
from edgeq.passes import channels_last

ABSURD = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE,
          0xFFFFFFFF)  # fmt: skip


def valid_model(kind: str = "int8") -> bytes:
    """Layers, movements, a pool, a table, a softmax; quantized or float."""
    rng = np.random.default_rng(0)
    b = ModelBuilder()
    quant: Any = (0.05, 3) if kind == "int8" else None

    def tensor(name: str, *shape: int, q: Any = quant) -> str:
        return b.tensor(name, (1, *shape), kind, q if quant else None, signature=(-1, *shape))

    def weights(name: str, *shape: int, axis: int = 0) -> str:
        value = rng.integers(-127, 128, shape).astype(np.int8)
        scales = (np.full(shape[axis], 0.01), np.zeros(shape[axis]))
        return b.constant(name, value if quant else value.astype(np.float32), "", scales if quant else None, axis)

    x = image(b, 8, 8, 3, kind=kind, quant=quant)
    padded, conv, deep = tensor("padded", 10, 10, 3), tensor("conv", 8, 8, 8), tensor("deep", 8, 8, 8)
    b.op("PAD", [x, b.constant("amounts", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))], [padded], 2)
    bias = b.constant("bias", np.zeros(8, np.int32 if quant else np.float32), "", (0.0005, 0) if quant else None)
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "fused_activation_function": "RELU6"}
    b.op("CONV_2D", [padded, weights("w", 8, 3, 3, 3), bias], [conv], 3, **options)
    options["padding"] = "SAME"
    deep_weights = weights("dw", 1, 3, 3, 8, axis=3)
    b.op("DEPTHWISE_CONV_2D", [conv, deep_weights, bias], [deep], 3, depth_multiplier=1, **options)
    b.op("ADD", [conv, deep], [tensor("sum", 8, 8, 8)], 2)
    b.op("LOGISTIC", ["sum"], [tensor("gate", 8, 8, 8, q=(1 / 256, -128))], 2)
    b.op("MUL", ["sum", "gate"], [tensor("gated", 8, 8, 8)], 2)
    parts = [tensor("left", 8, 8, 4), tensor("right", 8, 8, 4)]
    b.op("SPLIT", [b.constant("axis", np.array(3, np.int32)), "gated"], parts, 2, num_splits=2)
    b.op("CONCATENATION", parts[::-1], [tensor("joined", 8, 8, 8)], 2, axis=3)
    size = b.constant("size", np.array([4, 4], np.int32))
    b.op("RESIZE_NEAREST_NEIGHBOR", ["joined", size], [tensor("small", 4, 4, 8)], 2)
    pool = {"padding": "VALID", "stride_h": 2, "stride_w": 2, "filter_height": 2, "filter_width": 2}
    b.op("AVERAGE_POOL_2D", ["small"], [tensor("pool", 2, 2, 8)], 2, **pool)
    b.op("RESHAPE", ["pool", b.constant("target", np.array([-1, 32], np.int32))], [tensor("flat", 32)])
    b.op("FULLY_CONNECTED", ["flat", weights("fc", 10, 32), ""], [tensor("logits", 10)], 4)
    b.op("SOFTMAX", ["logits"], [output(b, (1, 10), kind, (1 / 256, -128) if quant else None)], 2, beta=1.0)
    return b.finish()


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns a damaged copy: truncated, bits flipped, bytes or numbers made extreme, or a piece copied."""
    damaged = bytearray(content)
    kind = int(rng.integers(6))
    if kind == 0:
        return bytes(damaged[: int(rng.integers(len(damaged)))])
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(damaged) - 8))
        if kind == 1:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            damaged[at] = int(rng.choice([0, 1, 2, 127, 128, 255]))
        elif kind == 3:
            struct.pack_into("<I", damaged, at // 4 * 4, int(rng.choice(ABSURD)))
        elif kind == 4:
            (value,) = struct.unpack_from("<I", damaged, at // 4 * 4)
            change = int(rng.choice([-64, -4, -1, 1, 4, 64]))
            struct.pack_into("<I", damaged, at // 4 * 4, (value + change) % (1 << 32))
        else:
            begin, size = int(rng.integers(len(damaged))), int(rng.integers(1, 40))
            damaged[at : at + size] = damaged[begin : begin + size]
    return bytes(damaged)


def load_or_refuse(content: bytes) -> bool:
    try:
        channels_last(load(content))
    except EdgeqError:
        return False
    return True


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_mutations_give_errors_or_graphs(kind: str, rng: np.random.Generator) -> None:
    content = valid_model(kind)
    assert load_or_refuse(content)
    refused = 0
    for _ in range(600):
        damaged = mutate(content, rng)
        started = time.perf_counter()
        refused += not load_or_refuse(damaged)
        assert time.perf_counter() - started < 5
    assert refused > 150


def test_every_truncation_is_refused() -> None:
    content = valid_model()
    for size in range(0, len(content) - 64, 97):
        with pytest.raises(ImportModelError):
            load(content[:size])


def test_mutations_allocate_little(rng: np.random.Generator) -> None:
    content = valid_model()
    load_or_refuse(content)
    tracemalloc.start()
    try:
        for _ in range(100):
            load_or_refuse(mutate(content, rng))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"TFL3TFL3", b"\x00" * 100, b"\xff" * 1000], ids=repr)
def test_not_tflite(content: bytes) -> None:
    with pytest.raises(ImportModelError, match=r"not a whole \.tflite file"):
        load(content)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tflite", tmp_path):
        with pytest.raises(ImportModelError, match=str(path)):
            load(path)


def test_a_vector_that_is_shared_does_not_multiply() -> None:
    """Ten thousand tensors that all are one large constant would take its size ten thousand times."""
    b = ModelBuilder()
    b.op("RELU", [image(b, 3)], [output(b, (1, 3))])
    b.constant("large", np.zeros(1 << 16, np.float32))
    for i in range(2000):
        b.tensor(f"t{i}", (1 << 16,))
        b.tensors[-1].buffer = 1
    with pytest.raises(ImportModelError, match="again and again"):
        load(b.finish())


def test_constants_do_not_grow_when_they_are_computed() -> None:
    b = ModelBuilder()
    x = image(b, 3)
    one, many = b.constant("a", np.zeros((20000, 1), np.float32)), b.constant("b", np.zeros((1, 20000), np.float32))
    b.op("ADD", [one, many], [b.tensor("huge", (20000, 20000))])
    b.op("ADD", [x, "huge"], [output(b, (1, 3))])
    started = time.perf_counter()
    with pytest.raises(ImportModelError, match="more than 16777216 elements"):
        load(b.finish())
    assert time.perf_counter() - started < 1


def test_names_are_those_of_the_signature_where_it_names_all() -> None:
    from edgeq.exporters.tflite.builder import schema

    b = ModelBuilder()
    b.op("RELU", [image(b, 3)], [output(b, (1, 3))])
    assert read_file(b.finish()).inputs == [(0, "x")]
    s = schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(b.finish()))

    def named(name: str, index: int) -> Any:
        record = s.TensorMapT()
        record.name, record.tensorIndex = name, index
        return record

    signature = s.SignatureDefT()
    signature.signatureKey, signature.inputs, signature.outputs = "serving_default", [named("in", 0)], [named("out", 1)]
    model.signatureDefs = [signature]
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    graph = load(bytes(builder.Output()))
    assert (graph.inputs, graph.outputs) == (["in"], ["out"])


def test_operator_names_are_those_of_the_schema() -> None:
    from edgeq.exporters.tflite.builder import schema

    for number, name in enumerate(BUILTINS):
        assert getattr(schema().BuiltinOperator, name) == number
