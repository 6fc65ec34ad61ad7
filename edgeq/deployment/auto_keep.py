"""`--keep-8bit auto:N`: the layers that 4-bit weights harm most keep 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from edgeq.deployment.auto_bits import run_integers
from edgeq.ir import Graph
from edgeq.ir.tensor import Array
from edgeq.quantize import sensitivity
from edgeq.quantize.calibrate import float_outputs
from edgeq.quantize.layers import is_layer
from edgeq.quantize.quantize import QuantizedModel


class Quantizer(Protocol):
    """Quantizes one calibrated network."""

    def __call__(self, bits: Mapping[str, int] | None) -> QuantizedModel:
        """With these bits by layer."""
        ...

    def quick(self) -> Graph:
        """All weights to 4 bits, with little effort."""
        ...


def worst_layers(
    graph: Graph,
    quantizer: Quantizer,
    samples: Mapping[str, Array],
    kept: Collection[str],
    count: int,
    progress: Callable[[str, int, int | None], None],
) -> list[str]:
    """Measures every layer alone at 4 bits, as `--bits auto` does, and names those with the largest effect.

    Args:
        graph: The float network.
        quantizer: Quantizes it.
        samples: Calibration samples by name.
        kept: Layers that keep 8 bits anyway.
        count: How many others to name, at least 1.
        progress: Called with the stage, what is done of it, and how much there is.

    Returns:
        At most `count` names, the worst first.
    """
    layers = [node.name for node in graph.nodes if is_layer(node)]
    found = sensitivity.measure(
        quantizer(dict.fromkeys(layers, 8)).graph,
        quantizer.quick(),
        samples,
        float_outputs(graph, samples),
        run_integers,
        lambda done, number: progress("measuring layers", done, number),
    )
    others = [one for one in found if one.layer not in kept]
    return [one.layer for one in sorted(others, key=lambda one: -one.value)[:count]]
