"""Small ONNX models in the text form of onnx.parser, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime

from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.importers.from_onnx import load
from edgeq.ir import Graph
from edgeq.passes import float_pipeline
from edgeq.simulate.executor import run_float_graph

TOLERANCE = 1e-4
"""What the import promises: max |a - b| / max |b|."""


def onnx_model(text: str, opset: int = 18, **constants: np.ndarray) -> onnx.ModelProto:
    """Returns `agraph (inputs) => (outputs) { nodes }` as a model, with initializers by name."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> agraph {text}')
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of ONNX Runtime, its own graph optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    found: list[np.ndarray] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, dict(feeds))
    return found


def assert_imports(
    model: onnx.ModelProto, rng: np.random.Generator, expected: Mapping[str, int] | None = None, batch: int = 2
) -> Graph:
    """Checks that a model imports, agrees with ONNX Runtime before and after the passes, as it is stated and as it is
    written again, and what it became.

    Args:
        model: Every input is float.
        rng: Draws the inputs.
        expected: How many nodes of each operator are left after `float_pipeline`, where it matters.
        batch: Samples to run.

    Returns:
        The graph after the passes.
    """
    graph = load(model)
    done = float_pipeline(graph)
    feeds = {name: rng.normal(0, 2, (batch, *graph.tensor(name).shape[1:])).astype(np.float32) for name in graph.inputs}
    wanted = run_onnx(model, feeds)
    for candidate in (graph, done):
        assert candidate.outputs == [info.name for info in model.graph.output]
        written = run_onnx(to_float_onnx(candidate).proto, feeds)
        for found, rewritten, reference in zip(run_float_graph(candidate, feeds), written, wanted, strict=True):
            assert found.shape == rewritten.shape == reference.shape
            assert np.abs(found - reference).max() <= TOLERANCE * np.abs(reference).max()
            assert np.abs(rewritten - reference).max() <= TOLERANCE * np.abs(reference).max()
    if expected is not None:
        assert Counter(node.op for node in done.nodes) == Counter(expected)
    return done
