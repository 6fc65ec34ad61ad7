from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from edgeq.data import ArrayDataset, Preprocessing
from edgeq.errors import BackendError, DataError, EdgeqError, ImportModelError, UsageError
from edgeq.verification import verify


class Linear:
    """A float classifier on flattened inputs, with noise where it stands for a quantized one."""

    def __init__(self, name: str, step: float = 0.0) -> None:
        self.name = name
        self.step = step
        self.batches: list[int] = []
        self.weights = np.random.default_rng(0).normal(size=(3 * 8 * 8, 4)).astype(np.float32) / 16

    def run(self, x: np.ndarray) -> np.ndarray:
        self.batches.append(len(x))
        logits = x.reshape(len(x), -1) @ self.weights
        return (
            np.round(logits / self.step).astype(np.float32) * np.float32(self.step) if self.step else logits
        )


def samples(n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, n)


RECORD = Preprocessing(mean=127, std=64)


def test_streams_both_models_over_the_same_batches() -> None:
    reference, quantized = Linear("float"), Linear("coarse", 0.5)
    result = verify(quantized, data=samples(), reference=reference, preprocessing=RECORD, batch_size=64)
    assert reference.batches == quantized.batches == [64, 64, 22]
    assert result.comparison.n == 150
    assert 0 < result.comparison.disagreement.rate < 0.5
    assert set(result.seconds) == {"data", "reference", "quantized", "metrics"}
    values = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert values["provenance"]["backend"] == "coarse"
    assert values["provenance"]["preprocessing"]["mean"] == [127.0]
    assert values["provenance"]["data_sha256"] == ArrayDataset(*samples()).digest()


@pytest.mark.parametrize("batch_size", [1, 7, 150, 1000])
def test_figures_do_not_depend_on_the_batch(batch_size: int) -> None:
    def figures(size: int | None) -> object:
        result = verify(
            Linear("q", 0.5), data=samples(), reference=Linear("r"), preprocessing=RECORD, batch_size=size
        )
        values = asdict(result.comparison.disagreement)
        # A float product may round otherwise in another batch.
        return {name: pytest.approx(value, rel=1e-5) if name in _SMOOTH else value for name, value in values.items()}

    assert figures(batch_size) == figures(None)


_SMOOTH = ("mean_kl", "largest_probability_change")


def test_the_first_samples() -> None:
    x, y = samples()
    part = verify(Linear("q", 0.5), data=(x, y), reference=Linear("r"), samples=40)
    whole = verify(Linear("q", 0.5), data=(x[:40], y[:40]), reference=Linear("r"))
    assert part.comparison == whole.comparison
    assert "--samples 40" in part.provenance.command


def test_data_without_labels() -> None:
    result = verify(Linear("q", 0.5), data=samples()[0], reference=Linear("r"), preprocessing=RECORD)
    assert not result.comparison.labelled
    assert "no labels" in result.summary()
    assert "no labels" in result.html()


def test_broken_data_are_named() -> None:
    x = np.zeros((5, 3, 8, 8), np.float32)
    x[3] = np.nan
    with pytest.raises(DataError, match="sample 3"):
        verify(Linear("q"), data=(x, np.zeros(5, int)), reference=Linear("r"))
    with pytest.raises(DataError, match="no samples"):
        verify(Linear("q"), data=x[:0], reference=Linear("r"))


def test_a_backend_that_loses_rows() -> None:
    class Loses(Linear):
        def run(self, x: np.ndarray) -> np.ndarray:
            return super().run(x)[:-1]

    with pytest.raises(BackendError, match="not one row each"):
        verify(Loses("q"), data=samples(), reference=Linear("r"))


def test_a_backend_needs_a_reference() -> None:
    with pytest.raises(UsageError, match="needs a reference"):
        verify(Linear("q"), data=samples())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "magic"}, "no backend 'magic'"),
        ({"samples": 0}, "samples must"),
        ({"batch_size": 0}, "batch size"),
        ({"reference": "nowhere.onnx"}, "reference must be a .onnx"),
    ],
)
def test_senseless_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        verify(Linear("q"), data=samples(), **({"reference": Linear("r")} | arguments))  # type: ignore[arg-type]


def test_missing_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        verify(tmp_path / "nowhere", data=samples())
    with pytest.raises(UsageError, match=r"holds no model\.edgeq"):
        verify(tmp_path, data=samples())
    with pytest.raises(UsageError, match=r"holds no model\.onnx"):
        verify(tmp_path, data=samples(), backend="onnxruntime")
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="--backend onnxruntime"):
        verify(tmp_path / "a.onnx", data=samples(), backend="litert")
    with pytest.raises(ImportModelError, match="not an ONNX model"):
        verify(tmp_path / "a.onnx", data=samples())
    (tmp_path / "model.edgeq").write_bytes(b"not a model")
    for backend in ("native", "simulate"):
        with pytest.raises(EdgeqError) as caught:
            verify(tmp_path, data=samples(), backend=backend)
        assert "\n" not in str(caught.value)
