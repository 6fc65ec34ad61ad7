"""Accuracy, calibration and disagreement after post-training quantization, for docs/results.md.

    python -m bench.studies.ptq --data DIR [--seeds 0 1 2] [--efforts fast good best] [--write]
    python -m bench.studies.ptq --data DIR --methods [--write]

DIR holds imagenet_sample and imagenet_val10 (each with images_224.zip and labels.csv), cifar10, cifar100 and weights.
ImageNet networks are calibrated on the split `calib` of the sample only and evaluated on its split `eval` and the
validation images together; CIFAR networks are calibrated on training images and evaluated on the test images. No image
plays both parts. A seed draws four fifths of the 200 calibration images. `--methods` adds one method after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from bench.studies.tables import replace_table
from edgeq import zoo
from edgeq.backends.simulate import SimulateBackend
from edgeq.data import Preprocessing, open_dataset
from edgeq.ir.tensor import Array
from edgeq.quantize import Recipe
from edgeq.quantize.training_options import ReconstructionOptions
from edgeq.verification.compare import Comparison, compare
from edgeq.zoo.registry import architecture

IMAGENET = ("efficientnet_lite0", "mobilenet_v2")
CIFAR = ("resnet20_cifar10", "resnet56_cifar10", "resnet20_cifar100", "resnet56_cifar100")
SCHEMES = ("w8a8", "w4a8", "w4a4")
CALIBRATION_SAMPLES = 200
DRAWN = 160
EQUAL = 8
"""Images on which native and simulate are compared, bit for bit."""

RESULTS = Path(__file__).parents[2] / "docs" / "results.md"

_ROUNDED = Recipe(equalize=True, absorb_biases=True, weight_observer="mse", rounding="second-order")

METHODS: dict[str, Recipe] = {
    "plain": Recipe(bias_correction=False),
    "+ equalisation": Recipe(equalize=True, absorb_biases=True, bias_correction=False),
    "+ MSE ranges": Recipe(equalize=True, absorb_biases=True, bias_correction=False, weight_observer="mse"),
    "+ bias correction": Recipe(equalize=True, absorb_biases=True, weight_observer="mse"),
    "+ second-order": _ROUNDED,
    "+ AdaRound": _ROUNDED.with_(reconstruct=True, reconstruction=ReconstructionOptions("layer", 150, batch=8)),
    "+ blocks instead": _ROUNDED.with_(reconstruct=True, reconstruction=ReconstructionOptions("block", 150, batch=8)),
    "+ distillation instead": _ROUNDED.with_(distil=True),
    "+ matched confidence instead": _ROUNDED.with_(match_confidence=True),
}
"""Recipes by what each adds to the one before."""


@dataclass(frozen=True, slots=True)
class Task:
    """A network with what it is calibrated and evaluated on, read once.

    Attributes:
        name: Of the network.
        model: For `edgeq.export`.
        preprocessing: From an image to the network's input.
        calibration: Network inputs.
        inputs: Of the evaluation.
        labels: Of the evaluation.
        reference: Logits of the float network on the evaluation inputs, once they are known.
    """

    name: str
    model: Any
    preprocessing: Preprocessing | None
    calibration: Array
    inputs: Array
    labels: Array
    reference: list[Array]


def load(data: Path, name: str) -> Task:
    """Reads the images of a network and prepares them."""
    preprocessing = architecture(name).preprocessing
    if name in IMAGENET:
        calibration = _read(name, data / "imagenet_sample/images_224.zip:calib", CALIBRATION_SAMPLES)[0]
        sources = ("imagenet_sample/images_224.zip:eval", "imagenet_val10/images_224.zip")
        parts = [_read(name, data / source) for source in sources]
        inputs, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Task(name, zoo.load_pretrained(name), preprocessing, calibration, inputs, labels, [])
    folder = data / name.rpartition("_")[2]
    calibration = _read(name, folder / "train.npz", 1024)[0]
    inputs, labels = _read(name, folder / "test.npz")
    model = zoo.load_pretrained(name, data / "weights" / f"{name}.npz")
    return Task(name, model, preprocessing, calibration, inputs, labels, [])


def _read(name: str, source: Path, count: int | None = None) -> tuple[Array, Array]:
    dataset = open_dataset(str(source))
    chosen = range(len(dataset) if count is None else min(count, len(dataset)))
    batches = list(dataset.batches(64, architecture(name).preprocessing, chosen))
    labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    return np.concatenate([batch.inputs for batch in batches]), labels


def run(task: Task, scheme: str, seed: int, **options: Any) -> dict[str, Any]:
    """Exports once and evaluates; returns a row.

    Args:
        task: The network.
        scheme: "w8a8", ...
        seed: Draws the calibration images.
        **options: `effort` or `recipe`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        drawn = DRAWN if len(task.calibration) == CALIBRATION_SAMPLES else len(task.calibration) * 4 // 5
        edgeq.export(
            task.model,
            bits=scheme,
            calibration=task.calibration,
            calib_samples=drawn,
            seed=seed,
            preprocessing=task.preprocessing,
            out=Path(scratch) / "out",
            to="edgeq",
            **options,
        )
        minutes = (time.perf_counter() - started) / 60
        file = Path(scratch) / "out" / "model.edgeq"
        session = edgeq.Session(file, threads=2)
        logits = _in_batches(session.run, task.inputs)
        if not task.reference:
            task.reference.append(_float_logits(Path(scratch) / "out" / "reference.onnx", task.inputs))
        few = task.inputs[:EQUAL]
        equal = int((session.run(few) == SimulateBackend(file).run(few)).all(axis=1).sum())
        size = file.stat().st_size
    return {
        "network": task.name,
        "scheme": scheme,
        "seed": seed,
        "minutes": minutes,
        "bytes": size,
        "bit_equal": equal,
        **figures(compare(task.reference[0], logits, task.labels)),
    }


def figures(found: Comparison) -> dict[str, Any]:
    """Returns what the tables show of a comparison."""
    assert found.reference is not None
    assert found.quantized is not None
    return {
        "n": found.n,
        "fp32_top1": found.reference.top1,
        "fp32_ece": found.reference.ece,
        "top1": found.quantized.top1,
        "ece": found.quantized.ece,
        "disagreement": found.disagreement.rate,
        "sqnr_db": found.logit_sqnr_db,
    }


def _in_batches(function: Any, inputs: Array) -> Array:
    return np.concatenate([function(inputs[begin : begin + 20]) for begin in range(0, len(inputs), 20)])


def _float_logits(path: Path, inputs: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return _in_batches(lambda x: session.run(None, {name: x})[0], inputs)


def table(rows: Sequence[dict[str, Any]], column: str) -> str:
    """Returns rows of one network, scheme and `column` (effort or method) as one line with the spread over seeds."""
    lines = [
        f"| network | scheme | {column} | seeds | n | FP32 top-1 | top-1 | FP32 ECE | ECE | disagreement | logit SQNR "
        "| minutes | .edgeq KiB | native = simulate |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys(("fast", "good", "best", *METHODS)))
    place = [(IMAGENET + CIFAR).index, SCHEMES.index, kinds.index]
    keys = ("network", "scheme", column)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: [find(row[key]) for find, key in zip(place, keys, strict=True)]):
        groups.setdefault((row["network"], row["scheme"], row[column]), []).append(row)
    for (network, scheme, kind), found in groups.items():
        first = found[0]
        equal = sum(row["bit_equal"] for row in found)
        lines.append(
            f"| {network} | {scheme} | {kind} | {len(found)} | {first['n']} | {first['fp32_top1']:.1%} | "
            f"{_spread(found, 'top1', 100, 1)} % | {first['fp32_ece']:.3f} | {_spread(found, 'ece', 1, 3)} | "
            f"{_spread(found, 'disagreement', 100, 1)} % | {_spread(found, 'sqnr_db', 1, 1)} dB | "
            f"{statistics.fmean(row['minutes'] for row in found):.1f} | {first['bytes'] / 1024:,.0f} | "
            f"{equal} of {EQUAL * len(found)} |"
        )
    return "\n".join(lines)


def _spread(rows: Sequence[dict[str, Any]], key: str, factor: float, digits: int) -> str:
    values = [factor * row[key] for row in rows]
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main(words: Sequence[str] | None = None) -> None:
    """Runs the study; keeps its rows in a file, so that parts can be run apart, and writes its table.

    Args:
        words: Of the command line; those of the process without it.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=IMAGENET + CIFAR, choices=IMAGENET + CIFAR)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--efforts", nargs="+", default=("fast", "good", "best"))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--methods", action="store_true", help="one method after the other instead of levels")
    parser.add_argument("--rows", type=Path, help="a JSON file to which rows are added, and which the table is made of")
    parser.add_argument("--stored", action="store_true", help="run nothing: the table of what --rows holds")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args(words)
    column = "method" if arguments.methods else "effort"
    choices: dict[str, dict[str, Any]] = (
        {name: {"recipe": recipe} for name, recipe in METHODS.items()}
        if arguments.methods
        else {effort: {"effort": effort} for effort in arguments.efforts}
    )
    rows: list[dict[str, Any]] = []
    if arguments.rows is not None and arguments.rows.exists():
        rows = json.loads(arguments.rows.read_text())
    for network in () if arguments.stored else arguments.networks:
        task = None
        for scheme in arguments.schemes:
            for name, options in choices.items():
                for seed in arguments.seeds:
                    key = (network, scheme, name, seed)
                    if any((row["network"], row["scheme"], row[column], row["seed"]) == key for row in rows):
                        continue
                    task = task or load(arguments.data, network)
                    found = {**run(task, scheme, seed, **options), column: name}
                    print(table([found], column).splitlines()[-1], flush=True)
                    rows.append(found)
                    if arguments.rows is not None:
                        arguments.rows.write_text(json.dumps(rows, indent=1))
    if arguments.write:
        replace_table(RESULTS, "methods" if arguments.methods else "ptq", table(rows, column))


if __name__ == "__main__":
    main()
