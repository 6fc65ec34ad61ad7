"""What 4-bit weights do to a network, layer by layer: each alone at 4 bits, everything else at 8.

A candidate is the 8-bit network with one layer's weights taken from the 4-bit network, and that layer's bias moved so
that its mean output stays, as bias correction does in the end. Two figures of it are measured: the error of the
layer's own output, and what becomes of the network's outputs, the Kullback-Leibler divergence of the class
probabilities from those of the float network beyond that of the 8-bit network. For small changes of the logits it is
quadratic in them, and errors of different layers are all but uncorrelated, so that the sum over layers predicts what
they do together (Dong et al. 2019, arXiv 1905.03696, and Cai et al. 2020, arXiv 2001.00281, estimate the same second
order by derivatives).

The divergence of one layer is small beside the chance that 8-bit activations bring in: whatever changes early in a
network, later roundings fall otherwise, and in most layers of MobileNetV2 the difference is within twice its standard
error on 200 images. `combine` therefore draws it towards what the layer's own error lets expect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import QuantizationError
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.metrics import log_softmax
from edgeq.ops.base import quantize
from edgeq.quantize import qparams
from edgeq.quantize.bias_correction import shrunk_mean
from edgeq.quantize.calibrate import activation_elements, slice_feeds
from edgeq.quantize.layers import WEIGHTS, X, acc_channel_axis, bias_name, is_layer, layer_operator
from edgeq.simulate.executor import execute
from edgeq.simulate.prediction import LEAST_PROBABILITY

OUTPUT_SAMPLES = 8
"""Samples on which a layer's own output is compared and its bias corrected: positions make up for their number."""

OUTPUT_ELEMENTS = 1 << 27
"""Fewer samples where all activations of the network together would be more than this."""

LOGIT_SAMPLES = 128
"""Samples on which the network's outputs are compared."""

LEAST_ENERGY = 1e-30
"""Keeps a network whose outputs are all zero from dividing by it."""

Floats = npt.NDArray[np.float64]


Run = Callable[[Graph, Mapping[str, Array]], list[Array]]
"""Runs a quantized NCHW graph in integers on float32 inputs by name and returns its float32 outputs. The native engine
and the simulator give the same numbers."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What 4-bit weights in one layer alone do.

    Attributes:
        layer: Name of the layer.
        value: The divergence after `combine`: positive, and what is summed up over layers.
        divergence: Mean over samples of how much further than the 8-bit network's outputs the network's are from the
            float network's; see `divergence`. May be negative by chance.
        error: Its standard error.
        sqnr_db: Of the layer's output before its clamp, against its output with 8-bit weights; inf where both are
            equal.
    """

    layer: str
    value: float
    divergence: float
    error: float
    sqnr_db: float


def measure(
    eight: Graph,
    four: Graph,
    samples: Mapping[str, Array],
    reference: list[Array],
    run: Run,
    progress: Callable[[int, int], None] | None = None,
) -> list[Sensitivity]:
    """Measures the sensitivity of every layer with weights.

    Args:
        eight: The network with 8-bit weights.
        four: The network with 4-bit weights; its activations have the same quantization.
        samples: float32 inputs by name.
        reference: The float network's outputs on them.
        run: Runs the candidates.
        progress: Called with (layers done, layers).

    Returns:
        A figure a layer, in execution order.

    Raises:
        QuantizationError: If the two networks differ in more than their weights.
    """
    layers = [node for node in eight.nodes if is_layer(node)]
    codes = _inputs_of(eight, layers, samples, _output_samples(eight, len(reference[0])))
    probabilities = ends_in_softmax(eight)
    base = divergence(reference, run(eight, samples), probabilities)
    others = {node.name: node for node in four.nodes if is_layer(node)}
    measured: list[tuple[float, float, float]] = []
    for node in layers:
        other = others.get(node.name)
        if other is None or not eight.quant(node.inputs[X]).same_as(four.quant(other.inputs[X])):
            raise QuantizationError(f"{node.name}: the 4-bit and the 8-bit network do not quantize its input alike")
        candidate, sqnr = alone(eight, node, four, other, codes[node.inputs[X]])
        beyond = divergence(reference, run(candidate, samples), probabilities) - base
        error = float(beyond.std(ddof=1)) / math.sqrt(len(beyond)) if len(beyond) > 1 else 0.0
        measured.append((float(beyond.mean()), error, sqnr))
        if progress is not None:
            progress(len(measured), len(layers))
    values = combine(*(np.array(column) for column in zip(*measured, strict=True)))
    return [
        Sensitivity(node.name, float(value), *figures)
        for node, value, figures in zip(layers, values, measured, strict=True)
    ]


def combine(divergences: Floats, errors: Floats, sqnr_db: Floats) -> Floats:
    """Draws each layer's divergence towards what its own output error lets expect, the more the less certain it is.

    The expectation p is the layer's noise-to-signal ratio times the mean factor from that ratio to the divergence. A
    measured difference d from it with the standard error e counts as d * max(0, 1 - (e / d)^2), the positive-part
    rule of James and Stein that `shrunk_mean` uses too; a result is at least p / 20. MobileNetV2 at a size half-way
    between w4a8 and w8a8 has a divergence of 0.035 (900 images) with plans from these values, 0.044 from the measured
    ones alone, and 0.041 from the layers' own errors alone; EfficientNet-Lite0 0.018, 0.018 and 0.065.

    Args:
        divergences: As measured, shape (layers,).
        errors: Their standard errors.
        sqnr_db: Of the layers' outputs.
    """
    noise = np.minimum(1.0, 10.0 ** (-sqnr_db / 10.0))
    total = float(noise.sum())
    expected = noise * (float(np.maximum(divergences, 0.0).sum()) / total if total > 0.0 else 0.0)
    difference = divergences - expected
    ratio = np.divide(errors, difference, out=np.ones_like(errors), where=difference != 0.0)
    kept = 1.0 - np.minimum(1.0, np.abs(ratio)) ** 2
    found: Floats = np.maximum(expected + difference * kept, expected / 20.0)
    return found


def alone(eight: Graph, node: Node, four: Graph, other: Node, codes: Array) -> tuple[Graph, float]:
    """Returns the 8-bit network with one layer's 4-bit weights, and the SQNR of that layer's output in dB.

    Args:
        eight: The 8-bit network.
        node: The layer in it.
        four: The 4-bit network.
        other: The layer in that one.
        codes: What the layer reads in the 8-bit network, NCHW.
    """
    graph = eight.copy()
    weights = four.tensor(other.inputs[WEIGHTS])
    graph.add_tensor(weights.with_(name=node.inputs[WEIGHTS]))
    scale_x = np.float32(eight.quant(node.inputs[X]).scale)
    scale = (scale_x * four.quant(weights.name).scale).astype(np.float32)
    old_scale = (scale_x * eight.quant(node.inputs[WEIGHTS]).scale).astype(np.float32)
    name = bias_name(node)
    if name:
        data = eight.tensor(name).data
        assert data is not None
        quant = eight.quant(name)
        moved = qparams.quantize_bias(data * quant.scale.astype(np.float64), scale.astype(np.float64))
        graph.add_tensor(
            eight.tensor(name).with_(data=moved, quant=type(quant)(scale, quant.zero_point, quant.bits, quant.axis))
        )
    signal, noise, sums, means = 0.0, 0.0, [], []
    positions = 1
    for index in range(len(codes)):
        operands = (codes[index : index + 1], *(eight.constant(operand) for operand in node.inputs[1:]))
        candidates = (operands[0], *(graph.constant(operand) for operand in node.inputs[1:]))
        exact = _real(node, layer_operator(node).accumulate(node, operands, eight), old_scale)
        error = exact - _real(node, layer_operator(node).accumulate(node, candidates, graph), scale)
        signal += float(np.vdot(exact, exact))
        noise += float(np.vdot(error, error))
        positions = error.shape[1]
        sums.append(error.sum(axis=1))
        means.append(error.mean(axis=1))
    if name:
        shift = shrunk_mean(np.stack(means))
        total = np.stack(sums).sum(axis=0)
        noise += float((shift * (len(codes) * positions * shift - 2 * total)).sum())
        bias = graph.tensor(name)
        assert bias.data is not None
        steps = np.rint(shift / scale).astype(np.int64)
        corrected = np.clip(bias.data + steps, 1 - qparams.BIAS_LIMIT, qparams.BIAS_LIMIT - 1)
        graph.add_tensor(bias.with_(data=corrected.astype(np.int32)))
    if noise <= 0.0:
        return graph, math.inf
    return graph, 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _real(node: Node, acc: Array, scale: npt.NDArray[np.float32]) -> Floats:
    """Returns accumulators as reals, shape (channels, positions)."""
    flat = np.moveaxis(acc, acc_channel_axis(node, acc.ndim), 0).reshape(len(scale), -1)
    real: Floats = flat * scale.astype(np.float64)[:, None]
    return real


def divergence(reference: list[Array], found: list[Array], probabilities: bool) -> Floats:
    """How far the outputs of a network are from the reference's, sample by sample.

    For a classifier KL(p || q) in nats, p and q being the class probabilities of reference and network. Where an
    output is not one row of scores a sample, KL has no meaning: there it is the energy of the difference as a share of
    the mean energy of the reference. Several outputs add up.

    Args:
        reference: Outputs of the float network, the batch first.
        found: Outputs of the other one, in the same order.
        probabilities: Whether outputs that are rows of scores are probabilities already.

    Returns:
        Shape (samples,).
    """
    total = np.zeros(len(reference[0]))
    for exact, other in zip(reference, found, strict=True):
        if is_scores(exact):
            log_p, log_q = (log_probabilities(array, probabilities) for array in (exact, other))
            total += (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        else:
            rows = exact.reshape(len(exact), -1).astype(np.float64)
            energy = float((rows**2).sum(axis=1).mean())
            total += ((rows - other.reshape(rows.shape)) ** 2).sum(axis=1) / max(energy, LEAST_ENERGY)
    return total


def is_scores(output: Any) -> bool:
    """Whether an output (an array or a tensor), batch first, is one row of at least two scores a sample."""
    return [size > 1 for size in output.shape[1:]].count(True) == 1


def log_probabilities(array: Array, probabilities: bool) -> Floats:
    """Returns the logarithms of the class probabilities, shape (samples, classes).

    Args:
        array: Rows of scores (`is_scores`), or of probabilities.
        probabilities: Which of the two.
    """
    rows = array.reshape(len(array), -1).astype(np.float64)
    return log_softmax(np.log(np.maximum(rows, LEAST_PROBABILITY)) if probabilities else rows)


def _inputs_of(graph: Graph, layers: list[Node], samples: Mapping[str, Array], count: int) -> dict[str, Array]:
    """Returns the codes that the layers read on the first samples, by name, NCHW."""
    wanted = {node.inputs[X] for node in layers}
    parts = []
    for begin in range(count):
        feeds = slice_feeds(graph, samples, begin, begin + 1)
        parts.append(execute(graph, {name: quantize(x, graph.quant(name)) for name, x in feeds.items()}, wanted))
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}


def ends_in_softmax(graph: Graph) -> bool:
    """Whether the network gives probabilities instead of scores."""
    producers = graph.producers()
    return any(name in producers and producers[name].op == "softmax" for name in graph.outputs)


def _output_samples(graph: Graph, available: int) -> int:
    outputs = [name for node in graph.nodes for name in node.outputs]
    room = OUTPUT_ELEMENTS // max(activation_elements(graph, outputs), 1)
    return max(1, min(available, OUTPUT_SAMPLES, room))
