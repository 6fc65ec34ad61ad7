"""Quantized models whose tool left the last average in float, as ONNX Runtime's quantize_static does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.backends.peers import quantize_onnxruntime
from edgeq.backends.registry import backend_kind
from edgeq.importers import quantized


def _convolution_then_average(path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((6, 3, 3, 3)).astype(np.float32), "w")
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), "axes")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("ReduceMean", ["b", "axes"], ["y"], "average", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])],
        [weights, axes],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def test_an_average_left_in_float_gets_the_scale_of_its_input(tmp_path: Path) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    _convolution_then_average(source)
    x = np.random.default_rng(1).standard_normal((5, 3, 8, 8)).astype(np.float32)
    quantize_onnxruntime(source, target, [x[i : i + 1] for i in range(5)])
    found = quantized.load(target)
    assert any("left in float" in note or "in float" in note for note in found.notes)
    last = found.graph.nodes[-1]
    assert found.graph.quant(last.outputs[0]).same_as(found.graph.quant(last.inputs[0]))
    ours = backend_kind("native").open(target, 1).run(x)
    theirs = backend_kind("onnxruntime").open(target, 1).run(x)
    # Rounding the average to a code costs half a step; the convolution itself is exact.
    step = float(found.graph.quant(last.outputs[0]).scale)
    assert np.abs(ours - theirs).max() <= 0.5001 * step
