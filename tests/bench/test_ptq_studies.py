"""The studies of post-training quantization from end to end, on the demo network and a few digits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.studies import mixed, ptq
from bench.studies.ptq import Task
from edgeq.data import open_dataset
from edgeq.deployment.models import load_model
from edgeq.zoo.registry import architecture

CALIBRATION, EVALUATION = 40, 60
STEPS = 4


@pytest.fixture
def task() -> Task:
    """The demo under the name of a network that the tables know."""
    preprocessing = load_model(None, lambda: None).preprocessing
    batch = next(iter(open_dataset("digits").batches(CALIBRATION + EVALUATION, preprocessing)))
    assert batch.labels is not None
    inputs, labels = batch.inputs[CALIBRATION:], batch.labels[CALIBRATION:]
    return Task("resnet20_cifar10", None, preprocessing, batch.inputs[:CALIBRATION], inputs, labels, [])


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with the markers of docs/results.md and no rows."""
    path = tmp_path / "results.md"
    path.write_text("".join(f"<!-- table: {name} -->\n<!-- end: {name} -->\n" for name in ("ptq", "methods")))
    monkeypatch.setattr(ptq, "RESULTS", path)
    return path


def _run(monkeypatch: pytest.MonkeyPatch, task: Task | None, rows: Path, *words: str) -> list[dict[str, Any]]:
    """Runs the study on `task`, which must not be asked for where it is None; returns the stored rows."""

    def load(data: Path, name: str) -> Task:
        assert task is not None
        return task

    monkeypatch.setattr(ptq, "load", load)
    given = ["--data", "unused", "--networks", "resnet20_cifar10", "--schemes", "w4a8", "--rows", str(rows)]
    ptq.main([*given, *words])
    found: list[dict[str, Any]] = json.loads(rows.read_text())
    return found


@pytest.mark.needs_torch
def test_levels_from_end_to_end(task: Task, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tmp_path / "rows.json"
    words = ("--efforts", "fast", "--seeds", "0", "1")
    rows = _run(monkeypatch, task, stored, *words)
    assert [(row["seed"], row["n"], row["bit_equal"]) for row in rows] == [(seed, EVALUATION, 8) for seed in (0, 1)]
    assert rows[0]["top1"] > 0.8
    assert rows[0]["sqnr_db"] != rows[1]["sqnr_db"]
    # What is stored is not run again, and the table is made of it.
    assert _run(monkeypatch, None, stored, *words, "--write") == rows
    assert "| resnet20_cifar10 | w4a8 | fast | 2 | 60 | " in page.read_text()
    assert "| 16 of 16 |" in page.read_text()


@pytest.mark.needs_torch
def test_methods_from_end_to_end(task: Task, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        name: recipe.with_(
            reconstruction=replace(recipe.reconstruction, steps=STEPS),
            distillation=replace(recipe.distillation, steps=STEPS),
        )
        for name, recipe in ptq.METHODS.items()
    }
    monkeypatch.setattr(ptq, "METHODS", few)
    rows = _run(monkeypatch, task, tmp_path / "rows.json", "--methods", "--seeds", "0", "--write")
    assert [row["method"] for row in rows] == list(few)
    assert {row["bit_equal"] for row in rows} == {ptq.EQUAL}
    # Each method does something, but for what learns by gradients: so few steps bring too little, and the result of
    # rounding stays. The factor that matches the confidence changes no answer, and may be 1.
    figures = {row["method"]: row["sqnr_db"] for row in rows}
    for name in ("+ AdaRound", "+ blocks instead", "+ distillation instead"):
        assert figures.pop(name) == figures["+ second-order"]
    del figures["+ matched confidence instead"]
    answers = {row["method"]: (row["top1"], row["disagreement"]) for row in rows}
    assert answers["+ matched confidence instead"] == answers["+ second-order"]
    assert len(set(figures.values())) == len(figures)
    assert [line.split(" | ")[2] for line in page.read_text().splitlines() if line.startswith("| resnet")] == list(few)


@pytest.mark.needs_torch
def test_images_of_a_network_are_read_and_prepared(tmp_path: Path, rng: np.random.Generator) -> None:
    from edgeq import zoo

    name = "resnet20_cifar10"
    images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    for folder in ("cifar10", "weights"):
        (tmp_path / folder).mkdir()
    np.savez(tmp_path / "cifar10" / "train.npz", x=images[:5], y=np.arange(5))
    np.savez(tmp_path / "cifar10" / "test.npz", x=images[5:], y=np.array([3, 1, 2]))
    state = {key: value.numpy() for key, value in zoo.resnet20_cifar10(seed=0).state_dict().items()}
    np.savez(tmp_path / "weights" / f"{name}.npz", **state)
    found = ptq.load(tmp_path, name)
    assert found.calibration.shape == (5, 3, 32, 32)
    assert found.labels.tolist() == [3, 1, 2]
    preprocessing = architecture(name).preprocessing
    assert found.preprocessing == preprocessing
    expected = (images[5:] - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    np.testing.assert_allclose(found.inputs, expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.needs_torch
def test_mixed_precision_from_end_to_end(task: Task, tmp_path: Path) -> None:
    arguments = {"calibration": task.calibration, "calib_samples": CALIBRATION, "preprocessing": task.preprocessing}
    rows = mixed.study("demo", None, arguments, (task.inputs, task.labels), 0.5, tmp_path)
    assert [row["form"] for row in rows] == ["FP32", "w8a8", "w4a8", "mixed"]
    assert rows[0]["disagreement"] == 0
    assert rows[2]["size"] < rows[3]["size"] <= (1 + rows[2]["size"]) / 2
    assert rows[3]["replays"]
    counts = rows[3]["counts"]
    assert counts["w4"] > 0
    assert counts["w8"] > 0
    text = mixed.table(rows)
    assert f"| {counts['w4']} / {counts['w8']} |" in text
    assert "| same bytes |" in text
