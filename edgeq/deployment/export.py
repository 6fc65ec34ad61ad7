"""`edgeq.export`: from a float model to a folder that can be shipped and verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq import __version__
from edgeq.data import Dataset, Preprocessing, as_dataset, open_dataset
from edgeq.deployment.formats import Agreement, FormatOptions, check_agreement, facts_of, make_files, parse_formats
from edgeq.deployment.models import FloatModel, load_model
from edgeq.errors import DataError, UsageError
from edgeq.exporters.edgeq_format import ModelInfo
from edgeq.exporters.folder import FILES, MANIFEST_FILE, REFERENCE_FILE
from edgeq.ir import Graph
from edgeq.ir.printer import format_shape
from edgeq.ops import get
from edgeq.outputs import whole_folder
from edgeq.passes import float_pipeline
from edgeq.quantize import DEFAULT_SAMPLES, QuantizeOptions, Scheme, calibrate, quantize

_BATCH = 16
"""Samples that are read together; calibration splits them further where their activations need it."""

_COMPARED = 8
"""Calibration samples on which the formats are compared."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        out: The folder.
        manifest: The content of its manifest.json.
        graph: The quantized graph (NCHW).
        agreements: How far the formats are from each other.
    """

    out: Path
    manifest: Mapping[str, Any]
    graph: Graph
    agreements: tuple[Agreement, ...]

    def summary(self) -> str:
        """Returns a few lines for the terminal: files with sizes, what was changed from the request, and why."""
        manifest = self.manifest
        files = manifest["files"]
        lines = [
            f"{manifest['model']['name']}: {manifest['scheme']}, {len(manifest['layers'])} layers with weights, "
            f"{manifest['model']['macs'] / 1e6:.1f} M multiply-accumulates, "
            f"calibrated on {manifest['calibration']['samples']} samples",
            *(f"  {self.out / name}  {files[name]['bytes']:,} bytes" for name in files),
        ]
        changes = manifest["changes"]
        lines += [
            f"  {change['node']}: {change['requested']} -> {change['done']} ({change['reason']})"
            for change in changes
        ]
        lines += [f"  {note}" for note in manifest["notes"]]
        lines += [f"  {agreement}" for agreement in self.agreements]
        return "\n".join(lines)


def export(
    model: Any = None,
    *,
    bits: str = "w8a8",
    calibration: Any = None,
    out: str | Path,
    calib_samples: int = DEFAULT_SAMPLES,
    observer: str = "histogram",
    weight_observer: str = "moving-average",
    bias_correction: bool = True,
    seed: int = 0,
    keep_8bit: str | Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    to: str | Sequence[str] | None = None,
    format_options: FormatOptions | None = None,
    example_input: Any = None,
    progress: bool = False,
) -> ExportResult:
    """Quantizes a float model and writes a folder, whole or not at all.

    The folder holds model.edgeq, model.onnx, model.tflite, the float model as reference.onnx, and manifest.json.
    The files compute the same thing: they are run beside each other on calibration samples before they are kept.

    Args:
        model: Path of a .onnx or .pt2 file, "package.module:factory", a torch.nn.Module, an onnx.ModelProto, or None
            for the
            embedded demo.
        bits: "w8a8", "w4a8" or "w4a4".
        calibration: What `edgeq.data.open_dataset` opens, a Dataset, or an array of inputs; None is allowed for the
            demo only.
        out: Folder for the results; made when absent.
        calib_samples: At most this many samples calibrate.
        observer: How an activation's range is chosen: minmax, moving-average, histogram, percentile or mse.
        weight_observer: How a weight channel's range is chosen: minmax, moving-average or mse.
        bias_correction: Whether biases are shifted to keep each layer's mean output (Nagel et al. 2019, 2021).
        seed: Chooses the calibration samples.
        keep_8bit: Layers that keep 8 bits: "first", "last", layer names (several with commas), "none", or None for
            the default
            of the scheme.
        preprocessing: How an image becomes the input; stored in the manifest and the file.
        to: Formats: "edgeq", "onnx", "tflite", several with commas; None for all that can be made, what is left out
            being
            recorded.
        format_options: How the files store what they hold.
        example_input: Inputs of a torch.nn.Module, an array or a sequence of them; without it, the first calibration
            sample.
        progress: Whether progress bars are shown on a terminal.

    Returns:
        What was written.

    Raises:
        EdgeqError: Naming the cause and the cure; nothing has been written then.
    """
    scheme = Scheme.parse(bits)
    formats = parse_formats(to)
    if calib_samples < 1:
        raise UsageError(f"calib_samples must be at least 1, not {calib_samples}")
    keep = _keep(keep_8bit)
    if calibration is None:
        if model is not None:
            raise UsageError(
                "a model needs calibration data: give --calib DATA, a few hundred inputs like those it will see"
            )
        calibration = "digits"
    dataset = _open(calibration)
    source = load_model(
        model, lambda: _example(dataset, preprocessing) if example_input is None else example_input
    )
    preprocessing = preprocessing or source.preprocessing
    graph = float_pipeline(source.graph)
    chosen = _choose(len(dataset), calib_samples, seed)
    with _Progress(progress) as show:
        batches = dataset.batches(_BATCH, preprocessing, chosen.tolist())
        show.begin("calibrating", len(chosen))
        inputs = (batch.inputs for batch in batches)
        calibration_found = calibrate(graph, inputs, observer=observer, progress=show.reached)
        show.begin("correcting biases", None)
        options = QuantizeOptions(
            weight_observer=weight_observer, keep_8bit=keep, bias_correction=bias_correction
        )
        quantized = quantize(
            graph, scheme, calibration_found, options, progress=lambda done, total: show.reached(done, total)
        )
    labels = source.labels or dataset.class_names
    facts: dict[str, Any] = {
        "format": 1,
        "producer": f"edgeq {__version__}",
        "model": _model_facts(source, quantized.graph),
        "scheme": str(scheme),
        "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
        "labels": None if labels is None else list(labels),
        "calibration": {
            "data": dataset.source,
            "data_sha256": dataset.digest(),
            "samples": len(chosen),
            "seed": seed,
            "observer": observer,
            "weight_observer": weight_observer,
            "bias_correction": bias_correction,
        },
        "changes": [asdict(change) for change in quantized.changes],
    }
    info = ModelInfo(preprocessing=preprocessing, labels=labels or (), metadata=_stored_in_file(facts))
    files = make_files(quantized.graph, scheme, info, formats, format_options or FormatOptions())
    contents = {**files.contents, REFERENCE_FILE: source.onnx}
    out = Path(out)
    with whole_folder(out, FILES) as scratch:
        for name, content in contents.items():
            (scratch / name).write_bytes(content)
        samples = next(iter(calibration_found.samples.values()))[:_COMPARED]
        agreements = check_agreement(scratch, quantized.graph, list(files.contents), samples)
        manifest = {
            **facts,
            "changes": [asdict(change) for change in (*quantized.changes, *files.changes)],
            "notes": list(files.notes),
            "agreement": facts_of(agreements),
            "layers": quantized.statistics,
            "files": {
                name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in contents.items()
            },
        }
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        (scratch / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return ExportResult(out, manifest, quantized.graph, tuple(agreements))


def _example(dataset: Dataset, preprocessing: Preprocessing | None) -> npt.NDArray[np.float32]:
    """Returns the first sample as a batch of one: a torch module is exported by running it on an example."""
    return next(iter(dataset.batches(1, preprocessing, [0]))).inputs


def _model_facts(source: FloatModel, graph: Graph) -> dict[str, Any]:
    return {
        "name": source.name,
        "sha256": hashlib.sha256(source.onnx).hexdigest(),
        "inputs": {name: format_shape(graph.tensor(name).shape) for name in graph.inputs},
        "outputs": {name: format_shape(graph.tensor(name).shape) for name in graph.outputs},
        "nodes": len(graph.nodes),
        "macs": sum(get(node.op).macs(node, graph) for node in graph.nodes),
    }


def _stored_in_file(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What model.edgeq says about itself; labels and preprocessing have sections of their own."""
    return {name: value for name, value in facts.items() if name not in ("labels", "preprocessing")}


def _open(calibration: Any) -> Dataset:
    if isinstance(calibration, (str, Path)):
        return open_dataset(calibration, digits_split="calib")
    return as_dataset(calibration, "calibration")


def _keep(keep: str | Sequence[str] | None) -> frozenset[str] | None:
    if keep is None:
        return None
    names = [name.strip() for name in keep.split(",")] if isinstance(keep, str) else list(keep)
    names = [name for name in names if name]
    if "none" in names and len(names) > 1:
        raise UsageError("--keep-8bit none stands alone: none means that no layer keeps 8 bits")
    return frozenset(name for name in names if name != "none")


def _choose(available: int, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """Returns the positions of the calibration samples, ascending; all of them when there are no more than wanted."""
    if available < 1:
        raise DataError(
            "the calibration data hold no samples; give a few hundred inputs like those the model will see"
        )
    chosen = np.random.default_rng(seed).permutation(available)[:wanted]
    return np.sort(chosen).astype(np.int64)


class _Progress:
    """A bar on a terminal's standard error for each stage; silent elsewhere and where it is not wanted."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def begin(self, stage: str, total: int | None) -> None:
        """Ends the bar of the stage before and shows one for this stage."""
        self._close()
        if self._wanted:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=stage, leave=False, disable=None)

    def reached(self, done: int, total: int | None = None) -> None:
        """Moves the bar to `done`."""
        if self._bar is not None:
            if total is not None:
                self._bar.total = total
            self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
