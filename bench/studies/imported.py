"""Models that other tools quantized, on edgeq's engine and converted to the other format, for docs/conformance.md.

    python -m bench.studies.imported --data DIR [--write]

DIR holds weights (the int8 .tflite files), cifar10 and imagenet_sample. The QDQ models are made here by ONNX Runtime's
quantize_static.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgeq
from bench.studies.conformance import _take, compare
from bench.studies.tables import replace_table
from edgeq import zoo
from edgeq.backends.peers import quantize_onnxruntime
from edgeq.backends.registry import backend_kind
from edgeq.data import open_dataset
from edgeq.importers import from_torch, quantized
from edgeq.zoo.registry import architecture

NETWORKS = ("resnet20_cifar10", "mobilenet_v2", "squeezenet1_1")
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
HEADER = (
    "| source | inputs | edgeq: same top-1 (ties) | within 1 step | largest | converted to | within 1 step "
    "| largest |\n"
    "|---|---|---|---|---|---|---|---|"
)


def within_one(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], step: float) -> float:
    """Share of values that differ by at most one step."""
    return float((np.abs(ours.astype(np.float64) - theirs) / step < 1.5).mean())


def row(source: Path, inputs: npt.NDArray[np.float32], name: str) -> str:
    """Compares a quantized file in its own runtime with edgeq's engine and with its conversion in the other runtime."""
    home, other = ("litert", "onnxruntime") if source.suffix == ".tflite" else ("onnxruntime", "litert")
    expected = _run(home, source, inputs)
    graph = quantized.load(source).graph
    quant = graph.tensor(graph.outputs[0]).quant
    step = float(quant.scale) if quant is not None else 1 / 256
    ours = _run("native", source, inputs)
    same, ties, _, _, largest = compare(expected, ours, step)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "out"
        edgeq.export(source, out=folder)
        converted = _run(other, folder / backend_kind(other).file, inputs)
    steps = np.abs(converted.astype(np.float64) - expected) / step
    return (
        f"| {name} | {len(inputs)} | {same:.1%} ({ties}) | {within_one(ours, expected, step):.2%} | {largest:.0f} | "
        f"{backend_kind(other).suffix} | {within_one(converted, expected, step):.2%} | {steps.max():.0f} |"
    )


def _run(backend: str, path: Path, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    runner = backend_kind(backend).open(path, 2)
    return np.concatenate([runner.run(inputs[i : i + 20]) for i in range(0, len(inputs), 20)])


def cases(data: Path, folder: Path) -> Iterator[tuple[Path, npt.NDArray[np.float32], str]]:
    """Yields (quantized file, inputs, name) of every model."""
    rng = np.random.default_rng(0)
    images = _take(open_dataset(data / "cifar10/test.npz"), 500, None)
    for path in sorted((data / "weights").glob("*.tflite")):
        if not quantized.is_quantized(path):
            continue
        if "Resnet" in path.name:
            yield path, images.transpose(0, 2, 3, 1).copy(), path.name
        else:
            graph = quantized.load(path).graph
            shape = edgeq.Session(_converted(path)).inputs[0].shape[1:]
            quant = graph.quant(graph.inputs[0])
            low, high = ((bound - int(quant.zero_point)) * float(quant.scale) for bound in (quant.qmin, quant.qmax))
            yield path, rng.uniform(low, high, (200, *shape)).astype(np.float32), path.name
    for network in NETWORKS:
        found = architecture(network)
        if found.input_shape[1] == 32:
            inputs = _take(open_dataset(data / "cifar10/test.npz"), 200, found.preprocessing)
        else:
            inputs = _take(open_dataset(f"{data}/imagenet_sample/images_224.zip:eval"), 100, found.preprocessing)
        reference = folder / f"{network}.onnx"
        _, content = from_torch.load(_model(network, data), inputs[:1])
        reference.write_bytes(content)
        for activations, form in (("uint8", "U8S8"), ("int8", "S8S8")):
            path = folder / f"{network}.{form}.onnx"
            quantize_onnxruntime(reference, path, [inputs[i : i + 1] for i in range(32)], activations)
            yield path, inputs[32:], f"{network}, quantize_static {form}"


def _converted(path: Path) -> bytes:
    from edgeq.backends.conversion import edgeq_bytes

    return edgeq_bytes(path)


def _model(network: str, data: Path) -> Any:
    if network.startswith("resnet"):
        return zoo.load_pretrained(network, data / "weights" / f"{network}.npz")
    return zoo.load_pretrained(network) if architecture(network).weights else getattr(zoo, network)(seed=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the study and writes its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="put the table into docs/conformance.md")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for source, inputs, name in cases(options.data, Path(scratch)):
            rows.append(row(source, inputs, name))
            print(rows[-1], flush=True)
    if options.write:
        replace_table(PAGE, "imported", "\n".join([HEADER, *rows]))


if __name__ == "__main__":
    main()
