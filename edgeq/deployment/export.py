"""`edgeq.export`: from a float model to a folder that can be shipped and verified."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq import __version__
from edgeq.data import Dataset, Preprocessing, as_dataset, finite_batches, open_dataset
from edgeq.deployment.auto_bits import (
    Job,
    choose_bits,
    differences,
    plan_facts,
    plan_table,
    run_integers,
    with_origin,
)
from edgeq.deployment.auto_keep import worst_layers
from edgeq.deployment.bit_request import BitRequest, read_request, split_samples
from edgeq.deployment.formats import Agreement, FormatOptions, check_agreement, facts_of, make_files, parse_formats
from edgeq.deployment.models import TrainedModel, load_model
from edgeq.errors import DataError, UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.edgeq_format import ModelInfo
from edgeq.exporters.folder import (
    FILES,
    MANIFEST_FILE,
    PLAN_FILE,
    REFERENCE_FILE,
    REFERENCE_TFLITE,
    check_target,
)
from edgeq.importers import quantized as quantized_models
from edgeq.ir import Graph
from edgeq.ir.printer import format_shape
from edgeq.ops import get
from edgeq.ops.base import dequantize
from edgeq.outputs import whole_folder
from edgeq.passes import channels_last, float_pipeline, lower
from edgeq.quantize import (
    DEFAULT_SAMPLES,
    Calibration,
    Change,
    QuantizedModel,
    QuantizeOptions,
    Scheme,
    calibrate,
    quantize,
)
from edgeq.quantize.confidence import Confidence
from edgeq.quantize.equalize import equalize
from edgeq.quantize.layers import WEIGHTS, is_layer
from edgeq.quantize.plan_file import PlanFile, parse, render
from edgeq.quantize.policy import default_keep, kept_layers
from edgeq.quantize.recipe import Recipe, default_effort, recipe_for
from edgeq.quantize.sensitivity import LOGIT_SAMPLES
from edgeq.quantize.streams import separate_product_inputs
from edgeq.simulate.executor import checked_feeds

_DARK = 64.0
"""Inputs beyond it, none negative, are taken for pixels that nobody normalised."""

_BATCH = 16
"""Samples that are read together; calibration splits them further where their activations need it."""

MIXED = "mixed"
"""The scheme's name where each layer has its own bits."""

EIGHT = BitRequest(Scheme(8, 8))
"""What sizes are shares of."""

_QUICK = Recipe(weight_observer="mse")
"""How weights are rounded to find out which layers need 8 bits."""

_EQUALIZED = 128
"""Calibration samples, at most, whose channel ranges equalisation goes by."""

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

    def _origin(self) -> str:
        calibration = self.manifest["calibration"]
        if calibration is None:
            return "with its own quantization"
        return f"calibrated on {calibration['samples']} samples"

    def _scheme(self) -> str:
        counts = self.manifest.get("layers_by_bits")
        scheme: str = self.manifest["scheme"]
        if counts is None:
            return scheme
        return f"{scheme} (4-bit weights in {counts['w4']} layers, 8-bit in {counts['w8']}, 8-bit activations)"

    def summary(self) -> str:
        """Returns a few lines for the terminal: files with sizes, what was changed from the request, and why."""
        manifest = self.manifest
        files = manifest["files"]
        lines = [
            f"{manifest['model']['name']}: {self._scheme()}, {manifest['model']['nodes']} nodes, "
            f"{manifest['model']['macs'] / 1e6:.1f} M multiply-accumulates, {self._origin()}",
            *(f"  {self.out / name}  {files[name]['bytes']:,} bytes" for name in files),
        ]
        if "plan" in manifest:
            lines += [f"  {line}" for line in plan_table(manifest["plan"])]
        changes = manifest["changes"]
        lines += [
            f"  {change['node']}: {change['requested']} -> {change['done']} ({change['reason']})" for change in changes
        ]
        if manifest.get("confidence", {}).get("factor", 1.0) != 1.0:
            found = manifest["confidence"]
            lines.append(
                f"  confidence: scores times {found['factor']:.3f}, so that {found['samples']} samples set aside are "
                "answered as surely as by the float network"
            )
        lines += [f"  {note}" for note in manifest["notes"]]
        lines += [f"  {agreement}" for agreement in self.agreements]
        return "\n".join(lines)


def export(
    model: Any = None,
    *,
    bits: str | Path | None = None,
    budget: Mapping[str, float] | Sequence[str] | None = None,
    calibration: Any = None,
    out: str | Path,
    calib_samples: int = DEFAULT_SAMPLES,
    effort: str | None = None,
    recipe: Recipe | str | Path | None = None,
    observer: str | None = None,
    weight_observer: str | None = None,
    bias_correction: bool | None = None,
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
        model: Path of a .onnx or .pt2 file, "package.module:factory", a torch.nn.Module, an onnx.ModelProto, a module
            of `edgeq.prepare_qat` (which needs no calibration any more), or None for the embedded demo.
        bits: "w8a8" (the default), "w4a8" or "w4a4"; "auto" to choose 4 or 8 bits for each layer's weights under a
            budget; the path of a plan (.toml) to replay one; None for a model that is quantized already.
        budget: For "auto", by name (`edgeq.quantize.mixed.BUDGETS`) or as texts such as "size=0.55".
        calibration: What `edgeq.data.open_dataset` opens, a Dataset, or an array of inputs; None is allowed for the
            demo only.
        out: Folder for the results; made when absent.
        calib_samples: At most this many samples calibrate.
        effort: "fast", "good" or "best": which methods quantize, `edgeq.quantize.recipe`; None for "good" where weights
            have 4 bits and "fast" elsewhere.
        recipe: Methods by name instead: a recipe, or the path of a recipe file (.toml).
        observer: How an activation's range is chosen, instead of the recipe's: a name in `edgeq.quantize.OBSERVERS`.
        weight_observer: How a weight channel's range is chosen, instead of the recipe's: minmax, moving-average or mse.
        bias_correction: Whether biases are shifted to keep each layer's mean output (Nagel et al. 2019, 2021), instead
            of the recipe's.
        seed: Chooses the calibration samples.
        keep_8bit: Layers that keep 8 bits: "first", "last", layer names (several with commas), "none", or None for
            the default of the scheme; "auto:3" adds the three that 4 bits harm most.
        preprocessing: How an image becomes the input; stored in the manifest and the file.
        to: Formats: "edgeq", "onnx", "tflite", several with commas; None for all that can be made, what is left out
            being recorded.
        format_options: How the files store what they hold.
        example_input: Inputs of a torch.nn.Module, an array or a sequence of them; without it, the first calibration
            sample.
        progress: Whether progress bars are shown on a terminal.

    Returns:
        What was written.

    Raises:
        EdgeqError: Naming the cause and the cure; nothing has been written then.
    """
    formats = parse_formats(to)
    storage = format_options or FormatOptions()
    if str(out) == "":
        raise UsageError("the folder for the results has no name; give one")
    check_target(Path(out), [Path(given) for given in (model, bits) if isinstance(given, (str, Path)) and str(given)])
    if isinstance(model, (str, Path)) and Path(model).is_file() and quantized_models.is_quantized(Path(model)):
        if bits is not None or budget:
            raise UsageError(f"{model} is quantized already and keeps its own numbers; leave --bits and --budget out")
        return _convert(Path(model), calibration, Path(out), preprocessing, formats, storage)
    request = read_request(bits, budget)
    if isinstance(model, TrainedModel):
        if bits is not None and (request.mixed or request.scheme != model.scheme):
            raise UsageError(f"the model was trained for {model.scheme}, not {bits}; leave bits out")
        return _write_trained(model, calibration, Path(out), preprocessing, formats, storage)
    if calib_samples < 1:
        raise UsageError(f"the number of calibration samples (--calib-samples) must be at least 1, not {calib_samples}")
    keep, spare = _keep(keep_8bit)
    if spare and (request.mixed or request.scheme.weight_bits != 4):
        raise UsageError("--keep-8bit auto:N chooses among layers with 4-bit weights: ask for --bits w4a8 or w4a4.")
    level, methods = _methods(request.scheme, effort, recipe, observer, weight_observer, bias_correction)
    dataset = open_calibration(calibration, model)
    source = load_model(model, lambda: _example(dataset, preprocessing) if example_input is None else example_input)
    preprocessing = preprocessing or source.preprocessing
    graph = float_pipeline(source.graph)
    chosen = _choose(len(dataset), calib_samples, seed)
    used, held = split_samples(chosen, request.held_back(len(chosen)), seed)
    origin = _Source(source.name, REFERENCE_FILE, source.onnx, preprocessing, source.labels or dataset.class_names)
    calibrated = {
        "data": dataset.source,
        "data_sha256": dataset.digest(),
        "samples": len(chosen),
        "seed": seed,
        "effort": level,
        "recipe": methods.to_dict(),
    }
    if methods.equalize:
        graph = equalize(
            graph,
            _feeds(graph, dataset, preprocessing, _spread(used, _EQUALIZED)),
            weight_bits=request.scheme.weight_bits,
            activation_bits=request.scheme.activation_bits,
            absorb=methods.absorb_biases,
            threads=os.cpu_count() or 1,
        ).graph
    if request.scheme.activation_bits == 4:
        graph = separate_product_inputs(graph)
    with _Progress(progress) as show:
        batches = finite_batches(dataset, _BATCH, preprocessing, used)
        show.begin("calibrating", len(used))
        inputs = (batch.inputs for batch in batches)
        ranges = calibrate(graph, inputs, observer=methods.observer, progress=show.reached)
        options = QuantizeOptions(
            methods, keep_8bit=keep, seed=seed, checkpoint=_resume_folder(Path(out)), run=run_integers
        )
        quantizer = _Quantizer(graph, request.scheme, ranges, options, show)
        plan, plan_text = request.plan, request.plan_text
        if request.auto:
            names = default_keep(request.scheme) if keep is None else keep
            job = Job(
                graph=graph,
                kept=kept_layers(graph, names),
                quantize=lambda bits: quantizer(bits).graph,
                quick=quantizer.quick,
                file_bytes=lambda found: len(_encode(found, origin, _facts(request, found, calibrated))),
                full_bytes=lambda found: len(_encode(found, origin, _facts(EIGHT, found, calibrated))),
                samples=_feeds(graph, dataset, preprocessing, _spread(used, LOGIT_SAMPLES)),
                held_back=_feeds(graph, dataset, preprocessing, held) if len(held) else None,
                progress=show.stage,
            )
            plan = with_origin(
                choose_bits(job, request.budget), origin.name, origin.sha256, {**calibrated, "held_back": len(held)}
            )
            plan_text = render(plan)
            # As a replay will read it: its manifest then has the same figures.
            plan = parse(plan_text)
        if spare:
            names = default_keep(request.scheme) if keep is None else keep
            samples = _feeds(graph, dataset, preprocessing, _spread(used, LOGIT_SAMPLES))
            worst = worst_layers(graph, quantizer, samples, kept_layers(graph, names), spare, show.stage)
            quantizer = quantizer.keeping(frozenset(names) | frozenset(worst))
        quantized = quantizer(None if plan is None else plan.bits)
    result = _write(
        Path(out),
        quantized.graph,
        origin,
        _facts(request, quantized.graph, calibrated),
        quantized.changes,
        [
            *source.notes,
            *_input_notes(ranges.samples, preprocessing),
            *quantized.notes,
            *([] if request.plan is None else differences(request.plan, origin.sha256, calibrated)),
        ],
        quantized.statistics,
        next(iter(ranges.samples.values()))[:_COMPARED],
        formats,
        storage,
        None if plan is None else _Plan(plan, plan_text),
        quantized.confidence,
    )
    shutil.rmtree(_resume_folder(Path(out)), ignore_errors=True)
    return result


def _input_notes(samples: Mapping[str, npt.NDArray[Any]], preprocessing: Preprocessing | None) -> list[str]:
    """What looks like a mistake in the calibration inputs but may be meant."""
    plain = preprocessing is None or (set(preprocessing.mean) == {0.0} and set(preprocessing.std) == {1.0})
    notes = []
    for name, values in samples.items():
        low, high = float(values.min()), float(values.max())
        if low == high:
            notes.append(f"input {name!r} is {low:g} everywhere in the calibration data: it has no range to learn")
        elif plain and low >= 0.0 and high > _DARK and float(values.mean()) > _DARK / 4:
            notes.append(
                f"input {name!r} reaches {high:g}: pixels go in as 0..255; give --mean and --std if the model was "
                "trained on normalised ones"
            )
    return notes


def _resume_folder(out: Path) -> Path:
    """Where an interrupted reconstruction leaves its finished blocks for the next attempt: beside the folder."""
    return out.parent / f".{out.name}.resume"


class _Quantizer:
    """Quantizes one calibrated network with the bits that a scheme or a plan gives; what was done is not done again."""

    def __init__(
        self, graph: Graph, scheme: Scheme, ranges: Calibration, options: QuantizeOptions, show: _Progress
    ) -> None:
        self._given = (graph, scheme, ranges)
        self._options = options
        self._show = show
        self._known: dict[tuple[int, ...], QuantizedModel] = {}

    def __call__(self, bits: Mapping[str, int] | None) -> QuantizedModel:
        """Quantizes with these bits by layer, or with the scheme's."""
        key = () if bits is None else tuple(bits.values())
        if key not in self._known:
            self._known[key] = self._quantize(replace(self._options, layer_bits=bits))
        return self._known[key]

    def keeping(self, names: frozenset[str]) -> _Quantizer:
        """The same with these layers kept at 8 bits."""
        return _Quantizer(*self._given, replace(self._options, keep_8bit=names), self._show)

    def quick(self) -> Graph:
        """Quantizes all weights to 4 bits with the ranges of least squared error."""
        layers = [node.name for node in self._given[0].nodes if is_layer(node)]
        options = replace(self._options, recipe=_QUICK, layer_bits=dict.fromkeys(layers, 4), keep_8bit=frozenset())
        return self._quantize(options).graph

    def _quantize(self, options: QuantizeOptions) -> QuantizedModel:
        self._show.begin("quantizing", None)
        return quantize(*self._given, options, progress=self._show.reached)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The plan that an export followed, and the text of its file."""

    plan: PlanFile
    text: str


def _feeds(
    graph: Graph, dataset: Dataset, preprocessing: Preprocessing | None, positions: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Returns these samples by input, the float network's own."""
    batches = [
        checked_feeds(graph, batch.inputs, np.float32)
        for batch in finite_batches(dataset, _BATCH, preprocessing, positions)
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in graph.inputs}


def _spread(positions: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Returns at most `count` of the positions, evenly spaced."""
    if len(positions) <= count:
        return positions
    spread: npt.NDArray[np.int64] = positions[np.linspace(0, len(positions) - 1, count).round().astype(np.int64)]
    return spread


def _facts(request: BitRequest, graph: Graph, calibrated: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the manifest and the file say about bits and calibration."""
    if not request.mixed:
        return {"scheme": str(request.scheme), "calibration": calibrated}
    bits = [graph.quant(node.inputs[WEIGHTS]).bits for node in graph.nodes if is_layer(node)]
    counts = {"w4": bits.count(4), "w8": bits.count(8)}
    held_back = request.held_back(calibrated["samples"])
    return {"scheme": MIXED, "layers_by_bits": counts, "calibration": {**calibrated, "held_back": held_back}}


def _methods(
    scheme: Scheme,
    effort: str | None,
    recipe: Recipe | str | Path | None,
    observer: str | None,
    weight_observer: str | None,
    bias_correction: bool | None,
) -> tuple[str, Recipe]:
    """Returns the level's name ("recipe" where one was given) and the methods with what overrides them."""
    if recipe is not None and effort is not None:
        raise UsageError("--effort and --recipe both say which methods quantize; give one of them")
    if recipe is None:
        level = effort or default_effort(scheme)
        found = recipe_for(level, scheme)
    else:
        level, found = "recipe", recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    given = {"observer": observer, "weight_observer": weight_observer, "bias_correction": bias_correction}
    return level, found.with_(**{key: value for key, value in given.items() if value is not None})


def _convert(
    path: Path,
    calibration: Any,
    out: Path,
    preprocessing: Preprocessing | None,
    formats: tuple[str, ...] | None,
    storage: FormatOptions,
) -> ExportResult:
    """Writes a model that another tool has quantized in edgeq's formats; nothing is calibrated."""
    samples = None
    if calibration is not None:
        samples = next(finite_batches(open_calibration(calibration, path), _COMPARED, preprocessing)).inputs
    given = None if samples is None else {_input_name(path): samples}
    source = quantized_models.load(path, given)
    graph = source.graph
    if samples is None:
        samples = _random_inputs(graph)
    facts = {"scheme": _scheme_of(graph), "calibration": None}
    reference = REFERENCE_FILE if source.suffix == ".onnx" else REFERENCE_TFLITE
    return _write(
        out,
        graph,
        _Source(source.name, reference, source.content, preprocessing, None),
        facts,
        (),
        source.notes,
        [],
        samples,
        formats,
        storage,
    )


def _write_trained(
    model: TrainedModel,
    calibration: Any,
    out: Path,
    preprocessing: Preprocessing | None,
    formats: tuple[str, ...] | None,
    storage: FormatOptions,
) -> ExportResult:
    """Writes a model that was trained with quantization; nothing is calibrated any more."""
    graph = model.quantized_graph()
    labels = None
    samples = model.examples()
    if calibration is not None:
        dataset = open_calibration(calibration, model)
        samples, labels = next(finite_batches(dataset, _COMPARED, preprocessing)).inputs, dataset.class_names
    return _write(
        out,
        graph,
        _Source(model.name, REFERENCE_FILE, model.source, preprocessing, labels),
        {"scheme": str(model.scheme), "calibration": None},
        model.changes,
        ("trained with quantization (edgeq.prepare_qat)",),
        model.statistics(),
        _random_inputs(graph) if samples is None else samples[:_COMPARED],
        formats,
        storage,
    )


def _scheme_of(graph: Graph) -> str:
    """Returns the widest bits of weights and activations as a scheme's name."""
    weights = [t for t in graph.tensors.values() if t.is_constant and t.dtype == "int8"]
    bits = [
        max((tensor.quant.bits for tensor in found if tensor.quant is not None), default=8)
        for found in (weights, graph.activations())
    ]
    return f"w{bits[0]}a{bits[1]}"


def _input_name(path: Path) -> str:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    constants = {value.name for value in model.graph.initializer}
    name: str = next(value.name for value in model.graph.input if value.name not in constants)
    return name


def _random_inputs(graph: Graph) -> npt.NDArray[np.float32]:
    """Returns inputs whose codes are uniform: what the formats are compared on where there are no data."""
    tensor = graph.tensor(graph.inputs[0])
    quant = graph.quant(tensor.name)
    codes = np.random.default_rng(0).integers(quant.qmin, quant.qmax + 1, (_COMPARED, *tensor.shape[1:]))
    return dequantize(codes, quant)


@dataclass(frozen=True, slots=True)
class _Source:
    """The model that an export starts from.

    Attributes:
        name: Shown to the user.
        file: What it is called in the folder.
        content: The file itself, which verification compares with.
        preprocessing: How an image becomes the input.
        labels: Class names.
        sha256: Of the content.
    """

    name: str
    file: str
    content: bytes
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())


def _write(
    out: Path,
    graph: Graph,
    source: _Source,
    facts: Mapping[str, Any],
    changes: Sequence[Change],
    notes: Sequence[str],
    layers: Sequence[Mapping[str, Any]],
    samples: npt.NDArray[np.float32],
    formats: tuple[str, ...] | None,
    storage: FormatOptions,
    plan: _Plan | None = None,
    confidence: Confidence | None = None,
) -> ExportResult:
    """Makes the files of a quantized graph, compares them on `samples`, and moves them into `out` together."""
    info = _info(graph, source, facts, changes)
    stored = info.metadata
    files = make_files(graph, str(facts["scheme"]), info, formats, storage)
    contents = {**files.contents, source.file: source.content}
    if plan is not None:
        contents[PLAN_FILE] = plan.text.encode()
    with whole_folder(out, FILES) as scratch:
        for name, content in contents.items():
            (scratch / name).write_bytes(content)
        real = source.file if source.file == REFERENCE_FILE else None
        agreements = check_agreement(scratch, graph, list(files.contents), samples, real)
        manifest = {
            **stored,
            "preprocessing": None if source.preprocessing is None else source.preprocessing.to_dict(),
            "labels": None if source.labels is None else list(source.labels),
            "changes": [asdict(change) for change in (*changes, *files.changes)],
            "notes": [*notes, *files.notes],
            **({} if plan is None else {"plan": plan_facts(plan.plan)}),
            **({} if confidence is None else {"confidence": asdict(confidence)}),
            "agreement": facts_of(agreements),
            "layers": layers,
            "files": {
                name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in contents.items()
            },
        }
        text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        (scratch / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return ExportResult(out, manifest, graph, tuple(agreements))


def _info(graph: Graph, source: _Source, facts: Mapping[str, Any], changes: Sequence[Change]) -> ModelInfo:
    """Returns what a file says beside the graph."""
    stored = {
        "format": 1,
        "producer": f"edgeq {__version__}",
        "model": _model_facts(source, graph),
        **facts,
        "changes": [asdict(change) for change in changes],
    }
    return ModelInfo(preprocessing=source.preprocessing, labels=source.labels or (), metadata=stored)


def _encode(graph: Graph, source: _Source, facts: Mapping[str, Any]) -> bytes:
    """Returns the model.edgeq of a quantized graph that is as it was asked for."""
    return encode(lower(channels_last(graph)), _info(graph, source, facts, ()))


def _example(dataset: Dataset, preprocessing: Preprocessing | None) -> npt.NDArray[np.float32]:
    """Returns the first sample as a batch of one: a torch module is exported by running it on an example."""
    return next(iter(dataset.batches(1, preprocessing, [0]))).inputs


def _model_facts(source: _Source, graph: Graph) -> dict[str, Any]:
    return {
        "name": source.name,
        "sha256": source.sha256,
        "inputs": {name: format_shape(graph.tensor(name).shape) for name in graph.inputs},
        "outputs": {name: format_shape(graph.tensor(name).shape) for name in graph.outputs},
        "nodes": len(graph.nodes),
        "macs": sum(get(node.op).macs(node, graph) for node in graph.nodes),
    }


def open_calibration(calibration: Any, model: Any) -> Dataset:
    """Opens what calibrates a model; both are as for `export`.

    Raises:
        DataError: If the data cannot be read.
        UsageError: If there are none and the model is not the demo, which has its own.
    """
    if calibration is None:
        if model is not None:
            raise UsageError(
                "a model needs calibration data: give --calib DATA, a few hundred inputs like those it will see"
            )
        calibration = "digits"
    if isinstance(calibration, (str, Path)):
        return open_dataset(calibration, digits_split="calib")
    return as_dataset(calibration, "calibration")


def _keep(keep: str | Sequence[str] | None) -> tuple[frozenset[str] | None, int]:
    """The layers that are named (None: the default ones), and how many more are to be chosen."""
    if keep is None:
        return None, 0
    names = [name.strip() for name in keep.split(",")] if isinstance(keep, str) else list(keep)
    names = [name for name in names if name]
    if "none" in names and len(names) > 1:
        raise UsageError("--keep-8bit none stands alone: none means that no layer keeps 8 bits")
    spare = 0
    for name in [name for name in names if name.startswith("auto:")]:
        number = name.removeprefix("auto:")
        if spare or not number.isdecimal() or int(number) < 1:
            raise UsageError(f"--keep-8bit auto:N takes one number of layers, at least 1, such as auto:3; not {name!r}")
        spare = int(number)
        names.remove(name)
    if spare and not names:
        return None, spare
    return frozenset(name for name in names if name != "none"), spare


def _choose(available: int, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """Returns the positions of the calibration samples, ascending; all of them when there are no more than wanted."""
    if available < 1:
        raise DataError("the calibration data hold no samples; give a few hundred inputs like those the model will see")
    chosen = np.random.default_rng(seed).permutation(available)[:wanted]
    return np.sort(chosen).astype(np.int64)


class _Progress:
    """A bar on a terminal's standard error for each stage; silent elsewhere and where it is not wanted."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._stage = ""
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
        self._stage = stage
        if self._wanted:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=stage, leave=False, disable=None)

    def stage(self, stage: str, done: int, total: int | None) -> None:
        """Moves the bar of a stage to `done`, beginning it where another is shown."""
        if self._stage != stage:
            self.begin(stage, total)
        self.reached(done, total)

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
