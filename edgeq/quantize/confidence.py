"""Keeps a classifier's confidence: one factor for its scores, so that they are as far apart as the float network's.

Weights of 4 bits, and activations even more, leave scores that lie closer together than the float network's on inputs
that calibration has not seen: the errors of the layers are not all independent of what they disturb, and weights that
are fitted to disturbed inputs take the disturbance for a reason to answer less (attenuation, in statistics). The class
stays, the confidence falls. The factor a that is looked for makes softmax(a z) of the quantized scores z as near as
possible to the probabilities p of the float network on samples that nothing has been fitted to:

    a = argmin mean KL(p || softmax(a z)),

temperature scaling (Guo et al. 2017, arXiv 1706.04599) towards the float network instead of towards labels. It costs
nothing at run time: the scales of the last layer's weights and of its output are multiplied, every code stays.

EfficientNet-Lite0, 160 calibration images, ECE over 900 others (FP32 0.105): w4a8 0.177 without it, w4a4 0.293.
docs/results.md has what it is with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.ir import Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.metrics import log_softmax
from edgeq.ops.base import NO_CLAMP
from edgeq.quantize.layers import WEIGHTS, X, bias_name, is_layer
from edgeq.quantize.sensitivity import is_scores, log_probabilities
from edgeq.quantize.sharing import SharedSet, shared_sets

HELD_OUT = 0.2
"""Share of the samples, the last ones, to which nothing else is fitted when the factor is."""

LOWEST, HIGHEST = 0.25, 4.0
"""Bounds of the factor. A network beyond them is lost for other reasons."""

FEWEST = 8
"""With fewer samples than that there is no factor."""

ERRORS = 2.0
"""A factor within so many standard errors of 1 counts as 1."""

_STEPS = 60
_RELU = (0.0, math.inf)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confidence:
    """A factor and where it comes from.

    Attributes:
        factor: What the scores are multiplied by; 1 where the best one may be chance.
        best: The factor with the least divergence on the samples.
        error: Its standard error.
        samples: How many there were.
    """

    factor: float
    best: float
    error: float
    samples: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Where a classifier's scores arise.

    Attributes:
        layer: The layer that computes them.
        sets: The activations behind it up to the scores; multiplying them all by a factor multiplies the scores.
    """

    layer: Node
    sets: tuple[SharedSet, ...]


def find_scores(graph: Graph) -> Scores | None:
    """Finds the layer behind a network's one output, with nothing between them but copies, averages and a softmax.

    Args:
        graph: Float or quantized, NCHW.

    Returns:
        None where there are several outputs, where something else reads or writes what would be multiplied, or where a
        clamp other than ReLU would take hold elsewhere.
    """
    if len(graph.outputs) != 1:
        return None
    producers = graph.producers()
    [name] = graph.outputs
    node = producers.get(name)
    if node is not None and node.op == "softmax":
        name = node.inputs[0]
    found: list[SharedSet] = []
    sets = {member: shared for shared in shared_sets(graph) for member in shared.members}
    while True:
        shared = sets.get(name)
        if shared is None or shared.constants or shared.fixed is not None:
            return None
        found.append(shared)
        members = {member for one in found for member in one.members}
        writers = [node for node in graph.nodes if set(node.outputs) & set(shared.members)]
        sources = [node for node in writers if not set(node.inputs) & set(shared.members)]
        if len(sources) != 1 or set(shared.members) & set(graph.inputs):
            return None
        readers = [node for node in graph.nodes if set(node.inputs) & members]
        if any(reader.op != "softmax" and not set(reader.outputs) <= members for reader in readers):
            return None
        [source] = sources
        if is_layer(source):
            clamp = getattr(source.attrs, "clamp", NO_CLAMP)
            return Scores(source, tuple(found)) if clamp in (NO_CLAMP, _RELU) else None
        if source.op not in ("mean", "avg_pool"):
            return None
        name = source.inputs[0]


def fit_factor(reference: Sequence[Array], found: Sequence[Array], probabilities: bool) -> Confidence | None:
    """Fits the factor to the outputs of both networks on the same samples.

    The divergence is convex in the factor, so that a bisection on its slope, the mean over samples of E_q[z] - E_p[z],
    finds the minimum. Its standard error is that of the slope divided by the curvature; a factor near 1 is drawn to 1
    by the rule of `bias_correction.shrunk_mean`.

    Args:
        reference: The float network's outputs, the batch first.
        found: The quantized network's.
        probabilities: Whether both end in a softmax.

    Returns:
        None unless there is one output with one row of scores a sample, and at least FEWEST samples.
    """
    if len(found) != 1 or not is_scores(found[0]) or len(found[0]) < FEWEST:
        return None
    p = np.exp(log_probabilities(reference[0], probabilities))
    z = log_probabilities(found[0], probabilities)
    wanted = (p * z).sum(axis=1)

    def at(factor: float) -> tuple[Floats, Floats]:
        """Slope and curvature of each sample's divergence."""
        q = np.exp(log_softmax(factor * z))
        mean = (q * z).sum(axis=1)
        return mean - wanted, (q * z * z).sum(axis=1) - mean * mean

    low, high = LOWEST, HIGHEST
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if at(middle)[0].mean() < 0.0 else (low, middle)
    best = math.sqrt(low * high)
    slopes, curvatures = at(best)
    curvature = float(curvatures.mean())
    error = float(slopes.std(ddof=1)) / math.sqrt(len(slopes)) / curvature if curvature > 0.0 else math.inf
    change = best - 1.0
    kept = 1.0 - (ERRORS * error / change) ** 2 if abs(change) > ERRORS * error else 0.0
    return Confidence(1.0 + change * kept, best, error, len(z))


def multiply_scores(graph: Graph, scores: Scores, factor: float) -> Graph:
    """Returns the quantized graph with its scores multiplied: other scales, the same codes.

    Args:
        graph: Quantized, with the layer that `scores` names, and those of its activations that are left.
        scores: What `find_scores` found.
        factor: Positive.
    """
    result = graph.copy()
    for shared in scores.sets:
        for name in filter(result.tensors.__contains__, shared.members):
            tensor = result.tensor(name)
            quant = result.quant(name)
            scale = (quant.scale * np.float64(factor)).astype(np.float32)
            result.add_tensor(tensor.with_(quant=QuantParams(scale, quant.zero_point, quant.bits, quant.axis)))
    node = next(node for node in result.nodes if node.name == scores.layer.name)
    weights, old = result.tensor(node.inputs[WEIGHTS]), result.quant(node.inputs[WEIGHTS])
    if sum(other.inputs.count(weights.name) for other in result.nodes) > 1:
        return graph
    scale = (old.scale.astype(np.float64) * factor).astype(np.float32)
    result.add_tensor(weights.with_(quant=QuantParams(scale, old.zero_point, old.bits, old.axis)))
    name = bias_name(node)
    if name:
        product = (np.float32(result.quant(node.inputs[X]).scale) * scale).astype(np.float32)
        quant = result.quant(name)
        result.add_tensor(
            result.tensor(name).with_(quant=QuantParams(product, quant.zero_point, quant.bits, quant.axis))
        )
    return result
