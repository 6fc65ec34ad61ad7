"""From a float graph and its calibration to a quantized graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import QuantizationError
from edgeq.ir import Graph, Node, QuantParams, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import dequantize
from edgeq.ops.base import quantize as quantize_array
from edgeq.ops.check import check_graph
from edgeq.ops.elementwise import Elementwise
from edgeq.quantize import qparams
from edgeq.quantize.additions import align_additions
from edgeq.quantize.bias_correction import correct_biases
from edgeq.quantize.calibrate import Calibration, float_outputs
from edgeq.quantize.confidence import FEWEST, HELD_OUT, Confidence, find_scores, fit_factor, multiply_scores
from edgeq.quantize.distil import distil
from edgeq.quantize.layers import BIAS, WEIGHTS, X, bias_name, is_layer
from edgeq.quantize.policy import Change, Plan, make_plan
from edgeq.quantize.recipe import Recipe
from edgeq.quantize.reconstruct import reconstruct
from edgeq.quantize.rounding import round_second_order
from edgeq.quantize.scheme import Scheme
from edgeq.quantize.sensitivity import Run, divergence, ends_in_softmax
from edgeq.quantize.weights import quantize_layer, sqnr_db, weight_ranges
from edgeq.simulate import simulate

WORTH = 0.87
"""What reconstruction or distillation must leave of the divergence on held-out samples, at most. Rounding that may see
those samples too wins about as much: MobileNetV2 at w4a4 has 35.8 % top-1 when a fifth of 160 images is held back, 39.8
% when training has then brought the divergence to 0.87 of what it was, and 40.2 % when nothing is held back and nothing
trained. At w4a8 block reconstruction on four fifths disagrees on 13.5 % of 900 images, rounding with all on 12.9 %."""


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """Choices beside the scheme.

    Attributes:
        recipe: The methods and their settings.
        keep_8bit: `first`, `last` or names of layers that keep 8 bits; None for the scheme's default.
        layer_bits: Weight bits by layer instead of the scheme's, for every layer with weights.
        seed: For the methods that look at a part of the calibration samples.
        threads: For the methods that run the network; all cores without it.
        checkpoint: A folder in which block reconstruction keeps finished blocks and distillation its state, so that
            interrupted work resumes; the caller deletes it.
        run: Runs a quantized graph; the simulator without it, which gives the same numbers and takes longer.
    """

    recipe: Recipe = field(default_factory=Recipe)
    keep_8bit: frozenset[str] | None = None
    layer_bits: Mapping[str, int] | None = None
    seed: int = 0
    threads: int | None = None
    checkpoint: Path | None = None
    run: Run = simulate


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A quantized graph and how it came about.

    Attributes:
        graph: Quantized, with the float graph's layout, nodes and tensor names.
        changes: Where it differs from the request.
        statistics: For each layer with weights a dictionary of plain values, for the manifest.
        confidence: The factor of its scores; None where none was looked for.
        notes: Sentences for the export's summary.
    """

    graph: Graph
    changes: tuple[Change, ...]
    statistics: list[dict[str, Any]]
    confidence: Confidence | None = None
    notes: tuple[str, ...] = ()


def quantize(
    graph: Graph,
    scheme: Scheme,
    calibration: Calibration,
    options: QuantizeOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> QuantizedModel:
    """Quantizes activations per tensor, weights per output channel, and biases to 32 bits.

    Args:
        graph: The float graph that `calibration` observed.
        scheme: Bits of weights and activations.
        calibration: The observed ranges.
        options: Choices beside the scheme.
        progress: Called with (layers done, layers) by the methods that run the network.

    Raises:
        QuantizationError: If the calibration is of another graph, a weight is not finite, or an option is unknown.
    """
    options = options or QuantizeOptions()
    if calibration.graph is not graph and list(calibration.graph.activations()) != list(graph.activations()):
        raise QuantizationError("The calibration belongs to another graph; calibrate the graph that is quantized.")
    plan = make_plan(graph, scheme, calibration.sets, options.keep_8bit, options.layer_bits)
    result = graph.copy()
    _quantize_activations(result, calibration, plan)
    align_additions(result, _movable(calibration))
    for index, node in enumerate(graph.nodes):
        if is_layer(node):
            result.nodes[index] = _quantize_weights(node, graph, result, plan, options)
        else:
            result.nodes[index] = _quantize_constants(node, graph, result)
    result = result.prune()
    threads = options.threads or os.cpu_count() or 1
    recipe = options.recipe
    found: dict[str, dict[str, Any]] = {}
    samples = calibration.samples
    nearest = result
    notes: list[str] = []
    probabilities = ends_in_softmax(graph)

    def round_with(seen: Mapping[str, Array]) -> Graph:
        rounded, done = round_second_order(nearest, graph, seen, recipe.second_order, threads, options.seed, progress)
        for name, layer in done.items():
            found[name] = {"bias_correction_steps": _rounded(layer.bias_steps), "proven_best": layer.proven}
        return rounded

    if recipe.rounding == "second-order":
        # What later methods are judged on, the last samples, must not have been learned from.
        result = round_with(_first(samples, 1 - recipe.held_out()))
    elif recipe.bias_correction:
        result, shifts = correct_biases(result, graph, calibration.samples, threads, progress)
        found = {name: {"bias_correction_steps": _rounded(shift)} for name, shift in shifts.items()}
    rounded = result
    if recipe.reconstruct:
        result = reconstruct(
            result, graph, samples, recipe.reconstruction, threads, options.seed, progress, options.checkpoint
        )
    unseeing = result
    if recipe.reconstruct and recipe.rounding == "second-order" and not recipe.distil:
        judged = _last(samples, recipe.held_out())
        wanted = float_outputs(graph, judged)
        before, after = (
            float(divergence(wanted, options.run(one, judged), probabilities).mean()) for one in (rounded, result)
        )
        if after > WORTH * before:
            notes.append(_not_worth("Block reconstruction", before, after))
            result = round_with(samples)
    if recipe.distil:
        result, trained = distil(
            result, graph, samples, recipe.distillation, threads, options.seed, progress, options.checkpoint
        )
        unseeing = result
        if recipe.rounding == "second-order" and not recipe.reconstruct and trained.after > WORTH * trained.before:
            notes.append(_not_worth("Distillation", trained.before, trained.after))
            result = round_with(samples)
    confidence = None
    scores = find_scores(graph) if recipe.match_confidence else None
    held = _last(samples, HELD_OUT)
    if scores is not None and _count(held) >= FEWEST:
        if recipe.rounding == "second-order" and not recipe.held_out():
            # The final codes have seen all samples; others that have not tell what that does to the rest of the world.
            seen = _first(samples, 1 - HELD_OUT)
            unseeing = round_second_order(nearest, graph, seen, recipe.second_order, threads, options.seed, progress)[0]
        confidence = fit_factor(float_outputs(graph, held), options.run(unseeing, held), probabilities)
        if confidence is not None:
            result = multiply_scores(result, scores, confidence.factor)
    check_graph(result)
    statistics = [
        {**_statistics(node, graph, result), **found.get(node.name, {})} for node in result.nodes if is_layer(node)
    ]
    return QuantizedModel(result, plan.changes, statistics, confidence, tuple(notes))


def _not_worth(method: str, before: float, after: float) -> str:
    return (
        f"{method} changed the divergence from the float model on held-out samples from {before:.4f} to {after:.4f}: "
        "rounding that may learn from those samples too is worth more, and is what was kept."
    )


def _first(samples: Mapping[str, Array], share: float) -> dict[str, Array]:
    """The first part of the samples, at least one of them."""
    return {name: value[: max(1, round(share * _count(samples)))] for name, value in samples.items()}


def _last(samples: Mapping[str, Array], share: float) -> dict[str, Array]:
    """What `_first` leaves with the rest of the share."""
    taken = _count(_first(samples, 1 - share))
    return {name: value[taken : _count(samples)] for name, value in samples.items()}


def _count(samples: Mapping[str, Array]) -> int:
    return min(len(value) for value in samples.values())


def _movable(calibration: Calibration) -> dict[str, tuple[str, ...]]:
    """The members of each set whose scale nothing but its range decides, by member."""
    free = (shared for shared in calibration.sets if shared.fixed is None and not shared.constants)
    return {member: shared.members for shared in free for member in shared.members}


def _quantize_activations(result: Graph, calibration: Calibration, plan: Plan) -> None:
    for shared in calibration.sets:
        bits = plan.activation_bits[shared.name]
        if shared.fixed is not None:
            quant = qparams.fixed_params(*shared.fixed, bits)
        else:
            quant = qparams.activation_params(*calibration.observers[shared.name].range(bits), bits)
        for name in shared.members:
            result.add_tensor(result.tensor(name).with_(dtype="int8", quant=quant))
        for name in shared.constants:
            _replace_constant(result, name, name, quant)


def _quantize_weights(node: Node, graph: Graph, result: Graph, plan: Plan, options: QuantizeOptions) -> Node:
    weights = _constant(node, graph, WEIGHTS, "weights")
    name = bias_name(node)
    bias: Array | None = _constant(node, graph, BIAS, "bias") if name else None
    recipe = options.recipe
    if bias is None and (recipe.bias_correction or recipe.rounding != "nearest"):
        bias = np.zeros(weights.shape[0], dtype=np.float32)
    bits = plan.weight_bits[node.name]
    try:
        ranges = weight_ranges(weights, bits, recipe.weight_observer)
    except QuantizationError as error:
        raise QuantizationError(f"{node.name}: {error}") from error
    names = (_own_name(node.inputs[WEIGHTS], node, result), _own_name(name, node, result) if name else "")
    if bias is not None and not name:
        names = (names[0], result.fresh_name(f"{node.name}.bias"))
    x, y = result.quant(node.inputs[X]), result.quant(node.outputs[0])
    for tensor in quantize_layer(weights, bias, bits, ranges, x, y, names):
        if tensor is not None:
            result.add_tensor(tensor)
    inputs = (node.inputs[X], names[0], *((names[1],) if bias is not None else ()))
    return node.with_(inputs=inputs)


def _quantize_constants(node: Node, graph: Graph, result: Graph) -> Node:
    """Quantizes the constant operand of add, sub or mul: per tensor, 8 bits, its own range."""
    if not isinstance(get(node.op), Elementwise):
        return node
    inputs = list(node.inputs)
    for index, name in enumerate(inputs):
        value = graph.constant(name)
        if value is None:
            continue
        if not np.isfinite(value).all():
            raise QuantizationError(f"{node.name}: the constant {name!r} holds NaN or infinite values.")
        inputs[index] = _own_name(name, node, result)
        quant = qparams.activation_params(float(value.min()), float(value.max()), 8)
        result.add_tensor(Tensor.constant(inputs[index], quantize_array(value, quant), quant))
    return node.with_(inputs=tuple(inputs))


def _constant(node: Node, graph: Graph, index: int, what: str) -> Array:
    value = graph.constant(node.inputs[index])
    if value is None:
        raise QuantizationError(f"{node.name}: its {what} must be constant to be quantized.")
    return value


def _own_name(name: str, node: Node, result: Graph) -> str:
    """The constant's name, or a new one where other nodes read the constant too (they may quantize it otherwise)."""
    users = sum(other.inputs.count(name) for other in result.nodes)
    return name if users <= 1 else result.fresh_name(f"{node.name}.{name}")


def _replace_constant(result: Graph, name: str, target: str, quant: QuantParams) -> None:
    value = result.constant(name)
    if value is not None and value.dtype == np.float32:
        result.add_tensor(Tensor.constant(target, quantize_array(value, quant), quant))


def _statistics(node: Node, graph: Graph, result: Graph) -> dict[str, Any]:
    weights = result.tensor(node.inputs[WEIGHTS])
    x, y = result.quant(node.inputs[X]), result.quant(node.outputs[0])
    quant = result.quant(weights.name)
    original = next(other for other in graph.nodes if other.name == node.name)
    reference = graph.constant(original.inputs[WEIGHTS])
    assert weights.data is not None
    assert reference is not None
    return {
        "name": node.name,
        "op": node.op,
        "weight_bits": quant.bits,
        "input_bits": x.bits,
        "output_bits": y.bits,
        "weight_shape": list(weights.shape),
        "dead_channels": int((~weights.data.reshape(weights.shape[0], -1).any(axis=1)).sum()),
        "weight_sqnr_db": _rounded(sqnr_db(reference, dequantize(weights.data, quant))),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
