"""Empirical bias correction: shifts each bias so that a layer's mean output is the float network's again.

Nagel et al. 2019 (arXiv 1906.04721, section 4.2) and 2021 (arXiv 2106.08295, section 3.4). Rounding weights shifts a
channel's mean output whenever its inputs do not average to zero, which after a ReLU they never do. Few taps average
the errors little, so depthwise layers and 4-bit weights gain most; at 8 bits the shift is small and the correction
changes little. Layers are corrected in execution order, each with the inputs that the corrected integer network gives
it, so that what earlier layers got wrong in the mean is made good too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import quantize
from edgeq.quantize.calibrate import FloatSession, activation_elements, slice_feeds
from edgeq.quantize.layers import BIAS, acc_channel_axis, finish, is_layer, layer_operator
from edgeq.quantize.qparams import BIAS_LIMIT
from edgeq.simulate.executor import operands_of

ACCUMULATOR_ELEMENTS = 1 << 26
"""Fewer samples are used where one layer's accumulators (int32) would be more than this."""

TOTAL_ELEMENTS = 1 << 27
"""Fewer samples are used where all activations together would be more than this: about 20 images for MobileNetV2 at
224 x 224. It bounds the time. The differences of paired samples vary little: EfficientNet-Lite0 at w4a8 has 82.5, 80.8
and 80.0 % top-1 on 120 images with 8, 32 and 64 samples, which is within the noise of so few images."""

Means = npt.NDArray[np.float64]


def correct_biases(
    quantized: Graph,
    reference: Graph,
    samples: Mapping[str, Array],
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Graph, dict[str, float]]:
    """Adds E[float pre-activation - quantized pre-activation] of each output channel to the int32 biases.

    The expectation runs over samples and positions. Every layer must have a bias tensor.

    Args:
        quantized: The quantized graph, NCHW.
        reference: The float graph with the same nodes and tensor names.
        samples: float32 inputs by name.
        threads: Parts of the batch that run at once.
        progress: Called with (layers done, layers).

    Returns:
        The graph with corrected biases, and by layer the largest correction of a channel in steps of its output.
    """
    count = _sample_count(quantized, samples)
    feeds = slice_feeds(quantized, samples, 0, count)
    layers = [node for node in quantized.nodes if is_layer(node)]
    means = _float_means(reference, layers, feeds, threads)
    result = quantized.copy()
    shifts: dict[str, float] = {}
    parts = [slice_feeds(quantized, feeds, begin, begin + 1) for begin in range(count)]
    values = [{name: quantize(value, quantized.quant(name)) for name, value in part.items()} for part in parts]
    last_use = {name: index for index, node in enumerate(result.nodes) for name in (*node.outputs, *node.inputs)}
    with ThreadPoolExecutor(threads) as pool:
        for index, node in enumerate(result.nodes):
            if is_layer(node):
                outputs = _correct_layer(node, result, values, means[node.outputs[0]], pool, shifts)
                if progress is not None:
                    progress(len(shifts), len(layers))
            else:
                outputs = list(pool.map(lambda part: _run(node, result, part), values))  # noqa: B023
            finished = [name for name in {*node.inputs, *node.outputs} if last_use.get(name) == index]
            for part, found in zip(values, outputs, strict=True):
                part.update(zip(node.outputs, found, strict=True))
                for name in finished:
                    part.pop(name, None)
    return result, shifts


def _correct_layer(
    node: Node,
    graph: Graph,
    values: list[dict[str, Array]],
    wanted: Means,
    pool: ThreadPoolExecutor,
    shifts: dict[str, float],
) -> list[list[Array]]:
    operator = layer_operator(node)
    accumulators = list(
        pool.map(
            lambda part: operator.accumulate(node, operands_of(node, graph, part), graph).astype(np.int32),
            values,
        )
    )
    axis = acc_channel_axis(node, accumulators[0].ndim)
    shape = [-1 if i == axis else 1 for i in range(accumulators[0].ndim)]
    others = tuple(i for i in range(accumulators[0].ndim) if i != axis)
    found = np.stack(list(pool.map(lambda acc: acc.mean(axis=others, dtype=np.float64), accumulators)))
    bias = graph.tensor(node.inputs[BIAS])
    scale = graph.quant(bias.name).scale.astype(np.float64)
    assert bias.data is not None
    old = bias.data.astype(np.int64)
    shift = np.rint(shrunk_mean(wanted / scale - found)).astype(np.int64)
    new = np.clip(old + shift, 1 - BIAS_LIMIT, BIAS_LIMIT - 1)
    shift = new - old
    graph.add_tensor(bias.with_(data=new.astype(np.int32)))
    shifts[node.name] = float(np.max(np.abs(shift) * scale) / float(graph.quant(node.outputs[0]).scale))
    moved = shift.astype(np.int32).reshape(shape)
    return list(pool.map(lambda acc: [finish(node, acc + moved, graph)], accumulators))


def _run(node: Node, graph: Graph, part: Mapping[str, Array]) -> list[Array]:
    return get(node.op).run_integer(node, operands_of(node, graph, part), graph)


def shrunk_mean(differences: Means) -> Means:
    """The mean d over samples of each channel, less where it may be chance: d * max(0, 1 - (2 e / d)^2).

    e is the standard error of d, so a mean within two standard errors of zero counts for nothing and one far beyond is
    kept. Without it a few samples with clipped outliers shift whole channels: MobileNetV2 at w8a8 (20 samples, 60
    images) has a logit SQNR of 10.9 dB with plain means, 16.4 dB without bias correction and 17.3 dB with this.

    Args:
        differences: Shape (samples, channels).
    """
    mean: Means = differences.mean(axis=0)
    count = len(differences)
    if count < 2:
        return mean
    error = 4 * differences.var(axis=0, ddof=1) / count
    square = mean * mean
    ratio = np.divide(error, square, out=np.ones_like(square), where=square > 0)
    shrunk: Means = mean * np.maximum(0.0, 1 - ratio)
    return shrunk


def _float_means(graph: Graph, layers: list[Node], feeds: Mapping[str, Array], threads: int) -> dict[str, Means]:
    """Means over positions of the layers' outputs before their clamps, by output: shape (samples, channels)."""
    names = [node.outputs[0] for node in layers]
    session = FloatSession(to_float_onnx(graph, names, before_clamps=True), threads)
    means: dict[str, list[Means]] = {name: [] for name in names}
    for begin in range(max(value.shape[0] for value in feeds.values())):
        values = session.run(slice_feeds(graph, feeds, begin, begin + 1))
        for node, value in zip(layers, values, strict=True):
            axis = acc_channel_axis(node, value.ndim)
            others = tuple(i for i in range(value.ndim) if i != axis)
            means[node.outputs[0]].append(value.mean(axis=others, dtype=np.float64))
    return {name: np.stack(found) for name, found in means.items()}


def _sample_count(graph: Graph, samples: Mapping[str, Array]) -> int:
    available = max(value.shape[0] for value in samples.values())
    outputs = [name for node in graph.nodes for name in node.outputs]
    largest = max(activation_elements(graph, [node.outputs[0]]) for node in graph.nodes if is_layer(node))
    room = min(ACCUMULATOR_ELEMENTS // largest, TOTAL_ELEMENTS // activation_elements(graph, outputs))
    return int(max(1, min(available, room)))
