"""Which layer is to blame: what each does alone, what has gathered by then, and what sparing it would win.

Everything is measured on an emulation of the quantized network: the float network, run by ONNX Runtime, with the
quantized network's weights and biases in place of its own and each activation rounded to its codes. It gives the
integers' own results but for a rounding that falls otherwise here and there (`Blame.agreement` says how often the
answer is the same), and lets any part of it be float again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq import metrics
from edgeq.data import Dataset, Preprocessing, as_dataset, finite_batches, open_dataset
from edgeq.errors import FormatError, UsageError
from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.folder import REFERENCE_FILE, model_file, read_manifest
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.importers import from_edgeq, from_onnx
from edgeq.ir import Graph, Node, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops.base import dequantize
from edgeq.ops.fake_quant import FakeQuantAttrs
from edgeq.passes import channels_last, float_pipeline
from edgeq.quantize.calibrate import FloatSession
from edgeq.quantize.confidence import find_scores, multiply_scores
from edgeq.quantize.layers import BIAS, WEIGHTS, X, bias_name, is_layer
from edgeq.quantize.scheme import Scheme
from edgeq.quantize.sensitivity import divergence
from edgeq.quantize.streams import separate_product_inputs
from edgeq.quantize.weights import quantize_layer, weight_ranges
from edgeq.session import Session
from edgeq.verification.scores import as_logits, graph_ending

_OUTPUT_SAMPLES = 16
"""Inputs on which layers' own outputs are compared: positions make up for their number."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerBlame:
    """One layer's part in what quantization does.

    Attributes:
        layer: Name of the layer.
        op: Its operator.
        weight_bits: Of its weights.
        macs_share: Its share of the network's multiply-accumulates.
        alone_sqnr_db: SQNR of its own output when only this layer is quantized, inputs, weights and output.
        gathered_sqnr_db: SQNR of its own output in the quantized network: with all that went before.
        gathered_cosine: Cosine of its output there with the float network's.
        largest_error_steps: Largest error of its output there, in steps of its scale.
        logits_alone_db: SQNR of the network's outputs when only this layer is quantized.
        win_8bit_db: By how many dB the SQNR of the network's outputs grows when this layer alone gets 8-bit weights;
            None where it has them.
        win_8bit_disagreement: By what share of the inputs the disagreement then falls; None likewise.
        win_float_db: The same when the layer's weights and bias stay float.
        win_float_disagreement: Likewise.
        win_float_kl: By how much the mean KL divergence from the float network then falls, in nats.
    """

    layer: str
    op: str
    weight_bits: int
    macs_share: float
    alone_sqnr_db: float
    gathered_sqnr_db: float
    gathered_cosine: float
    largest_error_steps: float
    logits_alone_db: float
    win_8bit_db: float | None
    win_8bit_disagreement: float | None
    win_float_db: float
    win_float_disagreement: float
    win_float_kl: float


@dataclass(frozen=True, slots=True)
class Blame:
    """Every layer's part.

    Attributes:
        samples: Number of inputs that the network's outputs were compared on.
        sqnr_db: SQNR of the quantized network's outputs.
        disagreement: Share of inputs that it answers differently from the float network.
        agreement: Share of inputs that the emulation answers as the integers do.
        layers: In execution order.
    """

    samples: int
    sqnr_db: float
    disagreement: float
    agreement: float
    layers: tuple[LayerBlame, ...]

    def ranked(self) -> tuple[LayerBlame, ...]:
        """The layers by what sparing them wins in SQNR (8 bits where that is less than they have, else float), the
        largest first."""

        def win(one: LayerBlame) -> float:
            return one.win_float_db if one.win_8bit_db is None else one.win_8bit_db

        return tuple(sorted(self.layers, key=lambda one: -win(one)))

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values; null stands for an infinite SQNR."""
        values = asdict(self)
        for row in (values, *values["layers"]):
            for name, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    row[name] = None
        return values


def blame(
    target: str | os.PathLike[str],
    *,
    data: Any,
    samples: int = 100,
    preprocessing: Preprocessing | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Blame:
    """Measures every layer of an exported folder.

    Args:
        target: A folder that `edgeq export` wrote, with its reference.onnx.
        data: What `edgeq.data.open_dataset` opens, a `Dataset`, or an array of inputs; labels are not needed.
        samples: The first this many run.
        preprocessing: How an image becomes an input; without it, what the export stored.
        progress: Called with (layers done, layers).

    Raises:
        UsageError: If the folder lacks what is needed, or its network was equalised: its layers then compute other
            numbers than the float network's, and cannot be compared one by one.
    """
    folder = Path(target)
    if samples < 1:
        raise UsageError(f"The number of samples must be at least 1, not {samples}.")
    if not folder.is_dir() or not (folder / REFERENCE_FILE).is_file():
        raise UsageError(f"{folder}: blame needs a folder of `edgeq export` with its {REFERENCE_FILE}.")
    manifest = read_manifest(folder)
    recipe = (manifest.get("calibration") or {}).get("recipe") or {}
    if recipe.get("equalize"):
        raise UsageError(
            f"{folder}: was exported with cross-layer equalisation, after which layers compute other numbers than the "
            "float network's. Export it once more with a recipe file that says equalize = false, and ask again."
        )
    quantized, info = from_edgeq.load(model_file(folder))
    graph = float_pipeline(from_onnx.load(folder / REFERENCE_FILE))
    if manifest.get("scheme") == str(Scheme(4, 4)):
        graph = separate_product_inputs(graph)
    quantized = _unmatched(quantized, graph, manifest)
    emulation = _Emulation(graph, quantized)
    dataset = open_dataset(data) if isinstance(data, (str, os.PathLike)) else as_dataset(data)
    feeds = _feeds(emulation.graph, dataset, preprocessing or info.preprocessing, min(samples, len(dataset)))
    return _Measurement(emulation, feeds, Session(encode(quantized))).run(progress)


def _unmatched(quantized: Graph, graph: Graph, manifest: Mapping[str, Any]) -> Graph:
    """The network without the factor that matched its confidence, which is no error of the last layer."""
    factor = (manifest.get("confidence") or {}).get("factor", 1.0)
    scores = None if factor == 1.0 else find_scores(graph)
    return quantized if scores is None else multiply_scores(quantized, scores, 1.0 / factor)


def _feeds(graph: Graph, dataset: Dataset, preprocessing: Preprocessing | None, count: int) -> dict[str, Array]:
    if len(graph.inputs) != 1:
        raise UsageError(f"blame runs networks with one input; this one has {len(graph.inputs)}.")
    parts = [batch.inputs for batch in finite_batches(dataset, 32, preprocessing, range(count))]
    return {graph.inputs[0]: np.concatenate(parts)}


class _Emulation:
    """Float graphs in which chosen layers and activations are rounded as the quantized network's are.

    Args:
        graph: The float network, NCHW.
        quantized: The quantized network made of it, NHWC, with the same names of layers and activations.
    """

    def __init__(self, graph: Graph, quantized: Graph) -> None:
        self.graph = graph
        self.layers = [node for node in graph.nodes if is_layer(node)]
        self._quantized = quantized
        self._nodes = {node.name: node for node in quantized.nodes if is_layer(node)}
        missing = [node.name for node in self.layers if node.name not in self._nodes]
        if missing or len(self._nodes) != len(self.layers):
            raise FormatError(
                f"model.edgeq and {REFERENCE_FILE} do not have the same layers ({missing[:1] or 'others'}): they are "
                "not of one export, or of one that was quantized already."
            )
        self._places = _weight_places(graph)

    def bits(self, node: Node) -> int:
        return self._quantized.quant(self._nodes[node.name].inputs[WEIGHTS]).bits

    def quant_of(self, name: str) -> Any:
        """The quantization of an activation, or None."""
        tensor = self._quantized.tensors.get(name)
        return None if tensor is None else tensor.quant

    def rounded_constants(self, node: Node) -> dict[str, Array]:
        """The layer's weights and bias as the quantized network has them, by name in the float graph."""
        other = self._nodes[node.name]
        found = {}
        weights = self._quantized.tensor(other.inputs[WEIGHTS])
        assert weights.data is not None
        assert weights.quant is not None
        reals = dequantize(weights.data, weights.quant).astype(np.float32)
        shape = self.graph.tensor(node.inputs[WEIGHTS]).shape
        back = np.empty(reals.size, dtype=np.float32)
        back[self._places[node.name].ravel()] = reals.ravel()
        found[WEIGHTS] = back.reshape([int(size) for size in shape])
        if bias_name(other):
            bias = self._quantized.tensor(bias_name(other))
            assert bias.data is not None
            assert bias.quant is not None
            found[BIAS] = dequantize(bias.data, bias.quant).astype(np.float32)
        return {_SLOTS[slot]: value for slot, value in found.items()}

    def eight_bits(self, node: Node) -> dict[str, Array]:
        """The layer's float weights and bias, rounded to 8 bits."""
        other = self._nodes[node.name]
        weights, bias = (self._float(node, slot) for slot in (WEIGHTS, BIAS))
        assert weights is not None
        x, y = (self._quantized.quant(name) for name in (other.inputs[X], other.outputs[0]))
        tensors = quantize_layer(weights, bias, 8, weight_ranges(weights, 8, "mse"), x, y, ("w", "b"))
        return {
            name: dequantize(tensor.data, tensor.quant).astype(np.float32)
            for name, tensor in zip(_SLOTS.values(), tensors, strict=True)
            if tensor is not None and tensor.data is not None and tensor.quant is not None
        }

    def _float(self, node: Node, slot: int) -> Array | None:
        name = node.inputs[slot] if len(node.inputs) > slot else ""
        return self.graph.constant(name) if name else None

    def build(self, constants: Mapping[str, Mapping[str, Array]], rounded: Callable[[str], bool]) -> Graph:
        """A float graph with other constants and with activations rounded.

        Args:
            constants: By layer: `weights` and, where there is one, `bias`.
            rounded: Which activations, by name.
        """
        result = self.graph.copy()
        for node in self.layers:
            if node.name in constants:
                self._set_constants(result, node, constants[node.name])
        nodes: list[Node] = []
        held: dict[str, str] = {}
        for name in result.inputs:
            if rounded(name) and self.quant_of(name) is not None:
                nodes.append(self._round(result, name, held))
        for node in result.nodes:
            nodes.append(node.with_(inputs=tuple(held.get(name, name) for name in node.inputs)))
            nodes += [
                self._round(result, name, held)
                for name in node.outputs
                if rounded(name) and self.quant_of(name) is not None
            ]
        result.nodes[:] = nodes
        result.outputs[:] = [held.get(name, name) for name in result.outputs]
        return result

    def _round(self, graph: Graph, name: str, held: dict[str, str]) -> Node:
        to = graph.fresh_name(f"{name}.rounded")
        tensor = graph.tensor(name)
        graph.add_tensor(tensor.with_(name=to))
        held[name] = to
        return Node("fake_quant", f"{to}.node", (name,), (to,), FakeQuantAttrs(self.quant_of(name)))

    def _set_constants(self, graph: Graph, node: Node, values: Mapping[str, Array]) -> None:
        inputs = list(node.inputs)
        for slot, key in _SLOTS.items():
            if key not in values:
                continue
            name = graph.fresh_name(f"{node.name}.{key}.blamed")
            graph.add_tensor(Tensor.constant(name, values[key]))
            inputs[slot:] = [name, *inputs[slot + 1 :]]
        place = next(index for index, one in enumerate(graph.nodes) if one.name == node.name)
        graph.nodes[place] = node.with_(inputs=tuple(inputs))


_SLOTS = {WEIGHTS: "weights", BIAS: "bias"}


def _weight_places(graph: Graph) -> dict[str, NDArray[np.int64]]:
    """Where each weight of the NHWC network lies in the NCHW one, by layer: the NHWC form of weights that are their own
    places, which holds for every operator and for the inputs that a flattening reorders."""
    places = graph.copy()
    counted: dict[str, int] = {}
    for node in graph.nodes:
        if is_layer(node):
            weights = graph.constant(node.inputs[WEIGHTS])
            assert weights is not None
            numbers = np.arange(weights.size, dtype=np.int32).reshape(weights.shape)
            name = places.fresh_name(f"{node.name}.places")
            places.add_tensor(Tensor.constant(name, numbers))
            index = places.nodes.index(node)
            places.nodes[index] = node.with_(inputs=(node.inputs[X], name, *node.inputs[2:]))
            counted[node.name] = index
    turned = channels_last(places)
    found = {}
    for node in turned.nodes:
        if node.name in counted:
            data = turned.constant(node.inputs[WEIGHTS])
            assert data is not None
            found[node.name] = data.astype(np.int64)
    return found


class _Measurement:
    """Runs the emulations."""

    def __init__(self, emulation: _Emulation, feeds: Mapping[str, Array], session: Session) -> None:
        self._emulation = emulation
        self._feeds = feeds
        self._threads = os.cpu_count() or 1
        self._session = session
        self._endings = [graph_ending(emulation.graph, output) for output in range(len(emulation.graph.outputs))]

    def run(self, progress: Callable[[int, int], None] | None) -> Blame:
        emulation = self._emulation
        rounded = {node.name: emulation.rounded_constants(node) for node in emulation.layers}
        exact = self._logits(emulation.graph)
        whole = self._logits(emulation.build(rounded, lambda _: True))
        own = self._own_outputs(rounded)
        total = self._total(exact, whole)
        integers = self._session.run(next(iter(self._feeds.values())))
        integers = self._as_logits(integers if isinstance(integers, list) else [integers])
        macs = _macs(emulation)
        layers = []
        for done, node in enumerate(emulation.layers):
            layers.append(self._layer(node, rounded, exact, total, own[node.name], macs[node.name]))
            if progress is not None:
                progress(done + 1, len(emulation.layers))
        return Blame(
            samples=len(exact[0]),
            sqnr_db=total.sqnr_db,
            disagreement=total.disagreement,
            agreement=1.0 - _disagreement(integers, whole),
            layers=tuple(layers),
        )

    def _layer(
        self,
        node: Node,
        rounded: Mapping[str, Mapping[str, Array]],
        exact: list[Array],
        total: _Total,
        own: _Own,
        macs: float,
    ) -> LayerBlame:
        emulation = self._emulation
        ends = {node.inputs[X], node.outputs[0]}
        alone = self._logits(emulation.build({node.name: rounded[node.name]}, lambda name: name in ends))
        spared = {name: values for name, values in rounded.items() if name != node.name}
        free = self._total(exact, self._logits(emulation.build(spared, lambda _: True)))
        eight = None
        if emulation.bits(node) < 8:
            finer = {**rounded, node.name: emulation.eight_bits(node)}
            eight = self._total(exact, self._logits(emulation.build(finer, lambda _: True)))
        return LayerBlame(
            layer=node.name,
            op=node.op,
            weight_bits=emulation.bits(node),
            macs_share=macs,
            alone_sqnr_db=own.alone_db,
            gathered_sqnr_db=own.gathered_db,
            gathered_cosine=own.cosine,
            largest_error_steps=own.steps,
            logits_alone_db=_sqnr(exact, alone),
            win_8bit_db=None if eight is None else eight.sqnr_db - total.sqnr_db,
            win_8bit_disagreement=None if eight is None else total.disagreement - eight.disagreement,
            win_float_db=free.sqnr_db - total.sqnr_db,
            win_float_disagreement=total.disagreement - free.disagreement,
            win_float_kl=total.divergence - free.divergence,
        )

    def _logits(self, graph: Graph) -> list[Array]:
        """The network's outputs, with logits where they are scores."""
        return self._as_logits(self._outputs(graph))

    def _as_logits(self, outputs: list[Array]) -> list[Array]:
        return [
            array if sum(size > 1 for size in array.shape[1:]) > 1 else as_logits(array.reshape(len(array), -1), ending)
            for array, ending in zip(outputs, self._endings, strict=True)
        ]

    def _outputs(self, graph: Graph, names: Sequence[str] | None = None, count: int | None = None) -> list[Array]:
        session = FloatSession(to_float_onnx(graph, names), self._threads)
        feeds = {name: value[:count] for name, value in self._feeds.items()}
        size = len(next(iter(feeds.values())))
        parts = [
            session.run({name: value[at : at + 8] for name, value in feeds.items()}) for at in range(0, size, 8)
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _own_outputs(self, rounded: Mapping[str, Mapping[str, Array]]) -> dict[str, _Own]:
        """Every layer's own output: float, with only it quantized, and in the quantized network."""
        emulation, found = self._emulation, {}
        for node in emulation.layers:
            name, ends = node.outputs[0], {node.inputs[X], node.outputs[0]}
            exact = self._outputs(emulation.graph, [name], _OUTPUT_SAMPLES)[0]
            graphs = (
                emulation.build({node.name: rounded[node.name]}, lambda other, ends=ends: other in ends),  # type: ignore[misc]
                emulation.build(rounded, lambda _: True),
            )
            alone, gathered = (self._outputs(graph, [_held(graph, name)], _OUTPUT_SAMPLES)[0] for graph in graphs)
            quant = emulation.quant_of(name)
            scale = 1.0 if quant is None else float(quant.scale)
            found[node.name] = _Own(
                metrics.sqnr_db(exact, alone),
                metrics.sqnr_db(exact, gathered),
                metrics.cosine_similarity(exact, gathered),
                metrics.largest_error_steps(exact, gathered, scale),
            )
        return found

    def _total(self, exact: list[Array], found: list[Array]) -> _Total:
        return _Total(
            _sqnr(exact, found),
            _disagreement(exact, found),
            float(divergence(exact, found, probabilities=False).mean()),
        )


@dataclass(frozen=True, slots=True)
class _Total:
    """What a network's outputs are against the float network's."""

    sqnr_db: float
    disagreement: float
    divergence: float


@dataclass(frozen=True, slots=True)
class _Own:
    """What a layer's own output is against the float network's."""

    alone_db: float
    gathered_db: float
    cosine: float
    steps: float


def _held(graph: Graph, name: str) -> str:
    """The rounded form of an activation, where there is one."""
    for node in graph.nodes:
        if node.op == "fake_quant" and node.inputs[0] == name:
            return node.outputs[0]
    return name


def _sqnr(exact: list[Array], found: list[Array]) -> float:
    return metrics.sqnr_db(np.concatenate([a.ravel() for a in exact]), np.concatenate([a.ravel() for a in found]))


def _disagreement(exact: list[Array], found: list[Array]) -> float:
    answers = [metrics.predicted_class(arrays[0].reshape(len(arrays[0]), -1)) for arrays in (exact, found)]
    return metrics.disagreement_rate(*answers)


def _macs(emulation: _Emulation) -> dict[str, float]:
    """Each layer's share of the multiply-accumulates."""
    counts = {}
    for node in emulation.layers:
        weights, y = (emulation.graph.tensor(name).shape for name in (node.inputs[WEIGHTS], node.outputs[0]))
        positions = int(np.prod([int(size) for size in y[2:]])) if len(y) > 2 else 1
        counts[node.name] = int(np.prod([int(size) for size in weights])) * positions
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}
