"""Distillation of whole small networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_graphs import Builder, inverted_residual

from edgeq.errors import DataError, QuantizationError, UsageError
from edgeq.ir import Graph
from edgeq.ops import check_graph
from edgeq.quantize import QuantizeOptions, Recipe, Scheme, calibrate, quantize
from edgeq.quantize.distil import Distillation, distil
from edgeq.quantize.layers import WEIGHTS, is_layer
from edgeq.quantize.recipe import recipe_for
from edgeq.quantize.sensitivity import divergence
from edgeq.quantize.training_options import DistillationOptions
from edgeq.simulate import simulate
from edgeq.simulate.executor import run_float_graph

pytestmark = pytest.mark.needs_torch

PLAIN = {"crop": 1.0, "mixed": 0.0, "contrast": 0.0}
"""Crops of noise are smoother than noise: nothing to learn from."""

RATES = {"weight_rate": 0.01, "bias_rate": 0.01, "scale_rate": 0.005, "step_rate": 0.01}
OPTIONS = DistillationOptions(steps=40, batch=16, checks=4, **PLAIN, **RATES)
SAMPLES = 200


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, 8, 8)).astype(np.float32)


def start(graph: Graph, scheme: str, **recipe: Any) -> Graph:
    chosen = Recipe(**{"observer": "mse", "weight_observer": "mse", **recipe})
    return quantize(graph, Scheme.parse(scheme), calibrate(graph, [images(60)]), QuantizeOptions(chosen)).graph


def run(
    graph: Graph, begin: Graph, options: DistillationOptions = OPTIONS, **others: Any
) -> tuple[Graph, Distillation]:
    return distil(begin, graph, {"x": images(SAMPLES)}, options, **{"threads": 1, "seed": 3, **others})


def distance(graph: Graph, reference: Graph) -> float:
    """Of the integers, on samples that nothing has seen."""
    x = {"x": images(200, 1)}
    return float(divergence(run_float_graph(reference, x), simulate(graph, x), probabilities=False).mean())


def same(a: Graph, b: Graph) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(
        (tensor.quant is None or tensor.quant.same_as(b.tensor(name).quant))
        and (tensor.data is None or np.array_equal(tensor.data, b.constant(name)))
        for name, tensor in a.tensors.items()
    )


@pytest.mark.parametrize("scheme", ["w4a8", "w4a4"])
def test_integers_come_nearer_to_the_float_network_and_keep_the_rules(scheme: str) -> None:
    graph = inverted_residual()
    begin = start(graph, scheme)
    found, outcome = run(graph, begin)
    assert (outcome.kept, outcome.steps) == (True, OPTIONS.steps)
    judged, unseen = (0.9, 0.97) if scheme == "w4a8" else (0.7, 0.85)
    assert outcome.after < judged * outcome.before
    assert distance(found, graph) < unseen * distance(begin, graph)
    check_graph(found)
    originals = {node.name: node for node in begin.nodes}
    changed = 0
    for node in filter(is_layer, found.nodes):
        codes, old = found.constant(node.inputs[WEIGHTS]), begin.constant(originals[node.name].inputs[WEIGHTS])
        quant = found.quant(node.inputs[WEIGHTS])
        assert quant.bits == begin.quant(originals[node.name].inputs[WEIGHTS]).bits
        assert np.abs(codes.astype(int)).max() <= (7 if quant.bits == 4 else 127)
        changed += int((codes != old).sum())
    assert changed
    steps = [(found.quant(tensor.name), begin.quant(tensor.name)) for tensor in graph.activations()]
    assert all(one.bits == other.bits and one.zero_point == other.zero_point for one, other in steps)
    assert all(one.same_as(other) for one, other in steps if one.bits == 8)
    assert any(one.scale != other.scale for one, other in steps) == (scheme == "w4a4")


def test_the_module_computes_what_the_integers_do() -> None:
    import torch

    from edgeq.quantize.training.module import RoundedNetwork

    graph = inverted_residual()
    found, _ = run(graph, start(graph, "w4a4"))
    module = RoundedNetwork.of(graph, found, play=0.0).eval()
    assert same(module.quantized_graph(), found)
    x = images(100, 5)
    with torch.no_grad():
        answers = module(torch.from_numpy(x)).numpy()
    (wanted,) = simulate(found, {"x": x})
    assert (np.abs(answers - wanted) < 1e-5).mean() > 0.99


def test_native_equals_simulate() -> None:
    pytest.importorskip("edgeq._native", reason="the native module is not built")
    from edgeq.exporters.edgeq_file import encode
    from edgeq.passes import channels_last, lower
    from edgeq.session import Session

    graph = inverted_residual()
    found, _ = run(graph, start(graph, "w4a4"))
    x = images(50, 6)
    (wanted,) = simulate(found, {"x": x})
    np.testing.assert_array_equal(Session(encode(lower(channels_last(found.copy())))).run(x), wanted)


def test_second_order_codes_are_where_it_starts() -> None:
    """Without a step to speak of nothing moves, however far the codes are from the float weights."""
    graph = inverted_residual()
    begin = start(graph, "w4a4", rounding="second-order")
    tiny = dict.fromkeys(("weight_rate", "bias_rate", "scale_rate", "step_rate"), 1e-9)
    found, outcome = run(graph, begin, DistillationOptions(steps=3, checks=1, **tiny))
    assert outcome.after == pytest.approx(outcome.before, rel=0.05)
    nodes = {node.name: node for node in begin.nodes}
    for node in filter(is_layer, found.nodes):
        old = begin.constant(nodes[node.name].inputs[WEIGHTS])
        np.testing.assert_array_equal(found.constant(node.inputs[WEIGHTS]), old)


def test_never_makes_it_worse() -> None:
    graph = inverted_residual()
    begin = start(graph, "w4a4", rounding="second-order")
    wild = DistillationOptions(steps=6, checks=2, weight_rate=0.9, bias_rate=0.9, scale_rate=0.9, step_rate=0.9)
    found, outcome = run(graph, begin, wild)
    assert not outcome.kept
    assert outcome.after == outcome.before
    assert found is begin


def test_the_best_state_is_taken_not_the_last() -> None:
    """Rates that are far too high at the end of a short schedule: what was best before is kept."""
    graph = inverted_residual()
    begin = start(graph, "w4a4")
    options = DistillationOptions(steps=60, checks=20, **{**RATES, "weight_rate": 0.08}, **PLAIN)
    found, outcome = run(graph, begin, options)
    assert outcome.kept
    held = images(SAMPLES)[-SAMPLES // 5 :]
    x = {"x": held}
    judged = float(divergence(run_float_graph(graph, x), simulate(found, x), probabilities=False).mean())
    assert judged == pytest.approx(outcome.after, rel=0.05)


def test_interrupted_work_resumes_to_the_same_integers(tmp_path: Path) -> None:
    graph = inverted_residual()
    begin = start(graph, "w4a4")
    whole, outcome = run(graph, begin)

    class Interrupted(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 23:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(graph, begin, checkpoint=tmp_path / "resume", progress=stop)
    seen: list[tuple[int, int]] = []
    again, resumed = run(graph, begin, checkpoint=tmp_path / "resume", progress=lambda *at: seen.append(at))
    assert seen[0] == (21, 40)  # Judged and kept every ten steps.
    assert seen[-1] == (40, 40)
    assert same(whole, again)
    assert (resumed.before, resumed.after, resumed.steps) == (outcome.before, outcome.after, outcome.steps)
    # Another seed is another run.
    seen.clear()
    run(graph, begin, checkpoint=tmp_path / "resume", progress=lambda *at: seen.append(at), seed=4)
    assert seen[0] == (1, 40)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    graph = inverted_residual()
    begin = start(graph, "w4a4")
    quick = DistillationOptions(steps=2, checks=1)
    run(graph, begin, quick, checkpoint=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{file.name}.*delete it"):
        run(graph, begin, quick, checkpoint=tmp_path)


def test_minutes_end_it_early() -> None:
    graph = inverted_residual()
    seen: list[tuple[int, int]] = []
    options = DistillationOptions(steps=100_000, minutes=0.02, batch=4)
    _, outcome = run(graph, start(graph, "w4a4"), options, progress=lambda *at: seen.append(at))
    assert 1 <= outcome.steps < 100_000
    assert seen[-1] == (100_000, 100_000)


def test_inputs_that_are_no_images() -> None:
    builder = Builder()
    flat = builder.graph.tensor("x")
    builder.graph.add_tensor(flat.with_(shape=(flat.shape[0], 24)))
    graph = builder.done(builder.linear("second", builder.linear("first", "x", 32), 5))
    x = np.random.default_rng(0).normal(0, 1, (100, 24)).astype(np.float32)
    begin = quantize(graph, Scheme.parse("w4a4"), calibrate(graph, [x]), QuantizeOptions(Recipe())).graph
    _, outcome = distil(begin, graph, {"x": x}, OPTIONS, 1, 0)
    assert outcome.after < outcome.before


def test_a_batch_is_cut_to_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeq.quantize.training import distillation

    graph = inverted_residual()
    elements = sum(int(np.prod(tensor.shape[1:])) for tensor in graph.activations())
    monkeypatch.setattr(distillation, "STEP_ELEMENTS", 3 * elements)
    made = distillation.Distiller(start(graph, "w4a4"), graph, {"x": images(50)}, OPTIONS, 0, None)
    sizes = []
    monkeypatch.setattr(made, "_augmentation", lambda inputs: sizes.append(len(inputs[0])) or inputs)
    made.run(None)
    assert set(sizes) == {3}


def test_too_few_samples() -> None:
    graph = inverted_residual()
    with pytest.raises(QuantizationError, match="too few"):
        distil(start(graph, "w4a4"), graph, {"x": images(1)}, OPTIONS, 1, 0)


class TestAugmentation:
    def test_changes_nothing_but_the_side_when_nothing_is_asked_for(self) -> None:
        import torch

        from edgeq.quantize.training.distillation import Augmentation

        options = DistillationOptions(crop=1.0, mixed=0.0, contrast=0.0)
        x = torch.from_numpy(images(40))
        (found,) = Augmentation(options, [(8, 8)], torch.Generator().manual_seed(0))([x])
        mirrored = [bool(torch.allclose(one, other.flip(-1), atol=1e-4)) for one, other in zip(found, x, strict=True)]
        kept = [bool(torch.allclose(one, other, atol=1e-4)) for one, other in zip(found, x, strict=True)]
        assert all(a or b for a, b in zip(mirrored, kept, strict=True))
        assert 8 < sum(mirrored) < 32

    def test_crops_stay_inside_and_mixtures_are_of_two_samples(self) -> None:
        import torch

        from edgeq.quantize.training.distillation import Augmentation

        options = DistillationOptions(crop=0.3, mixed=0.5, contrast=0.0)
        # Each sample has its own constant: crops leave it, mixtures lie between two of them.
        x = torch.arange(20.0).reshape(20, 1, 1, 1).expand(20, 3, 64, 64)
        (found,) = Augmentation(options, [(32, 32)], torch.Generator().manual_seed(0))([x])
        assert found.shape == (20, 3, 32, 32)
        means = found.flatten(1)
        assert torch.allclose(means[10:], torch.arange(10.0, 20.0)[:, None].expand(10, 3072), atol=1e-4)
        averaged, pieces = means[0:10:2], means[1:10:2]
        assert torch.allclose(averaged.min(1).values, averaged.max(1).values, atol=1e-4)
        assert all(len(row.round(decimals=2).unique()) == 2 for row in pieces)

    def test_smaller_images_only_where_the_network_takes_them(self) -> None:
        from edgeq.quantize.training.distillation import _smaller

        assert _smaller((224, 224), 0.72) == (160, 160)
        assert _smaller((224, 320), 0.5) == (128, 160)
        assert _smaller((32, 32), 0.5) == (32, 32)
        assert _smaller((224, 224), 1.0) == (224, 224)


class TestRecipes:
    def test_no_level_distils(self) -> None:
        for scheme in ("w8a8", "w4a8", "w4a4"):
            assert recipe_for("best", Scheme.parse(scheme)).reconstruct
            for effort in ("fast", "good", "best"):
                assert not recipe_for(effort, Scheme.parse(scheme)).distil

    def test_by_name(self, tmp_path: Path) -> None:
        path = tmp_path / "r.toml"
        path.write_text('rounding = "second-order"\ndistil = true\n[distillation]\nsteps = 7\nminutes = 2\n')
        found = Recipe.load(path)
        assert (found.distil, found.distillation.steps, found.distillation.minutes) == (True, 7, 2.0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("distill = true", "did you mean distil"),
            ("[distillation]\nstep = 3", "did you mean steps"),
            ("[distillation]\nsteps = 0", "at least 1"),
            ("[distillation]\nsteps = 2.5", "takes a int"),
            ("[distillation]\nchecks = 0", "at least 1"),
            ("[distillation]\nminutes = -1", "no time"),
            ("[distillation]\nside = 0", r"side .* must lie in \(0, 1\]"),
            ("[distillation]\ncrop = 1.5", r"crop .* must lie in \(0, 1\]"),
            ("[distillation]\nmixed = 2", r"mixed .* must lie in \[0, 1\]"),
            ("[distillation]\nweight_rate = 1.0", r"weight_rate .* must lie in \[0, 1\)"),
            ("[distillation]\nheld_out = 1.0", r"held_out .* must lie in \(0, 1\)"),
        ],
    )
    def test_bad_values_are_errors(self, text: str, message: str, tmp_path: Path) -> None:
        path = tmp_path / "r.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            Recipe.load(path)

    def test_rounding_does_not_see_what_distillation_is_judged_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import importlib

        module = importlib.import_module("edgeq.quantize.quantize")
        graph, seen = inverted_residual(), []
        original = module.round_second_order

        def spy(quantized: Graph, reference: Graph, samples: Any, *others: Any) -> Any:
            seen.append(len(samples["x"]))
            return original(quantized, reference, samples, *others)

        monkeypatch.setattr(module, "round_second_order", spy)
        calibration = calibrate(graph, [images(60)])
        recipe = Recipe(rounding="second-order", distil=True, distillation=DistillationOptions(steps=2, held_out=0.3))
        quantize(graph, Scheme.parse("w4a4"), calibration, QuantizeOptions(recipe, threads=1))
        # Two steps bring too little: all samples then.
        assert seen == [42, 60]


def test_training_that_brings_little_leaves_what_rounding_makes_of_all_samples() -> None:
    graph = inverted_residual()
    calibration = calibrate(graph, [images(60)])
    bits = Scheme.parse("w4a8")
    good = Recipe(observer="mse", weight_observer="mse", rounding="second-order")
    still = DistillationOptions(
        steps=2, batch=4, checks=1, **PLAIN, weight_rate=0.0, bias_rate=0.0, scale_rate=0.0, step_rate=0.0
    )
    plain = quantize(graph, bits, calibration, QuantizeOptions(good, threads=1)).graph
    trained = quantize(
        graph, bits, calibration, QuantizeOptions(good.with_(distil=True, distillation=still), threads=1)
    ).graph
    assert same(plain, trained)
