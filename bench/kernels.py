"""Times single layers (`bench.layers`) on the native engine, beside the machine's peak."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# The builder of random quantized graphs is the conformance tests'; pytest finds their folder.
from quantized_graphs import QuantizedBuilder

from bench import machine
from bench.layers import Layer, seed
from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.ops.base import Window
from edgeq.passes import channels_last, lower
from edgeq.session import native_module
from edgeq.simulate import simulate_codes

_MEMORY = 1 << 30
_PROFILED = 512
"""Runs over which a session keeps a layer's times."""


def build(layer: Layer, scheme: str) -> Graph:
    """Returns a quantized NCHW graph of the layer, and of what is fused behind it, with random weights and scales.

    Raises:
        ValueError: If the operator is not one of `bench.layers`.
    """
    b = QuantizedBuilder(np.random.default_rng(seed(layer)), scheme)
    image = (layer.height, layer.width)
    rank_2 = layer.op == "linear" or (layer.op == "table" and image == (1, 1))
    x = b.input(layer.channels) if rank_2 else b.input(layer.channels, *image)
    window = (layer.kernel, layer.stride, layer.pad)
    if layer.op == "conv":
        y = b.conv(x, layer.out, *window, groups=layer.groups, clamp=layer.after == "-")
    elif layer.op == "linear":
        y = b.linear(x, layer.out)
    elif layer.op == "add":
        y = b.binary("add", x, b.input(layer.channels, *image))
    elif layer.op == "mul":
        y = b.binary("mul", x, b.input(layer.channels, 1, 1))
    elif layer.op == "mean":
        y = b.mean(x)
    elif layer.op == "max_pool":
        y = b.max_pool(x, *window)
    elif layer.op == "avg_pool":
        y = b.avg_pool(x, Window(*window))
    elif layer.op == "table":
        y = b.unary("hard_swish", x)
    else:
        raise ValueError(f"no bench builds a layer of the operator {layer.op!r}")
    if layer.after == "table":
        y = b.unary("hard_swish", y)
    elif layer.after == "residual":
        y = b.binary("add", y, b.input(*b.shape(y)[1:]))
    return b.finish(y)


@functools.lru_cache(maxsize=4)
def _prepared(layer: Layer, scheme: str) -> tuple[bytes, list[npt.NDArray[np.int8]], npt.NDArray[Any]]:
    """A layer's .edgeq file, its inputs, and what the numpy statements make of them."""
    graph = build(layer, scheme)
    rng = np.random.default_rng(seed(layer) + 1)
    inputs = []
    for name in graph.inputs:
        quant = graph.quant(name)
        shape = (1, *graph.tensor(name).shape[1:])
        inputs.append(rng.integers(quant.qmin, quant.qmax + 1, shape).astype(np.int8))
    return encode(lower(channels_last(graph))), inputs, simulate_codes(graph, inputs)[0]


def measure(
    layer: Layer, networks: Sequence[str], scheme: str, cap: str | None, rounds: int, seconds: float
) -> dict[str, Any]:
    """Times a layer, its data in the caches; raises AssertionError when its output is not that of the statements.

    Args:
        layer: What.
        networks: Which have it, for the result.
        scheme: Bits of weights and activations.
        cap: Highest instruction set, or None.
        rounds: How often.
        seconds: How long a round is at least; its figure is the median over its last runs.

    Returns:
        JSON values: layer, title, kind, networks, scheme, cap, kernel, isa, macs, rounds_us, median_us, and gmac_s and
        share (of the peak) with weights, or gelement_s without.
    """
    data, inputs, expected = _prepared(layer, scheme)
    session = native_module().Session(
        data, threads=1, max_isa=cap or "", max_memory_bytes=_MEMORY, profile=True, keep_all=False
    )
    (found,) = session.run(inputs, codes=True)
    assert np.array_equal(found, expected), f"{layer.title} at {scheme} under {cap}: other than the numpy statements"
    rounds_us = [_round(session, inputs, seconds) for _ in range(rounds)]
    main = max(session.layers(), key=lambda entry: (entry["macs"], entry["median_ns"]))
    median_us = float(np.median(rounds_us))
    result: dict[str, Any] = {
        "layer": str(layer),
        "title": layer.title,
        "kind": layer.kind,
        "networks": list(networks),
        "scheme": scheme,
        "cap": cap,
        "kernel": main["kernel"],
        "isa": main["isa"],
        "macs": layer.macs,
        "rounds_us": rounds_us,
        "median_us": median_us,
    }
    if layer.macs:
        rate = layer.macs / median_us / 1e3
        return {**result, "gmac_s": rate, "share": rate / machine.peak_gmac(cap)}
    return {**result, "gelement_s": layer.elements / median_us / 1e3}


def _round(session: Any, inputs: list[npt.NDArray[np.int8]], seconds: float) -> float:
    session.set_profile(True)
    end = time.perf_counter() + seconds
    for _ in range(_PROFILED):
        session.run(inputs, codes=True)
        if time.perf_counter() > end:
            break
    return float(sum(entry["median_ns"] for entry in session.layers())) / 1e3
