"""Every float pass keeps what a graph computes; each does what it is for, and no more."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from ops.float_twins import float_twin, relative_error
from quantized_graphs import CASES, Case, build
from small_graphs import RELU, RELU6, Builder, inverted_residual

from edgeq import zoo
from edgeq.importers.from_onnx import load
from edgeq.ir import Attrs, Graph, format_graph, validate
from edgeq.ops import check_graph
from edgeq.ops.base import NO_CLAMP, Clamp, Window
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.slice import part_of
from edgeq.ops.transpose import TransposeAttrs
from edgeq.passes import (
    float_pipeline,
    fold_affine,
    fold_batchnorm,
    fold_pad,
    fuse_activation,
    lift_signals,
    recognise_activations,
    recognise_shuffle,
    remove_identities,
)
from edgeq.passes.fuse_activation import composed
from edgeq.simulate.executor import run_float_graph

ALL = (
    fold_affine, fold_batchnorm, fold_pad, fuse_activation, lift_signals, recognise_activations, recognise_shuffle,
    remove_identities, float_pipeline,
)  # fmt: skip


def same_results(before: Graph, after: Graph, tolerance: float = 1e-5) -> None:
    """Checks that a pass left a valid graph that computes the same, under the same names, from the same inputs."""
    validate(after)
    check_graph(after)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(0, 2, (2, *before.tensor(name).shape[1:])).astype(np.float32) for name in before.inputs}
    for found, wanted in zip(run_float_graph(after, feeds), run_float_graph(before, feeds), strict=True):
        assert found.shape == wanted.shape
        assert relative_error(found, wanted) < tolerance


def ops_of(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


@pytest.mark.parametrize("transform", ALL, ids=lambda f: f.__name__)
def test_demo_stays(transform: object) -> None:
    graph = load(zoo.demo_path())
    text = format_graph(graph)
    same_results(graph, transform(graph))  # type: ignore[operator]
    assert format_graph(graph) == text  # The source is not changed.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_pass_on_every_operator(case: Case) -> None:
    graph = float_twin(build(case, "w8a8", seed=7))
    for transform in ALL:
        same_results(graph, transform(graph))


@pytest.mark.parametrize("transform", ALL, ids=lambda f: f.__name__)
def test_a_second_time_changes_nothing(transform: object) -> None:
    once = transform(load(zoo.demo_path()))  # type: ignore[operator]
    assert format_graph(transform(once)) == format_graph(once)  # type: ignore[operator]


def test_pipeline_leaves_a_finished_graph_alone() -> None:
    graph = inverted_residual()
    assert format_graph(float_pipeline(graph)) == format_graph(graph)


# --- fuse_activation ---


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (NO_CLAMP, RELU, RELU),
        (RELU, RELU6, RELU6),
        (RELU6, (2.0, 8.0), (2.0, 6.0)),
        ((0.0, 1.0), (2.0, 3.0), (2.0, 2.0)),
        ((4.0, 5.0), (2.0, 3.0), (3.0, 3.0)),
    ],
)
def test_composed_clips(first: Clamp, second: Clamp, expected: Clamp) -> None:
    assert composed(first, second) == expected
    x = np.linspace(-10, 10, 401)
    np.testing.assert_array_equal(np.clip(np.clip(x, *first), *second), np.clip(x, *expected))


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
def test_relu_fuses_into_elementwise(op: str) -> None:
    b = Builder()
    left, right = b.conv("left", "x", 4, clamp=NO_CLAMP), b.conv("right", "x", 4, clamp=NO_CLAMP)
    y = b.node(op, "join", [left, right], ElementwiseAttrs())
    graph = b.done(b.node("relu", "relu", [y], Attrs()))
    done = fuse_activation(graph)
    assert ops_of(done) == {"conv": 2, op: 1}
    assert done.nodes[-1].attrs == ElementwiseAttrs((0.0, math.inf))
    same_results(graph, done)


def test_relu_of_an_input_stays() -> None:
    b = Builder()
    graph = b.done(b.node("clip", "clip", [b.node("relu", "relu", ["x"], Attrs())], ClipAttrs(high=3.0)))
    done = fuse_activation(graph)
    assert [node.attrs for node in done.nodes] == [ClipAttrs(0.0, 3.0)]


# --- remove_identities ---


def test_reshapes_transposes_and_slices_merge() -> None:
    b = Builder(channels=4, size=6)
    a = b.node("reshape", "a", ["x"], ReshapeAttrs((-1, 4, 36)))
    a = b.node("reshape", "b", [a], ReshapeAttrs((-1, 2, 2, 36)))
    a = b.node("transpose", "c", [a], TransposeAttrs((0, 2, 1, 3)))
    a = b.node("transpose", "d", [a], TransposeAttrs((0, 3, 2, 1)))
    a = b.node("slice", "e", [a], part_of(b.graph.tensor(a).shape, 1, 3, 11, 3))
    graph = b.done(b.node("slice", "f", [a], part_of(b.graph.tensor(a).shape, 1, 1, 4, 2)))
    done = remove_identities(graph)
    assert [node.op for node in done.nodes] == ["reshape", "transpose", "slice"]
    same_results(graph, done)


def test_transposes_that_undo_each_other_vanish() -> None:
    b = Builder()
    a = b.node("transpose", "a", [b.conv("conv", "x", 4)], TransposeAttrs((0, 2, 3, 1)))
    graph = b.done(b.conv("last", b.node("transpose", "b", [a], TransposeAttrs((0, 3, 1, 2))), 5))
    done = remove_identities(graph)
    assert ops_of(done) == {"conv": 2}
    same_results(graph, done)


def test_identities_at_the_ends_keep_the_names() -> None:
    b = Builder()
    shape = b.graph.tensor("x").shape
    first = b.node("reshape", "first", ["x"], ReshapeAttrs(shape))
    conv = b.conv("conv", first, 3)
    last = b.node("reshape", "last", [conv], ReshapeAttrs(shape))
    other = b.node("reshape", "other", [conv], ReshapeAttrs(shape))
    relu = b.node("relu", "relu", [conv], Attrs())
    graph = b.done(last, other, relu, first)
    done = remove_identities(graph)
    assert ops_of(done) == {"conv": 1, "relu": 1, "reshape": 2}
    same_results(graph, done)


def test_mean_takes_its_flatten() -> None:
    from edgeq.ops.mean import MeanAttrs

    b = Builder()
    pooled = b.node("mean", "pool", ["x"], MeanAttrs(keep_dims=True))
    graph = b.done(b.linear("head", b.node("reshape", "flat", [pooled], ReshapeAttrs((-1, 3))), 2))
    done = remove_identities(graph)
    assert ops_of(done) == {"mean": 1, "linear": 1}
    same_results(graph, done)


# --- fold_batchnorm ---


def norm(b: Builder, name: str, x: str) -> str:
    channels = b.graph.tensor(x).shape[1]
    scale = b.constant(f"{name}.scale", b.rng.uniform(-2, 2, channels).astype(np.float32))
    shift = b.constant(f"{name}.shift", b.rng.normal(0, 1, channels).astype(np.float32))
    return b.node("batch_norm", name, [x, scale, shift], Attrs())


def test_norm_behind_grouped_convolution_with_dead_channel() -> None:
    b = Builder(channels=4)
    y = norm(b, "norm", b.conv("conv", "x", 8, 3, clamp=NO_CLAMP, groups=2))
    b.graph.tensors["norm.scale"].data[3] = 0  # type: ignore[index]
    graph = b.done(y)
    done = fold_batchnorm(graph)
    assert ops_of(done) == {"conv": 1}
    same_results(graph, done)


def test_norm_before_grouped_convolution() -> None:
    b = Builder(channels=4)
    y = norm(b, "norm", "x")
    graph = b.done(b.conv("conv", y, 6, 1, groups=2))
    done = fold_batchnorm(graph)
    assert ops_of(done) == {"conv": 1}
    same_results(graph, done)


def test_norm_between_clamped_convolutions_goes_forward() -> None:
    b = Builder()
    y = norm(b, "norm", b.conv("first", "x", 8))
    graph = b.done(b.conv("second", y, 4))
    done = fold_batchnorm(graph)
    assert ops_of(done) == {"conv": 2}
    same_results(graph, done)


def test_norm_that_cannot_fold_is_a_depthwise_convolution() -> None:
    b = Builder()
    graph = b.done(norm(b, "norm", "x"))
    done = fold_batchnorm(graph)
    assert [(node.op, node.name) for node in done.nodes] == [("conv", "norm")]
    assert done.nodes[0].attrs.groups == 3  # type: ignore[attr-defined]
    same_results(graph, done)


def test_many_norms_in_a_row_are_one() -> None:
    b = Builder()
    y = b.conv("conv", "x", 8, clamp=NO_CLAMP)
    for i in range(4):
        y = norm(b, f"norm{i}", y)
    graph = b.done(y)
    done = fold_batchnorm(graph)
    assert ops_of(done) == {"conv": 1}
    same_results(graph, done)


# --- fold_pad, recognition ---


def test_pad_of_channels_stays() -> None:
    b = Builder()
    y = b.node("pad", "pad", ["x"], PadAttrs((0, 1, 0, 0), (0, 0, 0, 0)))
    graph = b.done(b.conv("conv", y, 4, 3))
    assert ops_of(fold_pad(graph)) == {"pad": 1, "conv": 1}


def test_pad_before_max_pool_of_what_may_be_negative_stays() -> None:
    b = Builder()
    y = b.node("pad", "pad", ["x"], PadAttrs((0, 0, 1, 1), (0, 0, 1, 1)))
    graph = b.done(b.node("max_pool", "pool", [y], MaxPoolAttrs(Window((3, 3), (2, 2)))))
    assert ops_of(fold_pad(graph)) == {"pad": 1, "max_pool": 1}


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_shuffle_is_recognised(groups: int) -> None:
    b = Builder(channels=12, size=3)
    y = b.node("reshape", "split", ["x"], ReshapeAttrs((-1, groups, 12 // groups, 3, 3)))
    y = b.node("transpose", "swap", [y], TransposeAttrs((0, 2, 1, 3, 4)))
    graph = b.done(b.node("reshape", "join", [y], ReshapeAttrs((-1, 12, 3, 3))))
    done = recognise_shuffle(graph)
    assert ops_of(done) == {"channel_shuffle": 1}
    same_results(graph, done, 1e-12)


def test_what_only_looks_like_a_shuffle_stays() -> None:
    b = Builder(channels=12, size=3)
    y = b.node("reshape", "split", ["x"], ReshapeAttrs((-1, 3, 4, 3, 3)))
    y = b.node("transpose", "swap", [y], TransposeAttrs((0, 2, 1, 4, 3)))
    graph = b.done(b.node("reshape", "join", [y], ReshapeAttrs((-1, 12, 3, 3))))
    assert ops_of(recognise_shuffle(graph)) == ops_of(graph)


def test_product_with_another_sigmoid_stays() -> None:
    b = Builder()
    gate = b.node("sigmoid", "gate", [b.conv("conv", "x", 3)], Attrs())
    graph = b.done(b.node("mul", "mul", ["x", gate], ElementwiseAttrs()))
    assert ops_of(recognise_activations(graph)) == ops_of(graph)
