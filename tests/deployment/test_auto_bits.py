"""`--bits auto` and plans, on the embedded demo."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.deployment import auto_bits, bit_request, layer_times
from edgeq.errors import BackendError, DataError, QuantizationError, UsageError
from edgeq.importers import from_edgeq
from edgeq.metrics import predicted_class
from edgeq.quantize import Scheme, plan_file
from edgeq.session import native_module

pytest.importorskip("onnxruntime", reason="needs the extra edgeq[export]")
pytest.importorskip("scipy", reason="needs the extra edgeq[export]")


@pytest.fixture(scope="module", autouse=True)
def short_timing() -> Iterator[None]:
    """Times are not what these tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_times, "ROUNDS", 3)
        patch.setattr(layer_times, "SECONDS", 0.01)
        yield


def export(out: Path, **arguments: Any) -> edgeq.deployment.ExportResult:
    return edgeq.export(out=out, to="edgeq", **arguments)


def file_bytes(folder: Path) -> int:
    return (folder / "model.edgeq").stat().st_size


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo at w8a8 and w4a8."""
    folders = {bits: tmp_path_factory.mktemp("ends") / bits for bits in ("w8a8", "w4a8")}
    for bits, folder in folders.items():
        export(folder, bits=bits)
    return folders


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo at a size budget, in all formats."""
    out = tmp_path_factory.mktemp("auto") / "out"
    edgeq.export(bits="auto", budget={"size": 0.8}, out=out)
    return out


def test_the_size_is_what_was_asked_for(auto: Path, ends: dict[str, Path]) -> None:
    plan = plan_file.load(auto / "plan.toml")
    share = file_bytes(auto) / file_bytes(ends["w8a8"])
    assert plan.reached["size"] == pytest.approx(share, abs=5e-5)
    assert 0.75 < share <= 0.8
    assert {4, 8} == set(plan.bits.values())
    assert plan.optimum["gap"] == 0.0
    assert 0 < plan.optimum["sensitivity"] < sum(layer.sensitivity or 0 for layer in plan.layers.values())
    first = next(iter(plan.layers.values()))
    assert first.bits == 8
    assert "first layer" in first.reason
    for layer in plan.layers.values():
        assert layer.reason
        assert layer.bytes is not None
        assert layer.bytes[0] * 2 >= layer.bytes[1] > 0
        assert layer.ms is not None


def test_the_file_has_the_bits_of_the_plan(auto: Path) -> None:
    bits = plan_file.load(auto / "plan.toml").bits
    graph, info = from_edgeq.load(auto / "model.edgeq")
    found = {node.name: graph.quant(node.inputs[1]).bits for node in graph.nodes if node.name in bits}
    assert found == bits
    assert info.metadata["scheme"] == "mixed"
    manifest = json.loads((auto / "manifest.json").read_text())
    counts = {"w4": list(bits.values()).count(4), "w8": list(bits.values()).count(8)}
    assert manifest["scheme"] == "mixed"
    assert manifest["layers_by_bits"] == info.metadata["layers_by_bits"] == counts
    assert manifest["plan"]["bits"] == bits
    assert manifest["plan"]["budget"] == {"size": 0.8}
    assert {layer["name"]: layer["weight_bits"] for layer in manifest["layers"]} == bits
    assert manifest["changes"] == []


def test_every_format_computes_the_same_and_verifies(auto: Path) -> None:
    manifest = json.loads((auto / "manifest.json").read_text())
    assert {"model.edgeq", "model.onnx", "model.tflite", "plan.toml"} <= set(manifest["files"])
    assert len(manifest["agreement"]) == 2
    assert all(one["mean_steps"] <= 0.5 for one in manifest["agreement"])
    native, oracle = (edgeq.verify(auto, data="digits", backend=name, samples=100) for name in ("native", "simulate"))
    figures = [
        {key: value for key, value in one.to_json().items() if key not in ("provenance", "seconds")}
        for one in (native, oracle)
    ]
    assert figures[0] == figures[1]
    assert figures[0]["quantized"]["top1"] > 0.9


def test_a_replay_gives_the_same_bytes(auto: Path, tmp_path: Path) -> None:
    result = edgeq.export(bits=auto / "plan.toml", out=tmp_path / "again")
    for name in ("model.edgeq", "model.onnx", "model.tflite", "plan.toml", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (auto / name).read_bytes(), name
    assert "4-bit weights in" in result.summary()


def test_an_edited_plan_replays_as_edited(auto: Path, tmp_path: Path) -> None:
    plan = plan_file.load(auto / "plan.toml")
    turned = [next(name for name, bits in plan.bits.items() if bits == given) for given in (4, 8)]
    text = (auto / "plan.toml").read_text()
    for name in turned:
        line = next(line for line in text.splitlines() if line.startswith(f'"{name}"'))
        old, new = ("bits = 4", "bits = 8") if plan.bits[name] == 4 else ("bits = 8", "bits = 4")
        text = text.replace(line, line.replace(old, new, 1))
    path = tmp_path / "mine.toml"
    path.write_text(text)
    manifest = export(tmp_path / "out", bits=str(path)).manifest
    assert manifest["plan"]["bits"] == {**plan.bits, turned[0]: 8, turned[1]: 4}
    assert {layer["name"]: layer["weight_bits"] for layer in manifest["layers"]} == manifest["plan"]["bits"]
    assert manifest["plan"]["edited"]
    assert any("edited" in note for note in manifest["notes"])
    assert (tmp_path / "out" / "plan.toml").read_text() == text


def test_extreme_plans_are_the_schemes(ends: dict[str, Path], auto: Path, tmp_path: Path) -> None:
    """All layers at 8 bits are w8a8's codes; those of w4a8 are w4a8's."""
    layers = list(plan_file.load(auto / "plan.toml").bits)
    x = np.random.default_rng(0).random((20, 1, 8, 8)).astype(np.float32)
    for scheme, bits in (("w8a8", dict.fromkeys(layers, 8)), ("w4a8", {**dict.fromkeys(layers, 4), layers[0]: 8})):
        path = tmp_path / f"{scheme}.toml"
        path.write_text("[layers]\n" + "\n".join(f'"{name}" = {width}' for name, width in bits.items()))
        export(tmp_path / scheme, bits=path)
        outputs = [edgeq.Session(folder / "model.edgeq").run(x) for folder in (tmp_path / scheme, ends[scheme])]
        if scheme == "w4a8":
            np.testing.assert_array_equal(*outputs)
        else:
            assert (predicted_class(outputs[0]) == predicted_class(outputs[1])).all()


def test_other_models_and_data_are_named(auto: Path, tmp_path: Path) -> None:
    text = (auto / "plan.toml").read_text().replace('model_sha256 = "', 'model_sha256 = "00')
    (tmp_path / "plan.toml").write_text(text)
    notes = export(tmp_path / "out", bits=tmp_path / "plan.toml", seed=3, calib_samples=50).manifest["notes"]
    assert any("another model (demo" in note for note in notes)
    assert any("other calibration samples (samples, seed differ)" in note for note in notes)


def test_layers_kept_by_name_override_a_plan(auto: Path, tmp_path: Path) -> None:
    bits = plan_file.load(auto / "plan.toml").bits
    name = next(layer for layer, width in bits.items() if width == 4)
    manifest = export(tmp_path / "out", bits=auto / "plan.toml", keep_8bit=[name]).manifest
    assert [(change["node"], change["requested"], change["done"]) for change in manifest["changes"]] == [
        (name, "w4", "w8")
    ]


def test_kept_layers_are_not_chosen(auto: Path, tmp_path: Path) -> None:
    bits = plan_file.load(auto / "plan.toml").bits
    narrow = [layer for layer, width in bits.items() if width == 4]
    manifest = export(tmp_path / "out", bits="auto", budget="size=0.8", keep_8bit=["last", narrow[0]]).manifest
    assert manifest["plan"]["bits"][narrow[0]] == 8
    assert manifest["plan"]["bits"][list(bits)[-1]] == 8
    assert manifest["plan"]["reached"]["size"] <= 0.8


def test_without_the_engine_the_same_bits_are_chosen(
    auto: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise BackendError("not built")

    monkeypatch.setattr(auto_bits, "native_module", absent)
    manifest = export(tmp_path / "out", bits="auto", budget={"size": 0.8}, progress=True).manifest
    plan = plan_file.load(tmp_path / "out" / "plan.toml")
    expected = plan_file.load(auto / "plan.toml")
    assert plan.bits == expected.bits
    assert plan.optimum == expected.optimum
    assert set(plan.reached) == {"size"}
    assert all(layer.ms is None for layer in plan.layers.values())
    assert (tmp_path / "out" / "model.edgeq").read_bytes() == (auto / "model.edgeq").read_bytes()
    assert manifest["plan"]["reached"]["size"] == pytest.approx(expected.reached["size"], abs=5e-5)
    with pytest.raises(UsageError, match="native engine"):
        export(tmp_path / "no", bits="auto", budget={"latency": 1.1})


def test_the_disagreement_gate_holds_on_samples_that_calibrated_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gate reports is what the exported file does on the samples that were held back."""
    seen: dict[str, Any] = {}
    real = auto_bits.choose_bits

    def spy(job: auto_bits.Job, budget: Any) -> Any:
        seen["job"] = job
        return real(job, budget)

    monkeypatch.setattr(importlib.import_module("edgeq.deployment.export"), "choose_bits", spy)
    result = export(tmp_path / "out", bits="auto", budget={"disagreement": 0.02})
    job = seen["job"]
    (held,), (used,) = job.held_back.values(), job.samples.values()
    plan = plan_file.load(tmp_path / "out" / "plan.toml")
    assert plan.held_back == len(held) == result.manifest["calibration"]["held_back"]
    assert not {row.tobytes() for row in held} & {row.tobytes() for row in used}
    answers = predicted_class(edgeq.Session(tmp_path / "out" / "model.edgeq").run(held))
    expected = predicted_class(auto_bits.float_outputs(job.graph, job.held_back)[0])
    rate = float((answers != expected).mean())
    assert result.manifest["plan"]["reached"]["disagreement"] == rate <= 0.02
    again = export(tmp_path / "again", bits=tmp_path / "out" / "plan.toml")
    assert (tmp_path / "again" / "model.edgeq").read_bytes() == (tmp_path / "out" / "model.edgeq").read_bytes()
    assert again.manifest["calibration"] == result.manifest["calibration"]


def gate(monkeypatch: pytest.MonkeyPatch, rate_of: Any, budget: float) -> tuple[dict[str, int], list[int], Any]:
    """Runs the gate on five layers whose disagreement is a function of the bits; returns bits, trials and search."""
    choices = [
        auto_bits.Choice(f"l{index}", float(5 - index), {"size": (1.0, 2.0)}, fixed=index == 0) for index in range(6)
    ]
    trials: list[int] = []

    def quantize(bits: dict[str, int]) -> Any:
        trials.append(list(bits.values()).count(8))
        return bits

    search = object.__new__(auto_bits._Search)
    search.job = auto_bits.Job(None, {}, quantize, None, None, None, {}, {}, lambda *_: None)  # type: ignore[arg-type]
    search.budget = {"disagreement": budget}
    search.eight = dict.fromkeys([choice.layer for choice in choices], 8)  # type: ignore[assignment]
    search.choices = choices
    monkeypatch.setattr(search, "_disagreement", rate_of, raising=False)
    return search.run().bits, trials, search


@pytest.mark.parametrize("wanted", range(1, 7))
def test_the_worst_layers_revert_until_the_gate_holds(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def rate(bits: dict[str, int]) -> float:
        return 0.01 if list(bits.values()).count(8) >= wanted else 0.5

    bits, trials, search = gate(monkeypatch, rate, 0.02)
    assert bits == {f"l{index}": 8 if index < wanted else 4 for index in range(6)}
    assert search.order == [f"l{index}" for index in range(1, wanted)]
    assert len(trials) <= 3


def test_a_gate_that_8_bits_do_not_pass_says_what_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QuantizationError, match=r"all layers at 8 bits.*3\.12%.*disagreement=0\.032 or more"):
        gate(monkeypatch, lambda bits: 0.0312, 0.02)


def test_impossible_sizes_and_times_name_the_range(ends: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"out of reach.*Give size=") as caught:
        export(tmp_path / "out", bits="auto", budget={"size": 0.3})
    possible = float(str(caught.value).split("Give size=")[1].split()[0])
    smallest = file_bytes(ends["w4a8"]) / file_bytes(ends["w8a8"])
    assert smallest - 0.005 <= possible <= smallest + 0.01
    plan = export(tmp_path / "out", bits="auto", budget={"size": possible}).manifest["plan"]
    assert plan["reached"]["size"] <= possible
    native_module()
    with pytest.raises(QuantizationError, match=r"latency=0\.01 is out of reach on this machine.*Give latency="):
        export(tmp_path / "no", bits="auto", budget={"latency": 0.01})
    assert not (tmp_path / "no").exists()


def test_several_budgets_hold_together(tmp_path: Path) -> None:
    budget = ["size=0.85", "latency=3", "disagreement=0.05"]
    plan = export(tmp_path / "out", bits="auto", budget=budget).manifest["plan"]
    assert plan["reached"]["size"] <= 0.85
    assert plan["reached"]["latency_by_layers"] <= 3
    assert plan["reached"]["disagreement"] <= 0.05


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bits": "auto"}, "needs a budget.*size"),
        ({"bits": "w4a8", "budget": {"size": 0.5}}, "goes with --bits auto"),
        ({"budget": ["size=0.5"]}, "goes with --bits auto"),
        ({"bits": "nowhere.toml"}, "cannot be read"),
        ({"bits": "plans/mine"}, "a plan"),
    ],
)
def test_requests_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        export(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


class Trained:
    """As much of a model trained with quantization as a refusal looks at."""

    name, source, changes, scheme = "trained", b"", (), Scheme(4, 8)

    def quantized_graph(self) -> Any:
        raise AssertionError

    statistics = examples = quantized_graph


def test_models_that_have_their_numbers_get_no_other_bits(auto: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was trained for w4a8, not auto"):
        export(tmp_path / "out", model=Trained(), bits="auto", budget={"size": 0.6})
    with pytest.raises(UsageError, match="leave --bits and --budget out"):
        export(tmp_path / "out", model=auto / "model.onnx", budget={"size": 0.6})


def test_a_plan_of_other_layers_is_refused(auto: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text((auto / "plan.toml").read_text().replace('"node_linear"', '"node_linaer"'))
    with pytest.raises(QuantizationError, match=r"'node_linaer'.*Did you mean node_linear"):
        export(tmp_path / "out", bits=path)


def test_too_few_samples_to_hold_back_any(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="held back"):
        export(tmp_path / "out", bits="auto", budget={"disagreement": 0.1}, calib_samples=1)


def test_samples_are_split_by_the_seed() -> None:
    chosen = np.arange(0, 100, 2)
    used, held = bit_request.split_samples(chosen, 10, 3)
    assert len(held) == 10
    assert sorted([*used, *held]) == list(chosen)
    assert (np.diff(used) > 0).all()
    np.testing.assert_array_equal(bit_request.split_samples(chosen, 10, 3)[1], held)
    assert list(bit_request.split_samples(chosen, 10, 4)[1]) != list(held)
    np.testing.assert_array_equal(bit_request.split_samples(chosen, 0, 3)[0], chosen)
