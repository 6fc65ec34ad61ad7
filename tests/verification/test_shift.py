from __future__ import annotations

import json

import numpy as np
import pytest

from edgeq import metrics, shift
from edgeq.data import Preprocessing
from edgeq.errors import DataError, UsageError
from edgeq.verification import verify

RECORD = Preprocessing(crop=28, mean=127, std=64)


class Linear:
    """A float classifier on flattened inputs, rounded where it stands for a quantized one."""

    def __init__(self, name: str, step: float = 0.0) -> None:
        self.name, self.step = name, step
        self.weights = np.random.default_rng(0).normal(size=(3 * 28 * 28, 4)).astype(np.float32) / 16

    def run(self, x: np.ndarray) -> np.ndarray:
        logits = np.stack([row.ravel() @ self.weights for row in x])
        return np.round(logits / self.step).astype(np.float32) * np.float32(self.step) if self.step else logits


def samples(n: int = 70) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 4, n)


def run(**more: object) -> object:
    given = {"data": samples(), "reference": Linear("r"), "preprocessing": RECORD, **more}
    return verify(Linear("q", 0.5), **given).shifts  # type: ignore[arg-type]


def test_a_cell_is_both_models_on_the_corrupted_crops() -> None:
    found = run(shift="cifar10-c:fog,contrast:2,5")
    assert found is not None
    assert [(cell.kind, cell.severity) for cell in found.cells] == [  # type: ignore[attr-defined]
        ("fog", 2), ("fog", 5), ("contrast", 2), ("contrast", 5),
    ]
    images, labels = samples()
    [cell] = shift.parse("cifar10-c:fog:5")
    inputs = RECORD.normalise(shift.apply(RECORD.arrange(images), cell))
    answers = [metrics.predicted_class(model.run(inputs)) for model in (Linear("r"), Linear("q", 0.5))]
    fog = found.cells[1]  # type: ignore[attr-defined]
    assert fog.n == 70
    assert fog.reference.top1 == pytest.approx((answers[0] == labels).mean())
    assert fog.quantized.top1 == pytest.approx((answers[1] == labels).mean())
    assert fog.disagreement == pytest.approx((answers[0] != answers[1]).mean())
    [mean] = found.means  # type: ignore[attr-defined]
    errors = [1 - one.quantized.top1 for one in found.cells]  # type: ignore[attr-defined]
    assert mean.quantized_error == pytest.approx(np.mean(errors))
    assert mean.error_ratio == pytest.approx(mean.quantized_error / mean.reference_error)
    json.dumps(found.to_json(), allow_nan=False)  # type: ignore[attr-defined]


def test_cells_do_not_depend_on_the_batch() -> None:
    assert run(shift="cifar10-c:noise:3", batch_size=7) == run(shift="cifar10-c:noise:3")


def test_extra_types_do_not_enter_the_mean() -> None:
    found = run(shift="cifar10-c:fog,spatter:1", shift_samples=20)
    assert [cell.n for cell in found.cells] == [20, 20]  # type: ignore[attr-defined]
    assert found.means[0].cells == 1  # type: ignore[attr-defined]


def test_natural_shift_and_data_without_labels() -> None:
    found = run(shift="cifar10-c:fog:1", shift_data=samples(30), data=samples()[0])
    fog, natural = found.cells  # type: ignore[attr-defined]
    assert fog.reference is None
    assert (natural.suite, natural.severity, natural.n) == ("natural", 0, 30)
    assert natural.reference is not None
    with pytest.raises(DataError, match="has class 9"):
        run(shift_data=(samples()[0], np.full(70, 9)))


def test_what_cannot_be_shifted_is_refused() -> None:
    with pytest.raises(DataError, match="holds network inputs"):
        run(data=np.zeros((3, 3, 28, 28), np.float32), shift="cifar10-c:fog")
    with pytest.raises(UsageError, match="no shift suite"):
        run(shift="rain")
    with pytest.raises(UsageError, match="at least 1"):
        run(shift="cifar10-c", shift_samples=0)
    assert run() is None


def test_the_command_tells_the_shift() -> None:
    done = verify(
        Linear("q", 0.5), data=samples(8), reference=Linear("r"), preprocessing=RECORD, shift="cifar10-c:fog:1",
        shift_samples=4,
    )
    assert "--shift cifar10-c:fog:1 --shift-samples 4" in done.provenance.command
    assert "fog 1" in done.summary()
    assert "mean of cifar10-c (1)" in done.summary()
