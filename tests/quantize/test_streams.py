"""What layers multiply, apart from what else reads it."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from small_graphs import NO_CLAMP, Builder, inverted_residual, mean

import edgeq
from edgeq.backends.simulate import SimulateBackend
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.ir import Graph
from edgeq.ops.concat import ConcatAttrs
from edgeq.quantize.policy import make_plan
from edgeq.quantize.scheme import Scheme
from edgeq.quantize.sharing import shared_sets
from edgeq.quantize.streams import separate_product_inputs
from edgeq.simulate.executor import run_float_graph


def _residual_network(blocks: int = 4, share: float = 1.0) -> Graph:
    """Basic blocks whose stream is read by a layer and by an addition; `share` is that of what a block adds."""
    b = Builder(1)
    stream = b.conv("stem", "x", 8, 3)
    for index in range(blocks):
        wide = b.conv(f"first{index}", stream, 8, 3)
        added = b.conv(f"second{index}", wide, 8, 3, clamp=NO_CLAMP)
        b.constant(f"second{index}.weight", np.float32(share) * b.graph.constant(f"second{index}.weight"))
        stream = b.add(f"join{index}", stream, added)
    return b.done(b.linear("head", mean(b, "pool", stream), 10))


def test_stream_keeps_8_bits_and_its_copy_has_4() -> None:
    graph = separate_product_inputs(inverted_residual())
    expand = next(node for node in graph.nodes if node.name == "expand")
    join = next(node for node in graph.nodes if node.name == "join")
    assert expand.inputs[0] == "stem.out.product"
    assert "stem.out" in join.inputs
    bits = make_plan(graph, Scheme.parse("w4a4"), shared_sets(graph)).activation_bits
    assert (bits["stem.out"], bits["stem.out.product"]) == (8, 4)
    # What layers alone read has no copy.
    assert [node.name for node in graph.nodes if node.op == "clip"] == ["stem.out.product"]


def test_function_stays() -> None:
    graph = _residual_network()
    x = np.random.default_rng(0).standard_normal((2, *graph.tensor("x").shape[1:])).astype(np.float32)
    [before], [after] = (run_float_graph(one, {"x": x}) for one in (graph, separate_product_inputs(graph)))
    np.testing.assert_array_equal(before, after)


def test_one_copy_serves_all_layers() -> None:
    b = Builder()
    stem = b.conv("stem", "x", 4)
    parts = [b.conv(name, stem, 4) for name in ("left", "right")]
    graph = separate_product_inputs(b.done(b.add("end", b.add("sum", *parts), stem)))
    inputs = {node.name: node.inputs[0] for node in graph.nodes}
    assert inputs["left"] == inputs["right"] == "stem.out.product"
    assert sum(node.op == "clip" for node in graph.nodes) == 1


def test_readers_behind_a_copy_of_codes_count() -> None:
    # `copied` shares the codes of what it joins: that a layer reads it and an addition reads `stem` makes two bits.
    b = Builder()
    stem = b.conv("stem", "x", 4)
    copied = b.node("concat", "copied", [stem, stem], ConcatAttrs(1))
    last = b.conv("last", copied, 4, clamp=NO_CLAMP)
    graph = separate_product_inputs(b.done(b.add("end", last, stem)))
    assert next(node for node in graph.nodes if node.name == "last").inputs[0] == "copied.out.product"
    bits = make_plan(graph, Scheme.parse("w4a4"), shared_sets(graph)).activation_bits
    assert (bits["stem.out"], bits["copied.out.product"]) == (8, 4)


def test_inputs_of_the_network_stay() -> None:
    b = Builder()
    graph = b.done(b.add("end", b.conv("only", "x", 3), "x"))
    assert separate_product_inputs(graph).nodes == graph.nodes


@pytest.mark.parametrize("scheme", ["w4a4", "w4a8"])
def test_export_runs_the_same_everywhere(scheme: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = _residual_network()
    source = tmp_path / "float.onnx"
    source.write_bytes(to_float_onnx(graph).proto.SerializeToString())
    shape = graph.tensor("x").shape[1:]
    x = np.random.default_rng(2).standard_normal((64, *shape)).astype(np.float32)
    edgeq.export(source, bits=scheme, calibration=x, out=tmp_path / "out", to=("edgeq", "onnx"))
    file = tmp_path / "out" / "model.edgeq"
    logits = edgeq.Session(file).run(x)
    np.testing.assert_array_equal(logits, SimulateBackend(file).run(x))
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert (found.argmax(axis=1) == logits.argmax(axis=1)).mean() > 0.95


def test_additions_are_finer_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As in trained residual networks, each block adds little to what it was given.
    graph = _residual_network(8, share=0.02)
    x = np.random.default_rng(3).standard_normal((128, *graph.tensor("x").shape[1:])).astype(np.float32)
    [wanted] = run_float_graph(graph, {"x": x})

    def error(name: str) -> float:
        source = tmp_path / f"{name}.onnx"
        source.write_bytes(to_float_onnx(graph).proto.SerializeToString())
        out = tmp_path / name
        edgeq.export(source, bits="w4a4", calibration=x, out=out, to="edgeq", effort="fast", observer="mse")
        found = edgeq.Session(out / "model.edgeq").run(x)
        return float(np.square(found - wanted).mean())

    fine = error("fine")
    # The package shows the function `export` under the module's name.
    module = importlib.import_module("edgeq.deployment.export")
    monkeypatch.setattr(module, "separate_product_inputs", lambda graph: graph)
    assert fine < 0.7 * error("coarse")
