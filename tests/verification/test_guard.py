from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq import Session
from edgeq.cli import main
from edgeq.errors import DataError, UsageError
from edgeq.exporters.edgeq_format import Guard
from edgeq.importers.from_edgeq import load
from edgeq.verification.guard import fit_guard, guard, write_guard


def pair(n: int, rng: np.random.Generator, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a float model, of one with noise and overconfident by a factor of 2, and labels."""
    first = rng.normal(0, 2, (n, 10))
    chances = np.exp(first) / np.exp(first).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    second = 2 * (first + rng.normal(0, noise, first.shape))
    return first.astype(np.float32), second.astype(np.float32), labels


def test_catches_what_was_asked_on_other_inputs(rng: np.random.Generator) -> None:
    shares = []
    for seed in range(40):
        fit = fit_guard(*pair(1000, rng), catch=0.9, seed=seed)
        assert fit.tested is not None
        assert fit.tested.catch_rate is not None
        assert fit.fitted.n == fit.tested.n == 500
        assert fit.fitted.caught >= fit.rank
        shares.append(fit.tested.catch_rate)
    # On average over draws, within four standard errors.
    assert np.mean(shares) > 0.9 - 4 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) < 0.96


def test_confidence_costs_more(rng: np.random.Generator) -> None:
    data = pair(2000, rng)
    mean, sure = fit_guard(*data), fit_guard(*data, confidence=0.99)
    assert sure.guard.margin > mean.guard.margin
    assert sure.fitted.price > mean.fitted.price
    assert sure.expected[0] > 0.88


def test_the_margin_is_the_least_that_catches_the_rank(rng: np.random.Generator) -> None:
    reference, quantized, labels = pair(1000, rng)
    fit = fit_guard(reference, quantized, labels, fit_share=1.0)
    assert fit.tested is None
    assert fit.fitted.caught == fit.rank
    assert fit.guard.margin == np.float32(fit.guard.margin)
    assert fit.guard.temperature == pytest.approx(2 * 1.06, rel=0.1)
    assert not fit.notes


def test_no_labels(rng: np.random.Generator) -> None:
    reference, quantized, _ = pair(1000, rng)
    fit = fit_guard(reference, quantized)
    assert fit.guard.temperature == 1.0
    assert "without labels" in " ".join(fit.notes)


def test_nothing_to_catch(rng: np.random.Generator) -> None:
    reference, _, labels = pair(100, rng)
    with pytest.raises(DataError, match="nothing to catch on 50 inputs") as caught:
        fit_guard(reference, 2 * reference, labels)
    assert "give more data" in str(caught.value)


def test_too_few_to_catch(rng: np.random.Generator) -> None:
    reference, _, labels = pair(100, rng)
    quantized = reference.copy()
    quantized[:8] = np.roll(quantized[:8], 1, axis=1)
    with pytest.raises(DataError, match=r"disagree on 8 of 100 inputs, too few to promise a catch of 0\.9: 9 are"):
        fit_guard(reference, quantized, labels, fit_share=1.0)
    with pytest.raises(DataError, match="29 are needed"):
        fit_guard(reference, quantized, labels, fit_share=1.0, confidence=0.95)
    fit = fit_guard(reference, quantized, labels, fit_share=1.0, catch=0.8)
    assert "fitted on 8 disagreements only" in " ".join(fit.notes)


def test_sure_disagreements() -> None:
    reference = np.tile(np.float32([100, 0]), (20, 1))
    with pytest.raises(DataError, match="margin of 1"):
        fit_guard(reference, reference[:, ::-1].copy(), fit_share=1.0)


@pytest.mark.parametrize("options", [{"catch": 0.0}, {"catch": 1.0}, {"confidence": 1.0}, {"fit_share": 0.0}])
def test_senseless_arguments(options: dict[str, float], rng: np.random.Generator) -> None:
    with pytest.raises(UsageError):
        fit_guard(*pair(100, rng), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "w4a4"
    edgeq.export(bits="w4a4", calibration="digits", out=folder)
    return folder


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits so noisy that the models often differ."""
    path = tmp_path_factory.mktemp("data") / "noisy.npz"
    dataset = edgeq.data.open_dataset("digits")
    (batch,) = dataset.batches(len(dataset), None)
    noise = np.random.default_rng(0).normal(0, 0.6, batch.inputs.shape)
    np.savez(path, x=(batch.inputs + noise).astype(np.float32), y=np.asarray(dataset.labels))
    return path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_stays_one(exported: Path, noisy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    before = bytes_of(exported)
    for name, content in before.items():
        (folder / name).write_bytes(content)
    figures = tmp_path / "figures.json"
    arguments = ["guard", str(folder), "--data", str(noisy), "--catch", "0.8", "--json", str(figures)]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    printed = capsys.readouterr()
    assert done.value.code == 0, printed.err
    assert "checked on" in printed.out
    assert "deferred" in printed.out
    after = bytes_of(folder)
    assert {name for name in before if before[name] != after[name]} == {"model.edgeq", "manifest.json"}
    assert set(after) == set(before)
    manifest, old = json.loads(after["manifest.json"]), json.loads(before["manifest.json"])
    content = after["model.edgeq"]
    assert manifest["files"].pop("model.edgeq") == {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    old["files"].pop("model.edgeq")
    values = json.loads(figures.read_text())
    stored = manifest.pop("guard")
    assert {name: stored[name] for name in values} == values
    assert manifest == old
    _, info = load(folder / "model.edgeq")
    assert info.guard == Guard(values["temperature"], values["margin"])
    # The figures are those of the session, on every input of the data.
    dataset = edgeq.data.open_dataset(str(noisy))
    (batch,) = dataset.batches(len(dataset), info.preprocessing)
    found = Session(folder / "model.edgeq").predict(batch.inputs)
    assert found.defer.sum() == values["fitted"]["deferred"] + values["tested"]["deferred"]
    # A guard is fitted to the model, not to the guard that it had.
    with pytest.raises(SystemExit):
        main(arguments)
    assert bytes_of(folder) == after


def test_a_file_alone(exported: Path, noisy: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.edgeq"
    path.write_bytes((exported / "model.edgeq").read_bytes())
    guard(path, data=noisy, catch=0.8, reference=exported)
    assert Session(path).guard is not None
    assert [file.name for file in tmp_path.iterdir()] == ["some.edgeq"]


def test_nothing_is_written_on_failure(exported: Path, tmp_path: Path) -> None:
    before = bytes_of(exported)
    with pytest.raises(DataError, match=r"too few|nothing to catch"):
        guard(exported, data="digits", samples=10)
    with pytest.raises(UsageError, match="samples"):
        guard(exported, data="digits", samples=0)
    assert bytes_of(exported) == before
    damaged = tmp_path / "damaged.edgeq"
    damaged.write_bytes(before["model.edgeq"][:-1])
    with pytest.raises(edgeq.errors.FormatError, match=r"damaged\.edgeq: has"):
        write_guard(damaged, Guard(1.0, 0.5))
    assert damaged.read_bytes() == before["model.edgeq"][:-1]
