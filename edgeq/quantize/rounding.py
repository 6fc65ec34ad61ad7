"""Second-order rounding of every layer's weights, and the biases that go with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.ir import Graph, Node, QuantParams, Tensor
from edgeq.ir.tensor import Array
from edgeq.quantize import qparams
from edgeq.quantize.bias_correction import shrunk_mean
from edgeq.quantize.layer_walk import LayerView, LayerWalk
from edgeq.quantize.layers import WEIGHTS, X, bias_name
from edgeq.quantize.second_order import Moments, best_weights, bias_of, round_weights
from edgeq.quantize.weights import bias_tensor, limit_products, per_channel


@dataclass(frozen=True, slots=True)
class SecondOrder:
    """Choices of second-order rounding.

    Attributes:
        target_damping: Pulls the weights that are aimed at towards the float network's: this share of the inputs' mean
            variance is added to their covariance. 0 takes the least squares of the calibration samples as they are.
            MobileNetV2 at w4a8 (160 images, another 900 to judge) has a logit SQNR of about 11.3 dB with 0.03, 11.5
            with 0.1, 11.8 with 0.5, 11.9 with 1 and 11.7 with 3.
        rounding_damping: The same for the metric in which codes are compared.
        bounded: Whether the float network's activations are bounded to what their codes can hold: `LayerWalk` says why.
            With 16 levels ranges clip often and on purpose, and some of it can be made good: EfficientNet-Lite0 at
            w4a4 has a logit SQNR of 5.8 dB with bounds and 6.2 without, MobileNetV2 4.5 and 4.2.
    """

    target_damping: float = 1.0
    rounding_damping: float = 0.01
    bounded: bool = True


@dataclass(frozen=True, slots=True)
class LayerRounding:
    """What rounding did to a layer.

    Attributes:
        bias_steps: The largest change of a bias, in steps of the layer's output.
        proven: Share of its channels with codes that are proven to be the best; None where no search ran.
    """

    bias_steps: float
    proven: float | None


def round_second_order(
    quantized: Graph,
    reference: Graph,
    samples: Mapping[str, Array],
    choices: SecondOrder,
    threads: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Graph, dict[str, LayerRounding]]:
    """Chooses the weights, scales and biases of all layers anew, in execution order.

    Convolutions and linear layers are rounded by `second_order`; a transposed convolution keeps its codes and gets its
    bias corrected.

    Args:
        quantized: Quantized NCHW graph; every layer has a bias.
        reference: The float graph with the same nodes and tensor names.
        samples: float32 inputs by name.
        choices: Damping and bounds.
        threads: Chunks of samples that run at once.
        seed: Chooses the output positions that are looked at.
        progress: Called with (layers done, layers).

    Returns:
        The graph, and what was done by layer.
    """
    walk = LayerWalk(quantized, reference, samples, threads, seed, bounded=choices.bounded)
    done: dict[str, LayerRounding] = {}

    def decide(node: Node, view: LayerView) -> None:
        if not view.has_rows:
            done[node.name] = LayerRounding(_shift_bias(node, view, walk.graph), None)
            return
        moments = view.moments()
        done[node.name] = _round_layer(node, view, walk.graph, moments, choices)

    return walk.run(decide, progress), done


def _round_layer(
    node: Node, view: LayerView, graph: Graph, moments: Moments, choices: SecondOrder
) -> LayerRounding:
    old = graph.tensor(node.inputs[WEIGHTS])
    bits = graph.quant(old.name).bits
    limit = qparams.weight_limit(bits)
    weights = view.weights.reshape(len(view.weights), -1).astype(np.float64)
    # Where there are fewer positions than weights (the last linear layer) they say less than their number suggests.
    scarce = weights.shape[1] / moments.rows
    targets = best_weights(weights, moments, choices.target_damping + scarce)
    rounded = round_weights(targets, moments.covariance, limit, choices.rounding_damping + scarce)
    x, y = graph.quant(node.inputs[X]), graph.quant(node.outputs[0])
    codes, scales = _within_limits(rounded.codes, rounded.scales, targets, bits, x, y)
    bias = bias_of(weights, codes * scales.astype(np.float64)[:, None], moments)
    # A bias that does not fit 30 bits needs a larger scale, which moves the codes, which moves the bias.
    floor = np.abs(bias) / (float(x.scale) * qparams.BIAS_LIMIT) * (1 + 2.0**-20)
    if (scales < floor).any():
        scales = np.maximum(scales, floor).astype(np.float32)
        codes = qparams.quantize_weights(targets, scales, bits)
        bias = bias_of(weights, codes * scales.astype(np.float64)[:, None], moments)
    graph.add_tensor(Tensor.constant(old.name, codes.reshape(old.shape), per_channel(scales, bits)))
    before = _real_bias(node, graph)
    graph.add_tensor(bias_tensor(bias_name(node), bias, x, scales))
    return LayerRounding(float(np.max(np.abs(bias - before), initial=0.0)) / float(y.scale), rounded.proven)


def _within_limits(
    codes: npt.NDArray[np.int8],
    scales: npt.NDArray[np.float64],
    targets: npt.NDArray[np.float64],
    bits: int,
    x: QuantParams,
    y: QuantParams,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Applies the floors of `qparams.weight_scales` and keeps products within 30 bits; rounds anew where it must."""
    limit = qparams.weight_limit(bits)
    live = codes.any(axis=1)
    chosen = qparams.weight_scales(np.where(live, scales * limit, 0.0), bits, float(x.scale), float(y.scale), None)
    codes = codes.copy()
    changed = live & (chosen > scales * (1 + 2.0**-20))
    codes[changed] = qparams.quantize_weights(targets[changed], chosen[changed], bits)
    return limit_products(codes, targets, chosen, bits, x)


def _shift_bias(node: Node, view: LayerView, graph: Graph) -> float:
    """Corrects the bias of a layer that keeps its codes; returns the largest change in steps of its output."""
    x, scales = graph.quant(node.inputs[X]), graph.quant(node.inputs[WEIGHTS]).scale
    before = _real_bias(node, graph)
    shift = shrunk_mean(view.output_error_means())
    graph.add_tensor(bias_tensor(bias_name(node), before + shift, x, scales))
    return float(np.max(np.abs(shift), initial=0.0)) / float(graph.quant(node.outputs[0]).scale)


def _real_bias(node: Node, graph: Graph) -> npt.NDArray[np.float64]:
    bias = graph.tensor(bias_name(node))
    assert bias.data is not None
    found: npt.NDArray[np.float64] = bias.data * graph.quant(bias.name).scale.astype(np.float64)
    return found
