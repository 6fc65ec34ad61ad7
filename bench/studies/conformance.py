"""The exported formats beside each other on whole networks, for docs/conformance.md.

    python -m bench.studies.conformance --data DIR [--networks ...] [--schemes ...] [--write]

DIR holds imagenet_sample, imagenet_val10, cifar10 and weights. Networks with trained weights run on at least 200 images
that did not calibrate them, the others (random weights, seeded) on 16.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgeq
from bench.studies.tables import replace_table
from edgeq import zoo
from edgeq.backends.registry import backend_kind
from edgeq.data import Preprocessing, open_dataset
from edgeq.errors import BackendError
from edgeq.importers import from_torch
from edgeq.zoo.registry import architecture

TRAINED = ("mobilenet_v2", "efficientnet_lite0", "resnet20_cifar10", "resnet56_cifar10", "demo")
RANDOM = (
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "ghostnet_1_0",
    "mobileone_s0",
    "resnet18",
    "resnet50",
    "densenet121",
    "squeezenet1_1",
)
RUNTIMES = {
    "w8a8": ("onnxruntime", "litert", "litert-builtin"),
    "w4a8": ("onnxruntime", "litert"),
    "w4a4": ("onnxruntime",),
}
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@dataclass(frozen=True, slots=True)
class Row:
    """One file in one runtime, compared with the native engine.

    Attributes:
        network: Name in the zoo, or "demo".
        scheme: Bits.
        runtime: Backend name and version.
        inputs: How many.
        same_top1: Share of inputs with the same top-1 class; a difference of at most a step at the top counts as same.
        ties: How many of those differed within one step.
        mean_steps: Mean difference of an output in steps of its quantization.
        share_within: Share of outputs that differ by at most 3 steps.
        largest: Largest difference in steps.
        megabytes: Of the file.
    """

    network: str
    scheme: str
    runtime: str
    inputs: int
    same_top1: float
    ties: int
    mean_steps: float
    share_within: float
    largest: float
    megabytes: float

    def __str__(self) -> str:
        return (
            f"| {self.network} | {self.scheme} | {self.runtime} | {self.inputs} | {self.same_top1:.1%} ({self.ties}) | "
            f"{self.mean_steps:.3f} | {self.share_within:.2%} | {self.largest:.0f} | {self.megabytes:.2f} |"
        )


HEADER = (
    "| network | scheme | runtime | inputs | same top-1 (ties) | mean steps | within 3 steps | largest | file MB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def compare(
    ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], step: float
) -> tuple[float, int, float, float, float]:
    """Returns (same_top1, ties, mean_steps, share_within, largest) of two outputs of shape (n, classes)."""
    steps = np.abs(ours.astype(np.float64) - theirs) / step
    rows = np.arange(len(ours))
    first, second = ours.argmax(axis=1), theirs.argmax(axis=1)
    near = (ours[rows, first] - ours[rows, second] <= 1.001 * step) & (first != second)
    same = (first == second) | near
    return float(same.mean()), int(near.sum()), float(steps.mean()), float((steps < 3.5).mean()), float(steps.max())


def inputs_of(network: str, data: Path) -> tuple[Any, Any, Preprocessing | None]:
    """Returns calibration inputs, evaluation inputs (n, c, h, w) and preprocessing of a network."""
    if network == "demo":
        return "digits", _take(open_dataset("digits"), 540, None), None
    found = architecture(network)
    count = 200 if network in TRAINED else 16
    if found.input_shape[1] == 32:
        train, test = (open_dataset(data / f"cifar10/{part}.npz") for part in ("train", "test"))
        return _take(train, 256, found.preprocessing), _take(test, count, found.preprocessing), None
    calibration = open_dataset(f"{data}/imagenet_sample/images_224.zip:calib")
    evaluation = open_dataset(f"{data}/imagenet_sample/images_224.zip:eval")
    samples = 128 if network in TRAINED else 16
    return _take(calibration, samples, found.preprocessing), _take(evaluation, count, found.preprocessing), None


def _take(dataset: Any, count: int, preprocessing: Preprocessing | None) -> npt.NDArray[np.float32]:
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()
    return np.concatenate([batch.inputs for batch in dataset.batches(32, preprocessing, indices)])


def study(network: str, scheme: str, model: Path | None, data: Path, folder: Path) -> list[Row]:
    """Exports one network and compares every runtime that is installed; returns a row each."""
    calibration, inputs, preprocessing = inputs_of(network, data)
    edgeq.export(
        model, bits=scheme, calibration=calibration, preprocessing=preprocessing, out=folder, calib_samples=256
    )
    session = edgeq.Session(folder / "model.edgeq", threads=os.cpu_count() or 1)
    quantization = session.outputs[0].quantization
    step = float(quantization.scale) if quantization is not None else 1 / 256
    ours = np.concatenate([session.run(inputs[i : i + 16]) for i in range(0, len(inputs), 16)]).reshape(len(inputs), -1)
    rows = []
    for name in RUNTIMES[scheme]:
        kind = backend_kind(name)
        try:
            runner = kind.open(folder / kind.file, os.cpu_count())
        except BackendError as error:
            print(f"{network} {scheme} {name}: {error}")
            continue
        theirs = np.concatenate([runner.run(inputs[i : i + 16]) for i in range(0, len(inputs), 16)])
        size = (folder / kind.file).stat().st_size / 1e6
        rows.append(Row(network, scheme, runner.name, len(inputs), *compare(ours, theirs, step), size))
    return rows


def onnx_model(network: str, data: Path, folder: Path) -> Path | None:
    """Writes the float network as ONNX, once for all schemes; None for the embedded demo."""
    if network == "demo":
        return None
    _, content = from_torch.load(_model(network, data), np.zeros((1, *architecture(network).input_shape), np.float32))
    path = folder / f"{network}.onnx"
    path.write_bytes(content)
    return path


def _model(network: str, data: Path) -> Any:
    if network in TRAINED:
        if network.startswith("resnet"):
            return zoo.load_pretrained(network, data / "weights" / f"{network}.npz")
        return zoo.load_pretrained(network)
    return getattr(zoo, network)(seed=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the study and writes its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=TRAINED + RANDOM)
    parser.add_argument("--schemes", nargs="+", default=tuple(RUNTIMES), choices=tuple(RUNTIMES))
    parser.add_argument("--write", action="store_true", help="put the table into docs/conformance.md")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for network in options.networks:
        with tempfile.TemporaryDirectory() as scratch:
            model = onnx_model(network, options.data, Path(scratch))
            for scheme in options.schemes:
                if scheme == "w4a4" and network not in TRAINED:
                    continue
                found = study(network, scheme, model, options.data, Path(scratch) / scheme)
                print(*found, sep="\n", flush=True)
                rows += found
    if options.write:
        replace_table(PAGE, "networks", "\n".join([HEADER, *map(str, rows)]))


if __name__ == "__main__":
    main()
