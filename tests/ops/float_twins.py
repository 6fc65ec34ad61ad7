"""The float graph that a quantized one stands for."""

from __future__ import annotations

import numpy as np

from edgeq.ir import Graph
from edgeq.ops.base import dequantize


def float_twin(graph: Graph) -> Graph:
    """Returns the graph with every quantized constant dequantized and every activation float32."""
    twin = graph.copy()
    for name, tensor in graph.tensors.items():
        if tensor.quant is None:
            continue
        if tensor.data is None:
            twin.tensors[name] = tensor.with_(dtype="float32", quant=None)
        else:
            real = dequantize(tensor.data, tensor.quant)
            twin.tensors[name] = tensor.with_(dtype="float32", quant=None, data=np.ascontiguousarray(real))
    return twin


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """max |a - b| / max |b|."""
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))
