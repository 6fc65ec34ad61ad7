"""The torch executor on whole networks, against the numpy float statements; parameters, hooks and what stays."""

from __future__ import annotations

import numpy as np
import pytest
from ops.float_twins import relative_error
from small_graphs import inverted_residual

from edgeq.errors import GraphError
from edgeq.importers import from_onnx
from edgeq.ir import Graph, Node
from edgeq.passes import channels_last, float_pipeline
from edgeq.simulate.executor import run_float_graph
from edgeq.torch_executor import constant_tensors, run_graph, run_nodes
from edgeq.zoo.demo import demo_path

torch = pytest.importorskip("torch", reason="the torch executor needs the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch


def reduced_mobilenet() -> Graph:
    from edgeq import zoo
    from edgeq.importers import from_torch

    return from_torch.load(zoo.mobilenet_v2(num_classes=7), np.zeros((1, 3, 32, 32), np.float32))[0]


NETWORKS = {
    "small": inverted_residual,
    "demo": lambda: from_onnx.load(demo_path()),
    "mobilenet_v2": reduced_mobilenet,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_the_float_statements_do(name: str, rng: np.random.Generator) -> None:
    source = NETWORKS[name]()
    (x,) = source.inputs
    value = rng.normal(0, 1, (2, *source.tensor(x).shape[1:])).astype(np.float32)
    for graph in (source, float_pipeline(source)):
        (found,) = run_graph(graph, {x: torch.from_numpy(value)}, constant_tensors(graph))
        (wanted,) = run_float_graph(graph, value)
        assert relative_error(found.numpy(), wanted) < 1e-5


def test_gradients_reach_the_constants_that_are_given(rng: np.random.Generator) -> None:
    graph = float_pipeline(inverted_residual())
    constants = constant_tensors(graph)
    weight = next(name for name in constants if name.startswith("depthwise.weight"))
    constants[weight].requires_grad_()
    x = torch.from_numpy(rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32))
    run_graph(graph, {"x": x}, constants)[0].square().sum().backward()
    gradient = constants[weight].grad
    assert gradient.abs().max() > 0

    def loss(step: float) -> float:
        doubles = {name: value.detach().double() for name, value in constants.items()}
        doubles[weight] += step * gradient.double()
        return float(run_graph(graph, {"x": x.double()}, doubles)[0].square().sum())

    step = 1e-6 / float(gradient.abs().max())
    slope = (loss(step) - loss(-step)) / (2 * step)
    assert slope == pytest.approx(float(gradient.double().square().sum()), rel=1e-3)


def test_the_graph_is_never_written_to() -> None:
    graph = inverted_residual()
    constants = constant_tensors(graph)
    before = {name: graph.constant(name).copy() for name in constants}
    for value in constants.values():
        value.zero_()
    assert all(np.array_equal(before[name], graph.constant(name)) for name in constants)


def test_parts_run_over_tensors_by_name(rng: np.random.Generator) -> None:
    graph = inverted_residual()
    x = torch.from_numpy(rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32))
    values = {"x": x}
    run_nodes(graph.nodes[:2], values, graph)
    assert list(values) == ["x", "stem.out", "expand.out"]
    run_nodes(graph.nodes[2:5], values, graph, keep=("x", "join.out"))
    # `expand.out` was read by the last time; what no node touched is nobody's to free.
    assert sorted(values) == ["join.out", "x"]
    (whole,) = run_graph(graph, {"x": x}, wanted=["join.out"])
    torch.testing.assert_close(values["join.out"], whole, rtol=0, atol=0)


def test_a_hook_replaces_what_a_node_gives(rng: np.random.Generator) -> None:
    graph = inverted_residual()
    seen = []

    def hook(node: Node, outputs: list) -> list:
        seen.append(node.name)
        return [output * 0 for output in outputs] if node.name == "pool" else outputs

    x = torch.from_numpy(rng.normal(0, 1, (2, 3, 8, 8)).astype(np.float32))
    (found,) = run_graph(graph, {"x": x}, hook=hook)
    assert seen == [node.name for node in graph.nodes]
    torch.testing.assert_close(found, torch.from_numpy(graph.constant("head.bias")).expand(2, -1))


def test_errors_name_the_cause() -> None:
    graph = inverted_residual()
    with pytest.raises(GraphError, match="stem: it reads 'x', which was neither given nor computed"):
        run_graph(graph, {})
    with pytest.raises(GraphError, match="computes no tensor named 'nowhere'"):
        run_graph(graph, {"x": torch.zeros(1, 3, 8, 8)}, wanted=["nowhere"])
    turned = channels_last(float_pipeline(graph))
    with pytest.raises(GraphError, match="nhwc"):
        run_graph(turned, {"x": torch.zeros(1, 8, 8, 3)})
