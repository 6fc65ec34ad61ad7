"""The main job through the command line, on the embedded demo: export, verify, run, bench, inspect, info."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FILES = {"model.edgeq", "model.onnx", "model.tflite", "reference.onnx", "manifest.json"}


def edgeq(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "edgeq", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo at every scheme."""
    folders = {}
    for bits in ("w8a8", "w4a8", "w4a4"):
        folders[bits] = tmp_path_factory.mktemp("demo") / bits
        edgeq("export", "--bits", bits, "--calib", "digits", "-o", folders[bits])
    return folders


@pytest.mark.parametrize("bits, least", [("w8a8", 0.97), ("w4a8", 0.95), ("w4a4", 0.80)])
def test_export_then_verify(exported: dict[str, Path], tmp_path: Path, bits: str, least: float) -> None:
    folder = exported[bits]
    absent = {"model.tflite"} if bits == "w4a4" else set()
    assert {path.name for path in folder.iterdir()} == FILES - absent
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["scheme"] == bits
    figures, report = tmp_path / "figures.json", tmp_path / "report.html"
    done = edgeq("verify", folder, "--data", "digits", "--json", figures, "--report", report)
    assert "ECE" in done.stdout
    found = json.loads(figures.read_text())
    assert found["n"] > 500
    assert found["reference"]["top1"] >= 0.97
    assert found["quantized"]["top1"] >= least
    for key in ("rate", "reference_only_correct", "quantized_only_correct", "both_wrong"):
        assert 0 <= found["disagreement"][key] <= 0.25
    assert found["logit_sqnr_db"] > (5 if bits == "w4a4" else 10)
    page = report.read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


@pytest.mark.parametrize(
    "name, why", [("absent/f.json", "there is no folder"), ("", "is a folder"), ("-", "names no file")]
)
def test_where_results_go_is_looked_at_first(exported: dict[str, Path], tmp_path: Path, name: str, why: str) -> None:
    # No data of that name: had the work begun, that would be the complaint.
    path = name if name == "-" else tmp_path / name
    done = edgeq("verify", exported["w8a8"], "--data", "no such data", "--json", path, check=False)
    assert done.returncode == 2
    assert why in " ".join(done.stderr.split())


def test_gates_decide_the_exit_status(exported: dict[str, Path], tmp_path: Path) -> None:
    verdicts = tmp_path / "gates.xml"
    words = ("verify", exported["w4a8"], "--data", "digits", "--junit", verdicts)
    kept = edgeq(*words, "--max-disagreement", 0.25, "--max-accuracy-drop", 5, "--confidence", 0.95)
    assert kept.stdout.count("passed: ") == 2
    assert 'failures="0"' in verdicts.read_text()
    failed = edgeq(*words, "--max-ece", 0.5, "--max-disagreement", 1e-9, "--confidence", 0.95, check=False)
    assert failed.returncode == 3
    assert "passed: The expected calibration error" in failed.stdout
    assert "FAILED: The disagreement with the float model" in failed.stderr
    assert 'failures="1"' in verdicts.read_text()
    assert edgeq("verify", exported["w4a8"], "--data", "digits", "--junit", verdicts, check=False).returncode == 2


def test_four_bit_changes_stand_in_the_manifest(exported: dict[str, Path]) -> None:
    changes = json.loads((exported["w4a8"] / "manifest.json").read_text())["changes"]
    assert [(change["requested"], change["done"]) for change in changes] == [("w4", "w8")]
    assert changes[0]["reason"]


def test_native_simulate_and_runtime_agree(exported: dict[str, Path], tmp_path: Path) -> None:
    logits = {}
    for backend in ("native", "simulate"):
        path = tmp_path / f"{backend}.json"
        edgeq(
            "verify",
            exported["w4a8"],
            "--data",
            "digits",
            "--backend",
            backend,
            "--samples",
            200,
            "--json",
            path,
        )
        logits[backend] = {
            k: v for k, v in json.loads(path.read_text()).items() if k not in ("provenance", "seconds")
        }
    assert logits["native"] == logits["simulate"]


@pytest.mark.parametrize("backend", ["onnxruntime", "litert"])
def test_exported_formats_verify_in_their_runtimes(exported: dict[str, Path], tmp_path: Path, backend: str) -> None:
    figures = tmp_path / "figures.json"
    edgeq("verify", exported["w8a8"], "--data", "digits", "--backend", backend, "--json", figures)
    assert json.loads(figures.read_text())["quantized"]["top1"] >= 0.97


def test_formats_agree_before_they_are_kept(exported: dict[str, Path]) -> None:
    for bits, files in (("w8a8", 2), ("w4a8", 2), ("w4a4", 1)):
        found = json.loads((exported[bits] / "manifest.json").read_text())["agreement"]
        assert len(found) == files
        assert all(one["mean_steps"] <= 0.5 for one in found), found


def test_four_bit_activations_are_refused_for_tflite(tmp_path: Path) -> None:
    done = edgeq(
        "export", "--bits", "w4a4", "--to", "tflite", "--calib", "digits", "-o", tmp_path / "out", check=False
    )
    assert done.returncode == 1
    assert "w4a8" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_export_replaces_all_of_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    edgeq("export", "--bits", "w8a8", "--calib", "digits", "-o", out)
    (out / "notes.txt").write_text("mine")
    edgeq("export", "--bits", "w4a4", "--to", "edgeq", "--calib", "digits", "-o", out)
    assert {path.name for path in out.iterdir()} == {"model.edgeq", "reference.onnx", "manifest.json", "notes.txt"}


def test_run_writes_the_sessions_output(exported: dict[str, Path], tmp_path: Path) -> None:
    import edgeq as package

    x = np.random.default_rng(0).random((5, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    model = exported["w8a8"] / "model.edgeq"
    edgeq("run", model, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--threads", 2)
    y = np.load(tmp_path / "y.npy")
    assert y.shape == (5, 10)
    np.testing.assert_array_equal(y, package.Session(model).run(x))


def test_bench_inspect_info(exported: dict[str, Path], tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    edgeq("bench", exported["w8a8"], "--seconds", 0.1, "--layers", "--json", figures)
    found = json.loads(figures.read_text())
    assert 0 < found["latency"]["p10_ms"] <= found["latency"]["median_ms"] <= found["latency"]["p90_ms"]
    assert found["macs"] > 0
    assert found["layers"]
    table = edgeq("inspect", exported["w8a8"]).stdout
    assert "weights in memory" in table
    assert "conv" in table
    assert "instruction sets" in edgeq("info").stdout


def test_same_export_gives_the_same_bytes(exported: dict[str, Path], tmp_path: Path) -> None:
    edgeq("export", "--bits", "w4a8", "--calib", "digits", "-o", tmp_path / "again")
    for name in sorted(FILES):
        assert (tmp_path / "again" / name).read_bytes() == (exported["w4a8"] / name).read_bytes()


def test_bits_are_chosen_under_a_budget_and_replayed(tmp_path: Path) -> None:
    done = edgeq(
        "export", "--bits", "auto", "--budget", "size=0.8", "--budget", "disagreement=0.05", "--to", "edgeq",
        "--calib", "digits", "-o", tmp_path / "auto",
    )  # fmt: skip
    assert "mixed (4-bit weights in" in done.stdout
    assert "summed sensitivity" in done.stdout
    rows = {words[0]: words[1:] for line in done.stdout.splitlines() if len(words := line.split()) == 3}
    assert rows["size"][0] == "0.8"
    assert float(rows["size"][1]) <= 0.8
    assert float(rows["disagreement"][1]) <= 0.05
    plan = tmp_path / "auto" / "plan.toml"
    edgeq("export", "--bits", plan, "--to", "edgeq", "--calib", "digits", "-o", tmp_path / "again")
    for name in ("model.edgeq", "plan.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "auto" / name).read_bytes()
    assert "w4" in edgeq("inspect", tmp_path / "again").stdout
    assert "mixed" in edgeq("verify", tmp_path / "again", "--data", "digits").stdout
    edgeq("export", "--bits", "w8a8", "--to", "edgeq", "--calib", "digits", "-o", tmp_path / "auto")
    assert not plan.exists()


def _malformed(folder: Path) -> dict[str, list[object]]:
    """Command lines that must fail, by what is wrong with them."""
    rng = np.random.default_rng(0)
    good = rng.random((8, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "nan.npz", x=np.full_like(good, np.nan), y=np.zeros(8, np.int64))
    np.savez(folder / "shape.npz", x=good[:, :, :5], y=np.zeros(8, np.int64))
    np.savez(folder / "empty.npz", x=good[:0], y=np.zeros(0, np.int64))
    (folder / "cut.npz").write_bytes((folder / "nan.npz").read_bytes()[:100])
    (folder / "cut.onnx").write_bytes(b"\x08\x07\x12garbage")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "images").mkdir()
    (folder / "broken" / "one").mkdir(parents=True)
    (folder / "broken" / "one" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "plan.toml").write_text("[layers]\nnode_conv = 4\n")
    (folder / "bad.toml").write_text("[layers\n")
    out = ["-o", folder / "out"]
    return {
        "auto without a budget": ["export", "--bits", "auto", "--calib", "digits", *out],
        "unknown budget": ["export", "--bits", "auto", "--budget", "price=1", "--calib", "digits", *out],
        "budget of a scheme": ["export", "--bits", "w4a8", "--budget", "size=0.5", "--calib", "digits", *out],
        "plan of another model": ["export", "--bits", folder / "plan.toml", "--calib", "digits", *out],
        "malformed plan": ["export", "--bits", folder / "bad.toml", "--calib", "digits", *out],
        "no such model": ["export", folder / "no.onnx", "--calib", "digits", *out],
        "truncated model": ["export", folder / "cut.onnx", "--calib", "digits", *out],
        "empty model": ["export", folder / "empty.onnx", "--calib", "digits", *out],
        "no such scheme": ["export", "--bits", "w3a8", "--calib", "digits", *out],
        "no such data": ["export", "--calib", folder / "nothing", *out],
        "NaN": ["export", "--calib", folder / "nan.npz", *out],
        "wrong shape": ["export", "--calib", folder / "shape.npz", *out],
        "no samples": ["export", "--calib", folder / "empty.npz", *out],
        "truncated data": ["export", "--calib", folder / "cut.npz", *out],
        "empty folder": ["export", "--calib", folder / "images", *out],
        "broken image": ["export", "--calib", folder / "broken", *out],
        "unknown layer": ["export", "--bits", "w4a8", "--keep-8bit", "nowhere", "--calib", "digits", *out],
        "bad mean": ["export", "--mean", "a,b", "--calib", "digits", *out],
        "no folder": ["verify", folder / "nothing", "--data", "digits"],
        "not a model": ["run", folder / "nan.npz", "--input", folder / "x.npy", "--output", folder / "out"],
    }


MALFORMED = (
    "NaN",
    "auto without a budget",
    "bad mean",
    "broken image",
    "budget of a scheme",
    "empty folder",
    "empty model",
    "malformed plan",
    "no folder",
    "no samples",
    "no such data",
    "no such model",
    "no such scheme",
    "not a model",
    "plan of another model",
    "truncated data",
    "truncated model",
    "unknown budget",
    "unknown layer",
    "wrong shape",
)


@pytest.mark.parametrize("case", MALFORMED)
def test_bad_input_gives_one_paragraph_and_no_output(tmp_path: Path, case: str) -> None:
    cases = _malformed(tmp_path)
    assert set(cases) == set(MALFORMED)
    arguments = cases[case]
    before = {path.name for path in tmp_path.iterdir()}
    done = edgeq(*arguments, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.startswith("edgeq: ")
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert "\n\n" not in done.stderr.strip()
    assert {path.name for path in tmp_path.iterdir()} == before, "an output was left behind"


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = edgeq(
        "export", "--debug", "--bits", "w3a8", "--calib", "digits", "-o", tmp_path / "out", check=False
    )
    assert done.returncode != 0
    assert "Traceback" in done.stderr
