"""The integer statement of every operator against its float statement, and the float one against ONNX Runtime.

The cases are those of the conformance matrix. An integer statement must give the code nearest to the real result of its
dequantized inputs: half a step, where nothing saturates.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from ops.float_twins import float_twin, relative_error
from quantized_graphs import CASES, SCHEMES, Case, build, random_codes

from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.importers.from_onnx import load
from edgeq.ops import check_graph, get
from edgeq.ops.base import dequantize
from edgeq.passes import float_pipeline
from edgeq.simulate.executor import execute, run_float_graph

# float32 multipliers move a real result by far less than this share of a step.
SLACK = 2e-3
# A bilinear weight is off by half of 1 / 2048 on each axis; neighbours differ by at most 255 codes.
RESIZE_SLACK = 2 * 255 / 4096


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_integer_statement_rounds_the_float_statement(case: Case, scheme: str) -> None:
    graph = build(case, scheme, seed=3)
    twin = float_twin(graph)
    feeds = dict(zip(graph.inputs, random_codes(graph, 2, seed=4), strict=True))
    codes = feeds | execute(graph, feeds, [name for node in graph.nodes for name in node.outputs])
    for node in graph.nodes:
        operands = []
        for name in node.inputs:
            tensor = graph.tensor(name)
            value = twin.constant(name)
            operands.append(dequantize(codes[name], graph.quant(name)) if tensor.data is None else value)
        (real,) = get(node.op).run_float(node, operands, twin)
        quant = graph.tensor(node.outputs[0]).quant
        found = codes[node.outputs[0]]
        if quant is None:
            np.testing.assert_allclose(found, real, atol=1e-6)
            continue
        assert found.dtype == np.int8
        steps = real.astype(np.float64) / float(quant.scale) + int(quant.zero_point)
        wanted = np.clip(steps, quant.qmin, quant.qmax)
        slack = 0.5 + SLACK + (RESIZE_SLACK if node.op == "resize" else 0)
        clamp = getattr(node.attrs, "clamp", None)
        if clamp is not None and not np.isinf(clamp).all():
            # The bound itself is rounded to a code.
            slack += 0.5
        assert np.abs(found - wanted).max() <= slack, node


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_onnx_rows_mean_what_onnxruntime_does(case: Case) -> None:
    twin = float_twin(build(case, "w8a8", seed=5))
    check_graph(twin)
    rng = np.random.default_rng(6)
    feeds = {name: rng.normal(0, 2, (3, *twin.tensor(name).shape[1:])).astype(np.float32) for name in twin.inputs}
    proto = to_float_onnx(twin).proto
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    wanted = session.run(twin.outputs, feeds)
    again = load(proto)
    assert again.inputs == twin.inputs
    assert again.outputs == twin.outputs
    for graph in (twin, again, float_pipeline(twin), float_pipeline(again)):
        for found, expected in zip(run_float_graph(graph, feeds), wanted, strict=True):
            assert found.shape == expected.shape
            assert relative_error(found, expected) < 1e-5
