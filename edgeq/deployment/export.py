"""`edgeq.export`: from a float model to a folder that can be shipped and verified."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.data import Dataset, Preprocessing, as_dataset, open_dataset
from edgeq.exporters.folder import FILES, MANIFEST_FILE, MODEL_FILE, REFERENCE_FILE
from edgeq.deployment.models import FloatModel, load_model
from edgeq.errors import DataError, UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.importers.from_edgeq import ModelInfo
from edgeq.ir import Graph
from edgeq.ops import get
from edgeq.outputs import whole_folder
from edgeq.passes import channels_last, float_pipeline, lower
from edgeq.quantize import Calibration, Change, QuantizeOptions, Scheme, calibrate, quantize



@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        out: The folder.
        manifest: The content of its manifest.json.
        graph: The quantized graph (NCHW).
    """

    out: Path
    manifest: Mapping[str, Any]
    graph: Graph

    def summary(self) -> str:
        """Returns a few lines for the terminal: files with sizes, what was changed from the request, and why."""
        manifest = self.manifest
        files = manifest["files"]
        lines = [
            f"{manifest['model']['name']}: {manifest['scheme']}, {manifest['model']['layers']} layers, "
            f"{manifest['model']['macs'] / 1e6:.1f} M multiply-accumulates, "
            f"calibrated on {manifest['calibration']['samples']} samples",
            *(f"  {self.out / name}  {files[name]['bytes']:,} bytes" for name in files),
        ]
        changes = manifest["changes"]
        lines += [f"  {change['node']}: {change['requested']} -> {change['done']} ({change['reason']})" for change in changes]
        return "\n".join(lines)


def export(
    model: Any = None,
    *,
    bits: str = "w8a8",
    calibration: Any = None,
    out: str | Path,
    calib_samples: int = 1024,
    observer: str = "histogram",
    weight_observer: str = "moving-average",
    bias_correction: bool = True,
    seed: int = 0,
    keep_8bit: str | Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    example_input: Any = None,
    progress: bool = False,
) -> ExportResult:
    """Quantizes a float model and writes model.edgeq, reference.onnx and manifest.json, whole or not at all.

    Args:
        model: Path of a .onnx or .pt2 file, "package.module:factory", a torch.nn.Module, an onnx.ModelProto, or None for the
            embedded demo.
        bits: "w8a8", "w4a8" or "w4a4".
        calibration: What `edgeq.data.open_dataset` opens, a Dataset, or an array of inputs; None is allowed for the demo only.
        out: Folder for the results; made when absent.
        calib_samples: At most this many samples calibrate.
        observer: How an activation's range is chosen: minmax, moving-average, histogram, percentile or mse.
        weight_observer: How a weight channel's range is chosen: minmax, moving-average or mse.
        bias_correction: Whether biases are shifted to keep each layer's mean output (Nagel et al. 2019, 2021).
        seed: Chooses the calibration samples.
        keep_8bit: Layers that keep 8 bits: "first", "last", layer names (several with commas), "none", or None for the default
            of the scheme.
        preprocessing: How an image becomes the input; stored in the manifest and the file.
        example_input: Inputs of a torch.nn.Module, a tensor or a tuple; needed for modules only.
        progress: Whether progress bars are shown on a terminal.

    Returns:
        What was written.

    Raises:
        EdgeqError: Naming the cause and the cure; nothing has been written then.
    """
    scheme = Scheme.parse(bits)
    if calib_samples < 1:
        raise UsageError(f"calib_samples must be at least 1, not {calib_samples}")
    source = load_model(model, example_input)
    preprocessing = preprocessing or source.preprocessing
    if calibration is None:
        if model is not None:
            raise UsageError("a model needs calibration data: give --calib DATA, a few hundred inputs like those it will see")
        calibration = "digits"
    dataset = _open(calibration)
    graph = float_pipeline(source.graph)
    chosen = _choose(len(dataset), calib_samples, seed)
    ranges = _calibrate(graph, dataset, chosen, preprocessing, observer, scheme, progress)
    options = QuantizeOptions(
        weight_observer=weight_observer, keep_8bit=_keep(keep_8bit), bias_correction=bias_correction
    )
    quantized = quantize(graph, scheme, ranges, options)
    lowered = lower(channels_last(quantized.graph))
    labels = source.labels or dataset.class_names
    manifest = _manifest(source, scheme, quantized.graph, quantized.changes, dataset, preprocessing, labels)
    manifest["calibration"] = {
        "data": dataset.source,
        "samples": int(chosen.size),
        "seed": seed,
        "observer": observer,
        "weight_observer": weight_observer,
        "bias_correction": bias_correction,
    }
    manifest["layers"] = quantized.statistics
    file = encode(lowered, ModelInfo(preprocessing=preprocessing, labels=labels, metadata=manifest))
    manifest["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in ((MODEL_FILE, file), (REFERENCE_FILE, source.onnx))
    }
    out = Path(out)
    with whole_folder(out, FILES) as scratch:
        (scratch / MODEL_FILE).write_bytes(file)
        (scratch / REFERENCE_FILE).write_bytes(source.onnx)
        (scratch / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return ExportResult(out, manifest, quantized.graph)


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


def _choose(available: int, wanted: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the positions of the calibration samples, ascending; all of them when there are no more than wanted."""
    if available < 1:
        raise DataError("the calibration data hold no samples; give a few hundred inputs like those the model will see")
    chosen = np.random.default_rng(seed).permutation(available)[:wanted]
    return np.sort(chosen).astype(np.int64)
