"""edgeq beside other post-training tools: same networks, calibration images and evaluation; for docs/results.md.

    python -m bench.studies.ptq_tools --data DIR --environments DIR [--write]

DIR of --data holds imagenet_sample, imagenet_val10 and cifar10; the CIFAR network's weights are found through
EDGEQ_WEIGHTS. Each tool is installed into an environment of its own from bench/studies/tools/TOOL.txt, and
bench/studies/tools/TOOL.py runs it there. What cannot be installed or fails is a row that says why. Results are kept
in the bench's store (`EDGEQ_BENCH_CACHE`) and found again while the worker, its requirements and the inputs are the
same; edgeq's while its code is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from bench import store
from bench.studies.float_tflite import to_float_tflite
from bench.studies.tables import replace_table
from edgeq import metrics
from edgeq.data import Preprocessing, open_dataset
from edgeq.deployment.models import load_model
from edgeq.passes import float_pipeline
from edgeq.quantize.recipe import EFFORTS
from edgeq.verification.compare import compare
from edgeq.zoo.registry import architecture

WORKERS = Path(__file__).with_name("tools")
RESULTS = Path(__file__).parents[2] / "docs" / "results.md"
SHARED = ("worker.py", "network.py")
CALIBRATION_IMAGES = 200
CIFAR_IMAGES = 2000
"""Evaluated of CIFAR-10's test images: the first ones, which are balanced by class."""

NETWORKS = ("efficientnet_lite0", "mobilenet_v2", "resnet20_cifar10")
_SMALL = ("resnet20_cifar10",)
"""What takes hours elsewhere is tried on this network."""

SCHEMES = ("w8a8", "w4a8", "w4a4")
_CHECKED = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of calling a tool.

    Attributes:
        scheme: Bits of weights and activations: rows with the same are compared.
        label: What sets it apart, for the table.
        values: What the worker is given.
        only: Networks that it is tried on; the others take too long for what they would tell.
    """

    scheme: str
    label: str
    values: dict[str, Any]
    only: tuple[str, ...] = NETWORKS


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool.

    Attributes:
        name: Of its worker and its requirements.
        title: In the table.
        settings: Its ways, of which the best one for each network and scheme counts.
        own: Whether it runs in this Python's environment: edgeq itself.
        code: What its results depend on beside its worker.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]
    own: bool = False
    code: tuple[Path, ...] = field(default=())


def edgeq_settings(efforts: Sequence[str] = ()) -> tuple[Setting, ...]:
    """Returns edgeq's ways: its defaults, or the levels of `edgeq export --effort` that are named."""
    if not efforts:
        return tuple(Setting(scheme, "default", {"bits": scheme}) for scheme in SCHEMES)
    return tuple(
        Setting(scheme, f"--effort {effort}", {"bits": scheme, "effort": effort})
        for scheme in SCHEMES
        for effort in efforts
    )


def _nncf(scheme: str, label: str, preset: str, *, accurate: bool, align: bool) -> Setting:
    values = {"preset": preset, "accurate": accurate, "align": align, "weight_bits": int(scheme[1])}
    return Setting(scheme, label, values)


def _brevitas(
    scheme: str, label: str, method: str, percentile: float = 99.999, only: tuple[str, ...] = NETWORKS
) -> Setting:
    values = {"weight_bits": int(scheme[1]), "act_bits": int(scheme[3]), "method": method, "equalize": 20}
    return Setting(scheme, label, {**values, "percentile": percentile}, only)


def _aimet(
    scheme: str, label: str, method: str, *, equalize: bool = True, only: tuple[str, ...] = NETWORKS, **more: Any
) -> Setting:
    values = {"weight_bits": int(scheme[1]), "act_bits": int(scheme[3]), "method": method, "equalize": equalize}
    return Setting(scheme, label, {**values, "ranges": "tf_enhanced" if equalize else "min_max", **more}, only)


_PACKAGE = Path(edgeq.__file__).parent

TOOLS = (
    Tool(
        "edgeq",
        "edgeq",
        edgeq_settings(),
        own=True,
        code=(_PACKAGE, *sorted(_PACKAGE.glob("_native*"))),
    ),
    Tool(
        "onnxruntime",
        "onnxruntime quantize_static",
        tuple(
            Setting(f"w{bits}a8", calibration, {"calibration": calibration, "weight_bits": bits})
            for bits, found in ((8, ("MinMax", "Entropy", "Percentile")), (4, ("MinMax",)))
            for calibration in found
        ),
    ),
    Tool(
        "nncf",
        "NNCF on OpenVINO",
        (
            _nncf("w8a8", "performance, fast bias correction", "PERFORMANCE", accurate=False, align=False),
            _nncf("w8a8", "mixed, fast bias correction", "MIXED", accurate=False, align=False),
            _nncf("w8a8", "mixed, accurate bias correction", "MIXED", accurate=True, align=False),
            _nncf("w4a8", "mixed, fast bias correction", "MIXED", accurate=False, align=False),
            _nncf("w4a8", "mixed, aligned, accurate bias correction", "MIXED", accurate=True, align=True),
        ),
    ),
    Tool(
        "ai_edge_quantizer",
        "ai-edge-quantizer",
        tuple(
            Setting(f"w{bits}a8", label, {"algorithm": algorithm, "weight_bits": bits})
            for bits, label, algorithm in (
                (8, "min-max", "MIN_MAX_UNIFORM_QUANT"),
                (4, "min-max", "MIN_MAX_UNIFORM_QUANT"),
                (4, "OCTAV", "OCTAV"),
            )
        ),
    ),
    Tool("torchao", "torchao PT2E", (Setting("w8a8", "x86 Inductor quantizer", {}),)),
    Tool(
        "brevitas",
        "Brevitas",
        (
            _brevitas("w8a8", "equalised, bias correction", "none"),
            _brevitas("w4a8", "equalised, GPTQ, bias correction", "gptq"),
            _brevitas("w4a4", "equalised, GPTQ, bias correction", "gptq", percentile=99.9, only=_SMALL),
        ),
    ),
    Tool(
        "aimet_onnx",
        "aimet-onnx",
        (
            _aimet("w8a8", "min-max", "none", equalize=False, only=_SMALL),
            _aimet("w8a8", "equalised, SQNR ranges", "none"),
            _aimet("w4a8", "equalised, sequential MSE", "seq_mse"),
            _aimet("w4a8", "sequential MSE", "seq_mse", equalize=False, only=_SMALL),
            _aimet("w4a8", "AdaRound, 500 steps a layer", "adaround", equalize=False, only=_SMALL, iterations=500),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A network and its images on disk.

    Attributes:
        folder: As `bench/studies/tools/worker.py` describes it.
        labels: Of the evaluation images.
        reference: The float network's logits of them.
        key: Digest of all of it.
    """

    folder: Path
    labels: np.ndarray[Any, Any]
    reference: np.ndarray[Any, Any]
    key: str


def sources(network: str, data: Path) -> tuple[list[tuple[str, int | None]], list[tuple[str, int | None]]]:
    """Returns the data sets that calibrate and that are answered, each with how many of its images (None: all)."""
    if network.endswith("_cifar10"):
        return (
            [(str(data / "cifar10/train.npz"), CALIBRATION_IMAGES)],
            [(str(data / "cifar10/test.npz"), CIFAR_IMAGES)],
        )
    sample = str(data / "imagenet_sample/images_224.zip")
    return (
        [(f"{sample}:calib", CALIBRATION_IMAGES)],
        [(f"{sample}:eval", None), (str(data / "imagenet_val10/images_224.zip"), None)],
    )


def prepare(network: str, data: Path) -> Inputs:
    """Writes the float network and its preprocessed images for the workers."""
    row = architecture(network)
    found = load_model(
        f"edgeq.zoo.pretrained:{network}", lambda: np.zeros((1, *row.input_shape), np.float32)
    )
    calibration, evaluation = sources(network, data)
    facts = [f"{open_dataset(name).digest()} {count}" for name, count in (*calibration, *evaluation)]
    own = [Path(__file__).with_name("float_tflite.py")]
    key = store.digest(network, found.onnx, json.dumps(row.preprocessing.to_dict()), *facts, *own)

    def make(folder: Path) -> None:
        images, _ = _images(calibration, row.preprocessing)
        answered, labels = _images(evaluation, row.preprocessing)
        write_inputs(folder, found.onnx, to_float_tflite(float_pipeline(found.graph)), images, answered, labels)

    return read_inputs(store.entry(f"ptq_tools.{network}", key, make), key)


def write_inputs(folder: Path, network: bytes, lite: bytes, calibration: Any, evaluation: Any, labels: Any) -> None:
    """Writes what `read_inputs` and the workers read, and the float network's logits."""
    import onnxruntime

    (folder / "model.onnx").write_bytes(network)
    (folder / "model.tflite").write_bytes(lite)
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.concatenate([session.run(None, {name: x[i : i + 20]})[0] for i in range(0, len(x), 20)])

    arrays = {
        "calibration": calibration,
        "evaluation": evaluation,
        "labels": labels,
        "float": run(calibration[:_CHECKED]),
        "reference": run(evaluation),
    }
    for stem, array in arrays.items():
        np.save(folder / f"{stem}.npy", array)


def read_inputs(folder: Path, key: str) -> Inputs:
    """Reads what `write_inputs` wrote."""
    return Inputs(folder, np.load(folder / "labels.npy"), np.load(folder / "reference.npy"), key)


def _images(parts: Sequence[tuple[str, int | None]], preprocessing: Preprocessing) -> tuple[Any, Any]:
    inputs, labels = [], []
    for name, count in parts:
        dataset = open_dataset(name)
        for batch in dataset.batches(50, preprocessing, range(count or len(dataset))):
            inputs.append(batch.inputs)
            labels.append(np.full(len(batch.inputs), -1) if batch.labels is None else batch.labels)
    return np.concatenate(inputs), np.concatenate(labels)


def environment(tool: Tool, folder: Path) -> Path:
    """Returns the Python of a tool's environment, installed where it is not there yet.

    Raises:
        PreparationError: If its packages cannot be installed.
    """
    if tool.own:
        return Path(sys.executable)
    wanted, home = (WORKERS / f"{tool.name}.txt").read_text(encoding="utf-8"), folder / tool.name
    python, mark = home / "bin" / "python", home / "installed.txt"
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(home, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command = [*pip, "-r", str(WORKERS / f"{tool.name}.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_clean())
    if done.returncode:
        raise store.PreparationError(f"does not install: {_last_line(done.stderr)}")
    mark.write_text(wanted, encoding="utf-8")
    return python


def run(tool: Tool, setting: Setting, network: str, inputs: Inputs, python: Path, limits: Limits) -> Path:
    """Returns the folder of a worker's results, made where it is not there yet.

    Raises:
        PreparationError: If the worker fails or takes too long.
    """
    worker = WORKERS / f"{tool.name}.py"
    requirements = [] if tool.own else [WORKERS / f"{tool.name}.txt"]
    values = json.dumps(setting.values, sort_keys=True)
    files = [worker, *(WORKERS / name for name in SHARED), *requirements, *tool.code]
    key = store.digest(inputs.key, values, str(limits.cores), *files)

    def make(folder: Path) -> None:
        command = [str(python), str(worker), str(inputs.folder), str(folder), values]
        path = os.pathsep.join(filter(None, sys.path)) if tool.own else ""
        threads = {
            name: str(limits.cores) for name in ("EDGEQ_STUDY_CORES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        }
        log = folder / "log.txt"
        with log.open("w", encoding="utf-8") as output:
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env={**_clean(), **threads, **({"PYTHONPATH": path} if path else {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=60 * limits.minutes,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise store.PreparationError(f"not done after {limits.minutes:g} minutes") from None
        if done.returncode:
            raise store.PreparationError(_last_line(log.read_text(encoding="utf-8", errors="replace")))

    label = f"ptq_tools.{network}.{tool.name}.{hashlib.sha256(values.encode()).hexdigest()[:8]}"
    if limits.stored and not (store.root() / f"{label}-{key}").is_dir():
        raise store.PreparationError("not run with this version")
    return store.entry(label, key, make)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use.

    Attributes:
        cores: Processor cores.
        minutes: Of the clock.
        stored: Whether nothing is run: results come from the store alone.
    """

    cores: int = 1
    minutes: float = 15.0
    stored: bool = False


def _clean() -> dict[str, str]:
    """This process' environment without what leads a worker to this environment's packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200].replace("|", "/") if lines else "the tool said nothing"


def measure(
    tool: Tool, setting: Setting, network: str, inputs: Inputs, python: Path, limits: Limits
) -> dict[str, Any]:
    """Runs one tool on one network; returns a row: its figures, or under "problem" why there are none."""
    row: dict[str, Any] = {"network": network, "tool": tool.title, "scheme": setting.scheme, "setting": setting.label}
    try:
        folder = run(tool, setting, network, inputs, python, limits)
    except store.PreparationError as error:
        return {**row, "problem": str(error)}
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return {**row, **facts, **figures(inputs, np.load(folder / "logits.npy"))}


def figures(inputs: Inputs, logits: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Compares logits with the float network's: n, top1, float_top1, change, interval, ece, float_ece, disagreement."""
    found = compare(inputs.reference, logits, inputs.labels).to_json()
    classes = [metrics.predicted_class(one) for one in (inputs.reference, logits)]
    right = [one == inputs.labels for one in classes]
    interval = metrics.paired_difference_interval(right[0], right[1])
    return {
        "n": found["n"],
        "top1": found["quantized"]["top1"],
        "float_top1": found["reference"]["top1"],
        "change": found["quantized"]["top1"] - found["reference"]["top1"],
        "interval": list(interval),
        "ece": found["quantized"]["ece"],
        "float_ece": found["reference"]["ece"],
        "disagreement": found["disagreement"]["rate"],
    }


def best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keeps a tool's most accurate setting for each network and scheme: chosen on the evaluation, in its favour.

    Of edgeq all are kept, since its levels are what a user chooses from.
    """
    kept: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["network"], row["scheme"], row["tool"], row["setting"] if row["tool"] == "edgeq" else "")
        if key not in kept or _rank(row) > _rank(kept[key]):
            kept[key] = row
    return list(kept.values())


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    return (row["top1"], -row["disagreement"]) if "problem" not in row else (-1.0, 0.0)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the best rows as Markdown, a table for each network, and a list of every setting tried."""
    parts = []
    for network in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == network]
        known = next((row for row in mine if "problem" not in row), None)
        if known is not None:
            parts.append(
                f"**{network}**, {known['n']:,} images, FP32 top-1 {known['float_top1']:.1%}, "
                f"ECE {known['float_ece']:.3f}:"
            )
        lines = [
            "| bits | tool | best setting | top-1 | change, points (95 %) | ECE | disagreement | KiB | seconds |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        ordered = sorted(best(mine), key=lambda row: (_order(row["scheme"]), row["tool"] != "edgeq", -_rank(row)[0]))
        lines += [_line(row) for row in ordered]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, _tried(rows), _versions(rows)])


def _order(scheme: str) -> tuple[int, ...]:
    return tuple(-int(character) for character in scheme if character.isdigit())


def _line(row: dict[str, Any]) -> str:
    head = f"| {row['scheme']} | {row['tool']} | {row['setting']} |"
    if "problem" in row:
        return f"{head} {row['problem']} | | | | | |"
    low, high = (100 * one for one in row["interval"])
    size = "simulated" if row["bytes"] is None else f"{row['bytes'] / 1024:,.0f}"
    mark = f" ({row['note']})" if row["note"] else ""
    return (
        f"{head[:-2]}{mark} | {row['top1']:.1%} | {100 * row['change']:+.1f} ({low:+.1f} to {high:+.1f}) | "
        f"{row['ece']:.3f} | {row['disagreement']:.1%} | {size} | {row['seconds']:,.0f} |"
    )


def _tried(rows: Sequence[dict[str, Any]]) -> str:
    """Every setting with its top-1, or why it has none."""
    settings: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        key = (row["scheme"], row["tool"], row["setting"])
        result = row["problem"] if "problem" in row else f"{row['top1']:.1%}"
        settings.setdefault(key, []).append(f"{row['network']} {result}")
    ordered = sorted(settings.items(), key=lambda item: _order(item[0][0]))
    lines = [f"- {scheme} {tool}, {label}: {'; '.join(found)}" for (scheme, tool, label), found in ordered]
    return "\n".join(["Every setting that was tried, with its top-1:", "", *lines])


def _versions(rows: Sequence[dict[str, Any]]) -> str:
    found = dict(version for row in rows for version in row.get("versions", {}).items())
    return f"Versions: {', '.join(f'{package} {version}' for package, version in sorted(found.items()))}."


def study(
    tools: Sequence[Tool], networks: Sequence[str], data: Path, environments: Path, limits: Limits
) -> Iterator[dict[str, Any]]:
    """Runs every tool on every network, networks within tools."""
    prepared = {network: prepare(network, data) for network in networks}
    for tool in tools:
        try:
            python = environment(tool, environments)
        except store.PreparationError as error:
            for network in networks:
                for setting in tool.settings:
                    yield {
                        "network": network,
                        "tool": tool.title,
                        "scheme": setting.scheme,
                        "setting": setting.label,
                        "problem": str(error),
                    }
            continue
        for network in networks:
            for setting in tool.settings:
                if network in setting.only:
                    yield measure(tool, setting, network, prepared[network], python, limits)


def main() -> None:
    """Runs the study and writes its tables into docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [tool.name for tool in TOOLS]
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--environments", type=Path, required=True, help="folder of the tools' environments")
    parser.add_argument("--tools", nargs="+", default=names, choices=names)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--efforts", nargs="+", default=(), choices=EFFORTS, help="edgeq's, instead of its defaults")
    parser.add_argument("--cores", type=int, default=Limits().cores, help="that each tool may use")
    parser.add_argument("--minutes", type=float, default=Limits().minutes, help="after which a tool is stopped")
    parser.add_argument("--stored", action="store_true", help="run nothing: tables of the results in the store")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/results.md")
    arguments = parser.parse_args()
    limits = Limits(arguments.cores, arguments.minutes, arguments.stored)
    tools = []
    for tool in TOOLS:
        if tool.name in arguments.tools:
            found = edgeq_settings(arguments.efforts) if tool.own else tool.settings
            tools.append(replace(tool, settings=tuple(one for one in found if one.scheme in arguments.schemes)))
    rows = []
    for row in study(tools, arguments.networks, arguments.data, arguments.environments.resolve(), limits):
        print(f"| {row['network']} {_line(row)}", flush=True)
        rows.append(row)
    print(table(rows))
    if arguments.write:
        replace_table(RESULTS, "ptq_tools", table(rows))


if __name__ == "__main__":
    main()
