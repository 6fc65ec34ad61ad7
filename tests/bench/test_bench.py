"""The machinery of `pytest bench`: layers, the store, the worker, tables; nothing here looks at a figure."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from bench import contenders, kernels, layers, machine, models, peers, plot, report, store, tables, timing
from bench.layers import Layer
from edgeq.data import open_dataset

ROOT = Path(__file__).parents[2]

MILLION_MACS = {"mobilenet_v2": 300.8, "resnet18": 1814.1, "resnet50": 4089.2, "shufflenet_v2_x1_0": 144.9}


def test_a_layer_is_what_its_line_says() -> None:
    line = "conv 56 28 64 96 3x5 2x1 1,2,0,2 1 residual 4"
    layer = Layer.parse(line)
    assert str(layer) == line
    assert layer.size_out == (28, 28)
    assert layer.macs == 28 * 28 * 96 * 64 * 15
    assert layer.title == "conv 3x5s2 56x28 64>96 + residual"
    for bad in ("conv 1 2 3", line.replace("3x5", "3"), line.replace("64", "many")):
        with pytest.raises(ValueError, match="fields"):
            Layer.parse(bad)


@pytest.mark.parametrize(("network", "millions"), MILLION_MACS.items())
def test_files_hold_whole_networks(network: str, millions: float) -> None:
    total = sum(layer.macs * layer.times for layer in layers.read(network))
    assert total / 1e6 == pytest.approx(millions, rel=0.005)


def test_all_files_can_be_read_and_classified() -> None:
    found = layers.merged(layers.networks())
    assert {"mobilenet_v2", "fully_connected"} <= set(layers.networks())
    assert all(layer.times == 1 and layer.kind and users for layer, users in found.items())
    assert "depthwise 5x5, stride 2" in {layer.kind for layer in found}


@pytest.mark.slow
@pytest.mark.needs_torch
def test_files_are_those_of_the_zoo() -> None:
    pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
    from bench.studies.shapes import layers_of
    from edgeq import zoo
    from edgeq.importers import from_onnx, from_torch
    from edgeq.passes import float_pipeline
    from edgeq.zoo.registry import architecture

    for network in ("lenet5", "mobilenet_v3_small"):
        x = np.zeros((1, *architecture(network).input_shape), np.float32)
        _, content = from_torch.load(getattr(zoo, network)(seed=0), x)
        assert layers_of(float_pipeline(from_onnx.load(content))) == layers.read(network)


@pytest.mark.parametrize(
    "line",
    [
        "conv 6 5 8 12 3x3 2x2 1,1,1,1 1 - 1",
        "conv 6 5 8 12 1x1 1x1 0,0,0,0 1 residual 1",
        "conv 6 5 8 8 5x5 1x1 2,2,2,2 8 table 1",
        "linear 1 1 30 12 1x1 1x1 0,0,0,0 1 table 1",
        "add 5 4 8 8 1x1 1x1 0,0,0,0 1 - 1",
        "mul 5 4 8 8 1x1 1x1 0,0,0,0 1 - 1",
        "mean 5 4 8 8 1x1 1x1 0,0,0,0 1 - 1",
        "max_pool 6 6 8 8 2x2 2x2 0,0,0,0 1 - 1",
        "avg_pool 6 6 8 8 2x2 2x2 0,0,0,0 1 - 1",
        "table 1 1 40 40 1x1 1x1 0,0,0,0 1 - 1",
    ],
)
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_single_layers_are_built_checked_and_timed(line: str, scheme: str) -> None:
    layer = Layer.parse(line)
    result = kernels.measure(layer, ["some"], scheme, "scalar", rounds=2, seconds=0.001)
    json.dumps(result)
    assert len(result["rounds_us"]) == 2
    assert result["isa"] == "scalar"
    assert (result.get("share", 0) > 0) == (layer.macs > 0)
    assert (result.get("gelement_s", 0) > 0) == (layer.macs == 0)


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="softmax"):
        kernels.build(replace(Layer.parse("add 5 4 8 8 1x1 1x1 0,0,0,0 1 - 1"), op="softmax"), "w8a8")


def test_the_store_makes_an_entry_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(tmp_path / "store"))
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "content").write_text("made")

    first, second = store.entry("one", "key", make), store.entry("one", "key", make)
    assert first == second
    assert (first / "content").read_text() == "made"
    assert len(calls) == 1

    def fail(folder: Path) -> None:
        calls.append(folder)
        raise store.PreparationError("the tool failed")

    for _ in range(2):
        with pytest.raises(store.PreparationError, match="the tool failed"):
            store.entry("two", "key", fail)
    assert len(calls) == 2

    def broken(folder: Path) -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        store.entry("three", "key", broken)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["one-key", "two-key"]


def test_digests_tell_contents_apart(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    first = store.digest("a", tmp_path)
    (tmp_path / "a.py").write_text("y")
    others = [store.digest("a", tmp_path), store.digest("a"), store.digest("", "a"), store.digest("a", "")]
    assert len({first, *others}) == 5


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs the extra edgeq[export]")
    out = tmp_path_factory.mktemp("bench") / "out"
    edgeq.export(bits="w8a8", out=out, to="edgeq,onnx")
    return out


def job(demo: Path, *entries: timing.Entry) -> timing.Job:
    shape = open_dataset("digits").batches(1, None, [0])
    return timing.Job(entries, demo / "reference.onnx", next(iter(shape)).inputs.shape, 3, 0.001)


def test_the_worker_times_what_is_right(demo: Path) -> None:
    outcome = timing.run(
        job(
            demo,
            timing.Entry("edgeq", "native", demo / "model.edgeq"),
            timing.Entry("edgeq scalar", "native", demo / "model.edgeq", isa="scalar", batch=3),
            timing.Entry("same", "onnxruntime", demo / "model.onnx", least_db=10, same_as="edgeq", step=1.0),
            timing.Entry("too strict", "onnxruntime", demo / "model.onnx", least_db=200),
            timing.Entry("too far", "onnxruntime", demo / "model.onnx", least_db=0, same_as="edgeq", step=-1.0),
            timing.Entry("no model", "onnxruntime", demo / "manifest.json", least_db=10),
        )
    )
    assert set(outcome.timings) == {"edgeq", "edgeq scalar", "same", "too far"} - set(outcome.problems)
    assert {"too strict", "no model"} <= set(outcome.problems)
    assert "dB from the float model's" in outcome.problems["too strict"]
    for found in outcome.timings.values():
        assert len(found.rounds_ms) == 3
        assert min(found.rounds_ms) > 0
    assert outcome.timings["edgeq"].decibels == pytest.approx(outcome.timings["edgeq scalar"].decibels)


def test_a_runtime_that_ends_the_process_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [timing.Entry(name, "native", Path(name)) for name in ("good", "bad")]
    seen = []

    def once(job: timing.Job) -> tuple[int, list[dict[str, Any]], str]:
        seen.append([entry.name for entry in job.entries])
        if len(job.entries) == 2:
            return -11, [{"event": "open", "name": "bad"}], ""
        latency = {"p10_ms": 1.0, "runs": 3}
        return 0, [
            {"event": "checked", "name": "good", "problem": None, "decibels": 20.0},
            {"event": "timed", "name": "good", "rounds_ms": [1.0, 3.0, 2.0], "latency": latency},
        ], ""  # fmt: skip

    monkeypatch.setattr(timing, "_run_once", once)
    outcome = timing.run(timing.Job(entries, Path("reference"), (1,), 3, 0.1))
    assert seen == [["good", "bad"], ["good"]]
    assert outcome.problems == {"bad": "the runtime ended the process by signal 11"}
    assert outcome.timings["good"].median_ms == 2.0

    monkeypatch.setattr(timing, "_run_once", lambda job: (1, [], "an error"))
    with pytest.raises(RuntimeError, match="an error"):
        timing.run(timing.Job(entries, Path("reference"), (1,), 3, 0.1))


def test_ratios_are_taken_round_by_round() -> None:
    assert timing.ratio([1.0, 2.0, 6.0], [2.0, 2.0, 4.0]) == (1.0, 0.5, 1.5)


def test_the_machine_is_described() -> None:
    found = machine.describe()
    json.dumps(found)
    assert 0.3 < found["clock_ghz"] < 10
    assert machine.peak_gmac("scalar") <= machine.peak_gmac(None)
    caps, notes = peers.caps()
    assert caps[0] is None
    assert len(caps) + len(notes) >= 3


def test_contenders_are_told_apart() -> None:
    names = [one.name for one in contenders.CONTENDERS]
    assert len(set(names)) == len(names)
    assert names[0] == peers.OURS
    capped = [one.name for one in peers.taking_part("avx2")]
    assert "openvino NNCF 7 bit" in capped
    assert "litert fp32" not in capped
    assert "openvino NNCF 7 bit" not in [one.name for one in peers.taking_part("avxvnni")]


def results() -> dict[str, Any]:
    """Figures as a run gives them, made up."""

    def entry(runtime: str, precision: str, rounds: list[float], ours: list[float]) -> dict[str, Any]:
        return {
            "runtime": runtime,
            "precision": precision,
            "capped": runtime != "ncnn",
            "median_ms": float(np.median(rounds)),
            "p10_ms": min(rounds),
            "rounds_ms": rounds,
            "runs": 30,
            "decibels": 20.0,
            "primitives": {"brgconv_avx2": 3} if runtime == "openvino" else {},
            "ratio": timing.ratio(ours, rounds),
        }

    ours = [1.0, 1.1, 1.2]
    entries = {
        "edgeq w8a8": entry("edgeq", "int8", ours, ours),
        "edgeq w4a8": entry("edgeq", "int4", [1.1, 1.2, 1.3], ours),
        "openvino QDQ": entry("openvino", "int8", [2.0, 2.1, 2.2], ours),
        "ncnn": entry("ncnn", "int8", [1.5, 1.6, 1.7], ours),
        "ncnn fp32": entry("ncnn", "fp32", [0.5, 0.6, 0.7], ours),
    }
    network = {"network": "mobilenet_v2", "weights": "random", "macs": 300_000_000, "limit_ms": 0.5}
    found = {"problems": {"mnn KL": "gone"}, "entries": entries}
    compared = [
        {**network, **found, "cap": cap, "best": peers.best_peer(entries, capped=cap is not None)}
        for cap in (None, "avx2")
    ]
    layer = Layer.parse("conv 6 5 8 12 3x3 2x2 1,1,1,1 1 - 1")
    pool = Layer.parse("mean 5 4 8 8 1x1 1x1 0,0,0,0 1 - 1")
    cases = ((layer, "w8a8"), (layer, "w4a8"), (pool, "w8a8"))
    timed = [kernels.measure(which, ["some"], scheme, None, 2, 0.001) for which, scheme in cases]
    alone = {
        f"{scheme} avx2 {threads}": {
            "scheme": scheme, "isa": "avx2", "threads": threads, "median_ms": 2.0 / threads,
            "rounds_ms": [2.0 / threads] * 3,
        }
        for scheme in ("w8a8", "w4a8") for threads in (1, 2)
    }  # fmt: skip
    batches = {size: {"rounds_ms": [time] * 3, "median_ms": time} for size, time in (("1", 2.0), ("8", 1.5))}
    loading = {"w8a8": {"load_ms": 3.0, "file_bytes": 4096, "weight_bytes": 2048, "arena_bytes": 1024}}
    return {
        "date": "2026-01-01",
        "machine": machine.describe(),
        "versions": {"edgeq": "0"},
        "not_installed": ["mnn"],
        "quick": False,
        "peers": compared,
        "models": [{**network, "peaks_gmac": {"avx2": 90.0}, "entries": alone, "loading": loading, "batches": batches}],
        "kernels": timed,
    }


def test_results_become_tables_and_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = results()
    text = "\n".join(part for title in report.sections(found) for part in title)
    assert "| mobilenet_v2 | 300 | 0.50 | 1.10 | 2.2 | ncnn 1.60 | **0.69** (0.67 to 0.71) | 1.20: 1.09 (1.08" in text
    assert "| openvino QDQ 2.10 | **0.52** (0.50 to 0.55) | ncnn 1.60: 0.69 (0.67 to 0.71) |" in text
    assert "| mobilenet_v2 | w4a8 | avx2 | 2.00 | 1.00 (1.00 to 1.00) | 1.00 | 2.00 (2.00 to 2.00) | 3.33 |" in text
    assert "| mobilenet_v2 | 2.00 | 1.50: 0.75 (0.75 to 0.75) |" in text
    assert "mnn" in tables.machine_table(found)
    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "PLOT", tmp_path / "plot.svg")
    (tmp_path / "results.json").write_text(json.dumps(found), encoding="utf-8")
    report.main([str(tmp_path / "results.json"), "--write"])
    written = page.read_text(encoding="utf-8")
    assert written.count("| mobilenet_v2 |") >= 5
    assert "[1] gone" in written
    assert (tmp_path / "plot.svg").read_text(encoding="utf-8").count("<svg") == 1
    first = (tmp_path / "plot.svg").read_bytes()
    assert plot.draw(report.by_cap(found), tmp_path / "plot.svg").read_bytes() == first
    with pytest.raises(ValueError, match="quick"):
        report.write({**found, "quick": True})


def test_models_are_loaded_and_measured(demo: Path) -> None:
    found = models.loading(str(demo / "model.edgeq"))
    assert found["load_ms"] > 0
    assert found["file_bytes"] == (demo / "model.edgeq").stat().st_size


def test_pytest_bench_collects_and_runs() -> None:
    """A layer of the quick run; `python -m pytest` alone leaves bench out."""
    words = [sys.executable, "-m", "pytest", "bench", "--quick", "-q", "-k", "kernels and linear", "--seconds", "0.01"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| linear 1x1 1280>1000 | w8a8 | none |" in done.stdout
    assert "1 passed" in done.stdout
