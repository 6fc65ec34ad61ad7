"""Block reconstruction on small networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_graphs import Builder

from edgeq.errors import DataError, QuantizationError, UsageError
from edgeq.ir import Graph
from edgeq.ops import check_graph
from edgeq.ops.base import NO_CLAMP
from edgeq.ops.concat import ConcatAttrs
from edgeq.quantize import QuantizeOptions, Scheme, calibrate, quantize
from edgeq.quantize.blocks import Block
from edgeq.quantize.layers import BIAS, WEIGHTS, X, is_layer
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.reconstruct import Outcome, reconstruct
from edgeq.quantize.training_options import ReconstructionOptions
from edgeq.simulate import simulate
from edgeq.simulate.executor import run_float_graph

pytestmark = pytest.mark.needs_torch

OPTIONS = ReconstructionOptions(steps=24, batch=8)


def network() -> Graph:
    """Two inverted residual blocks, one with and one without shortcut."""
    b = Builder()
    stem = b.conv("stem", "x", 8, 3)
    deep = b.conv("depthwise", b.conv("expand", stem, 24), 24, 3, groups=24)
    joined = b.add("join", stem, b.conv("project", deep, 8, clamp=NO_CLAMP))
    deep = b.conv("depthwise2", b.conv("expand2", joined, 24, stride=2), 24, 3, groups=24)
    return b.done(b.conv("project2", deep, 8, clamp=NO_CLAMP))


def images(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, size, size)).astype(np.float32)


def quantized(graph: Graph, scheme: str, keep: frozenset[str] | None = None, bias: bool = True) -> Graph:
    calibration = calibrate(graph, [images(40)])
    options = QuantizeOptions(keep_8bit=keep, recipe=Recipe(weight_observer="minmax", bias_correction=bias))
    return quantize(graph, Scheme.parse(scheme), calibration, options).graph


def run(graph: Graph, start: Graph, samples: int = 40, **others: object) -> tuple[Graph, list[Outcome]]:
    outcomes: list[Outcome] = []

    def report(block: Block, outcome: Outcome) -> None:
        outcomes.append(outcome)

    settings: dict[str, object] = {"options": OPTIONS, "threads": 1, "seed": 3, "report": report, **others}
    return reconstruct(start, graph, {"x": images(samples)}, **settings), outcomes  # type: ignore[arg-type]


def error(graph: Graph, reference: Graph) -> float:
    size = graph.tensor("x").shape[-1]
    x = images(64 if size == 8 else 8, 1, size)
    (found,), (wanted,) = simulate(graph, {"x": x}), run_float_graph(reference, {"x": x})
    return float(((found - wanted) ** 2).mean() / (wanted**2).mean())


def same(a: Graph, b: Graph) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(
        (tensor.quant is None or tensor.quant.same_as(b.tensor(name).quant))
        and (tensor.data is None or np.array_equal(tensor.data, b.constant(name)))
        for name, tensor in a.tensors.items()
    )


@pytest.mark.parametrize("unit", ["layer", "block", "network"])
@pytest.mark.parametrize("scheme", ["w4a8", "w4a4"])
def test_lowers_the_error_on_other_samples_and_keeps_the_rules(unit: str, scheme: str) -> None:
    graph = network()
    start = quantized(graph, scheme)
    options = ReconstructionOptions(unit=unit, steps=80, batch=16)
    found, outcomes = run(graph, start, options=options, samples=100)
    check_graph(found)
    assert error(found, graph) < 0.92 * error(start, graph)
    assert all(outcome.kept == (outcome.after < outcome.before) for outcome in outcomes)
    assert any(outcome.kept for outcome in outcomes)
    if unit != "network":
        assert any(outcome.changed for outcome in outcomes)
    for node in filter(is_layer, found.nodes):
        weights = found.tensor(node.inputs[WEIGHTS])
        assert found.quant(weights.name).bits == start.quant(weights.name).bits
        expected = np.float32(found.quant(node.inputs[X]).scale) * found.quant(weights.name).scale
        np.testing.assert_array_equal(found.quant(node.inputs[BIAS]).scale, expected)


def test_eight_bit_codes_stay_unless_asked_for() -> None:
    graph = network()
    start = quantized(graph, "w4a8", frozenset({"first", "depthwise"}))
    found, _ = run(graph, start)
    for name in ("stem", "depthwise"):
        np.testing.assert_array_equal(found.constant(f"{name}.weight"), start.constant(f"{name}.weight"))
    for name in ("stem", "depthwise"):
        assert found.quant(f"{name}.weight").same_as(start.quant(f"{name}.weight"))
    assert not found.quant("project.weight").same_as(start.quant("project.weight"))
    for node in start.nodes:
        assert found.quant(node.outputs[0]).same_as(start.quant(node.outputs[0]))
    asked, _ = run(graph, start, options=ReconstructionOptions(steps=24, batch=8, eight_bit_weights=True))
    assert not asked.quant("depthwise.weight").same_as(start.quant("depthwise.weight"))


def test_the_same_seed_gives_the_same_graph_and_another_does_not() -> None:
    graph = network()
    start = quantized(graph, "w4a4")
    found, _ = run(graph, start)
    assert same(found, run(graph, start)[0])
    assert not same(found, run(graph, start, seed=4)[0])


def test_interrupted_work_resumes_to_the_same_result(tmp_path: Path) -> None:
    graph = network()
    start = quantized(graph, "w4a4")
    whole, outcomes = run(graph, start)

    class Interrupt(Exception):
        pass

    def stop(block: Block, outcome: Outcome) -> None:
        if block.name.startswith("expand"):
            raise Interrupt

    folder = tmp_path / "a" / "blocks"
    with pytest.raises(Interrupt):
        run(graph, start, checkpoint=folder, report=stop)
    done = sorted(folder.iterdir())
    assert 0 < len(done) < len(outcomes)
    times = [path.stat().st_mtime_ns for path in done]
    resumed, again = run(graph, start, checkpoint=folder)
    assert same(whole, resumed)
    assert [path.stat().st_mtime_ns for path in done] == times
    assert [(o.before, o.after, o.kept) for o in again] == [(o.before, o.after, o.kept) for o in outcomes]
    assert len(list(folder.iterdir())) == len(outcomes)
    other, _ = run(graph, start, checkpoint=folder, seed=4)
    assert same(other, run(graph, start, seed=4)[0])
    done[0].write_bytes(b"PK")
    with pytest.raises(DataError, match="is damaged"):
        run(graph, start, checkpoint=folder)


def test_shared_sets_change_together_or_not_at_all() -> None:
    b = Builder()
    stem = b.conv("stem", "x", 8)
    left, right = b.conv("left", stem, 8, 3), b.conv("right", stem, 8)
    joined = b.node("concat", "join", [left, right], ConcatAttrs(1))
    graph = b.done(b.conv("head", joined, 4, clamp=NO_CLAMP))
    start = quantized(graph, "w4a4", frozenset())
    members = ("left.out", "right.out", "join.out")
    together, _ = run(graph, start, options=ReconstructionOptions(unit="network", steps=24, batch=8))
    assert all(together.quant(name).same_as(together.quant("join.out")) for name in members)
    assert not together.quant("join.out").same_as(start.quant("join.out"))
    apart, _ = run(graph, start, options=ReconstructionOptions(unit="layer", steps=24, batch=8))
    assert all(apart.quant(name).same_as(start.quant(name)) for name in members)
    assert not apart.quant("stem.out").same_as(start.quant("stem.out"))


def test_a_block_that_gets_worse_stays_as_it_was() -> None:
    graph = network()
    start = quantized(graph, "w4a8")
    wild = ReconstructionOptions(steps=4, batch=8, rounding_rate=50.0, bias_rate=500.0, scale_rate=3.0)
    found, outcomes = run(graph, start, options=wild)
    assert not any(outcome.kept for outcome in outcomes)
    assert all(outcome.after > outcome.before for outcome in outcomes)
    assert same(found, start)


def test_layers_without_a_bias_get_one() -> None:
    b = Builder()
    x = b.conv("a", "x", 6, 3)
    graph = b.done(b.linear("head", b.node("reshape", "flat", [x], _flat(x, b)), 5, bias=False))
    start = quantized(graph, "w4a8", bias=False)
    assert len(start.nodes[-1].inputs) == 2
    found, _ = run(graph, start)
    bias = found.constant(found.nodes[-1].inputs[BIAS])
    assert bias is not None
    assert bias.any()


def _flat(x: str, b: Builder) -> object:
    from edgeq.ir import BATCH
    from edgeq.ops.reshape import ReshapeAttrs

    return ReshapeAttrs((BATCH, int(np.prod(b.graph.tensor(x).shape[1:]))))


def test_pieces_of_large_maps_train_too() -> None:
    b = Builder(size=48)
    x = b.conv("a", "x", 128, 3, stride=2)
    graph = b.done(b.conv("b", x, 8, clamp=NO_CLAMP))
    calibration = calibrate(graph, [images(12, size=48)])
    start = quantize(graph, Scheme.parse("w4a8"), calibration, QuantizeOptions(keep_8bit=frozenset())).graph
    options = ReconstructionOptions(steps=20, batch=24)
    found = reconstruct(start, graph, {"x": images(12, size=48)}, options, 1, 0)
    assert error(found, graph) < error(start, graph)


def test_progress_rises_to_the_end_and_minutes_limit_the_steps() -> None:
    graph = network()
    start = quantized(graph, "w4a8")
    told: list[tuple[int, int]] = []
    options = ReconstructionOptions(steps=100_000, batch=8, minutes=0.02)
    _, outcomes = run(graph, start, options=options, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert all(1 <= outcome.steps < 100_000 for outcome in outcomes)


@pytest.mark.parametrize(
    "wrong",
    [{"unit": "net"}, {"steps": 0}, {"batch": 0}, {"minutes": 0.0}, {"drop": 1.0}, {"held_out": 0.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ReconstructionOptions(**wrong)  # type: ignore[arg-type]


def test_one_sample_is_too_few() -> None:
    graph = network()
    with pytest.raises(QuantizationError, match="too few"):
        reconstruct(quantized(graph, "w4a8"), graph, {"x": images(1)}, OPTIONS, 1, 0)
