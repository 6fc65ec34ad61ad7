"""What lies between 1-D operators becomes an operator on images; nothing else changes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from importers.onnx_models import onnx_model

from edgeq import zoo
from edgeq.importers.from_onnx import load
from edgeq.ir import BATCH, Graph, format_graph, validate
from edgeq.ops import check_graph
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.slice import SliceAttrs
from edgeq.passes import channels_last, lift_signals, remove_identities
from edgeq.passes.lift_signals import lift
from edgeq.simulate.executor import run_float_graph

SIGNAL = "(float[N, 4, 9] x) => (float[] y)"


def network(rng: np.random.Generator, nodes: str, ends: str = SIGNAL) -> Graph:
    """A graph as the importer leaves it: each 1-D operator stands between two reshapes."""
    drawn = {name: rng.normal(0, 0.5, (4, 4, 1)).astype(np.float32) for name in ("w", "u")}
    operand = rng.normal(0, 0.5, (4, 9)).astype(np.float32)
    indices = {"p": np.array([0, 1, 2, 0, 0, 3]), "i": np.array([2]), "j": np.array([8]), "k": np.array([2])}
    return load(onnx_model(f"{ends} {{ {nodes} }}", s=operand, **drawn, **indices))


def same_results(before: Graph, after: Graph, rng: np.random.Generator) -> None:
    """Checks that the pass left a valid graph that computes the same, under the same names."""
    validate(after)
    check_graph(after)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    x = rng.normal(0, 2, (2, 4, 9)).astype(np.float32)
    for found, wanted in zip(run_float_graph(after, x), run_float_graph(before, x), strict=True):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def ops_of(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ("a = Conv(x, w) b = Relu(a) y = Conv(b, u)", {"conv": 2, "relu": 1}),
        ("a = Conv(x, w) b = Relu(a) c = Add(b, a) y = Conv(c, u)", {"conv": 2, "relu": 1, "add": 1}),
        ("a = Relu(x) b = Mul(a, s) y = Conv(b, u)", {"conv": 1, "relu": 1, "mul": 1}),
        ("a = Conv(x, w) b = Tanh(a) y = Relu(b)", {"conv": 1, "tanh": 1, "relu": 1}),
    ],
)
def test_two_reshapes_are_left(rng: np.random.Generator, nodes: str, left: dict[str, int]) -> None:
    graph = network(rng, nodes)
    text = format_graph(graph)
    done = remove_identities(lift_signals(graph))
    same_results(graph, done, rng)
    assert format_graph(graph) == text  # The source is not changed.
    assert ops_of(done) == left | {"reshape": 2}
    again = remove_identities(lift_signals(done))
    assert format_graph(again) == format_graph(done)


def test_attributes_move_with_their_axes(rng: np.random.Generator) -> None:
    nodes = "a = Conv(x, w) b = Concat<axis=2>(a, a) c = Concat<axis=1>(b, b) d = Slice(c, i, j, k) y = Pad(d, p)"
    done = lift_signals(network(rng, nodes))
    found = {node.op + str(i): node.attrs for i, node in enumerate(n for n in done.nodes if n.op != "reshape")}
    assert found["concat1"] == ConcatAttrs(3)
    assert found["concat2"] == ConcatAttrs(1)
    assert found["slice3"] == SliceAttrs((0, 0, 0, 2), (1, 1, 1, 1), (BATCH, 8, 1, 6))
    assert found["pad4"] == PadAttrs((0, 1, 0, 2), (0, 0, 0, 3))


def test_constants_are_named_with_their_source(rng: np.random.Generator) -> None:
    graph = network(rng, "a = Conv(x, w) y = Add(a, s)")
    lifted = lift(graph)
    [(new, old)] = lifted.constants.items()
    before, after = graph.constant(old), lifted.graph.constant(new)
    assert before is not None
    assert after is not None
    assert (before.shape, after.shape) == ((1, 4, 9), (1, 4, 1, 9))
    np.testing.assert_array_equal(before.reshape(-1), after.reshape(-1))


def test_a_signal_that_many_read_is_lifted_once(rng: np.random.Generator) -> None:
    nodes = "a = Relu(x) b = Conv(a, w) c = Conv(a, u) d = Add(b, c) y = Add(d, x)"
    done = remove_identities(lift_signals(network(rng, nodes)))
    assert ops_of(done) == {"relu": 1, "conv": 2, "add": 2, "reshape": 2}


def test_signals_inside_that_are_outputs_stay(rng: np.random.Generator) -> None:
    ends = "(float[N, 4, 9] x) => (float[] a, float[] y)"
    graph = network(rng, "a = Relu(x) y = Conv(a, w)", ends)
    done = remove_identities(lift_signals(graph))
    same_results(graph, done, rng)
    assert [done.tensor(name).shape for name in done.outputs] == [(BATCH, 4, 9)] * 2


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Relu(x)",
        "a = Transpose<perm=[0, 2, 1]>(x) b = Concat<axis=1>(a, a) y = Softmax(b)",
        "a = Unsqueeze(x, k) b = Relu(a) y = Squeeze(b, k)",  # An image, but no operator that only images have.
    ],
)
def test_other_graphs_are_left_alone(rng: np.random.Generator, nodes: str) -> None:
    graph = network(rng, nodes)
    assert lift_signals(graph) is graph


def test_images_are_left_alone() -> None:
    graph = load(zoo.demo_path())
    assert lift_signals(graph) is graph


def test_channels_last_turns_the_input_alone(rng: np.random.Generator) -> None:
    graph = network(rng, "a = Conv(x, w) b = Relu(a) c = Conv(b, u) d = Add(c, x) e = GlobalMaxPool(d) y = Flatten(e)")
    turned = [node for node in channels_last(remove_identities(lift_signals(graph))).nodes if node.op == "transpose"]
    assert [node.inputs for node in turned] == [("x",)]
