"""Session.predict, edgeq-runner predict and the numpy statement: the same bits on every input."""

from __future__ import annotations

import itertools
import os
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from quantized_graphs import CASES, build

import edgeq
from edgeq import Session
from edgeq.cli import main
from edgeq.errors import DataError, FormatError, UsageError
from edgeq.exporters.edgeq_file import _container, encode, with_guard
from edgeq.exporters.edgeq_format import GUARD, HEADER, SECTION, Guard, ModelInfo, Section
from edgeq.importers.from_edgeq import decode
from edgeq.metrics import softmax
from edgeq.passes import channels_last, lower
from edgeq.simulate import Prediction, predict

ROOT = Path(__file__).parent.parent.parent
_PLACES = (
    os.environ.get("EDGEQ_RUNNER", ""),
    ROOT / "build" / "release" / "csrc" / "runner" / "edgeq-runner",
    Path(sysconfig.get_path("scripts")) / "edgeq-runner",
)
RUNNER = next((Path(place) for place in _PLACES if place and Path(place).is_file()), None)
needs_runner = pytest.mark.skipif(RUNNER is None, reason="edgeq-runner is not built (EDGEQ_RUNNER=PATH names one)")
GUARDS = (
    None,
    Guard(1.0, 0.0),
    Guard(float(np.float32(0.7)), 0.4),
    Guard(3.25, 1.0),
    Guard(1e-30, 0.5),
    Guard(1e30, 0.5),
)


def runner(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs edgeq-runner and checks its exit status."""
    done = subprocess.run([str(RUNNER), *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The demo at W4A4: its coarse logits tie often."""
    folder = tmp_path_factory.mktemp("demo") / "w4a4"
    edgeq.export(bits="w4a4", calibration="digits", out=folder, to="edgeq")
    return (folder / "model.edgeq").read_bytes()


def inputs(session: Session, count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    (info,) = session.inputs
    return rng.normal(size=(count, *info.shape[1:])).astype(np.float32)


def expect_same(found: Prediction, wanted: Prediction) -> None:
    for name in ("classes", "probability", "margin", "defer"):
        got, expected = getattr(found, name), getattr(wanted, name)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected, err_msg=name)


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_session_equals_the_statement(demo: bytes, guard: Guard | None, rng: np.random.Generator) -> None:
    session = Session(with_guard(demo, guard))
    assert session.guard == (None if guard is None else (np.float32(guard.temperature), np.float32(guard.margin)))
    x = inputs(session, 200, rng)
    used = guard or Guard()
    found = session.predict(x)
    expect_same(found, predict(session.run(x), used.temperature, used.margin))
    if used.margin == 0:
        assert not found.defer.any()
    codes = rng.integers(-128, 128, (50, *x.shape[1:])).astype(np.int8)
    (info,) = session.outputs
    assert info.quantization is not None
    scale, zero_point = np.float32(info.quantization.scale), info.quantization.zero_point
    logits = (session.run(codes).astype(np.int32) - zero_point).astype(np.float32) * scale
    expect_same(session.predict(codes), predict(logits, used.temperature, used.margin))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_not_answered(demo: bytes, bad: float, tmp_path: Path) -> None:
    (tmp_path / "model.edgeq").write_bytes(demo)
    session = Session(demo)
    x = inputs(session, 70, np.random.default_rng(0))
    x[66].reshape(-1)[-1] = bad
    with pytest.raises(UsageError, match=r"Input image: sample 66 holds NaN or infinite values; remove it"):
        session.predict(x)
    assert len(session.run(x)) == 70  # NaN is the code of zero there
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "large.npy", np.where(np.isfinite(x), x.astype(np.float64), 1e300))
    for command, file in itertools.product(("predict", "run"), ("x.npy", "large.npy")):
        arguments = [command, str(tmp_path / "model.edgeq"), "--input", str(tmp_path / file)]
        with pytest.raises(DataError, match=rf"{file}: sample 66 holds NaN or infinite values; remove it or repair"):
            main([*arguments, "--output", str(tmp_path / "out"), "--debug"])
        assert not (tmp_path / "out").exists()
    np.save(tmp_path / "x.npy", x[:66])
    with pytest.raises(SystemExit) as done:
        main(["predict", arguments[1], "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "out")])
    assert done.value.code == 0


def test_logits_that_no_model_gives_often(demo: bytes, rng: np.random.Generator) -> None:
    """The engine's arithmetic on rows drawn to meet its edges: ties, tiny and huge differences, infinities."""
    session = Session(with_guard(demo, Guard(float(np.float32(1.3)), 0.25)))
    rows = np.concatenate(
        [
            rng.normal(0, scale, (3000, 10)).astype(np.float32)
            for scale in (1e-38, 1e-6, 0.1, 1, 5, 100, 1000, 1e30, 5e37)
        ]
        + [rng.integers(-3, 4, (3000, 10)).astype(np.float32)]
    )
    rows[::97, 3] = np.inf
    rows[::101, 4] = -np.inf
    expect_same(Prediction(*session._session.predict_rows(rows)), predict(rows, float(np.float32(1.3)), 0.25))


@needs_runner
@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_runner_equals_session(demo: bytes, guard: Guard | None, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "model.edgeq"
    path.write_bytes(with_guard(demo, guard))
    session = Session(path)
    x = inputs(session, 133, rng)
    np.save(tmp_path / "x.npy", x)
    found = runner("predict", path, "--input", tmp_path / "x.npy", "--batch", 50).stdout
    wanted = session.predict(x)
    table = np.genfromtxt(found.splitlines(), delimiter=",", names=True)
    np.testing.assert_array_equal(table["class"], wanted.classes)
    np.testing.assert_array_equal(table["probability"].astype(np.float32), wanted.probability)
    np.testing.assert_array_equal(table["margin"].astype(np.float32), wanted.margin)
    np.testing.assert_array_equal(table["defer"], wanted.defer)
    runner("predict", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.csv")
    with pytest.raises(SystemExit) as done:
        main(["predict", str(path), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "z.csv")])
    assert done.value.code == 0
    assert (tmp_path / "y.csv").read_text() == (tmp_path / "z.csv").read_text() == found


@pytest.fixture(scope="module")
def probabilities() -> bytes:
    """A classifier that ends in a softmax."""
    case = next(one for one in CASES if one.name == "block classifier")
    return encode(lower(channels_last(build(case, "w8a8", 1))))


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_probabilities_are_read_as_such(
    probabilities: bytes, guard: Guard | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "model.edgeq"
    path.write_bytes(with_guard(probabilities, guard))
    session, used = Session(path), guard or Guard()
    x = inputs(session, 133, rng)
    p = session.run(x)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    found = session.predict(x)
    expect_same(found, predict(p, used.temperature, used.margin, probabilities=True))
    if used.temperature == 1.0:
        np.testing.assert_allclose(found.probability, p.max(axis=1), rtol=1e-6)
    drawn = softmax(rng.normal(0, 12, (5000, 10))).astype(np.float32)
    drawn[::11] = np.rint(drawn[::11] * 256) / 256
    drawn[::97, 3], drawn[::101, 4] = -np.inf, np.inf
    expect_same(
        Prediction(*session._session.predict_rows(drawn)),
        predict(drawn, used.temperature, used.margin, probabilities=True),
    )
    if RUNNER is None:
        return
    np.save(tmp_path / "x.npy", x)
    runner("predict", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.csv")
    with pytest.raises(SystemExit) as done:
        main(["predict", str(path), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "z.csv")])
    assert done.value.code == 0
    assert (tmp_path / "y.csv").read_text() == (tmp_path / "z.csv").read_text()


@needs_runner
def test_runner_shows_the_guard(demo: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.edgeq"
    path.write_bytes(with_guard(demo, None))
    assert "temperature" not in runner("info", path).stdout.split("model.edgeq")[1]
    path.write_bytes(with_guard(demo, Guard(1.5, 0.25)))
    assert "guard             temperature 1.5, defers" in runner("info", path).stdout
    assert '"margin": 0.25' in runner("info", path, "--json", "-").stdout
    with pytest.raises(SystemExit):
        main(["inspect", str(path)])
    assert "temperature 1.5, defers" in capsys.readouterr().out


@needs_runner
def test_runner_refuses_what_is_no_classifier(tmp_path: Path) -> None:
    content = encode(lower(channels_last(build(next(c for c in CASES if "three outputs" in c.name), "w8a8", 1))))
    (tmp_path / "model.edgeq").write_bytes(content)
    done = runner("predict", tmp_path / "model.edgeq", "--input", tmp_path / "x.npy", status=2)
    assert "no classifier" in done.stderr
    session = Session(content)
    with pytest.raises(UsageError, match="no classifier"):
        session.predict([np.zeros((1, *info.shape[1:]), np.float32) for info in session.inputs])


def test_with_guard_changes_the_guard_alone(demo: bytes) -> None:
    graph, info = decode(demo)
    guarded = with_guard(demo, Guard(1.5, 0.25))
    assert guarded == encode(graph, ModelInfo(info.preprocessing, info.labels, Guard(1.5, 0.25), info.metadata))
    assert with_guard(guarded, Guard(2.0, 0.5)) == with_guard(demo, Guard(2.0, 0.5))
    assert with_guard(guarded, None) == demo


def with_raw_guard(content: bytes, raw: bytes) -> bytes:
    content = with_guard(content, None)
    sections: dict[int, bytes] = {}
    for index in range(HEADER.unpack_from(content)[2]):
        kind, _, offset, size = SECTION.unpack_from(content, HEADER.size + index * SECTION.size)
        sections[kind] = content[offset : offset + size]
    return _container({**sections, Section.GUARD: raw})


@pytest.mark.parametrize(
    "raw",
    [
        *(GUARD.pack(value, 0.5, bytes(8)) for value in (0.0, -1.0, float("nan"), float("inf"))),
        *(GUARD.pack(1.0, value, bytes(8)) for value in (-0.1, 1.1, float("nan"), float("inf"))),
        GUARD.pack(1.0, 0.5, b"\1" + bytes(7)),
        GUARD.pack(1.0, 0.5, bytes(8))[:12],
        GUARD.pack(1.0, 0.5, bytes(8)) + bytes(4),
        b"",
    ],
    ids=lambda raw: raw.hex(),
)
def test_both_readers_refuse_senseless_guards(demo: bytes, raw: bytes) -> None:
    content = with_raw_guard(demo, raw)
    for read in (Session, decode):
        with pytest.raises(FormatError, match="GUARD"):
            read(content)
