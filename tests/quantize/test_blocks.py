"""How networks are split into blocks."""

from __future__ import annotations

import pytest
from small_graphs import Builder, inverted_residual, mean

from edgeq.ir import Graph
from edgeq.ops.base import NO_CLAMP
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.quantize.blocks import UNITS, find_blocks


def names(graph: Graph, unit: str) -> list[list[str]]:
    return [[node.name for node in block.nodes] for block in find_blocks(graph, unit)]


def test_layers_take_what_is_pixel_wise_with_them() -> None:
    assert names(inverted_residual(), "layer") == [
        ["stem"],
        ["expand"],
        ["depthwise"],
        ["project", "join"],
        ["pool", "head"],
    ]


def test_a_residual_block_is_one_block() -> None:
    blocks = find_blocks(inverted_residual(), "block")
    assert [[node.name for node in block.nodes] for block in blocks] == [
        ["stem"],
        ["expand", "depthwise", "project", "join", "pool"],
        ["head"],
    ]
    assert [block.name for block in blocks] == ["stem", "expand .. project", "head"]
    assert [block.inputs for block in blocks] == [("x",), ("stem.out",), ("pool.out",)]


def test_a_network_is_one_block_and_keeps_its_stride_through_the_pooling() -> None:
    (block,) = find_blocks(inverted_residual(), "network")
    assert (block.inputs, block.outputs, block.stride) == (("x",), ("head.out",), 1)


def test_chains_end_at_a_layer_without_activation_or_after_three() -> None:
    b = Builder()
    x = b.conv("a", "x", 4)
    x = b.conv("b", x, 4, clamp=NO_CLAMP, stride=2)
    for name in "cdef":
        x = b.conv(name, x, 4)
    graph = b.done(x)
    assert names(graph, "block") == [["a", "b"], ["c", "d", "e"], ["f"]]
    assert [block.stride for block in find_blocks(graph, "block")] == [2, 1, 1]


def test_strides_that_differ_leave_whole_maps() -> None:
    b = Builder()
    x = b.conv("a", "x", 4)
    left, right = b.conv("left", x, 4, 3, stride=2), b.conv("right", b.conv("near", x, 4), 4, stride=2)
    graph = b.done(b.add("join", left, right))
    assert [block.stride for block in find_blocks(graph, "block")] == [1, 2]
    pooled = Builder()
    graph = pooled.done(pooled.linear("head", mean(pooled, "pool", pooled.conv("a", "x", 4)), 3))
    assert [block.stride for block in find_blocks(graph, "layer")] == [1, 1]


@pytest.mark.parametrize("unit", UNITS)
def test_every_node_but_the_softmax_is_in_one_block(unit: str) -> None:
    graph = inverted_residual()
    b = Builder()
    b.graph = graph
    graph.outputs = [b.node("softmax", "soft", ["head.out"], SoftmaxAttrs(1))]
    found = [name for part in names(graph, unit) for name in part]
    assert found == [node.name for node in graph.nodes[:-1]]
    assert find_blocks(graph, unit)[-1].outputs == ("head.out",)


def test_two_branches_alive_make_two_inputs() -> None:
    b = Builder()
    x = b.conv("a", "x", 4)
    graph = b.done(b.add("join", b.conv("left", x, 4), b.conv("right", x, 4)))
    last = find_blocks(graph, "layer")[-1]
    assert [node.name for node in last.nodes] == ["right", "join"]
    assert last.inputs == ("a.out", "left.out")
