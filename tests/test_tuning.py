"""Tuning files: what they hold, when a session follows them, and when it says that it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq.errors import UsageError
from edgeq.tuning import Tuning, TuningWarning, tuning_beside, tuning_file

TUNING = Tuning("CPU 9", "1.2.3", 1, {"gemm w8 m1": "kernel_b", "depthwise w4": "kernel_a"})


def test_round_trip(tmp_path: Path) -> None:
    model = tmp_path / "model.edgeq"
    assert tuning_file(model) == tmp_path / "model.edgeq.tune.json"
    assert tuning_beside(model, "CPU 9", "1.2.3") == {}
    TUNING.write(tuning_file(model))
    assert tuning_beside(model, "CPU 9", "1.2.3") == TUNING.kernels
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.edgeq.tune.json"]


@pytest.mark.parametrize(("cpu", "engine", "why"), [("CPU 8", "1.2.3", "CPU 9"), ("CPU 9", "1.2.4", r"1\.2\.3")])
def test_of_something_else(tmp_path: Path, cpu: str, engine: str, why: str) -> None:
    model = tmp_path / "model.edgeq"
    TUNING.write(tuning_file(model))
    with pytest.warns(TuningWarning, match=f"{why}.*--tune"):
        assert tuning_beside(model, cpu, engine) == {}


GOOD = {"format": 1, "cpu": "CPU 9", "engine": "1.2.3", "threads": 1, "kernels": {"a": "b"}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (1 << 21),
        json.dumps({**GOOD, "format": 2}).encode(),
        json.dumps({**GOOD, "cpu": 9}).encode(),
        json.dumps({**GOOD, "threads": "1"}).encode(),
        json.dumps({**GOOD, "kernels": ["a"]}).encode(),
        json.dumps({**GOOD, "kernels": {"a": 1}}).encode(),
        json.dumps({name: value for name, value in GOOD.items() if name != "engine"}).encode(),
    ],
    ids=range(12),
)
def test_damaged(tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "model.edgeq"
    tuning_file(model).write_bytes(content)
    with pytest.warns(TuningWarning, match="no tuning file"):
        assert tuning_beside(model, "CPU 9", "1.2.3") == {}


def test_unreadable(tmp_path: Path) -> None:
    model = tmp_path / "model.edgeq"
    tuning_file(model).mkdir()
    with pytest.warns(TuningWarning, match="cannot be read"):
        assert tuning_beside(model, "CPU 9", "1.2.3") == {}


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        TUNING.write(tuning_file(tmp_path / "nowhere" / "model.edgeq"))
