"""`edgeq bench --tune`: candidates give the same codes, and sessions follow what was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeq import Session
from edgeq.cli.bench import command
from edgeq.deployment import tune
from edgeq.deployment.tune import tune_model
from edgeq.errors import UsageError
from edgeq.session import native_module
from edgeq.tuning import TuningWarning, tuning_beside, tuning_file

GOLDEN = Path(__file__).parent.parent / "golden" / "edgeq"


@pytest.fixture(params=["w8a8", "w4a8", "w4a4"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "model.edgeq"
    shutil.copy(GOLDEN / f"version1_{request.param}.edgeq", path)
    return path


def kernels(session: Session) -> dict[str, str]:
    return {choice.shape: choice.kernel for choice in session.kernel_choices}


def test_every_candidate_gives_the_same(model: Path, rng: np.random.Generator) -> None:
    plain = Session(model)
    x = [rng.standard_normal([2, *info.shape[1:]]).astype(np.float32) for info in plain.inputs]
    wanted = plain.run(x)
    choices = plain.kernel_choices
    assert choices, "no layer has a choice"
    for number in range(max(len(choice.candidates) for choice in choices)):
        forced = {choice.shape: choice.candidates[number % len(choice.candidates)] for choice in choices}
        session = Session(model, threads=1 + number % 2, tuning=forced)
        assert kernels(session) == forced
        for got, expected in zip(session.run(x), wanted, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_names_that_are_no_candidates_count_for_nothing(model: Path) -> None:
    plain = Session(model)
    wrong = {choice.shape: "no_such_kernel" for choice in plain.kernel_choices} | {"no such shape": "x"}
    assert kernels(Session(model, tuning=wrong)) == kernels(plain)
    # A kernel of a higher instruction set than the cap allows.
    assert all("scalar" in name for name in kernels(Session(model, max_isa="scalar", tuning=kernels(plain))).values())


def test_measures_and_follows(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Session(model)
    asked: list[Mapping[str, str]] = []
    monkeypatch.setattr(tune, "_GAIN", 100.0)  # Takes the best of the others, however slow.
    monkeypatch.setattr(tune, "compare", lambda *_, **__: Faster())
    found = tune_model(model, runs=2, report=lambda number, count: asked.append({str(number): str(count)}))
    several = {choice.shape for choice in plain.kernel_choices if len(choice.candidates) > 1}
    assert set(found.tuning.kernels) <= several
    assert len(asked) == len(tune._waves(plain.kernel_choices))
    assert [choice.shape for choice in found.choices] == list(dict.fromkeys(c.shape for c in plain.kernel_choices))
    found.tuning.write(tuning_file(model))
    assert kernels(Session(model)) == kernels(plain) | dict(found.tuning.kernels)
    assert kernels(Session(model.read_bytes())) == kernels(plain)
    assert kernels(Session(model, tuning={})) == kernels(plain)
    other = tuning_file(model).read_text().replace(plain.cpu, "some other CPU")
    tuning_file(model).write_text(other)
    with pytest.warns(TuningWarning, match="some other CPU"):
        assert kernels(Session(model)) == kernels(plain)


class Faster:
    def ratio(self, name: str, other: str) -> tuple[float, float, float]:
        assert (name, other) == ("tuned", "plain")
        return 0.5, 0.4, 0.6


def test_keeps_nothing_that_does_not_help(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_GAIN", 100.0)
    monkeypatch.setattr(Faster, "ratio", lambda *_: (1.01, 1.0, 1.02))
    monkeypatch.setattr(tune, "compare", lambda *_, **__: Faster())
    found = tune_model(model, runs=2)
    assert not found.tuning.kernels
    assert found.ratio == 1.0
    assert all(choice.kernel == choice.default and choice.ratio == 1.0 for choice in found.choices)


def test_waves_keep_shapes_of_one_step_apart() -> None:
    def choice(layer: str, step: str, shape: str) -> tune.KernelChoice:
        return tune.KernelChoice(layer, step, shape, "a", ("a", "b", "c"))

    # Steps 1 and 2 share shape y, so that x, y and z take turns; w stands alone.
    choices = [choice("l1", "1", "x"), choice("l2", "1", "y"), choice("l3", "2", "y"), choice("l4", "2", "z")]
    waves = tune._waves([*choices, choice("l5", "3", "w")])
    assert waves == [
        {"x": "b", "w": "b"},
        {"x": "c", "w": "c"},
        {"y": "b"},
        {"y": "c"},
        {"z": "b"},
        {"z": "c"},
    ]
    assert tune._uses(choices) == {"x": ["1"], "y": ["1", "2"], "z": ["2"]}


def test_command(model: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = [str(model), "--tune", "--seconds", "0.05", "--json", str(figures)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "shapes changed" in done.output
    info = native_module().cpu_info()
    written = json.loads(tuning_file(model).read_text())
    assert written["cpu"] == info["model"]
    assert json.loads(figures.read_text())["tuning"]["kernels"] == written["kernels"]
    assert tuning_beside(model, info["model"], written["engine"]) == written["kernels"]


def test_needs_a_file_of_the_engine(tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(b"not read")
    with pytest.raises(UsageError, match=r"\.edgeq"):
        CliRunner().invoke(command, [str(onnx), "--tune"], catch_exceptions=False, standalone_mode=False)
