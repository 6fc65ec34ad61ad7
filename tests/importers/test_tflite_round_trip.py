"""What edgeq writes as TFLite reads back as the same integers, with the same scales, and writes again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")

from quantized_graphs import CASES, Case, build, random_codes

from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.tflite import to_tflite
from edgeq.importers.from_tflite import load
from edgeq.ir import Graph
from edgeq.ir.tensor import Array
from edgeq.ops.base import Int4Storage
from edgeq.passes import channels_last, lower
from edgeq.simulate import simulate_codes

SCHEMES = ("w8a8", "w4a8")
WEIGHTED = ("conv", "conv_transpose", "linear", "block")


def held(graph: Graph, name: str, value: Array) -> Array:
    """An end as the file has it."""
    return np.ascontiguousarray(np.moveaxis(value, 1, 3)) if graph.is_turned(name) else value


def parameters(graph: Graph) -> list[tuple[bytes, bytes]]:
    """Weights and biases with their scales, in execution order."""
    found = []
    for node in graph.nodes:
        if node.op in ("conv", "conv_transpose", "linear"):
            for name in node.inputs[1:]:
                data = graph.constant(name)
                assert data is not None
                found.append((np.sort(data, axis=None).tobytes(), graph.quant(name).scale.tobytes()))
    return found


def round_trip(case: Case, scheme: str, ends: str, int4: Int4Storage) -> None:
    source = build(case, scheme, seed=3)
    graph = channels_last(source)
    model = to_tflite(graph, ends=ends, int4=int4)  # type: ignore[arg-type]
    imported = load(model.data)
    assert (imported.inputs, imported.outputs) == (graph.inputs, graph.outputs)
    for name in (*graph.inputs, *graph.outputs):
        quant, expected = imported.tensor(name).quant, graph.tensor(name).quant
        assert (quant is None and expected is None) or (quant is not None and quant.same_as(expected))
    codes = random_codes(source, 1 if model.fixed_batch else 3, seed=4)
    feeds = [held(graph, name, value) for name, value in zip(graph.inputs, codes, strict=True)]
    wanted = [held(graph, n, value) for n, value in zip(graph.outputs, simulate_codes(source, codes), strict=True)]
    found = simulate_codes(imported, feeds)
    for a, b in zip(found, wanted, strict=True):
        # SiLU is written as LOGISTIC and MUL, with a rounding between.
        assert np.abs(a.astype(np.float64) - b).max() <= (1 if case.name == "silu" else 0)
    again = channels_last(imported)
    encode(lower(again))
    second = load(to_tflite(again, ends=ends, int4=int4).data)  # type: ignore[arg-type]
    for a, b in zip(simulate_codes(second, feeds), found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert parameters(second) == parameters(imported)


@pytest.mark.parametrize("ends", ["int8", "float"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_round_trip(case: Case, scheme: str, ends: str) -> None:
    round_trip(case, scheme, ends, Int4Storage.FAST)


@pytest.mark.parametrize("int4", [Int4Storage.PACKED, Int4Storage.OLD, Int4Storage.NONE], ids=lambda kind: kind.value)
@pytest.mark.parametrize("case", [c for c in CASES if c.name.split()[0] in WEIGHTED], ids=lambda case: case.name)
def test_round_trip_of_stored_4bit_weights(case: Case, int4: Int4Storage) -> None:
    round_trip(case, "w4a8", "int8", int4)
