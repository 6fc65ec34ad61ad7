"""Repeated exports on other calibration samples, and what the command line says about them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgeq.cli.export import command
from edgeq.deployment import run_trials
from edgeq.errors import DataError, UsageError


@pytest.mark.needs_torch
def test_trials_of_the_demo() -> None:
    seen = []
    found = run_trials(
        None, 2, data="digits", bits="w4a4", effort="fast", calib_samples=40, done=lambda i, n: seen.append((i, n))
    )
    first, second = found.trials
    assert seen == [(1, 2), (2, 2)]
    assert (first.seed, second.seed, first.samples, second.samples) == (0, 1, 40, 40)
    assert found.inputs == 540
    assert first != second
    assert found.reference_top1 is not None
    spread = found.spread("disagreement")
    assert spread is not None
    assert spread.mean == pytest.approx((first.disagreement + second.disagreement) / 2)
    assert spread.low <= spread.mean <= spread.high
    assert spread.deviation == pytest.approx(abs(first.disagreement - second.disagreement) / np.sqrt(2))
    assert "2 trials" in found.summary()
    assert "FP32" in found.summary()


@pytest.mark.needs_torch
def test_trials_without_labels_and_with_too_few_samples() -> None:
    images = np.random.default_rng(0).normal(0, 1, (20, 1, 8, 8)).astype(np.float32)
    found = run_trials(None, 1, data=images, effort="fast", calib_samples=10)
    assert found.spread("top1") is None
    assert "top-1" not in found.summary()
    with pytest.raises(DataError, match="too few"):
        run_trials(None, 1, data=images, calibration=images[:1])
    with pytest.raises(UsageError, match="--trials"):
        run_trials(None, 0, data=images)
    with pytest.raises(UsageError, match="--calib DATA"):
        run_trials("model.onnx", 1, data=images)


@pytest.mark.needs_torch
def test_command_line_writes_the_spread_beside_the_export(tmp_path) -> None:
    out = tmp_path / "out"
    arguments = ["--effort", "fast", "--calib-samples", "32", "--to", "edgeq", "-o", str(out)]
    result = CliRunner().invoke(command, [*arguments, "--trials", "2", "--data", "digits"])
    assert result.exit_code == 0, result.output
    assert "2 trials" in result.output
    stored = json.loads((out / "trials.json").read_text())
    assert len(stored["trials"]) == 2
    assert stored["spread"]["top1"]["low"] <= stored["spread"]["top1"]["high"]
    # A new export without trials leaves no figures of the old one.
    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert not (out / "trials.json").exists()
    failed = CliRunner().invoke(command, [*arguments, "--trials", "2"])
    assert isinstance(failed.exception, UsageError)
