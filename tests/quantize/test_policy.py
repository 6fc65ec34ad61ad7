"""Schemes and what the policy makes of them."""

from __future__ import annotations

import pytest
from small_graphs import NO_CLAMP, Builder, inverted_residual, mean

from edgeq.errors import QuantizationError
from edgeq.ir import Attrs, Graph
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.quantize.policy import make_plan
from edgeq.quantize.scheme import SCHEMES, Scheme
from edgeq.quantize.sharing import shared_sets


def plan(graph: Graph, scheme: str, keep: set[str] | None = None, layer_bits: dict[str, int] | None = None):
    return make_plan(graph, Scheme.parse(scheme), shared_sets(graph), keep, layer_bits)


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_print_as_they_parse(name: str) -> None:
    assert str(Scheme.parse(name)) == name
    assert Scheme.parse(f" {name.upper()} ") == Scheme.parse(name)


@pytest.mark.parametrize("name", ["", "w8", "w8a32", "w2a8", "w8a4", "int8", "w4a4x"])
def test_other_schemes_are_refused(name: str) -> None:
    with pytest.raises(QuantizationError, match="w8a8, w4a8, w4a4"):
        Scheme.parse(name)


def test_w8a8_changes_nothing() -> None:
    found = plan(inverted_residual(), "w8a8")
    assert found.changes == ()
    assert set(found.weight_bits.values()) == {8}
    assert set(found.activation_bits.values()) == {8}


def test_w4a8_keeps_the_first_layer() -> None:
    found = plan(inverted_residual(), "w4a8")
    assert found.weight_bits == {"stem": 8, "expand": 4, "depthwise": 4, "project": 4, "head": 4}
    assert [(c.node, c.requested, c.done) for c in found.changes] == [("stem", "w4", "w8")]


def test_w4a4_keeps_the_ends() -> None:
    found = plan(inverted_residual(), "w4a4", {"last"})
    assert found.weight_bits["head"] == 8
    assert found.weight_bits["stem"] == 4
    eight = {name for name, bits in found.activation_bits.items() if bits == 8}
    assert eight == {"x", "project.out", "join.out", "pool.out", "head.out"}
    assert {change.node for change in found.changes} == eight | {"head"}
    assert all(change.reason for change in found.changes)


def test_w4a4_has_8_bits_where_no_product_is() -> None:
    b = Builder()
    stem = b.conv("stem", "x", 4)
    thin = b.conv("thin", stem, 4, clamp=NO_CLAMP)
    total = b.add("sum", stem, thin)
    after = b.conv("after", total, 4, clamp=NO_CLAMP)
    copied = b.node("concat", "copied", [after, b.conv("beside", total, 4)], ConcatAttrs(1))
    last = b.conv("last", copied, 4)
    graph = b.done(b.add("end", last, last))
    found = plan(graph, "w4a4")
    # Layers read stem.out and sum.out; what `copied` copies is read through it.
    assert found.activation_bits == {
        "x": 8,
        "stem.out": 4,
        "thin.out": 8,
        "sum.out": 4,
        "after.out": 4,
        "last.out": 8,
        "end.out": 8,
    }
    reasons = {change.node: change.reason for change in found.changes}
    assert "no layer with weights reads it" in reasons["thin.out"]
    assert "output of the network" in reasons["end.out"]


def test_keep_names() -> None:
    assert plan(inverted_residual(), "w4a8", set()).changes == ()
    assert plan(inverted_residual(), "w4a8", {"depthwise"}).weight_bits["depthwise"] == 8
    with pytest.raises(QuantizationError, match="depthwise"):
        plan(inverted_residual(), "w4a8", {"depthwize"})
    with pytest.raises(QuantizationError, match="'join'"):
        plan(inverted_residual(), "w4a8", {"join"})


BITS = {"stem": 4, "expand": 8, "depthwise": 8, "project": 4, "head": 4}


def test_explicit_bits_are_no_change() -> None:
    found = plan(inverted_residual(), "w4a8", None, BITS)
    assert found.weight_bits == BITS
    assert found.changes == ()
    assert set(found.activation_bits.values()) == {8}


def test_keeping_by_name_overrides_explicit_bits() -> None:
    found = plan(inverted_residual(), "w4a8", {"first", "expand"}, BITS)
    assert found.weight_bits == {**BITS, "stem": 8}
    assert [(c.node, c.requested, c.done) for c in found.changes] == [("stem", "w4", "w8")]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"expant": 4}, "'expant'.*Did you mean expand"),
        ({"join": 4}, "'join', which is no layer with weights"),
        ({"expand": 6}, "expand 6 bits; weights have 4 or 8"),
    ],
)
def test_impossible_explicit_bits_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        plan(inverted_residual(), "w4a8", None, {**BITS, **change})


def test_explicit_bits_name_every_layer() -> None:
    with pytest.raises(QuantizationError, match="says nothing about head;"):
        plan(inverted_residual(), "w4a8", None, {name: bits for name, bits in BITS.items() if name != "head"})


def test_a_graph_without_layers_is_refused() -> None:
    b = Builder()
    with pytest.raises(QuantizationError, match="nothing to quantize"):
        plan(b.done(mean(b, "pool", "x")), "w8a8")


def test_copies_share_and_the_ends_are_found_through_them() -> None:
    b = Builder()
    left, right = b.conv("left", "x", 4), b.conv("right", "x", 4, clamp=NO_CLAMP)
    joined = b.node("concat", "join", [left, right], ConcatAttrs(1))
    graph = b.done(joined)
    sets = {shared.name: shared for shared in shared_sets(graph)}
    assert set(sets) == {"x", "left.out"}
    assert set(sets["left.out"].members) == {"left.out", "right.out", "join.out"}
    assert set(sets["left.out"].observed) == {"left.out", "right.out"}
    assert plan(graph, "w4a4").activation_bits == {"x": 8, "left.out": 8}


def test_fixed_ranges_hold_only_where_all_producers_have_them() -> None:
    b = Builder()
    gate = b.node("sigmoid", "gate", [b.conv("left", "x", 4)], Attrs())
    other = b.conv("right", "x", 4)
    gate2 = b.node("sigmoid", "gate2", [other], Attrs())
    both = b.node("concat", "both", [gate, gate2], ConcatAttrs(1))
    sets = {shared.name: shared.fixed for shared in shared_sets(b.done(both))}
    assert sets["gate.out"] == (0.0, 1.0)
    b.node("concat", "mixed", [gate, other], ConcatAttrs(1))
    assert all(shared.fixed is None for shared in shared_sets(b.done("mixed.out")))


def test_logits_before_softmax_have_8_bits_and_softmax_is_an_end() -> None:
    b = Builder()
    logits = b.linear("head", mean(b, "pool", b.conv("stem", "x", 4)), 5)
    p = b.node("softmax", "softmax", [logits], SoftmaxAttrs(1))
    graph = b.done(p)
    found = plan(graph, "w4a4")
    assert found.activation_bits["head.out"] == 8
    assert "softmax.out" not in {member for shared in shared_sets(graph) for member in shared.members}
    b.node("relu", "after", [p], Attrs())
    with pytest.raises(QuantizationError, match="softmax"):
        shared_sets(b.done("after.out"))
