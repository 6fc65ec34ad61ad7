"""What the TFLite tests share: the cases of the matrix as files, and how far a runtime may be from the statements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from quantized_graphs import Case, build

from edgeq.exporters.tflite import TfliteModel, to_tflite
from edgeq.ir import BATCH, Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops import get
from edgeq.ops.base import Int4Storage
from edgeq.ops.elu import EluAttrs
from edgeq.ops.hard_sigmoid import HardSigmoidAttrs
from edgeq.passes import channels_last
from edgeq.simulate.executor import execute

TFLITE_SCHEMES = ("w8a8", "w4a8")

ROUNDED = ("avg_pool 3x3 padded", "leaky_relu", "prelu", "silu", "relu", "clip", "add", "sub")
"""How the names of cases begin whose XNNPACK or only kernels round otherwise than the statement on some values."""


@dataclass(frozen=True)
class Agreement:
    """How far a runtime's codes may be from the statements'.

    Attributes:
        most: Largest difference of a code.
        share: Largest share of codes that differ by more than one step.
    """

    most: int
    share: float = 0.0


EXACT, ONE_STEP = Agreement(0), Agreement(1)


def agreement(case: Case, xnnpack: bool, int4: Int4Storage = Int4Storage.FAST) -> Agreement:
    """Returns what holds for a case of the matrix in LiteRT; tflite-runtime is as LiteRT without XNNPACK."""
    operator = case.name.split()[0]
    if operator == "block":
        # A step of an early operator may grow on the way through random weights.
        return Agreement(16, 0.02)
    if not xnnpack:
        # Built-in kernels requantize by integer multipliers with two roundings; bilinear weights have fewer bits.
        return Agreement(2, 0.1) if operator == "resize" else ONE_STEP
    built_in = int4 in (Int4Storage.PACKED, Int4Storage.OLD) and operator in ("conv", "linear")
    return ONE_STEP if case.name.startswith(ROUNDED) or built_in else EXACT


@dataclass(frozen=True)
class Sample:
    """A case as a file with inputs and what the statements make of them, all as the file has them (channels last)."""

    model: TfliteModel
    inputs: list[Array]
    expected: list[Array]


def sample(case: Case, scheme: str, int4: Int4Storage = Int4Storage.FAST, seed: int = 3) -> Sample:
    """Makes the sample of a case with int8 ends."""
    return sample_of(channels_last(build(case, scheme, seed)), int4, seed + 1)


def sample_of(graph: Graph, int4: Int4Storage = Int4Storage.FAST, seed: int = 3) -> Sample:
    """Makes the sample of a channels-last graph with int8 ends."""
    model = to_tflite(graph, ends="int8", int4=int4)
    rng, batch = np.random.default_rng(seed), 1 if model.fixed_batch else 3
    feeds: dict[str, Array] = {}
    for name in graph.inputs:
        codes = rng.integers(-128, 128, (batch, *graph.tensor(name).shape[1:])).astype(np.int8)
        codes.reshape(-1)[:2] = -128, 127
        feeds[name] = codes
    found = execute(graph, feeds, graph.outputs)
    return Sample(model, list(feeds.values()), [_probability_codes(found[name]) for name in graph.outputs])


def _probability_codes(value: Array) -> Array:
    """The codes of a softmax with integer ends: scale 1/256, zero point -128."""
    if value.dtype == np.int8:
        return value
    return np.clip(np.rint(value * 256) - 128, -128, 127).astype(np.int8)


def check(found: list[Array], expected: list[Array], allowed: Agreement) -> None:
    """Asserts that codes agree as allowed."""
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        off = np.abs(got.astype(np.int32) - wanted.astype(np.int32))
        assert off.max(initial=0) <= allowed.most, f"{int(off.max())} steps, {100 * (off > 0).mean():.3f} % differ"
        if allowed.most > 1:
            assert (off > 1).mean() <= allowed.share


def function(op: str, attrs: Attrs, output: QuantParams, quant: QuantParams | None = None) -> Graph:
    """A channels-last graph of one function with the given quantization."""
    shape = (4, 4, 16)
    graph = Graph("function", ["x"], ["y"], layout="nhwc")
    graph.add_tensor(Tensor("x", (BATCH, *shape), "int8", quant or QuantParams.per_tensor(0.05, 7)))
    graph.add_tensor(Tensor("y", (BATCH, *shape), "int8", output))
    graph.nodes = [Node(op, op, ("x",), ("y",), attrs)]
    return graph


BUILTIN_FUNCTIONS = (
    ("sigmoid", Attrs(), QuantParams.per_tensor(1 / 256, -128), {"LOGISTIC": 1}),
    ("sigmoid", Attrs(), QuantParams.per_tensor(1 / 200, -120), {"ADD": 1, "CAST": 1, "GATHER": 1}),
    ("tanh", Attrs(), QuantParams.per_tensor(1 / 128, 0), {"TANH": 1}),
    ("tanh", Attrs(), QuantParams.per_tensor(1 / 100, 3), {"ADD": 1, "CAST": 1, "GATHER": 1}),
    ("hard_sigmoid", HardSigmoidAttrs(), QuantParams.per_tensor(1 / 256, -128), {"ADD": 1, "MUL": 1}),
    ("hard_sigmoid", HardSigmoidAttrs(0.2), QuantParams.per_tensor(1 / 256, -128), {"ADD": 1, "MUL": 1}),
    ("gelu", get("gelu").attrs_type(), QuantParams.per_tensor(0.03, -100), {"GELU": 1}),
    ("elu", EluAttrs(), QuantParams.per_tensor(0.03, -90), {"ELU": 1}),
    ("elu", EluAttrs(), QuantParams.per_tensor(0.1, -90), {"ADD": 1, "CAST": 1, "GATHER": 1}),
    ("elu", EluAttrs(0.5), QuantParams.per_tensor(0.03, -90), {"ADD": 1, "CAST": 1, "GATHER": 1}),
)
"""Functions and output quantizations, and the builtin operators that express them."""
