"""Models that give probabilities, or one score a sample: every figure is that of the same model with logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edgeq
from edgeq.backends.litert import LitertBackend
from edgeq.backends.native import NativeBackend
from edgeq.backends.onnxruntime import OnnxRuntimeBackend
from edgeq.errors import DataError, EdgeqError
from edgeq.importers.from_edgeq import load
from edgeq.metrics import log_softmax, softmax
from edgeq.verification import Verification, compare, verify
from edgeq.verification.blame import blame
from edgeq.verification.capture import capture
from edgeq.verification.gates import Gates
from edgeq.verification.guard import guard
from edgeq.verification.scores import Ending, Endings, as_logits, ending_of, graph_ending, settle
from edgeq.verification.several import verify_several

SAMPLES = 1000
FEATURES = 20


def write(path: Path, classes: int, end: str, reshaped: bool = False) -> Path:
    """Writes a linear classifier that is sure of its answers, with another operator at its end."""
    rng = np.random.default_rng(3)
    weights = rng.normal(0, 1.2 if classes > 1 else 0.8, (FEATURES, classes)).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"], "gemm")]
    if end:
        nodes.append(helper.make_node(end, ["z"], ["p"], "end"))
    if reshaped:
        nodes.append(helper.make_node("Flatten", [nodes[-1].output[0]], ["flat"], "flat"))
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(classes, np.float32), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def samples() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SAMPLES, FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same classifiers exported as they are and with another end."""
    base = tmp_path_factory.mktemp("scores")
    found = {}
    for name, classes, end in (
        ("logits", 10, ""),
        ("softmax", 10, "Softmax"),
        ("log", 10, "LogSoftmax"),
        ("logit", 1, ""),
        ("sigmoid", 1, "Sigmoid"),
    ):
        model = write(base / f"{name}.onnx", classes, end)
        edgeq.export(model, bits="w4a8", effort="fast", calibration=samples()[:200], out=base / name)
        found[name] = base / name
    return found


@pytest.fixture(scope="module")
def labels(folders: dict[str, Path]) -> np.ndarray:
    """Drawn by the float model's own probabilities: it is calibrated."""
    p = OnnxRuntimeBackend(folders["softmax"] / "reference.onnx").run(samples()).astype(np.float64)
    return (p.cumsum(axis=1) > np.random.default_rng(1).random((SAMPLES, 1))).argmax(axis=1)


def expect_alike(found: Verification, wanted: Verification, close: float = 1e-4) -> None:
    """Every figure but the logits' own is the same."""
    for one, other in (
        (found.comparison.reference, wanted.comparison.reference),
        (found.comparison.quantized, wanted.comparison.quantized),
    ):
        assert one is not None
        assert other is not None
        for name in ("top1", "ece", "adaptive_ece", "nll", "brier", "mean_confidence"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=close), name
    assert found.comparison.disagreement.rate == wanted.comparison.disagreement.rate
    assert found.comparison.disagreement.mean_kl == pytest.approx(wanted.comparison.disagreement.mean_kl, abs=close)
    assert found.scaling is not None
    assert wanted.scaling is not None
    for name, row in wanted.scaling.rows.items():
        assert found.scaling.rows[name].temperature == pytest.approx(row.temperature, rel=1e-2), name


def test_softmax_at_the_end_changes_no_figure(folders: dict[str, Path], labels: np.ndarray) -> None:
    data = samples(), labels
    wanted = verify(folders["logits"], data=data)
    assert wanted.comparison.reference is not None
    assert wanted.comparison.reference.mean_confidence > 0.75
    assert wanted.comparison.reference.ece < 0.03
    found = verify(folders["softmax"], data=data, gates=Gates(max_ece=0.1))
    assert found.passed
    expect_alike(found, wanted)
    # A gate that holds figures of softmax(softmax) would pass whatever the model does.
    assert not verify(folders["softmax"], data=(data[0], (labels + 1) % 10), gates=Gates(max_ece=0.5)).passed


@pytest.mark.parametrize("backend", ["simulate", "onnxruntime", "litert"])
def test_every_runtime_sees_the_softmax(folders: dict[str, Path], labels: np.ndarray, backend: str) -> None:
    try:
        found = verify(folders["softmax"], data=(samples(), labels), backend=backend)
    except EdgeqError as error:
        pytest.skip(str(error))
    expect_alike(found, verify(folders["logits"], data=(samples(), labels), backend=backend), close=2e-3)


@pytest.mark.parametrize("backend", ["native", "simulate", "onnxruntime", "litert"])
def test_a_log_softmax_that_is_left_out_changes_no_figure(
    folders: dict[str, Path], labels: np.ndarray, backend: str
) -> None:
    data = samples(), labels
    try:
        found = verify(folders["log"], data=data, backend=backend)
    except EdgeqError as error:
        pytest.skip(str(error))
    wanted = verify(folders["logits"], data=data, backend=backend)
    expect_alike(found, wanted)
    # The float model's scores are normalised and the integers' are not: their errors are those of normalised ones.
    scores = [
        OnnxRuntimeBackend(folders["logits"] / "reference.onnx").run(samples()),
        NativeBackend(folders["log"] / "model.edgeq").run(samples()),
    ]
    alike = compare(*(log_softmax(one) for one in scores))
    assert found.comparison.logit_sqnr_db == pytest.approx(alike.logit_sqnr_db, rel=1e-4)
    assert found.comparison.largest_logit_error == pytest.approx(alike.largest_logit_error, rel=1e-4)
    assert found.comparison.largest_logit_error < 0.5 * np.abs(scores[0] - log_softmax(scores[0])).max()


def test_captured_probabilities_are_still_probabilities(
    folders: dict[str, Path], labels: np.ndarray, tmp_path: Path
) -> None:
    capture(folders["softmax"], data=samples()).save(tmp_path / "answers.npz")
    data = samples(), labels
    found = verify(folders["softmax"], data=data, outputs=tmp_path / "answers.npz")
    expect_alike(found, verify(folders["logits"], data=data))


def test_shifted_data_are_of_the_same_logits(folders: dict[str, Path], labels: np.ndarray) -> None:
    data, shifted = (samples(), labels), (samples()[:300] * 1.5, labels[:300])
    found, wanted = (verify(folders[name], data=data, shift_data=shifted).shifts for name in ("softmax", "logits"))
    assert found is not None
    assert wanted is not None
    cells = found.cells[0], wanted.cells[0]
    for one, other in ([cell.reference for cell in cells], [cell.quantized for cell in cells]):
        assert one is not None
        assert other is not None
        for name in ("top1", "ece", "mean_confidence"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4), name


def test_compare_sees_the_softmax(folders: dict[str, Path], labels: np.ndarray) -> None:
    (standing,) = verify_several([folders["softmax"]], data=(samples(), labels), timed=False).models
    expect_alike(standing.verification, verify(folders["logits"], data=(samples(), labels)))


def test_backends_without_a_file_are_judged_by_the_float_scores(folders: dict[str, Path], labels: np.ndarray) -> None:
    class Bare:
        def __init__(self, backend: OnnxRuntimeBackend | NativeBackend) -> None:
            self.name, self.run = backend.name, backend.run

    data = samples(), labels
    for name in ("logits", "softmax"):
        reference = Bare(OnnxRuntimeBackend(folders[name] / "reference.onnx"))
        found = verify(Bare(NativeBackend(folders[name] / "model.edgeq")), data=data, reference=reference)
        expect_alike(found, verify(folders["logits"], data=data))


def test_guards_of_both_are_alike(folders: dict[str, Path], labels: np.ndarray, tmp_path: Path) -> None:
    data = samples(), labels
    fits = {}
    for name in ("logits", "softmax"):
        file = tmp_path / f"{name}.edgeq"
        file.write_bytes((folders[name] / "model.edgeq").read_bytes())
        fits[name] = guard(file, data=data, reference=folders[name], catch=0.8)
        found = edgeq.Session(file).predict(samples())
        fit = fits[name]
        deferred = fit.fitted.deferred + (0 if fit.tested is None else fit.tested.deferred)
        assert int(found.defer.sum()) == deferred, "the margin is that of Session.predict, bit for bit"
    assert fits["softmax"].guard.temperature == pytest.approx(fits["logits"].guard.temperature, rel=1e-3)
    assert fits["softmax"].guard.margin == pytest.approx(fits["logits"].guard.margin, rel=1e-2)


def test_blame_is_of_the_logits(folders: dict[str, Path]) -> None:
    found, wanted = (blame(folders[name], data=samples(), samples=50) for name in ("softmax", "logits"))
    assert found.disagreement == wanted.disagreement
    assert found.layers[0].win_float_kl == pytest.approx(wanted.layers[0].win_float_kl, rel=1e-3)
    one, binary = (blame(folders[name], data=samples(), samples=200) for name in ("logit", "sigmoid"))
    assert one.disagreement > 0
    assert binary.disagreement == pytest.approx(one.disagreement, abs=0.02)


@pytest.mark.parametrize("name", ["logit", "sigmoid"])
def test_one_score_a_sample_is_two_classes(folders: dict[str, Path], name: str) -> None:
    x = samples()
    scores = OnnxRuntimeBackend(folders[name] / "reference.onnx").run(x)[:, 0]
    quantized = np.asarray(edgeq.Session(folders[name] / "model.edgeq").run(x))[:, 0]
    middle = 0.5 if name == "sigmoid" else 0.0
    truth = (scores > middle).astype(np.int64)
    found = verify(folders[name], data=(x, truth), gates=Gates(max_disagreement=0.0))
    assert found.comparison.classes == 2
    assert found.comparison.disagreement.count == int(((scores > middle) != (quantized > middle)).sum()) > 0
    assert not found.passed
    assert found.comparison.reference is not None
    assert found.comparison.reference.top1 == 1.0
    p = scores.astype(np.float64) if name == "sigmoid" else 1 / (1 + np.exp(-scores.astype(np.float64)))
    assert found.comparison.reference.mean_confidence == pytest.approx(np.maximum(p, 1 - p).mean(), abs=1e-6)
    with pytest.raises(DataError, match="at least two classes"):
        guard(folders[name], data=(x, truth))


def test_one_score_that_may_be_either_is_refused() -> None:
    class Flat:
        name = "flat"

        def run(self, x: np.ndarray) -> np.ndarray:
            return np.full((len(x), 1), 0.25, np.float32)

    with pytest.raises(DataError, match="nothing tells whether"):
        verify(Flat(), data=samples(), reference=Flat())
    with pytest.raises(DataError, match="at least two classes"):
        compare(np.zeros((3, 1)), np.zeros((3, 1)))


def test_endings_of_files(folders: dict[str, Path], tmp_path: Path) -> None:
    assert ending_of(folders["log"] / "reference.onnx") is Ending.LOG_SOFTMAX
    for file in ("model.edgeq", "model.onnx", "model.tflite"):
        assert ending_of(folders["log"] / file) is Ending.LOGITS
    for name, wanted in (("logits", "LOGITS"), ("softmax", "SOFTMAX"), ("logit", "LOGITS"), ("sigmoid", "SIGMOID")):
        for file in ("reference.onnx", "model.onnx", "model.tflite"):
            assert ending_of(folders[name] / file) is Ending[wanted], f"{name}/{file}"
        # A table of codes may be any function.
        assert ending_of(folders[name] / "model.edgeq") is (None if name == "sigmoid" else Ending[wanted])
        assert ending_of(None, OnnxRuntimeBackend(folders[name] / "model.onnx")) is Ending[wanted]
    assert ending_of(write(tmp_path / "flat.onnx", 10, "Softmax", reshaped=True)) is Ending.SOFTMAX
    assert ending_of(write(tmp_path / "log.onnx", 10, "LogSoftmax", reshaped=True)) is Ending.LOG_SOFTMAX
    assert ending_of(tmp_path / "missing.onnx") is None
    (tmp_path / "odd.onnx").write_bytes(b"odd")
    assert ending_of(tmp_path / "odd.onnx") is None
    assert ending_of(None) is None
    graph, _ = load(folders["softmax"] / "model.edgeq")
    assert graph_ending(graph) is Ending.SOFTMAX


def test_logits_give_the_probabilities_back(rng: np.random.Generator) -> None:
    p = softmax(rng.normal(0, 8, (300, 7))).astype(np.float32)
    np.testing.assert_allclose(softmax(as_logits(p, Ending.SOFTMAX)), p, atol=2e-7)
    np.testing.assert_array_equal(as_logits(p, Ending.SOFTMAX).argmax(axis=1), p.argmax(axis=1))
    np.testing.assert_array_equal(as_logits(p, Ending.LOGITS), p)
    one = rng.random((50, 1)).astype(np.float32)
    np.testing.assert_allclose(softmax(as_logits(one, Ending.SIGMOID))[:, 1:], one, atol=2e-7)
    np.testing.assert_allclose(softmax(as_logits(one, Ending.LOGITS))[:, 1], 1 / (1 + np.exp(-one[:, 0])), rtol=1e-6)
    broken = as_logits(np.array([[np.nan, 1], [np.inf, 0], [0, 1]], np.float32), Ending.SOFTMAX)
    assert np.isnan(broken[:2, 0]).all()
    assert np.isfinite(broken[2]).all()


def test_scores_decide_only_where_no_file_does() -> None:
    p, z = np.array([[0.25, 0.75], [0, 1]], np.float32), np.array([[0.25, 0.75], [-1, 2]], np.float32)
    assert settle(None, None, (p, p)).quantized is Ending.SOFTMAX
    assert settle(None, None, (z, z)).reference is Ending.LOGITS
    assert settle(None, None, (p[:1] * 1.002, p[:1])).reference is Ending.LOGITS
    assert settle(Ending.LOGITS, None, (p, p)).quantized is Ending.LOGITS
    assert settle(Ending.SOFTMAX, None, (p, z)).quantized is Ending.LOGITS
    one = np.array([[0.5]], np.float32)
    assert settle(None, Ending.SIGMOID, (one, one)).reference is Ending.SIGMOID
    assert settle(None, None, (-one, -one)).reference is Ending.LOGITS
    assert settle(Ending.SIGMOID, None, (one, one)).quantized is Ending.SIGMOID
    assert settle(Ending.LOG_SOFTMAX, None, (-p, z)).quantized is Ending.LOGITS


def test_scores_that_are_not_finite_are_told_by_compare() -> None:
    broken = np.array([[0, 1], [np.nan, 1]], np.float32)
    even = np.log([[0.5, 0.5]] * 2).astype(np.float32)
    endings = Endings(Ending.LOG_SOFTMAX, Ending.LOGITS)
    with pytest.raises(DataError, match="first on input 1"):
        compare(endings.logits("reference", even), endings.logits("quantized", broken))
    assert np.isnan(endings.logits("quantized", broken[1:])).any()


def test_litert_files_are_read(folders: dict[str, Path]) -> None:
    try:
        runner = LitertBackend(folders["softmax"] / "model.tflite")
    except EdgeqError as error:
        pytest.skip(str(error))
    assert ending_of(None, runner) is Ending.SOFTMAX
