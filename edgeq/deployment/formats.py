"""The files that one quantized graph becomes, and whether they compute the same thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgeq.errors import BackendError, QuantizationError, UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.edgeq_format import ModelInfo
from edgeq.exporters.folder import MODEL_FILE, ONNX_FILE, TFLITE_FILE
from edgeq.ir import Graph
from edgeq.ops.base import Int4Storage
from edgeq.passes import channels_last, lower
from edgeq.quantize import Change

if TYPE_CHECKING:
    from edgeq.backends.litert import LitertBackend
    from edgeq.backends.onnxruntime import OnnxRuntimeBackend

FORMATS = {"edgeq": MODEL_FILE, "onnx": ONNX_FILE, "tflite": TFLITE_FILE}
"""What `--to` takes, and the file that it makes."""

LARGEST_MEAN_STEPS = 3.0
"""Formats whose outputs differ by more steps than this on average must explain it (`is_rounding`).

Rounding that differs by one step in single operators grows to a fraction of a step at the outputs of the deepest
trained networks measured (docs/conformance.md); a wrong layout, zero point or padding shows as tens of steps. Networks
that were not trained may be chaotic: whatever is rounded in one layer grows in those behind it.
"""


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """How the exported files store what they hold.

    Attributes:
        io: "float" for float32 ends, "int8" for integer ends (.onnx and .tflite; a .edgeq file takes both).
        onnx_activations: "uint8", which ONNX Runtime computes in integers on x86, or "int8".
        int4: Which 4-bit weights .onnx and .tflite files store two to a byte (`edgeq.ops.base.Int4Storage` has the
            choices of
            a .tflite file); "none" stores the same values in int8 for runtimes without 4-bit types.
    """

    io: Literal["float", "int8"] = "float"
    onnx_activations: Literal["uint8", "int8"] = "uint8"
    int4: Literal["packed", "fast", "old", "none"] = "fast"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one export.

    Attributes:
        contents: Bytes by file name.
        notes: Sentences about single layers or formats, for the summary and the manifest.
        changes: Formats that were asked for by default and left out.
    """

    contents: Mapping[str, bytes]
    notes: tuple[str, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a file's outputs are from the native engine's, on calibration samples.

    Attributes:
        file: The file.
        runtime: Who ran it; None when no runtime for it is installed, or the model has not one float input.
        samples: How many inputs were compared.
        mean_steps: Mean difference in steps of the outputs' quantization.
        largest_steps: Largest difference.
        same_top1: Share of samples with the same highest output; None where the model is no classifier.
    """

    file: str
    runtime: str | None
    samples: int
    mean_steps: float | None = None
    largest_steps: float | None = None
    same_top1: float | None = None

    def __str__(self) -> str:
        if self.runtime is None:
            return f"{self.file}: not compared (no runtime for it is installed, or it has not one float input)"
        same = "" if self.same_top1 is None else f", {self.same_top1:.0%} same top-1"
        return (
            f"{self.file} in {self.runtime}: {self.mean_steps:.3f} steps from native on average, "
            f"{self.largest_steps:.0f} at most{same} over {self.samples} samples"
        )


def parse_formats(to: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Reads `--to`: names with commas, or a sequence of them; None stays None (all that can be made).

    Raises:
        UsageError: If a name is unknown or none is given.
    """
    if to is None:
        return None
    names = [name.strip().lower() for name in to.split(",")] if isinstance(to, str) else list(to)
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise UsageError(f"--to takes {', '.join(FORMATS)}, several with commas, not {', '.join(unknown) or 'nothing'}")
    return tuple(name for name in FORMATS if name in names)


def make_files(
    graph: Graph, scheme: str, info: ModelInfo, wanted: tuple[str, ...] | None, options: FormatOptions
) -> Files:
    """Makes the files of a quantized NCHW graph.

    Args:
        graph: Quantized, NCHW.
        scheme: What was asked for, for the record of what is left out.
        info: Preprocessing, labels and metadata for the files.
        wanted: Formats; None for all, then one that cannot be made is left out and recorded.
        options: How numbers are stored.

    Raises:
        QuantizationError: If a format that was asked for by name has no such types or operators.
        BackendError: If it needs a package that is not installed.
    """
    makers: dict[str, Callable[[], tuple[bytes, list[str]]]] = {
        "edgeq": lambda: (encode(lower(channels_last(graph)), info), []),
        "onnx": lambda: _onnx(graph, info, options),
        "tflite": lambda: _tflite(graph, info, options),
    }
    contents: dict[str, bytes] = {}
    notes: list[str] = []
    changes: list[Change] = []
    for name in FORMATS if wanted is None else wanted:
        try:
            contents[FORMATS[name]], found = makers[name]()
        except (BackendError, QuantizationError) as error:
            if wanted is not None or name == "edgeq":
                raise
            changes.append(Change(FORMATS[name], scheme, "not written", str(error)))
            continue
        notes += [f"{FORMATS[name]}: {note}" for note in found]
    return Files(contents, tuple(notes), tuple(changes))


def _onnx(graph: Graph, info: ModelInfo, options: FormatOptions) -> tuple[bytes, list[str]]:
    from edgeq.exporters.onnx_qdq import QdqOptions, runtime_notes, to_qdq_onnx

    qdq = QdqOptions(
        activations=options.onnx_activations, io=options.io, packed_int4=options.int4 != "none"
    )
    model = to_qdq_onnx(graph, qdq)
    notes = [
        f"ONNX Runtime does not compute {_some(note.nodes)} in integers ({note.text})"
        for note in runtime_notes(graph, qdq)
    ]
    return model.SerializeToString(deterministic=True), notes


def _tflite(graph: Graph, info: ModelInfo, options: FormatOptions) -> tuple[bytes, list[str]]:
    from edgeq.exporters.tflite import to_tflite

    known: dict[str, Any] = {"labels": list(info.labels)}
    if info.preprocessing is not None:
        known["preprocessing"] = info.preprocessing.to_dict()
    model = to_tflite(channels_last(graph), ends=options.io, int4=Int4Storage(options.int4), metadata=known)
    return model.data, list(model.notes)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def check_agreement(
    folder: Path, graph: Graph, names: Sequence[str], inputs: npt.NDArray[np.float32], reference: str | None = None
) -> list[Agreement]:
    """Runs the files in their runtimes beside the native engine.

    Args:
        folder: Where the files are.
        graph: The quantized graph that they were made from.
        names: Their names; model.edgeq, or the graph itself in the simulator without it, is what others are compared
            with.
        inputs: float32, as the model takes them.
        reference: The float model's file in the folder: how far quantization moves its outputs tells how far rounding
            may. None where there is no float model.

    Raises:
        QuantizationError: If one of them does not compute the same thing.
    """
    others = [name for name in names if name != MODEL_FILE]
    if not others or len(graph.inputs) != 1:
        return [Agreement(name, None, 0) for name in others]
    quants = [graph.tensor(name).quant for name in graph.outputs]
    steps = [1.0 / 256 if quant is None else float(quant.scale) for quant in quants]
    expected = _in_steps(_expected(folder, graph, names, inputs), steps)
    found = []
    for name in others:
        try:
            runner = _runner(folder / name)
            outputs = _in_steps(_as_source(graph, name, runner.run_all(inputs)), steps)
        except BackendError:
            found.append(Agreement(name, None, 0))
            continue
        off = np.abs(outputs - expected)
        same = None
        if _is_classifier(graph):
            same = float((outputs.argmax(axis=1) == expected.argmax(axis=1)).mean())
        agreement = Agreement(name, runner.name, len(inputs), float(off.mean()), float(off.max()), same)
        if float(off.mean()) > LARGEST_MEAN_STEPS:
            real = None if reference is None else _in_steps(_runner(folder / reference).run_all(inputs), steps)
            if real is None or not is_rounding(outputs, expected, real):
                raise QuantizationError(
                    f"{agreement}; that is not the same model. Leave this format out with --to, and report the model."
                )
        found.append(agreement)
    return found


def _as_source(graph: Graph, name: str, outputs: list[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    """A file's outputs as the source model has them: LiteRT's backend turns every image, a .tflite source none."""
    if name != TFLITE_FILE or all(output.ndim != 4 for output in outputs):
        return outputs
    plain = channels_last(graph).plain_ends
    pairs = zip(graph.outputs, outputs, strict=True)
    return [np.moveaxis(output, 1, 3) if end in plain and output.ndim == 4 else output for end, output in pairs]


def _in_steps(outputs: Sequence[npt.NDArray[Any]], steps: Sequence[float]) -> npt.NDArray[np.float64]:
    """All outputs side by side, [samples, values], each in steps of its quantization."""
    pairs = zip(outputs, steps, strict=True)
    return np.concatenate([np.float64(output.reshape(len(output), -1)) / step for output, step in pairs], axis=1)


def is_rounding(
    outputs: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], real: npt.NDArray[np.float64]
) -> bool:
    """Whether a file's outputs differ from the native engine's as little as rounding may make them in this network.

    That is, root mean squares: at most twice as much as quantization, which rounds everywhere, has moved the float
    model's (LiteRT's SiLU alone makes as much), and less than the answers to different samples differ: an answer by
    something else than the same model is farther away than that.

    Args:
        outputs: Of the file, [samples, values].
        expected: Of the native engine.
        real: Of the float model.
    """

    def size(difference: npt.NDArray[np.float64]) -> float:
        return float(np.sqrt(np.mean(np.square(difference))))

    off = size(outputs - expected)
    return off <= 2 * size(expected - real) and off < size(expected - expected.mean(axis=0))


def _is_classifier(graph: Graph) -> bool:
    return len(graph.outputs) == 1 and sum(size > 1 for size in graph.tensor(graph.outputs[0]).shape[1:]) <= 1


def _expected(
    folder: Path, graph: Graph, names: Sequence[str], inputs: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float32]]:
    if MODEL_FILE in names:
        from edgeq.backends.native import NativeBackend

        return NativeBackend(folder / MODEL_FILE).run_all(inputs)
    from edgeq.simulate import simulate

    return simulate(graph, inputs)


def _runner(path: Path) -> OnnxRuntimeBackend | LitertBackend:
    if path.suffix == ".onnx":
        from edgeq.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(path)
    from edgeq.backends.litert import LitertBackend

    return LitertBackend(path)


def facts_of(agreements: Sequence[Agreement]) -> list[dict[str, Any]]:
    """Returns the agreements as JSON values."""
    return [asdict(agreement) for agreement in agreements]
