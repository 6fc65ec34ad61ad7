"""The channels-last and lowering passes change no bit, and insert no transpose where none is needed."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_graphs import CASES, SCHEMES, Case, QuantizedBuilder, build, random_codes

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Graph, Node, Tensor
from edgeq.ops import check_graph
from edgeq.ops.transpose import TransposeAttrs
from edgeq.passes import channels_last, lower
from edgeq.simulate import simulate_codes


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_codes(case: Case, scheme: str) -> None:
    graph = build(case, scheme, seed=1)
    check_graph(graph)
    codes = random_codes(graph, 2, seed=2)
    expected = simulate_codes(graph, codes)
    for changed in (lower(graph), channels_last(graph), lower(channels_last(graph)), channels_last(lower(graph))):
        check_graph(changed)
        assert changed.inputs == graph.inputs
        assert changed.outputs == graph.outputs
        for found, wanted in zip(simulate_codes(changed, codes), expected, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
    transposes = [node.name for node in channels_last(graph).nodes if node.op == "transpose"]
    assert bool(transposes) != case.free, transposes


def test_expected_spread() -> None:
    """The random graphs exercise rounding: outputs take many codes and few of them saturate everywhere."""
    poor = []
    for case in CASES:
        graph = build(case, "w8a8", seed=1)
        for name, codes in zip(graph.outputs, simulate_codes(graph, random_codes(graph, 2, seed=2)), strict=True):
            if codes.dtype == np.int8 and np.unique(codes).size < min(8, codes.size // 4):
                poor.append((case.name, name))
    assert len(poor) <= len(CASES) // 10, poor


def test_names_stay() -> None:
    graph = build(next(c for c in CASES if c.name == "block squeeze and excite"), "w8a8", 0)
    names = [node.name for node in graph.nodes]
    assert [node.name for node in lower(channels_last(graph)).nodes] == names


def test_nhwc_graph_is_refused() -> None:
    graph = channels_last(build(CASES[0], "w8a8", 0))
    with pytest.raises(GraphError, match="nhwc already"):
        channels_last(graph)


def test_output_that_is_an_input_or_a_reshaped_one() -> None:
    builder = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    x = builder.input(3, 4, 5)
    flat = builder.flatten(x)
    back = builder.reshape(flat, 3, 4, 5)
    graph = builder.finish(flat, back)
    changed = channels_last(graph)
    check_graph(changed)
    codes = random_codes(graph, 2, 0)
    for found, wanted in zip(simulate_codes(changed, codes), simulate_codes(graph, codes), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_moved_batch_axis_is_refused() -> None:
    graph = Graph("bad", ["x"], ["y"])
    graph.add_tensor(Tensor("x", (BATCH, 3)))
    graph.add_tensor(Tensor("y", (BATCH, 3)))
    graph.nodes.append(Node("transpose", "t", ("x",), ("y",), TransposeAttrs((1, 0))))
    with pytest.raises(GraphError, match="batch axis"):
        channels_last(graph)
