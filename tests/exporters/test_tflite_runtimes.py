"""The exported files compute in LiteRT and in tflite-runtime what the integer statements say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from quantized_graphs import CASES, Case, build
from tflite_graphs import (
    BUILTIN_FUNCTIONS,
    EXACT,
    ONE_STEP,
    TFLITE_SCHEMES,
    agreement,
    check,
    function,
    sample,
)

from edgeq.backends import tflite_runner
from edgeq.backends.litert import PYTHON_VARIABLE
from edgeq.exporters.tflite import to_tflite
from edgeq.exporters.tflite.builder import ModelBuilder
from edgeq.ir import Attrs, Graph, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import Int4Storage, dequantize
from edgeq.ops.hard_swish import builtin_hard_swish
from edgeq.passes import channels_last
from edgeq.simulate.executor import execute

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra edgeq[tflite]")

FOUR_BITS = [case for case in CASES if case.name.split()[0] in ("conv", "linear", "conv_transpose")]


def run(data: bytes, inputs: list[Array], xnnpack: bool) -> list[Array]:
    return tflite_runner.run_interpreter(tflite_runner.open_interpreter(litert, data, xnnpack), inputs)


@pytest.mark.parametrize("scheme", TFLITE_SCHEMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_litert_agrees(case: Case, scheme: str) -> None:
    made = sample(case, scheme)
    for xnnpack in (True, False):
        check(run(made.model.data, made.inputs, xnnpack), made.expected, agreement(case, xnnpack))


@pytest.mark.parametrize("int4", [Int4Storage.PACKED, Int4Storage.OLD, Int4Storage.NONE], ids=lambda kind: kind.value)
@pytest.mark.parametrize("case", FOUR_BITS, ids=lambda case: case.name)
def test_every_storage_of_4bit_weights_computes_the_same(case: Case, int4: Int4Storage) -> None:
    made = sample(case, "w4a8", int4)
    for xnnpack in (True, False):
        check(run(made.model.data, made.inputs, xnnpack), made.expected, agreement(case, xnnpack, int4))


@pytest.mark.parametrize("op, attrs, output, operators", BUILTIN_FUNCTIONS, ids=lambda value: str(value)[:30])
def test_functions_with_builtins(op: str, attrs: Attrs, output: QuantParams, operators: dict[str, int]) -> None:
    graph = function(op, attrs, output)
    model = to_tflite(graph, ends="int8")
    assert model.operators == operators
    every_code = np.arange(-128, 128, dtype=np.int8).reshape(1, 4, 4, 16)
    wanted = [_statement(graph, every_code)]
    check(run(model.data, [every_code], True), wanted, EXACT)
    check(run(model.data, [every_code], False), wanted, ONE_STEP)


@pytest.mark.parametrize("seed", range(40))
def test_builtin_hard_swish_is_known_to_the_bit(seed: int) -> None:
    """The exporter uses the builtin only where its result is the statement's, so it must know the result."""
    rng = np.random.default_rng(seed)
    quant = QuantParams.per_tensor(float(np.exp(rng.uniform(-6, -1))), int(rng.integers(-128, 128)))
    largest = max((127 - int(quant.zero_point)) * float(quant.scale), 0.4)
    output = QuantParams.per_tensor(largest / float(rng.uniform(150, 300)), int(rng.integers(-128, -90)))
    graph = function("hard_swish", Attrs(), output, quant=quant)
    every_code = np.arange(-128, 128, dtype=np.int8).reshape(1, 4, 4, 16)
    builder = ModelBuilder(graph, integer_ends=True)
    builder.emit("HARD_SWISH", ["x"], ["y"])
    (found,) = run(builder.finish(None), [every_code], False)
    np.testing.assert_array_equal(found.reshape(-1), builtin_hard_swish(quant, output))
    check(run(to_tflite(graph, ends="int8").data, [every_code], True), [_statement(graph, every_code)], EXACT)


def _statement(graph: Graph, x: Array) -> Array:
    return execute(graph, {"x": x}, ["y"])["y"]


def test_float_ends_quantize_and_dequantize_as_the_statements() -> None:
    case = next(case for case in CASES if case.name == "block classifier")
    made = sample(case, "w8a8")
    graph = channels_last(build(case, "w8a8", seed=3))
    model = to_tflite(graph)
    reals = [dequantize(value, graph.quant(name)) for name, value in zip(graph.inputs, made.inputs, strict=True)]
    codes = run(to_tflite(graph, ends="int8").data, made.inputs, True)
    for name, found, code in zip(graph.outputs, run(model.data, reals, True), codes, strict=True):
        quant = graph.tensor(name).quant
        if quant is None:
            np.testing.assert_allclose(found, (code.astype(np.float32) + 128) / 256, atol=1 / 256)
        else:
            np.testing.assert_array_equal(found, dequantize(code, quant))


@pytest.fixture(scope="module")
def old_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every case run by tflite-runtime: NAME.out.npz, or NAME.error."""
    python = os.environ.get(PYTHON_VARIABLE)
    if not python:
        pytest.skip(f"{PYTHON_VARIABLE} names no Python with tflite-runtime and numpy<2")
    folder = tmp_path_factory.mktemp("tflite_runtime")
    for scheme in TFLITE_SCHEMES:
        for number, case in enumerate(CASES):
            made = sample(case, scheme, Int4Storage.OLD)
            (folder / f"{scheme}_{number}.tflite").write_bytes(made.model.data)
            np.savez(folder / f"{scheme}_{number}.npz", **{str(i): value for i, value in enumerate(made.inputs)})
    script = Path(__file__).parents[1] / "run_tflite_folder.py"
    subprocess.run([python, str(script), tflite_runner.__file__, str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("scheme", TFLITE_SCHEMES)
@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_tflite_runtime_agrees(number: int, scheme: str, old_runtime: Path) -> None:
    case, stem = CASES[number], f"{scheme}_{number}"
    failed = old_runtime / f"{stem}.error"
    assert not failed.exists(), failed.read_text()
    with np.load(old_runtime / f"{stem}.out.npz") as archive:
        found = [archive[str(i)] for i in range(len(archive.files))]
    check(found, sample(case, scheme, Int4Storage.OLD).expected, agreement(case, False))
