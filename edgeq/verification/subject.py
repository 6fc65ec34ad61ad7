"""What a verification is about: which two models, who runs them, and what is known of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.backends.protocol import Backend
from edgeq.backends.registry import BackendKind, backend_kind, target_file
from edgeq.data import Preprocessing
from edgeq.errors import EdgeqError, FormatError, UsageError
from edgeq.exporters.folder import MODEL_FILE, REFERENCE_FILE, REFERENCE_TFLITE
from edgeq.ir import Graph
from edgeq.verification.scores import Ending, Endings, Scores, ending_of, settle


@dataclass(frozen=True, slots=True)
class Subject:
    """Two models, ready to run.

    Attributes:
        quantized: Runs the quantized model.
        reference: Runs the float model.
        target: What the user called the quantized model.
        target_file: Its file, or None where a backend was handed in.
        reference_name: What the float model is called.
        reference_file: Its file, or None where a backend was handed in.
        reference_given: Whether the user named the reference.
        preprocessing: What the export stored, or None.
        scheme: Bits as the manifest states them, or None.
        model: The model's name in the manifest, or None.
        labels: Class names that the export stored, or None.
        input_range: The least and the largest value that the quantized model's input holds, or None where no .edgeq
            file says it or it has several.
        quantized_ending: What the quantized model ends in, or None where no file says it.
        reference_ending: The same of the float model.
    """

    quantized: Backend
    reference: Backend
    target: str
    target_file: Path | None
    reference_name: str
    reference_file: Path | None
    reference_given: bool
    preprocessing: Preprocessing | None
    scheme: str | None
    model: str | None
    labels: tuple[str, ...] | None
    input_range: tuple[float, float] | None
    quantized_ending: Ending | None
    reference_ending: Ending | None

    def settle(self, scores: tuple[Scores, Scores]) -> Endings:
        """What both models end in, by their files or else by their scores; see `edgeq.verification.scores.settle`.

        Raises:
            DataError: If nothing tells.
        """
        return settle(self.reference_ending, self.quantized_ending, scores)


def resolve(
    target: str | os.PathLike[str] | Backend,
    reference: str | os.PathLike[str] | Backend | None,
    backend: str,
    threads: int | None,
) -> Subject:
    """Finds both models and starts their backends.

    Args:
        target: A folder of `edgeq export`, a .edgeq, .onnx or .tflite file, or a backend.
        reference: A .onnx file, a backend, or None for reference.onnx beside the target.
        backend: A name in `edgeq.backends.registry.KINDS`.
        threads: For each runtime; None lets it choose.

    Raises:
        EdgeqError: If a file is missing, or its backend refuses it.
    """
    kind = backend_kind(backend)
    path = _path_of(target)
    file = None if path is None else target_file(path, kind)
    quantized = _target_backend(target, file, kind, threads)
    reference_file = find_reference(path, reference)
    runner = reference if reference_file is None else open_reference(reference_file, threads)
    if runner is None or isinstance(runner, (str, os.PathLike)):
        raise UsageError(
            "A backend as the target needs a reference: pass reference=, a .onnx file or a backend."
        )
    facts = stored_facts(file, path)
    manifest = facts.manifest
    return Subject(
        quantized=quantized,
        reference=runner,
        target=quantized.name if path is None else str(path),
        target_file=file,
        reference_name=runner.name if reference_file is None else str(reference_file),
        reference_file=reference_file,
        reference_given=reference is not None,
        preprocessing=facts.preprocessing,
        scheme=_text(manifest.get("scheme")),
        model=_text(_mapping(manifest.get("model")).get("name")),
        labels=facts.labels,
        input_range=facts.input_range,
        quantized_ending=ending_of(file, quantized),
        reference_ending=ending_of(reference_file, runner),
    )


def _path_of(target: str | os.PathLike[str] | Backend) -> Path | None:
    return Path(target) if isinstance(target, (str, os.PathLike)) else None


def _target_backend(
    target: str | os.PathLike[str] | Backend, file: Path | None, kind: BackendKind, threads: int | None
) -> Backend:
    if file is not None:
        return kind.open(file, threads)
    if isinstance(target, (str, os.PathLike)):
        raise UsageError(f"{target}: names no model.")
    return target


def open_reference(path: Path, threads: int | None) -> Backend:
    """Starts what runs a float model's file."""
    return backend_kind("litert" if path.suffix.lower() == ".tflite" else "onnxruntime").open(path, threads)


def find_reference(path: Path | None, reference: str | os.PathLike[str] | Backend | None) -> Path | None:
    """The reference's file, or None where a backend was handed in or is missing.

    Raises:
        UsageError: If what was named is no such file, or none lies beside the target.
    """
    if isinstance(reference, (str, os.PathLike)):
        file = Path(reference)
        if file.is_dir():
            file = _reference_in(file) or file
        if not file.is_file() or file.suffix.lower() not in (".onnx", ".tflite"):
            raise UsageError(
                f"{reference}: the reference must be a .onnx or .tflite file, the model before quantization."
            )
        return file
    if reference is not None or path is None:
        return None
    folder = path if path.is_dir() else path.parent
    beside = _reference_in(folder)
    if beside is None:
        raise UsageError(
            f"{folder / REFERENCE_FILE}: there is no float model beside the target. Name one with --reference "
            "MODEL.onnx."
        )
    return beside


def _reference_in(folder: Path) -> Path | None:
    found = (folder / name for name in (REFERENCE_FILE, REFERENCE_TFLITE))
    return next((file for file in found if file.is_file()), None)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an export stored about a model."""

    manifest: Mapping[str, Any]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    input_range: tuple[float, float] | None = None


def stored_facts(file: Path | None, path: Path | None) -> Facts:
    """Facts from the .edgeq file itself, or from the manifest beside a model of another kind."""
    if file is None or path is None:
        return Facts({}, None, None)
    if file.suffix.lower() == ".edgeq":
        from edgeq.importers.from_edgeq import load

        graph, info = load(file)
        return Facts(_mapping(info.metadata), info.preprocessing, info.labels, _input_range(graph))
    if not (file.parent / "manifest.json").is_file():
        return Facts({}, None, None)
    from edgeq.exporters.folder import read_manifest

    manifest = read_manifest(file.parent)
    stored = manifest.get("preprocessing")
    if stored is not None and not isinstance(stored, dict):
        raise FormatError(
            f"{file.parent / 'manifest.json'}: its preprocessing is malformed; export the model again."
        )
    preprocessing = None if stored is None else Preprocessing.from_dict(stored)
    return Facts(manifest, preprocessing, None, _range_beside(file))


def _range_beside(file: Path) -> tuple[float, float] | None:
    """What the model.edgeq of the same export says."""
    beside = file.parent / MODEL_FILE
    if not beside.is_file():
        return None
    from edgeq.importers.from_edgeq import load

    try:
        return _input_range(load(beside)[0])
    except EdgeqError:
        return None  # Another file is verified.


def _input_range(graph: Graph) -> tuple[float, float] | None:
    quants = [graph.tensor(name).quant for name in graph.inputs]
    if len(quants) != 1 or quants[0] is None or quants[0].axis is not None:
        return None
    quant = quants[0]
    low, high = ((code - int(quant.zero_point)) * float(quant.scale) for code in (quant.qmin, quant.qmax))
    return low, high


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
