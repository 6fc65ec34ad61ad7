"""The torch statement of every operator against its numpy float statement, on the cases of the conformance matrix."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from ops.float_twins import float_twin, relative_error
from quantized_graphs import CASES, Case, build

from edgeq.errors import GraphError
from edgeq.ir import BATCH, Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ops import all_operators, get
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import Window
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.fake_quant import FakeQuantAttrs
from edgeq.ops.gelu import GeluAttrs
from edgeq.ops.pow import PowAttrs
from edgeq.ops.silu import SiluAttrs
from edgeq.simulate.executor import run_float_graph
from edgeq.torch_executor import run_graph

torch = pytest.importorskip("torch", reason="the torch statements need the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

TOLERANCE = 1e-5
"""Of the largest value: float32 sums of a few thousand products, added in another order."""


def feeds_of(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 2, (3, *graph.tensor(name).shape[1:])).astype(np.float32) for name in graph.inputs}


def assert_statements_agree(graph: Graph, feeds: dict[str, np.ndarray], positive: bool = False) -> None:
    feeds = {name: np.abs(value) + 0.1 for name, value in feeds.items()} if positive else feeds
    inputs = {name: torch.from_numpy(value).requires_grad_() for name, value in feeds.items()}
    found = run_graph(graph, inputs)
    for tensor, wanted in zip(found, run_float_graph(graph, feeds), strict=True):
        assert tuple(tensor.shape) == wanted.shape
        assert tensor.dtype == torch.float32
        assert relative_error(tensor.detach().numpy(), wanted) < TOLERANCE
    sum(tensor.double().square().sum() for tensor in found).backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in inputs.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_torch_statement_equals_the_float_statement(case: Case) -> None:
    graph = float_twin(build(case, "w8a8", seed=7))
    assert_statements_agree(graph, feeds_of(graph, seed=8))


def one_node(op: str, attrs: Attrs, shape: tuple[int, ...], *constants: np.ndarray) -> Graph:
    """A graph of a single node: the activation x, then constants."""
    graph = Graph("one", inputs=["x"], outputs=["y"])
    graph.add_tensor(Tensor("x", (BATCH, *shape)))
    rest = [graph.add_tensor(Tensor.constant(f"constant{i}", value)) for i, value in enumerate(constants)]
    node = Node(op, op, ("x", *rest), ("y",), attrs)
    ((found, dtype),) = get(op).infer(node, graph)
    graph.add_tensor(Tensor("y", found, dtype))
    graph.nodes.append(node)
    return graph


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(0, 1, shape).astype(np.float32)


# What the matrix has not, because a quantized graph cannot hold it or the quantized form is the same.
EXTRA: dict[str, tuple[Graph, bool]] = {
    "batch_norm": (one_node("batch_norm", Attrs(), (7, 4, 5), random(7), random(7)), False),
    "batch_norm rows": (one_node("batch_norm", Attrs(), (7,), random(7), random(7)), False),
    "batch_norm rank 3": (one_node("batch_norm", Attrs(), (7, 4), random(7), random(7)), False),
    "fake_quant": (one_node("fake_quant", FakeQuantAttrs(QuantParams.per_tensor(0.07, -20)), (7, 4, 5)), False),
    "fake_quant 4 bits": (one_node("fake_quant", FakeQuantAttrs(QuantParams.per_tensor(0.5, 3, 4)), (70,)), False),
    "gelu tanh": (one_node("gelu", GeluAttrs(tanh=True), (5, 3, 3)), False),
    "silu alpha": (one_node("silu", SiluAttrs(1.702), (5, 3, 3)), False),
    "clip one side": (one_node("clip", ClipAttrs(high=0.3), (9,)), False),
    "pow 3": (one_node("pow", PowAttrs(3.0), (9,)), False),
    "pow 0.5": (one_node("pow", PowAttrs(0.5), (9,)), True),
    "pow -1": (one_node("pow", PowAttrs(-1.0), (9,)), True),
    "avg_pool uneven pads": (
        one_node("avg_pool", AvgPoolAttrs(Window((3, 2), (2, 1), (1, 0, 2, 1)), False), (4, 7, 6)),
        False,
    ),
    "conv_transpose clamp": (
        one_node(
            "conv_transpose",
            ConvTransposeAttrs(Window((3, 3), (2, 2), (1, 1, 1, 1)), 2, (1, 1), (0.0, 2.0)),
            (4, 5, 6),
            random(6, 2, 3, 3),
            random(6),
        ),
        False,
    ),
}


@pytest.mark.parametrize("name", EXTRA)
def test_what_the_matrix_has_not(name: str) -> None:
    graph, positive = EXTRA[name]
    assert_statements_agree(graph, feeds_of(graph, zlib.crc32(name.encode())), positive)


def test_every_operator_is_tested() -> None:
    tested = {node.op for case in CASES for node in build(case, "w8a8", seed=7).nodes}
    tested |= {node.op for graph, _ in EXTRA.values() for node in graph.nodes}
    assert {operator.name for operator in all_operators()} - tested == {"lut"}


def test_a_lut_has_no_float_statement() -> None:
    graph = one_node("lut", Attrs(), (4,), np.zeros(256, np.int8))
    with pytest.raises(GraphError, match="lut: a lut maps codes"):
        run_graph(graph, {"x": torch.zeros(1, 4)})


def test_fake_quant_passes_gradients_straight_through() -> None:
    graph, _ = EXTRA["fake_quant 4 bits"]
    x = torch.linspace(-8, 4, 70)[None].requires_grad_()
    run_graph(graph, {"x": x})[0].sum().backward()
    # Codes -8..7 around the zero point 3, at a step of 0.5: [-5.5, 2].
    inside = (x >= -5.5) & (x <= 2)
    torch.testing.assert_close(x.grad, inside.float())
