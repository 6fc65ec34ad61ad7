"""edgeq-runner: the same bytes as the Python session, files whole or not at all, and errors that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from quantized_graphs import CASES, build

import edgeq
from edgeq import Session
from edgeq.exporters.edgeq_file import encode
from edgeq.passes import channels_last, lower

ROOT = Path(__file__).parent.parent.parent


def _find_runner() -> Path | None:
    """The runner that was built with this package: in place, or installed beside the interpreter."""
    places = [
        os.environ.get("EDGEQ_RUNNER", ""),
        ROOT / "build" / "release" / "csrc" / "runner" / "edgeq-runner",
        Path(sysconfig.get_path("scripts")) / "edgeq-runner",
    ]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


RUNNER = _find_runner()
pytestmark = pytest.mark.skipif(RUNNER is None, reason="edgeq-runner is not built (EDGEQ_RUNNER=PATH names one)")


def runner(*arguments: object, status: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs edgeq-runner and checks its exit status."""
    done = subprocess.run(
        [str(RUNNER), *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == status, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    if status != 0:
        # One line: the cause and the cure.
        assert done.stderr.startswith("edgeq-runner: ")
        assert done.stderr.count("\n") == 1
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo at W8A8."""
    folder = tmp_path_factory.mktemp("demo") / "w8a8"
    edgeq.export(bits="w8a8", calibration="digits", out=folder, to="edgeq")
    return folder / "model.edgeq"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two inputs and three outputs."""
    case = next(found for found in CASES if found.name == "block two inputs, three outputs")
    path = tmp_path_factory.mktemp("several") / "model.edgeq"
    path.write_bytes(encode(lower(channels_last(build(case, "w8a8", 1)))))
    return path


def images(model: Path, count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    (info,) = Session(model).inputs
    return rng.normal(size=(count, *info.shape[1:])).astype(np.float32)


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("isa", ["scalar", "avx2", ""])
@pytest.mark.parametrize("batch, threads", [(1, 1), (3, 2), (64, 3)])
def test_computes_what_the_session_computes(
    demo: Path, tmp_path: Path, rng: np.random.Generator, isa: str, batch: int, threads: int
) -> None:
    x = images(demo, 7, rng)
    wanted = Session(demo).run(x)
    np.save(tmp_path / "x.npy", x)
    options = ["--batch", batch, "--threads", threads, *(["--isa", isa] if isa else [])]
    runner("run", demo, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", *options)
    np.save(tmp_path / "wanted.npy", wanted)
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "wanted.npy").read_bytes()


def test_codes_give_codes(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    (info,) = Session(demo).inputs
    codes = rng.integers(-128, 128, (2, *info.shape[1:])).astype(np.int8)
    np.save(tmp_path / "x.npy", codes)
    runner("run", demo, f"--input={tmp_path / 'x.npy'}", f"--output={tmp_path / 'y.npy'}")
    found = np.load(tmp_path / "y.npy")
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, Session(demo).run(codes))


def test_images(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    session = Session(demo)
    (info,) = session.inputs
    channels, height, width = info.shape[1:]
    x = rng.integers(0, 256, (3, height, width, channels)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    runner("run", demo, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--batch", 2)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), session.run(x))


def test_several_inputs_and_outputs(several: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    session = Session(several)
    x = [rng.normal(size=(5, *info.shape[1:])).astype(np.float32) for info in session.inputs]
    arguments: list[object] = []
    for index, array in enumerate(x):
        np.save(tmp_path / f"x{index}.npy", array)
        arguments += ["--input", tmp_path / f"x{index}.npy"]
    for index in range(3):
        arguments += ["--output", tmp_path / f"y{index}.npy"]
    runner("run", several, *arguments, "--batch", 2)
    for index, wanted in enumerate(session.run(x)):
        np.testing.assert_array_equal(np.load(tmp_path / f"y{index}.npy"), wanted)


def test_folder(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "x").mkdir()
    arrays = {f"{name}.npy": images(demo, count, rng) for name, count in (("a", 1), ("b", 3), ("c", 2))}
    for name, array in arrays.items():
        np.save(tmp_path / "x" / name, array)
    runner("run", demo, "--input", tmp_path / "x", "--output", tmp_path / "y")
    assert sorted(path.name for path in (tmp_path / "y").iterdir()) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.load(tmp_path / "y" / name), Session(demo).run(array))


def test_dump(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    x = images(demo, 2, rng)
    np.save(tmp_path / "x.npy", x)
    runner("dump", demo, "--input", tmp_path / "x.npy", "--output", tmp_path / "all")
    wanted = Session(demo).dump(x)
    index = json.loads((tmp_path / "all" / "activations.json").read_text())
    assert [entry["tensor"] for entry in index] == list(wanted)
    for entry in index:
        np.testing.assert_array_equal(np.load(tmp_path / "all" / entry["file"]), wanted[entry["tensor"]])
    # A second dump would mix two runs.
    done = runner("dump", demo, "--input", tmp_path / "x.npy", "--output", tmp_path / "all", status=1)
    assert "name a new folder" in done.stderr


def test_bench(demo: Path, tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    arguments = ("bench", demo, "--seconds", 0.05, "--warm-up", 0, "--threads", 2, "--cpus", cpu)
    text = runner(*arguments, "--layers", "--json", tmp_path / "figures.json").stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    latency = figures["latency"]
    assert 0 < latency["min_ms"] <= latency["p10_ms"] <= latency["median_ms"] <= latency["p90_ms"]
    assert latency["runs"] >= 20
    assert figures["threads"] == 2
    assert figures["machine"]["cpus"] == [cpu]
    assert figures["macs"] == Session(demo).macs
    assert sum(layer["share"] for layer in figures["layers"]) == pytest.approx(1)
    assert {layer["name"] for layer in figures["layers"]} == {layer.name for layer in Session(demo).layers}
    assert "median" in text
    assert json.loads(runner("bench", demo, "--seconds", 0.01, "--codes", "--json", "-").stdout)["batch"] == 1


def test_info(demo: Path) -> None:
    assert edgeq.__version__ in runner("info").stdout
    found = json.loads(runner("info", demo, "--json", "-").stdout)
    assert found["version"] == edgeq.__version__
    session = Session(demo)
    assert found["in_use"] == session.isa
    assert found["model"]["arena_bytes"] == session.arena_bytes()
    assert [end["name"] for end in found["model"]["inputs"]] == [info.name for info in session.inputs]


def test_selftest(demo: Path) -> None:
    text = runner("selftest", demo, "--family", "lut").stdout
    assert text.rstrip().splitlines()[-1].startswith("PASSED")
    assert "scalar" in text
    runner("selftest", "--family", "nonsense", status=2)


def test_output_is_whole_or_not_there(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    x = images(demo, 4, rng)
    np.save(tmp_path / "x.npy", x)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-1])
    (tmp_path / "y.npy").write_bytes(b"before")
    done = runner("run", demo, "--input", tmp_path / "cut.npy", "--output", tmp_path / "y.npy", status=1)
    assert "save the array again" in done.stderr
    assert (tmp_path / "y.npy").read_bytes() == b"before"
    assert left_over(tmp_path) == []


def test_a_full_disk_leaves_nothing(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    import resource

    np.save(tmp_path / "x.npy", images(demo, 200, rng))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = runner(
        "run", demo, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", status=1, preexec_fn=limit
    )
    assert "cannot be written" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy"]


def test_a_signal_leaves_nothing(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    x = images(demo, 1, rng)
    np.save(tmp_path / "x.npy", np.broadcast_to(x, (20000, *x.shape[1:])))
    command = [RUNNER, "run", demo, "--isa", "scalar", "--batch", "4"]
    command += ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    started = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not left_over(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.001)
    started.terminate()
    _, errors = started.communicate(timeout=60)
    assert started.returncode == -signal.SIGTERM, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), "usage"),
        (("fly",), "no command"),
        (("run",), "takes MODEL"),
        (("run", "{demo}"), "needs --input and --output"),
        (("run", "{demo}", "--input", "{x}", "--output"), "needs a value"),
        (("run", "{demo}", "--input", "{x}", "--output", "{y}", "--speed", "1"), "no option --speed"),
        (("run", "{demo}", "--input", "{x}", "--output", "{y}", "--threads", "33"), "from 0 to 32"),
        (("run", "{demo}", "--input", "{x}", "--output", "{y}", "--cpus", "one"), "such as 0-3,6"),
        (("run", "{demo}", "--input", "{x}", "--output", "{y}", "--cpus", "4000"), "info"),
        (("run", "{demo}", "--input", "{x}", "--output", "{y}", "--isa", "mmx"), "avx2"),
        (("run", "{demo}", "--input", "{wrong}", "--output", "{y}"), "takes float32 [N, 1, 8, 8] or int8"),
        (("run", "{demo}", "--input", "{x}", "--input", "{x}", "--output", "{y}"), "1 inputs"),
        (("bench", "{demo}", "--seconds", "long"), "takes a number"),
        (("bench", "{demo}", "--codes=1"), "takes no value"),
    ],
)
def test_usage(
    demo: Path, tmp_path: Path, rng: np.random.Generator, arguments: tuple[str, ...], words: str
) -> None:
    x = images(demo, 1, rng)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "wrong.npy", x[:, :, 1:])
    names = {"demo": demo, "x": tmp_path / "x.npy", "wrong": tmp_path / "wrong.npy", "y": tmp_path / "y.npy"}
    command = [str(RUNNER), *(word.format(**names) for word in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.npy", "x.npy"]


def test_failures(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    x = images(demo, 1, rng)
    places = ("--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert "cannot be opened" in runner("run", demo, *places, status=1).stderr
    for array, words in (
        (x.astype(np.float64), "float32"),
        (x.astype(">f4"), "float32"),
        (np.asfortranarray(x), "ascontiguousarray"),
        (np.float32(1), "batch first"),
    ):
        np.save(tmp_path / "x.npy", array)
        assert words in runner("run", demo, *places, status=1).stderr
    for content in (b"", b"\x01\x00\xff\xff{}", b"\x02\x00\x04\x00\x00\x00{}  " + bytes(64)):
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + content)
        assert "numpy.save" in runner("run", demo, *places, status=1).stderr
    np.save(tmp_path / "x.npy", x)
    nowhere = tmp_path / "nowhere" / "y.npy"
    assert "existing folder" in runner("run", demo, *places[:3], nowhere, status=1).stderr
    (tmp_path / "bad.edgeq").write_bytes(demo.read_bytes()[:-1])
    assert "bad.edgeq" in runner("run", tmp_path / "bad.edgeq", *places, status=1).stderr
    assert "absent.edgeq" in runner("info", tmp_path / "absent.edgeq", status=1).stderr
    (tmp_path / "empty").mkdir()
    assert "no .npy" in runner("run", demo, "--input", tmp_path / "empty", "--output", tmp_path / "z", status=1).stderr


@pytest.mark.parametrize("command", ["run", "bench", "dump", "selftest", "info"])
def test_help(command: str) -> None:
    assert runner(command, "--help").stdout.startswith(f"usage: edgeq-runner {command}")
    assert command in runner("--help").stdout


def test_reads_every_version_of_npy(demo: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    x = images(demo, 2, rng)
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "x.npy").open("wb") as stream:
            np.lib.format.write_array(stream, x, version=version)
        runner("run", demo, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), Session(demo).run(x))
