"""edgeq.Session: what it tells, takes, gives and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantized_graphs import CASES, Case, QuantizedBuilder, build

from edgeq import Session
from edgeq.errors import BackendError, FormatError, UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.passes import channels_last, lower
from edgeq.quantize.counting import numpy_histogram, numpy_minmax
from edgeq.session import native_module


def case(name: str) -> Case:
    return next(found for found in CASES if found.name == name)


def packed(graph: Graph) -> bytes:
    return encode(lower(channels_last(graph)))


def classifier() -> bytes:
    return packed(build(case("block classifier"), "w8a8", 1))


def several() -> bytes:
    return packed(build(case("block two inputs, three outputs"), "w8a8", 1))


def test_tells_its_ends() -> None:
    session = Session(classifier())
    (info,) = session.inputs
    assert info.shape == (None, 3, 9, 9)
    assert info.dtype == "int8"
    assert info.quantization is not None
    assert info.quantization.bits == 8
    assert str(info).startswith("x0 [N, 3, 9, 9] int8, scale ")
    (out,) = session.outputs
    assert (out.shape, out.dtype, out.quantization) == ((None, 10), "float32", None)


def test_takes_arrays_lists_and_names(rng: np.random.Generator) -> None:
    session = Session(several())
    a, b = (rng.normal(size=(2, *info.shape[1:])) for info in session.inputs)
    wanted = session.run([a.astype(np.float32), b.astype(np.float32)])
    assert [array.dtype for array in wanted] == [np.float32] * 3
    for given in ((a, b), {"x1": b, "x0": a}):
        for got, expected in zip(session.run(given), wanted, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_takes_tensors_and_nested_lists(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    session = Session(classifier())
    x = rng.standard_normal((3, *session.inputs[0].shape[1:])).astype(np.float32)
    wanted = session.run(x)
    for given in (torch.from_numpy(x), x.tolist(), list(x), [x], (x,)):
        np.testing.assert_array_equal(session.run(given), wanted)


def test_codes_give_codes(rng: np.random.Generator) -> None:
    session = Session(several())
    codes = [rng.integers(-128, 128, (1, *info.shape[1:])).astype(np.int8) for info in session.inputs]
    assert [array.dtype for array in session.run(codes)] == [np.int8] * 3
    reals = []
    for array, info in zip(codes, session.inputs, strict=True):
        assert info.quantization is not None
        reals.append((array.astype(np.float32) - info.quantization.zero_point) * np.float32(info.quantization.scale))
    for got, expected, info in zip(session.run(reals), session.run(codes), session.outputs, strict=True):
        assert info.quantization is not None
        difference = expected.astype(np.float32) - np.float32(info.quantization.zero_point)
        np.testing.assert_array_equal(got, difference * np.float32(info.quantization.scale))


def test_takes_arrays_that_are_not_contiguous(rng: np.random.Generator) -> None:
    session = Session(classifier())
    x = rng.normal(size=(4, 3, 9, 18)).astype(np.float32)
    np.testing.assert_array_equal(session.run(x[::2, :, :, ::2]), session.run(x[::2, :, :, ::2].copy()))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 3, 9, 8), np.float32),
        np.zeros((3, 9, 9), np.float32),
        np.zeros((0, 3, 9, 9), np.float32),
        np.zeros((1, 3, 9, 9), np.uint8),
        np.zeros((1, 3, 9, 9), np.int32),
        np.full((1, 3, 9, 9), "text"),
        [],
        [np.zeros((1, 3, 9, 9), np.float32)] * 2,
        {"nobody": np.zeros((1, 3, 9, 9), np.float32)},
        {},
    ],
    ids=str,
)
def test_refuses_wrong_inputs(wrong: object) -> None:
    with pytest.raises(UsageError):
        Session(classifier()).run(wrong)  # type: ignore[arg-type]


def test_refuses_mixtures() -> None:
    session = Session(several())
    a, b = (np.zeros((2, *info.shape[1:]), np.float32) for info in session.inputs)
    with pytest.raises(UsageError, match="mixture"):
        session.run([a, b.astype(np.int8)])
    with pytest.raises(UsageError, match="batch"):
        session.run([a, b[:1]])


def test_refuses_codes_beyond_four_bits() -> None:
    graph = build(case("conv 3x3 stride 2"), "w4a4", 1)
    session = Session(packed(graph))
    x = np.zeros((1, 3, 9, 11), np.int8)
    session.run(x)
    x[0, 0, 0, 0] = 8
    with pytest.raises(UsageError, match="4-bit"):
        session.run(x)


def test_refuses_what_is_no_model(tmp_path: Path) -> None:
    content = classifier()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    for wrong in (b"", b"not a model", content[:-1], bytes(damaged)):
        path = tmp_path / "model.edgeq"
        path.write_bytes(wrong)
        with pytest.raises(FormatError):
            Session(path)
        with pytest.raises(FormatError):
            Session(wrong)
    with pytest.raises(UsageError, match="No such file"):
        Session(tmp_path / "nothing.edgeq")
    with pytest.raises(UsageError, match="regular file"):
        Session(tmp_path)
    with pytest.raises(UsageError, match="scalar"):
        Session(content, max_isa="nonsense")
    with pytest.raises(UsageError, match="threads"):
        Session(content, threads=1000)


def test_keeps_within_its_memory() -> None:
    content = classifier()
    with pytest.raises(BackendError, match="max_memory_bytes"):
        Session(content, max_memory_bytes=1000)
    # A batch runs in groups of images: its arena does not grow with it.
    session = Session(content, max_memory_bytes=1 << 20)
    x = np.random.default_rng(0).normal(size=(4096, 3, 9, 9)).astype(np.float32)
    np.testing.assert_array_equal(session.run(x)[4000:], session.run(x[4000:]))
    assert session.arena_bytes(1 << 40) <= 1 << 20


def test_an_absurd_image_takes_no_memory() -> None:
    b = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    content = packed(b.finish(b.conv(b.input(1, 1 << 14, 1 << 14), 2)))
    with pytest.raises(BackendError, match="max_memory_bytes"):
        Session(content, max_memory_bytes=64 << 20)


def test_tells_its_layers(rng: np.random.Generator) -> None:
    session = Session(classifier(), profile=True)
    assert all(layer.median_ms == 0 for layer in session.layers)
    for _ in range(3):
        session.run(rng.normal(size=(1, 3, 9, 9)).astype(np.float32))
    layers = session.layers
    assert [layer.op for layer in layers] == ["conv", "conv", "mean", "reshape", "linear", "softmax"]
    assert [layer.kernel == "free" for layer in layers] == [False, False, False, True, False, False]
    assert sum(layer.macs for layer in layers) == session.macs > 0
    assert sum(layer.weight_bytes for layer in layers) == session.weight_bytes > 0
    assert all(layer.median_ms > 0 for layer in layers if layer.kernel != "free")
    assert layers[0].shape == (None, 4, 4, 16)
    assert session.arena_bytes(2) > session.arena_bytes(1) > 0


def test_fuses_table_and_addition() -> None:
    b = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    x = b.conv(b.input(8, 6, 6), 16)
    y = b.binary("add", b.unary("relu", b.conv(x, 16, (3, 3), pads=(1, 1, 1, 1))), x)
    layers = {layer.name: layer for layer in Session(packed(b.finish(y))).layers}
    assert sorted(layer.kernel == "in conv1" for layer in layers.values()) == [False, False, True, True]


def test_w4_weights_stay_packed() -> None:
    def weight_bytes(scheme: str) -> int:
        b = QuantizedBuilder(np.random.default_rng(0), scheme)
        return Session(packed(b.finish(b.conv(b.input(128, 4, 4), 256)))).weight_bytes

    assert weight_bytes("w4a8") < 0.56 * weight_bytes("w8a8")


def test_environment_caps_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_MAX_ISA", "scalar")
    assert Session(classifier()).isa == "scalar"
    assert native_module().cpu_info()["in_use"] == "scalar"
    monkeypatch.setenv("EDGEQ_MAX_ISA", "nonsense")
    with pytest.raises(UsageError, match="scalar"):
        Session(classifier())


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1000])
def test_statistics_equal_numpy(size: int, rng: np.random.Generator) -> None:
    native = native_module()
    x = rng.normal(size=size).astype(np.float32)
    assert native.minmax(x) == numpy_minmax(x)
    np.testing.assert_array_equal(native.histogram(x, -1.0, 1.5, 64), numpy_histogram(x, -1.0, 1.5, 64))
    x[size // 2] = np.nan
    assert all(np.isnan(native.minmax(x)))
