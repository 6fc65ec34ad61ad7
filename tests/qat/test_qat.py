"""Quantization-aware training on the demo network: what a module computes, trains, keeps and exports."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_graphs import CASES, Case, build
from small_graphs import Builder, inverted_residual, mean

import edgeq
from edgeq.data.digits import load_digits
from edgeq.errors import EdgeqError, ImportModelError, QuantizationError, UsageError
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.ir import Graph
from edgeq.ops import check_graph
from edgeq.quantize import QuantizeOptions, Recipe, calibrate, quantize
from edgeq.simulate import simulate
from edgeq.zoo.demo import demo_path

torch = pytest.importorskip("torch", reason="training needs the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch


def inputs_of(graph: Graph, samples: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 2, (samples, *graph.tensor(name).shape[1:])).astype(np.float32) for name in graph.inputs
    }


def module_of(graph: Graph, bits: str = "w4a4", **options: Any) -> Any:
    """A module straight from a float graph, without calibration."""
    from edgeq.qat.module import QatModule
    from edgeq.quantize import Scheme

    return QatModule(graph, Scheme.parse(bits), to_float_onnx(graph).proto.SerializeToString(), **options)


def post_training(graph: Graph, bits: str, samples: dict[str, np.ndarray] | np.ndarray) -> Graph:
    from edgeq.quantize import Scheme

    found = calibrate(graph, [samples], observer="mse")
    return quantize(graph, Scheme.parse(bits), found, QuantizeOptions(Recipe(weight_observer="mse"))).graph


def run(module: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    with torch.no_grad():
        found = module.eval()(*(torch.from_numpy(feeds[name]) for name in module.graph.inputs))
    return [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]


def assert_same_integers(module: Any, feeds: dict[str, np.ndarray], share: float) -> None:
    """The module against the integers that it exports: a share of the codes is equal, the others a step off."""
    integers = module.quantized_graph()
    check_graph(integers)
    for name, found, wanted in zip(integers.outputs, run(module, feeds), simulate(integers, feeds), strict=True):
        quant = integers.tensor(name).quant
        if quant is None:
            assert np.abs(found - wanted).max() < 2e-2
            continue
        steps = np.abs(np.rint((found - wanted) / quant.scale))
        assert steps.max() <= 1, name
        assert (steps == 0).mean() >= share, name


def with_layer(graph: Graph, rng: np.random.Generator) -> Graph:
    """The graph with a linear layer before its first input: without weights there is nothing to train."""
    from edgeq.ir import Node, Tensor
    from edgeq.ops.linear import LinearAttrs

    result = graph.copy()
    first = result.inputs[0]
    tensor = result.tensor(first)
    result.add_tensor(tensor.with_(name="given"))
    width = tensor.shape[-1]
    weight = (np.eye(width) + rng.normal(0, 0.2, (width, width))).astype(np.float32)
    names = [result.add_tensor(Tensor.constant(f"before.{i}", v)) for i, v in enumerate((weight, weight[0] * 0.1))]
    result.nodes.insert(0, Node("linear", "before", ("given", *names), (first,), LinearAttrs()))
    result.inputs[0] = "given"
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operator_computes_what_its_integers_do(case: Case) -> None:
    from ops.float_twins import float_twin

    bits = "w8a8"  # Where a step is smallest.
    graph = with_layer(float_twin(build(case, "w8a8", seed=7)), np.random.default_rng(8))
    feeds = inputs_of(graph, 8, seed=9)
    module = module_of(graph, bits).start_from(post_training(graph, bits, feeds))
    assert_same_integers(module, feeds, share=0.97)
    module.train()(*(torch.from_numpy(value) for value in feeds.values()))


@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w4a4"])
def test_it_starts_from_the_very_integers_of_post_training(bits: str) -> None:
    graph = inverted_residual()
    feeds = inputs_of(graph, 64, seed=1)
    started = post_training(graph, bits, feeds)
    found = module_of(graph, bits).start_from(started).quantized_graph()
    assert [node.name for node in found.nodes] == [node.name for node in started.nodes]
    for mine, theirs in zip(found.nodes, started.nodes, strict=True):
        for name, other in zip((*mine.inputs, *mine.outputs), (*theirs.inputs, *theirs.outputs), strict=True):
            assert found.quant(name).same_as(started.quant(other)), name
            if started.constant(other) is not None:
                np.testing.assert_array_equal(found.constant(name), started.constant(other))


def test_codes_that_are_not_the_nearest_are_kept_too(rng: np.random.Generator) -> None:
    """Second-order rounding and AdaRound choose them; training begins with what they gained."""
    graph = inverted_residual()
    started = post_training(graph, "w4a4", inputs_of(graph, 64, seed=1))
    name = next(node.inputs[1] for node in started.nodes if node.name == "project")
    tensor = started.tensor(name)
    moved = np.clip(tensor.data + rng.integers(-1, 2, tensor.shape), -7, 7).astype(np.int8)
    started.add_tensor(tensor.with_(data=moved))
    module = module_of(graph).start_from(started)
    found = module.quantized_graph()
    node = next(node for node in found.nodes if node.name == "project")
    np.testing.assert_array_equal(found.constant(node.inputs[1]), moved)
    # A weight whose code is its nearest stays where it was.
    latent, original = module.layers["project"].weight.detach().numpy(), graph.constant("project.weight")
    ratio = original / tensor.quant.scale.reshape(-1, 1, 1, 1)
    kept = (np.abs(ratio - moved) < 0.49) & (np.abs(ratio) < 6.99)
    assert 0.2 < kept.mean() < 1
    np.testing.assert_allclose(latent[kept], original[kept], rtol=1e-5)


@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
def test_training_reaches_every_parameter_and_the_integers_follow(bits: str, rng: np.random.Generator) -> None:
    graph = inverted_residual()
    feeds = inputs_of(graph, 64, seed=1)
    x = torch.from_numpy(feeds["x"])
    target = torch.from_numpy(rng.normal(0, 1, (64, 10)).astype(np.float32))
    module = module_of(graph, bits).calibrate(feeds["x"])
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    assert any(name.startswith("activations.") for name in before)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = (module.train()(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            assert all(value.grad.abs().max() > 0 for value in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all((value != before[name]).any() for name, value in module.named_parameters())
    assert_same_integers(module, feeds, share=0.99)


def test_shared_sets_share_one_quantizer_and_fixed_ranges_stay() -> None:
    from edgeq.ir import Attrs
    from edgeq.ops.concat import ConcatAttrs

    b = Builder(channels=4)
    left, right = b.conv("left", "x", 6), b.conv("right", "x", 6)
    gate = b.node("sigmoid", "gate", [b.conv("gates", left, 6)], Attrs())
    joined = b.node("concat", "join", [left, right], ConcatAttrs(1))
    graph = b.done(b.linear("head", mean(b, "pool", joined), 5), gate)
    feeds = inputs_of(graph, 32, seed=2)
    module = module_of(graph, "w4a4").calibrate(feeds["x"])
    members = {module._set_of[name] for name in (left, right, joined)}
    assert members == {left}
    fixed = module.activations[module._keys[gate]]
    assert not list(fixed.parameters())
    sum(value.sum() for value in module(torch.from_numpy(feeds["x"]))).backward()
    integers = module.quantized_graph()
    assert integers.quant(left).same_as(integers.quant(joined))
    assert float(integers.quant(gate).scale) == 1 / 256
    assert_same_integers(module, feeds, share=0.99)


def test_state_is_saved_loaded_and_copied(tmp_path: Path) -> None:
    graph = inverted_residual()
    feeds = inputs_of(graph, 32, seed=3)
    module = module_of(graph).calibrate(feeds["x"])
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        module.train()(torch.from_numpy(feeds["x"])).square().mean().backward()
        optimizer.step()
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other = module_of(graph)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    wanted = run(module, feeds)[0]
    for again in (other, copy.deepcopy(module)):
        np.testing.assert_array_equal(run(again, feeds)[0], wanted)
        np.testing.assert_array_equal(
            simulate(again.quantized_graph(), feeds)[0], simulate(module.quantized_graph(), feeds)[0]
        )
    copied = copy.deepcopy(module)
    with torch.no_grad():
        copied.layers["stem"].weight.zero_()
    np.testing.assert_array_equal(run(module, feeds)[0], wanted)
    assert np.abs(graph.constant("stem.weight")).max() > 0


def test_bits_of_a_mixed_start_are_part_of_the_state() -> None:
    from edgeq.quantize import Scheme

    graph = inverted_residual()
    feeds = inputs_of(graph, 32, seed=3)
    found = calibrate(graph, [feeds])
    bits = {"stem": 8, "expand": 4, "depthwise": 8, "project": 4, "head": 8}
    mixed = quantize(graph, Scheme.parse("w4a8"), found, QuantizeOptions(layer_bits=bits)).graph
    module = module_of(graph, "w4a8").start_from(mixed)
    other = module_of(graph, "w4a8")
    other.load_state_dict(module.state_dict())
    for one in (module, other):
        integers = one.quantized_graph()
        assert {node.name: integers.quant(node.inputs[1]).bits for node in integers.nodes if node.name in bits} == bits
    np.testing.assert_array_equal(run(other, feeds)[0], run(module, feeds)[0])


def test_parameter_groups_hold_every_parameter_once() -> None:
    module = module_of(inverted_residual())
    groups = module.parameter_groups(0.1, weight_decay=0.01, scale_lr=0.02)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in module.parameters())
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.01), (0.1, 0.0), (0.02, 0.0)]
    scales = {id(value) for name, value in module.named_parameters() if name.endswith("scale.ratio")}
    assert {id(parameter) for parameter in groups[2]["params"]} == scales
    torch.optim.SGD(groups)


@pytest.mark.parametrize("start", [0.004, 30.0])
def test_a_step_of_sgd_moves_a_scale_as_if_it_were_learned_itself(start: float, rng: np.random.Generator) -> None:
    from edgeq.quantize.training.scales import LearnedScale
    from edgeq.torch_executor.fake_quant import fake_quantize

    x = torch.from_numpy(rng.normal(0, 2 * start, (8, 100)).astype(np.float32))
    learned, direct = LearnedScale(torch.tensor(start)), torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([learned.ratio, direct], lr=1e-4)
    for scale in (learned(), direct):
        (fake_quantize(x, scale, 0, -7, 7) - 0.3 * x).square().sum().backward()
    optimizer.step()
    assert direct.item() != start
    assert learned().item() == pytest.approx(direct.item(), rel=1e-5)


def test_a_scale_stays_positive() -> None:
    from edgeq.quantize.training.scales import LearnedScale

    scale = LearnedScale(torch.tensor(0.5))
    with torch.no_grad():
        scale.ratio.fill_(-3.0)
    assert scale().item() == 0.5 * 2.0**-8
    scale().backward()
    assert scale.ratio.grad.item() > 0


def test_floors_keep_accumulators_within_32_bits() -> None:
    """A huge bias on tiny weights: the exporter's scale floor is the module's too."""
    graph = inverted_residual()
    bias = graph.constant("project.bias").copy()
    bias[0] = 5e4
    weight = graph.constant("project.weight").copy()
    weight[0] *= 1e-6
    for name, value in (("project.bias", bias), ("project.weight", weight)):
        graph.add_tensor(graph.tensor(name).with_(data=value))
    feeds = inputs_of(graph, 16, seed=4)
    module = module_of(graph, "w8a8").calibrate(feeds["x"])
    with torch.no_grad():
        module.layers["project"].scale.ratio.fill_(2.0**-7)
    assert_same_integers(module, feeds, share=0.99)


def test_what_training_broke_is_refused() -> None:
    graph = inverted_residual()
    module = module_of(graph).calibrate(inputs_of(graph, 16, seed=4)["x"])
    with torch.no_grad():
        module.layers["stem"].bias[0] = float("nan")
    with pytest.raises(QuantizationError, match=r"layers\.stem\.bias is not finite: training has diverged"):
        module.quantized_graph()


def test_errors_name_the_cure(tmp_path: Path) -> None:
    graph = inverted_residual()
    module = module_of(graph)
    with pytest.raises(UsageError, match=r"call calibrate\(batches\)"):
        module(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match=r"call calibrate\(batches\)"):
        edgeq.export(module, out=tmp_path / "out")
    module.calibrate(inputs_of(graph, 16, seed=4)["x"])
    with pytest.raises(UsageError, match="takes 1 inputs, not 2"):
        module(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match="trained for w4a4, not w8a8"):
        edgeq.export(module, bits="w8a8", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(QuantizationError, match="another model's"):
        module.start_from(post_training(another_model(), "w4a4", inputs_of(graph, 4, seed=4)))
    with pytest.raises(UsageError, match='"fold" or "train"'):
        edgeq.prepare_qat(demo_path(), batch_norm="melt")
    with pytest.raises(QuantizationError, match='use batch_norm="fold"'):
        edgeq.prepare_qat(demo_path(), batch_norm="train")
    with pytest.raises(ImportModelError, match=r"needs a torch\.nn\.Module"):
        edgeq.prepare_qat("model.tflite")
    with pytest.raises(QuantizationError, match="not a scheme"):
        edgeq.prepare_qat(demo_path(), bits="w3")
    with pytest.raises(QuantizationError, match="neither first, last nor a layer"):
        edgeq.prepare_qat(demo_path(), keep_8bit=["nowhere"])
    with pytest.raises(EdgeqError, match="no samples"):
        edgeq.prepare_qat(demo_path(), calibration=[])


def another_model() -> Graph:
    b = Builder()
    return b.done(b.linear("head", mean(b, "pool", b.conv("first", "x", 8, 3)), 10))


# --- the demo network, trained weights and real images ---


@pytest.fixture(scope="module")
def demo_network() -> Any:
    import onnx
    from onnx import numpy_helper

    from edgeq.zoo.architectures.demo import DemoNet

    network = DemoNet()
    stored = onnx.load(demo_path()).graph.initializer
    values = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in stored}
    missing, _ = network.load_state_dict(values, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


@pytest.fixture(scope="module")
def prepared(demo_network: Any) -> dict[str, Any]:
    """Modules without ranges by `batch_norm`: torch's exporter takes seconds, copies take none."""
    state = {name: value.clone() for name, value in demo_network.state_dict().items()}
    example = np.zeros((1, 1, 8, 8), np.float32)
    found = {kind: edgeq.prepare_qat(demo_network, example, "w4a4", batch_norm=kind) for kind in ("fold", "train")}
    assert not demo_network.training
    for name, value in demo_network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    return found


def train_on_digits(module: Any, epochs: int) -> None:
    images, labels = (torch.from_numpy(array) for array in load_digits("train"))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(module.parameter_groups(2e-3))
    steps = epochs * len(images) // 64
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    module.train()
    for _ in range(steps):
        chosen = torch.randint(0, len(images), (64,), generator=generator)
        loss = torch.nn.functional.cross_entropy(module(images[chosen]), labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    module.eval()


@pytest.mark.parametrize("batch_norm", ["fold", "train"])
def test_the_demo_trains_at_four_bits_and_ships(prepared: Any, batch_norm: str, tmp_path: Path) -> None:
    images, labels = load_digits("test")
    module = copy.deepcopy(prepared[batch_norm]).calibrate(load_digits("calib")[0])
    assert module.training
    (before,) = run(module, {"x": images})
    train_on_digits(module, 6)
    (after,) = run(module, {"x": images})
    losses = [
        float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
        for logits in (before, after)
    ]
    assert losses[1] < losses[0]
    # All but one or two of 540 digits are right before: one more or less is chance.
    assert (after.argmax(1) == labels).mean() >= (before.argmax(1) == labels).mean() - 1.5 / len(labels)
    assert (after.argmax(1) == labels).mean() > 0.95
    result = edgeq.export(module, out=tmp_path / "out", to="edgeq,onnx")
    assert result.manifest["scheme"] == "w4a4"
    assert result.manifest["calibration"] is None
    assert result.manifest["notes"][0] == "trained with quantization (edgeq.prepare_qat)"
    assert {layer["weight_bits"] for layer in result.manifest["layers"]} == {4, 8}
    assert [change["node"] for change in result.manifest["changes"]]
    native = edgeq.Session(tmp_path / "out" / "model.edgeq").run(images)
    assert (native.argmax(1) == after.argmax(1)).mean() >= 0.995
    figures = edgeq.verify(tmp_path / "out", data=(images, labels)).to_json()
    assert figures["reference"]["top1"] > 0.97
    assert figures["quantized"]["top1"] == pytest.approx((native.argmax(1) == labels).mean())


def test_batch_norms_are_found_and_fold_exactly(prepared: Any) -> None:
    calibration = load_digits("calib")[0]
    modules = [copy.deepcopy(prepared[kind]).calibrate(calibration) for kind in ("fold", "train")]
    gammas = [name for name, _ in modules[1].named_parameters() if name.endswith(".gamma")]
    assert len(gammas) == 14
    folded, normalised = (module.quantized_graph() for module in modules)
    for name, tensor in folded.tensors.items():
        if tensor.data is not None and tensor.dtype == "int8":
            assert (tensor.data != normalised.constant(name)).mean() < 1e-3
    logits = [run(module, {"x": calibration})[0] for module in modules]
    assert (logits[0].argmax(1) == logits[1].argmax(1)).mean() > 0.99


def test_batch_norm_in_training_is_batch_norm(demo_network: Any) -> None:
    """With 8 bits a pass in training is close to the float network's, and so are the statistics afterwards."""
    from edgeq.qat.layers import NormalisedLayer

    images = load_digits("train")[0][:256]
    module = edgeq.prepare_qat(demo_network, images[:1], "w8a8", calibration=images, batch_norm="train")
    twin = copy.deepcopy(demo_network).train()
    x = torch.from_numpy(images)
    found, wanted = module.train()(x).detach(), twin(x).detach()
    assert (found - wanted).norm() < 0.1 * wanted.norm()
    norms = [m for m in twin.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    layers = [layer for layer in module.layers.values() if isinstance(layer, NormalisedLayer)]
    assert len(layers) == len(norms)
    old = [m for m in demo_network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for layer, norm, before in zip(layers, norms, old, strict=True):
        moved = norm.running_var - before.running_var
        assert (layer.running_var - norm.running_var).norm() < 0.2 * moved.norm() + 0.02 * norm.running_var.norm()
        assert (layer.running_var - before.running_var).abs().max() > 0


def test_frozen_batch_norms_keep_their_statistics(demo_network: Any, prepared: Any) -> None:
    images = load_digits("train")[0][:64]
    x = torch.from_numpy(images)
    module = edgeq.prepare_qat(
        demo_network, images[:1], calibration=images, batch_norm="train", freeze_batch_norm_after=2
    )

    def statistics() -> torch.Tensor:
        return torch.cat([layer.running_mean for layer in module.layers.values() if hasattr(layer, "running_mean")])

    seen = [statistics().clone()]
    for _ in range(4):
        module.train()(x)
        seen.append(statistics().clone())
    moved = [bool((a != b).any()) for a, b in itertools.pairwise(seen)]
    assert moved == [True, True, False, False]
    torch.testing.assert_close(module.train()(x), module.eval()(x), rtol=0, atol=0)
    again = copy.deepcopy(prepared["train"])
    again.load_state_dict(module.state_dict())
    again.train()(x)
    assert bool(again.batch_norm_frozen)
    first, other = (next(iter(one.layers.values())) for one in (module, again))
    torch.testing.assert_close(other.running_mean, first.running_mean, rtol=0, atol=0)
    module.freeze_batch_norm(False).train()(x)
    assert (statistics() != seen[-1]).any()


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(edgeq.__file__).parents[1] / "docs" / "qat.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    images, labels = load_digits("train")
    loader = [(torch.from_numpy(images[i : i + 32]), torch.from_numpy(labels[i : i + 32])) for i in range(0, 128, 32)]
    monkeypatch.chdir(tmp_path)
    given = {
        "model": demo_path(),
        "example_input": None,
        "calibration_images": load_digits("calib")[0],
        "loader": loader,
    }
    exec(code, given)
    assert edgeq.Session(tmp_path / "out" / "model.edgeq").run(images[:2]).shape == (2, 10)
