"""The study of other post-training tools: its inputs, one worker from end to end, and its tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import store
from bench.studies import ptq_tools
from bench.studies.ptq_tools import Inputs, Limits, Setting, Tool

IMAGES = 40


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """The demo network and digits as the workers get them."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")
    from bench.studies.float_tflite import to_float_tflite
    from edgeq.data import open_dataset
    from edgeq.deployment.models import load_model
    from edgeq.passes import float_pipeline

    monkeypatch.setenv(store.FOLDER_VARIABLE, str(tmp_path / "store"))
    found = load_model(None, lambda: None)
    batch = next(iter(open_dataset("digits").batches(2 * IMAGES, found.preprocessing)))
    folder = tmp_path / "inputs"
    folder.mkdir()
    lite = to_float_tflite(float_pipeline(found.graph))
    calibration, evaluation = batch.inputs[:IMAGES], batch.inputs[IMAGES:]
    ptq_tools.write_inputs(folder, found.onnx, lite, calibration, evaluation, batch.labels[IMAGES:])
    return ptq_tools.read_inputs(folder, "demo")


def tool(name: str) -> Tool:
    return next(one for one in ptq_tools.TOOLS if one.name == name)


def in_this_environment(name: str) -> Tool:
    return replace(tool(name), own=True)


@pytest.mark.parametrize("name", ["edgeq", "onnxruntime"])
def test_a_worker_from_end_to_end(demo: Inputs, name: str) -> None:
    chosen = in_this_environment(name)
    setting = next(one for one in chosen.settings if one.scheme == "w8a8")
    absent = ptq_tools.measure(chosen, setting, "demo", demo, Path(sys.executable), Limits(stored=True))
    assert absent["problem"] == "not run with this version"
    row = ptq_tools.measure(chosen, setting, "demo", demo, Path(sys.executable), Limits())
    assert "problem" not in row, row
    assert row["n"] == IMAGES
    assert row["disagreement"] <= 0.1
    assert row["interval"][0] <= row["change"] <= row["interval"][1]
    assert row["bytes"] > 1000
    assert next(iter(row["versions"])) == name
    again = ptq_tools.run(chosen, setting, "demo", demo, Path("no such python"), Limits())
    assert json.loads((again / "facts.json").read_text())["seconds"] == row["seconds"]


def test_float_tflite_computes_the_network(demo: Inputs) -> None:
    from edgeq.backends.litert import LitertBackend
    from edgeq.metrics import sqnr_db

    x = np.load(demo.folder / "evaluation.npy")
    assert sqnr_db(demo.reference, LitertBackend(demo.folder / "model.tflite").run(x)) > 100


def test_a_failing_worker_is_a_row(demo: Inputs) -> None:
    chosen = in_this_environment("onnxruntime")
    wrong = Setting("w8a8", "wrong", {"calibration": "Guess", "weight_bits": 8})
    row = ptq_tools.measure(chosen, wrong, "demo", demo, Path(sys.executable), Limits())
    assert "Guess" in row["problem"]
    slow = replace(wrong, values={"calibration": "MinMax", "weight_bits": 8})
    row = ptq_tools.measure(chosen, slow, "demo", demo, Path(sys.executable), Limits(minutes=1e-5))
    assert "not done after" in row["problem"]


def test_what_cannot_be_installed_is_a_row(
    demo: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ptq_tools, "prepare", lambda network, data: demo)

    def refuse(chosen: Tool, folder: Path) -> Path:
        raise store.PreparationError("does not install: no such version")

    monkeypatch.setattr(ptq_tools, "environment", refuse)
    rows = list(ptq_tools.study([tool("nncf")], ["mobilenet_v2"], tmp_path, tmp_path, Limits()))
    assert {row["problem"] for row in rows} == {"does not install: no such version"}
    assert len(rows) == len(tool("nncf").settings)
    assert "does not install: no such version" in ptq_tools.table(rows)


@pytest.mark.slow
def test_an_environment_is_kept_only_when_all_of_it_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ptq_tools, "WORKERS", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    chosen = Tool("absent", "Absent", ())
    (tmp_path / "absent.txt").write_text("a-package-of-no-index==1.0\n")
    with pytest.raises(store.PreparationError, match=r"does not install: .*a-package-of-no-index"):
        ptq_tools.environment(chosen, tmp_path / "environments")
    (tmp_path / "absent.txt").write_text("")
    python = ptq_tools.environment(chosen, tmp_path / "environments")
    made = python.stat().st_mtime_ns
    assert ptq_tools.environment(chosen, tmp_path / "environments") == python
    assert python.stat().st_mtime_ns == made


def _row(name: str, setting: str, top1: float, **more: Any) -> dict[str, Any]:
    row = {
        "network": "net",
        "tool": name,
        "scheme": "w4a8",
        "setting": setting,
        "versions": {name: "1.0"},
        "seconds": 90.0,
        "bytes": 2048,
        "note": "",
        "n": 900,
        "top1": top1,
        "float_top1": 0.8,
        "change": top1 - 0.8,
        "interval": [top1 - 0.81, top1 - 0.79],
        "ece": 0.1,
        "float_ece": 0.11,
        "disagreement": 0.05,
    }
    return {**row, **more}


def test_a_table_shows_each_tools_best_setting_and_lists_all() -> None:
    rows = [
        _row("other", "plain", 0.5),
        _row("other", "careful", 0.7, bytes=None, note="additions in float"),
        {"network": "net", "tool": "other", "scheme": "w4a8", "setting": "broken", "problem": "it fell over"},
        _row("edgeq", "--effort fast", 0.72),
        _row("edgeq", "--effort good", 0.75),
        _row("other", "eight", 0.8, scheme="w8a8"),
    ]
    text = ptq_tools.table(rows)
    lines = [line for line in text.splitlines() if line.startswith("| w")]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| w8a8", "other", "eight"],
        ["| w4a8", "edgeq", "--effort good"],
        ["| w4a8", "edgeq", "--effort fast"],
        ["| w4a8", "other", "careful (additions in float)"],
    ]
    assert "| 70.0% | -10.0 (-11.0 to -9.0) | 0.100 | 5.0% | simulated | 90 |" in lines[3]
    assert "- w4a8 other, plain: net 50.0%" in text
    assert "- w4a8 other, broken: net it fell over" in text
    assert "**net**, 900 images, FP32 top-1 80.0%, ECE 0.110:" in text
    assert "Versions: edgeq 1.0, other 1.0." in text


def test_levels_of_effort_replace_the_defaults() -> None:
    found = ptq_tools.edgeq_settings(["fast", "good"])
    assert [(one.scheme, one.label) for one in found[:3]] == [
        ("w8a8", "--effort fast"),
        ("w8a8", "--effort good"),
        ("w4a8", "--effort fast"),
    ]
    assert found[0].values == {"bits": "w8a8", "effort": "fast"}
    assert [one.values for one in ptq_tools.edgeq_settings()] == [{"bits": scheme} for scheme in ptq_tools.SCHEMES]


def test_every_tool_has_a_worker_and_pinned_requirements() -> None:
    for one in ptq_tools.TOOLS:
        assert (ptq_tools.WORKERS / f"{one.name}.py").is_file()
        if not one.own:
            lines = (ptq_tools.WORKERS / f"{one.name}.txt").read_text().split()
            assert lines
            assert all("==" in line for line in lines)
        settings = [(setting.scheme, setting.label) for setting in one.settings]
        assert len(set(settings)) == len(settings)
