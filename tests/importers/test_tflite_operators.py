"""Builtin operators of TFLite files, as converters write them, against LiteRT: float, int8, uint8, old spellings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")

from importers.tflite_models import ModelBuilder, code_differences, float_difference, image, output

import edgeq
from edgeq.errors import ImportModelError, UnsupportedOperatorError
from edgeq.exporters.edgeq_file import encode
from edgeq.importers.from_tflite import load, read
from edgeq.ops.conv import ConvAttrs
from edgeq.passes import channels_last, float_pipeline, lower
from edgeq.simulate import simulate_codes

Shape = tuple[int, ...]


FIRST_VERSIONS = ("DEPTH_TO_SPACE", "ELU", "EXPAND_DIMS", "GELU", "HARD_SWISH", "QUANTIZE", "RELU_N1_TO_1", "RESHAPE",
                  "SPACE_TO_DEPTH", "SQUEEZE")  # fmt: skip
"""Operators whose first version takes 8-bit codes; the others' second does."""


def one(
    op: str,
    shape: Shape,
    out: Shape,
    operands: dict[str, np.ndarray] | None = None,
    kind: str = "float32",
    quant: Any = None,
    quant_out: Any = None,
    first: int = 0,
    **options: Any,
) -> bytes:
    """A model of one operator; `operands` are constants (of the input's kind and quantization where they are int8)."""
    b = ModelBuilder()
    x, y = image(b, *shape, kind=kind, quant=quant), output(b, (1, *out), kind, quant_out or quant)
    names = [b.constant(name, value) for name, value in (operands or {}).items()]
    names.insert(first, x)
    b.op(op, names, [y], 1 if kind == "float32" or op in FIRST_VERSIONS else 2, **options)
    return b.finish()


def i32(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


# name: (operator, input shape, output shape, operands, options, position of x); the batch is left out of the shapes
MOVES: dict[str, tuple[str, Shape, Shape, dict[str, np.ndarray], dict[str, Any], int]] = {
    "reshape": ("RESHAPE", (4, 3, 2), (24,), {"s": i32(-1, 24)}, {}, 0),
    "reshape to an image": ("RESHAPE", (24,), (4, 3, 2), {"s": i32(1, 4, 3, 2)}, {}, 0),
    "reshape by option": ("RESHAPE", (4, 3, 2), (12, 2), {}, {"new_shape": [1, 12, 2]}, 0),
    "squeeze": ("SQUEEZE", (1, 1, 5), (5,), {}, {"squeeze_dims": [1, 2]}, 0),
    "squeeze from behind": ("SQUEEZE", (3, 5, 1), (3, 5), {}, {"squeeze_dims": [-1]}, 0),
    "expand_dims": ("EXPAND_DIMS", (3, 5), (3, 1, 5), {"axis": i32(2)}, {}, 0),
    "pad": ("PAD", (4, 3, 2), (6, 6, 2), {"p": i32([0, 0], [1, 1], [0, 3], [0, 0])}, {}, 0),
    "pad channels": ("PAD", (4, 3, 2), (4, 3, 5), {"p": i32([0, 0], [0, 0], [0, 0], [1, 2])}, {}, 0),
    "transpose": ("TRANSPOSE", (4, 3, 2), (2, 4, 3), {"p": i32(0, 3, 1, 2)}, {}, 0),
    "slice": ("SLICE", (4, 5, 6), (4, 3, 2), {"b": i32(0, 0, 1, 4), "s": i32(-1, 4, 3, -1)}, {}, 0),
    "strided_slice": (
        "STRIDED_SLICE", (6, 5, 4), (3, 4, 4), {"b": i32(0, 1, 0, 0), "e": i32(0, 6, -1, 0), "s": i32(1, 2, 1, 1)},
        {"begin_mask": 8, "end_mask": 9}, 0,
    ),
    "strided_slice dropping an axis": (
        "STRIDED_SLICE", (6, 5, 4), (6, 4), {"b": i32(0, 0, 2, 0), "e": i32(0, 0, 3, 0), "s": i32(1, 1, 1, 1)},
        {"begin_mask": 11, "end_mask": 11, "shrink_axis_mask": 4}, 0,
    ),
    "gather a part": ("GATHER", (6, 5, 4), (3, 5, 4), {"i": i32(1, 3, 5)}, {"axis": 1}, 0),
    "gather one": ("GATHER", (6, 5, 4), (6, 5), {"i": np.array(2, np.int32)}, {"axis": 3}, 0),
    "gather repeated rows": ("GATHER", (3, 5, 4), (6, 5, 4), {"i": i32(0, 0, 1, 1, 2, 2)}, {"axis": 1}, 0),
    "resize nearest": ("RESIZE_NEAREST_NEIGHBOR", (4, 5, 2), (8, 10, 2), {"s": i32(8, 10)}, {}, 0),
    "resize nearest odd": ("RESIZE_NEAREST_NEIGHBOR", (4, 5, 2), (7, 8, 2), {"s": i32(7, 8)}, {}, 0),
    "resize nearest half pixels": (
        "RESIZE_NEAREST_NEIGHBOR", (4, 5, 2), (7, 8, 2), {"s": i32(7, 8)}, {"half_pixel_centers": True}, 0,
    ),
    "resize nearest corners": (
        "RESIZE_NEAREST_NEIGHBOR", (4, 5, 2), (7, 8, 2), {"s": i32(7, 8)}, {"align_corners": True}, 0,
    ),
    "max_pool same": (
        "MAX_POOL_2D", (7, 8, 3), (4, 4, 3), {},
        {"padding": "SAME", "stride_h": 2, "stride_w": 2, "filter_height": 3, "filter_width": 3}, 0,
    ),
    "depth_to_space": ("DEPTH_TO_SPACE", (3, 4, 8), (6, 8, 2), {}, {"block_size": 2}, 0),
    "space_to_depth": ("SPACE_TO_DEPTH", (6, 4, 2), (3, 2, 8), {}, {"block_size": 2}, 0),
}  # fmt: skip

# What needs arithmetic: exact in float, at most a step in codes.
FUNCTIONS: dict[str, tuple[str, Shape, Shape, dict[str, np.ndarray], dict[str, Any], int]] = {
    "average_pool": (
        "AVERAGE_POOL_2D", (6, 6, 3), (3, 3, 3), {},
        {"padding": "VALID", "stride_h": 2, "stride_w": 2, "filter_height": 2, "filter_width": 2}, 0,
    ),
    "average_pool relu6": (
        "AVERAGE_POOL_2D", (6, 6, 3), (4, 4, 3), {},
        {"padding": "VALID", "stride_h": 1, "stride_w": 1, "filter_height": 3, "filter_width": 3,
         "fused_activation_function": "RELU6"}, 0,
    ),
    "average_pool same": (
        "AVERAGE_POOL_2D", (7, 7, 3), (4, 4, 3), {},
        {"padding": "SAME", "stride_h": 2, "stride_w": 2, "filter_height": 3, "filter_width": 3}, 0,
    ),
    "max_pool relu": (
        "MAX_POOL_2D", (6, 6, 3), (3, 3, 3), {},
        {"padding": "VALID", "stride_h": 2, "stride_w": 2, "filter_height": 2, "filter_width": 2,
         "fused_activation_function": "RELU"}, 0,
    ),
    "mean": ("MEAN", (4, 6, 3), (3,), {"a": i32(1, 2)}, {}, 0),
    "mean kept": ("MEAN", (4, 6, 3), (1, 1, 3), {"a": i32(1, 2)}, {"keep_dims": True}, 0),
    "mean of a sequence": ("MEAN", (6, 3), (3,), {"a": i32(1)}, {}, 0),
    "mean of a sequence kept": ("MEAN", (6, 3), (1, 3), {"a": i32(-2)}, {"keep_dims": True}, 0),
    "resize bilinear": ("RESIZE_BILINEAR", (4, 5, 2), (8, 10, 2), {"s": i32(8, 10)}, {"half_pixel_centers": True}, 0),
    "resize bilinear corners": ("RESIZE_BILINEAR", (4, 5, 2), (7, 9, 2), {"s": i32(7, 9)}, {"align_corners": True}, 0),
    "resize bilinear old": ("RESIZE_BILINEAR", (4, 5, 2), (8, 10, 2), {"s": i32(8, 10)}, {}, 0),
    "relu": ("RELU", (4, 5, 2), (4, 5, 2), {}, {}, 0),
    "relu6": ("RELU6", (4, 5, 2), (4, 5, 2), {}, {}, 0),
    "relu_n1_to_1": ("RELU_N1_TO_1", (4, 5, 2), (4, 5, 2), {}, {}, 0),
    "leaky_relu": ("LEAKY_RELU", (4, 5, 2), (4, 5, 2), {}, {"alpha": 0.2}, 0),
    "hard_swish": ("HARD_SWISH", (4, 5, 2), (4, 5, 2), {}, {}, 0),
    "elu": ("ELU", (4, 5, 2), (4, 5, 2), {}, {}, 0),
    "gelu": ("GELU", (4, 5, 2), (4, 5, 2), {}, {"approximate": False}, 0),
    "gelu tanh": ("GELU", (4, 5, 2), (4, 5, 2), {}, {"approximate": True}, 0),
}  # fmt: skip

QUANT = (0.05, 3)
QUANT_UNSIGNED = (0.05, 131)


def model_of(row: tuple[Any, ...], **more: Any) -> bytes:
    op, shape, out, operands, options, first = row
    return one(op, shape, out, operands, first=first, **more, **options)


@pytest.mark.parametrize("name", [*MOVES, *FUNCTIONS])
def test_float(name: str, rng: np.random.Generator) -> None:
    assert float_difference(model_of({**MOVES, **FUNCTIONS}[name]), rng) < 1e-5


@pytest.mark.parametrize("name", MOVES)
def test_movements_copy_codes(name: str, rng: np.random.Generator) -> None:
    for kind, quant in (("int8", QUANT), ("uint8", QUANT_UNSIGNED)):
        if kind == "uint8" and name in ("resize nearest corners",):
            continue  # The built-in kernel's own index differs there for unsigned codes.
        assert code_differences(model_of(MOVES[name], kind=kind, quant=quant), rng).max() == 0


UNSIGNED = [name for name in FUNCTIONS if not name.startswith(("elu", "gelu", "resize bilinear corners"))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_a_step(name: str, rng: np.random.Generator) -> None:
    fixed = {"relu_n1_to_1": (0.05, 3)}
    for kind, quant in (("int8", QUANT), ("uint8", QUANT_UNSIGNED)):
        if kind == "uint8" and name not in UNSIGNED:
            continue
        data = model_of(FUNCTIONS[name], kind=kind, quant=fixed.get(name, quant) if kind == "int8" else quant)
        assert code_differences(data, rng).max() <= 1


@pytest.mark.parametrize("window", [(2, 2), (4, 4), (8, 8), (4, 2)], ids=str)
@pytest.mark.parametrize("kind, zero", [("int8", -128), ("int8", 0), ("int8", 50), ("uint8", 0), ("uint8", 128)])
def test_halves_of_averages_round_as_in_tflite(
    kind: str, zero: int, window: tuple[int, int], rng: np.random.Generator
) -> None:
    size = (16 // window[0], 16 // window[1], 8)
    strides = dict(zip(("stride_h", "stride_w", "filter_height", "filter_width"), window * 2, strict=True))
    data = one("AVERAGE_POOL_2D", (16, 16, 8), size, kind=kind, quant=(0.02, zero), padding="VALID", **strides)
    assert code_differences(data, rng, 8).max() == 0


FIXED = {"LOGISTIC": ((1 / 256, -128), (1 / 256, 0)), "TANH": ((1 / 128, 0), (1 / 128, 128))}


@pytest.mark.parametrize("op", FIXED)
def test_functions_with_a_scale_of_their_own(op: str, rng: np.random.Generator) -> None:
    shape = (4, 4, 8)
    assert float_difference(one(op, shape, shape), rng) < 1e-5
    for kind, quant, out in zip(("int8", "uint8"), (QUANT, QUANT_UNSIGNED), FIXED[op], strict=True):
        data = one(op, shape, shape, kind=kind, quant=quant, quant_out=out)
        assert code_differences(data, rng).max() <= 1


@pytest.mark.parametrize("kind, out", [("int8", (1 / 256, -128)), ("uint8", (1 / 256, 0))])
def test_softmax_at_the_end_gives_real_probabilities(kind: str, out: Any, rng: np.random.Generator) -> None:
    quant = QUANT if kind == "int8" else QUANT_UNSIGNED
    data = one("SOFTMAX", (10,), (10,), kind=kind, quant=quant, quant_out=out, beta=1.0)
    model = read(data)
    assert model.graph.tensor("y").dtype == "float32"
    assert model.graph.tensor("y").quant is None
    assert any("float32" in note for _, note in model.notes)
    assert code_differences(data, rng).max() <= 1


def test_functions_of_float_models(rng: np.random.Generator) -> None:
    shape = (4, 4, 3)
    for op in ("SQUARE", "TANH", "LOGISTIC"):
        assert float_difference(one(op, shape, shape), rng) < 1e-5
    slope = {"alpha": rng.normal(size=(1, 1, 3)).astype(np.float32)}
    assert float_difference(one("PRELU", shape, shape, slope), rng) < 1e-5
    assert float_difference(one("SOFTMAX", (12,), (12,), beta=1.0), rng) < 1e-5
    for op in ("MAXIMUM", "MINIMUM"):
        assert float_difference(one(op, shape, shape, {"c": np.float32(0.3)}), rng) < 1e-6
    for op in ("ADD", "SUB", "MUL", "DIV"):
        operand = {"c": rng.uniform(0.5, 2, (4, 1, 3)).astype(np.float32)}
        assert float_difference(one(op, shape, shape, operand, fused_activation_function="RELU6"), rng) < 1e-5


def binary(op: str, shapes: tuple[Shape, Shape], out: Shape, kind: str, quants: list[Any], **options: Any) -> bytes:
    b = ModelBuilder()
    for name, shape, quant in zip("ab", shapes, quants, strict=False):
        b.inputs.append(b.tensor(name, (1, *shape), kind, quant))
    b.op(op, ["a", "b"], [output(b, (1, *out), kind, quants[2])], 2, **options)
    return b.finish()


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_two_activations(op: str, kind: str, rng: np.random.Generator) -> None:
    zero = 0 if kind == "int8" else 128
    quants = [(0.05, 3 + zero), (0.02, zero - 40), (0.06, zero - 5)]
    data = binary(op, ((4, 5, 6), (4, 5, 6)), (4, 5, 6), kind, quants, fused_activation_function="RELU6")
    assert code_differences(data, rng).max() <= 1
    # Squeeze-and-excite: one value a channel.
    data = binary(op, ((4, 5, 6), (1, 1, 6)), (4, 5, 6), kind, quants)
    assert code_differences(data, rng).max() <= 1


def test_an_activation_of_lower_rank_broadcasts(rng: np.random.Generator) -> None:
    data = binary("ADD", ((4, 5, 6), (6,)), (4, 5, 6), "float32", [None, None, None])
    assert float_difference(data, rng) < 1e-6


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_maximum_of_two_activations(kind: str, rng: np.random.Generator) -> None:
    quants: list[Any] = [None] * 3 if kind == "float32" else [QUANT] * 3
    for shape in ((4, 5, 6), (7,)):
        data = binary("MAXIMUM", (shape, shape), shape, kind, quants)
        if kind == "float32":
            assert float_difference(data, rng) == 0
        else:
            assert code_differences(data, rng).max() == 0


def layer(
    op: str,
    shape: Shape,
    out: Shape,
    weights: np.ndarray,
    rng: np.random.Generator,
    kind: str = "int8",
    zero: int = 0,
    per_channel: int | None = None,
    weight_kind: str = "",
    **options: Any,
) -> bytes:
    """A quantized layer; `zero` is the zero point of its weights."""
    b = ModelBuilder()
    offset = 0 if kind == "int8" else 128
    x = image(b, *shape, kind=kind, quant=(0.05, 7 + offset))
    count = 1 if per_channel is None else weights.shape[per_channel]
    scales = rng.uniform(0.002, 0.006, count).astype(np.float32)
    w = b.constant("w", weights, weight_kind, (scales, np.full(count, zero)), per_channel or 0)
    values = rng.integers(-2000, 2000, out[-1]).astype(np.int32)
    # The scale that the file gives a bias is a rounded product; runtimes do not look at it.
    bias = b.constant("bias", values, "int32", (scales * np.float32(0.0500001), np.zeros(count)))
    version = 7 if weight_kind == "int4" else 3
    b.op(op, [x, w, bias], [output(b, (1, *out), kind, (0.06, offset - 20))], version, **options)
    return b.finish()


def int8(rng: np.random.Generator, *shape: int, low: int = -127) -> np.ndarray:
    return rng.integers(low, 128, shape).astype(np.int8)


STRIDED = {"padding": "SAME", "stride_h": 2, "stride_w": 2, "fused_activation_function": "RELU6"}
PLAIN = {"padding": "VALID", "stride_h": 1, "stride_w": 1}


def test_convolutions_are_exact(rng: np.random.Generator) -> None:
    for per_channel in (0, None):
        data = layer("CONV_2D", (7, 8, 4), (4, 4, 6), int8(rng, 6, 3, 3, 4), rng, per_channel=per_channel, **STRIDED)
        assert code_differences(data, rng).max() == 0
    dilated = {**PLAIN, "dilation_h_factor": 2, "dilation_w_factor": 3}
    data = layer("CONV_2D", (9, 9, 4), (5, 3, 6), int8(rng, 6, 3, 3, 4), rng, per_channel=0, **dilated)
    assert code_differences(data, rng).max() == 0
    data = layer("CONV_2D", (7, 8, 8), (5, 6, 6), int8(rng, 6, 3, 3, 4), rng, per_channel=0, **PLAIN)
    grouped = [node.attrs for node in read(data).graph.nodes if node.op == "conv"]
    assert [attrs.groups for attrs in grouped if isinstance(attrs, ConvAttrs)] == [2]


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions(multiplier: int, rng: np.random.Generator) -> None:
    options = {**STRIDED, "depth_multiplier": multiplier}
    weights = int8(rng, 1, 3, 3, 6 * multiplier)
    for per_channel in (3, None):
        data = layer(
            "DEPTHWISE_CONV_2D", (7, 8, 6), (4, 4, 6 * multiplier), weights, rng, per_channel=per_channel, **options
        )
        assert code_differences(data, rng).max() <= (per_channel is None)


def test_fully_connected(rng: np.random.Generator) -> None:
    weights = int8(rng, 10, 24)
    for per_channel in (0, None):
        assert (
            code_differences(layer("FULLY_CONNECTED", (24,), (10,), weights, rng, per_channel=per_channel), rng).max()
            == 0
        )
    # The old form flattens by itself, the new one keeps the axes before the last.
    assert code_differences(layer("FULLY_CONNECTED", (2, 3, 4), (10,), weights, rng), rng).max() == 0
    data = layer("FULLY_CONNECTED", (5, 24), (5, 10), weights, rng, keep_num_dims=True)
    assert code_differences(data, rng).max() == 0
    assert "linear" in [node.op for node in load(data).nodes]


def test_unsigned_layers_with_weight_zero_points_are_exact(rng: np.random.Generator) -> None:
    """Old models: weights reach 255 steps from their zero point, beyond what int8 holds, and are split."""
    for zero in (128, 100, 255):
        weights = rng.integers(0, 256, (6, 3, 3, 4)).astype(np.uint8)
        data = layer("CONV_2D", (7, 8, 4), (4, 4, 6), weights, rng, "uint8", zero, **STRIDED)
        assert code_differences(data, rng).max() <= 1
        assert (code_differences(data, rng) > 0).mean() < 0.005
        weights = rng.integers(0, 256, (1, 3, 3, 6)).astype(np.uint8)
        data = layer(
            "DEPTHWISE_CONV_2D", (7, 8, 6), (4, 4, 6), weights, rng, "uint8", zero, depth_multiplier=1, **STRIDED
        )
        assert (code_differences(data, rng) > 0).mean() < 0.005
        weights = rng.integers(0, 256, (10, 24)).astype(np.uint8)
        data = layer("FULLY_CONNECTED", (24,), (10,), weights, rng, "uint8", zero)
        assert code_differences(data, rng).max() <= 1
    assert any("split" in note for _, note in read(data).notes)


@pytest.mark.parametrize("depthwise", [False, True])
def test_the_engine_runs_split_weights(depthwise: bool, rng: np.random.Generator) -> None:
    pytest.importorskip("edgeq._native", reason="needs the engine")
    weights = rng.integers(0, 256, (1, 3, 3, 6) if depthwise else (6, 3, 3, 6)).astype(np.uint8)
    op, more = ("DEPTHWISE_CONV_2D", {"depth_multiplier": 1}) if depthwise else ("CONV_2D", {})
    data = layer(op, (7, 8, 6), (4, 4, 6), weights, rng, "uint8", 100, **STRIDED, **more)
    graph = load(data)
    codes = rng.integers(-128, 128, (3, 7, 8, 6)).astype(np.int8)
    session = edgeq.Session(encode(lower(channels_last(graph))))
    np.testing.assert_array_equal(session.run(codes), simulate_codes(graph, codes)[0])


def test_narrow_unsigned_weights_need_no_split(rng: np.random.Generator) -> None:
    weights = rng.integers(3, 250, (6, 1, 1, 4)).astype(np.uint8)
    data = layer("CONV_2D", (4, 4, 4), (4, 4, 6), weights, rng, "uint8", 126, **PLAIN)
    model = read(data)
    assert model.notes == ()
    assert [node.op for node in channels_last(model.graph).nodes] == ["conv"]
    constant = next(t for t in model.graph.tensors.values() if t.dtype == "int8" and t.data is not None)
    np.testing.assert_array_equal(constant.data[:, :, 0, 0], weights[:, 0, 0].astype(int) - 126)  # type: ignore[index]


def test_weights_of_minus_128_are_exact(rng: np.random.Generator) -> None:
    weights = int8(rng, 6, 3, 3, 4, low=-128)
    weights[:, 0, 0, 0] = -128
    data = layer("CONV_2D", (7, 8, 4), (4, 4, 6), weights, rng, per_channel=0, **STRIDED)
    assert code_differences(data, rng).max() == 0


@pytest.mark.parametrize("low", [-7, -8])
def test_weights_of_4_bits(low: int, rng: np.random.Generator) -> None:
    weights = rng.integers(low, 8, (6, 3, 3, 4)).astype(np.int8)
    weights[0, 0, 0, 0] = low
    data = layer("CONV_2D", (7, 8, 4), (4, 4, 6), weights, rng, per_channel=0, weight_kind="int4", **STRIDED)
    # The kernel that widens 4-bit filters rounds otherwise.
    assert code_differences(data, rng).max() <= 1
    quant = next(t.quant for t in load(data).tensors.values() if t.quant is not None and t.quant.axis == 0)
    assert quant.bits == (4 if low == -7 else 8)


def transposed(rng: np.random.Generator, padding: str, size: tuple[int, int], kind: str) -> bytes:
    b = ModelBuilder()
    quant: Any = None if kind == "float32" else QUANT
    x = image(b, 4, 5, 3, kind=kind, quant=quant)
    weights = int8(rng, 6, 3, 3, 3)
    given = weights if quant else weights.astype(np.float32)
    scales = (rng.uniform(0.002, 0.006, 6), np.zeros(6))
    w = b.constant("w", given, kind, scales if quant else None)
    shape = b.constant("shape", i32(1, *size, 6))
    y = output(b, (1, *size, 6), kind, (0.06, -20) if quant else None)
    b.op("TRANSPOSE_CONV", [shape, w, x], [y], 2 if quant else 1, padding=padding, stride_h=2, stride_w=2)
    return b.finish()


@pytest.mark.parametrize(
    "padding, size", [("SAME", (8, 10)), ("SAME", (7, 9)), ("VALID", (9, 11)), ("VALID", (10, 12))]
)
def test_transposed_convolutions(padding: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    assert float_difference(transposed(rng, padding, size, "float32"), rng) < 1e-5
    assert code_differences(transposed(rng, padding, size, "int8"), rng).max() <= 1


def split_model(op: str, kind: str) -> bytes:
    b = ModelBuilder()
    quant: Any = None if kind == "float32" else QUANT
    x = image(b, 4, 4, 6, kind=kind, quant=quant)
    axis = b.constant("axis", np.array(3, np.int32))
    if op == "SPLIT":
        parts = [b.tensor(f"p{i}", (1, 4, 4, 2), kind, quant) for i in range(3)]
        b.op("SPLIT", [axis, x], parts, 2, num_splits=3)
        joined = [parts[2], parts[0]]
        width = 4
    elif op == "SPLIT_V":
        parts = [b.tensor(f"p{i}", (1, 4, 4, size), kind, quant) for i, size in enumerate((1, 2, 3))]
        b.op("SPLIT_V", [x, b.constant("sizes", i32(1, 2, 3)), axis], parts, 2, num_splits=3)
        joined = [parts[2], parts[0]]
        width = 4
    else:
        parts = [b.tensor(f"p{i}", (1, 4, 6), kind, quant) for i in range(4)]
        b.op("UNPACK", [x], parts, 2, num=4, axis=2)
        b.op("PACK", parts[::-1], [output(b, (1, 4, 4, 6), kind, quant)], 2, values_count=4, axis=2)
        return b.finish()
    b.op("CONCATENATION", joined, [output(b, (1, 4, 4, width), kind, quant)], 2, axis=-1)
    return b.finish()


@pytest.mark.parametrize("op", ["SPLIT", "SPLIT_V", "UNPACK"])
def test_parts(op: str, rng: np.random.Generator) -> None:
    assert float_difference(split_model(op, "float32"), rng) == 0
    assert code_differences(split_model(op, "int8"), rng).max() == 0


def test_old_concatenations_join_scales(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    for name, quant in (("a", (0.05, 120)), ("b", (0.02, 140))):
        b.inputs.append(b.tensor(name, (1, 4, 4, 3), "uint8", quant))
    b.op("CONCATENATION", ["a", "b"], [output(b, (1, 4, 4, 6), "uint8", (0.05, 120))], axis=3)
    assert code_differences(b.finish(), rng).max() <= 1


def test_a_change_of_quantization_in_the_middle(rng: np.random.Generator) -> None:
    data = one("QUANTIZE", (4, 4, 3), (4, 4, 3), kind="int8", quant=QUANT, quant_out=(0.09, -30))
    assert code_differences(data, rng).max() <= 1


def ended(kind_in: str, kind_out: str, rng: np.random.Generator) -> bytes:
    """A convolution whose ends are float or uint8 while its codes are int8, as converters write it."""
    b = ModelBuilder()
    outside = (0.05, 131)
    x = image(b, 5, 5, 3, kind=kind_in, quant=outside if kind_in == "uint8" else None)
    inner, raw = b.tensor("xq", (1, 5, 5, 3), "int8", (0.05, 3)), b.tensor("yq", (1, 3, 3, 4), "int8", (0.5, -20))
    y = output(b, (1, 3, 3, 4), kind_out, (0.5, 108) if kind_out == "uint8" else None)
    b.op("QUANTIZE", [x], [inner])
    scales = (np.full(4, 0.01), np.zeros(4))
    w = b.constant("w", int8(rng, 4, 3, 3, 3), "int8", scales)
    bias = b.constant("b", np.zeros(4, np.int32), "int32", scales)
    b.op("CONV_2D", [inner, w, bias], [raw], 3, **PLAIN)
    b.op("QUANTIZE" if kind_out == "uint8" else "DEQUANTIZE", [raw], [y], 2)
    return b.finish()


def test_ends_fold_into_the_graph(rng: np.random.Generator) -> None:
    for ends in (("uint8", "uint8"), ("float32", "float32")):
        graph = load(ended(*ends, rng))
        assert [node.op for node in graph.nodes] == ["transpose", "conv", "transpose"]
        assert graph.inputs == ["x"]
        assert graph.outputs == ["y"]
        assert int(graph.quant("x").zero_point) == 3
        assert int(graph.quant("y").zero_point) == -20
        turned = channels_last(graph)
        assert [node.op for node in turned.nodes] == ["conv"]
        assert turned.plain_ends == {"x", "y"}
    assert code_differences(ended("uint8", "uint8", rng), rng).max() == 0


def test_codes_of_fused_bounds_are_those_of_tflite(rng: np.random.Generator) -> None:
    """6 / 0.16 lies halfway between two codes: TFLite rounds it away from zero, edgeq's clamps to even."""
    b = ModelBuilder()
    x = image(b, 4, 4, 3, kind="int8", quant=(0.16, -100))
    c = b.constant("c", np.full((1, 1, 1, 3), 100, np.int8), "int8", (0.16, -100))
    b.op("ADD", [x, c], [output(b, (1, 4, 4, 3), "int8", (0.16, -100))], 2, fused_activation_function="RELU6")
    assert code_differences(b.finish(), rng).max() == 0


# --- constants and shapes ---


def test_shape_arithmetic_of_a_free_batch(rng: np.random.Generator) -> None:
    """Keras' Reshape where the batch is free: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    b = ModelBuilder()
    x = image(b, 4, 3, 2)
    for name, shape in (("shape", (4,)), ("n", ()), ("target", (3,))):
        b.tensor(name, shape, "int32")
    begin, end, step = (b.constant(name, i32(v)) for name, v in (("begin", 0), ("end", 1), ("step", 1)))
    b.op("SHAPE", [x], ["shape"], out_type=2)
    b.op("STRIDED_SLICE", ["shape", begin, end, step], ["n"], shrink_axis_mask=1)
    b.op("PACK", ["n", b.constant("six", i32(6).reshape(())), b.constant("four", i32(4).reshape(()))], ["target"],
         values_count=3, axis=0)  # fmt: skip
    b.op("RESHAPE", [x, "target"], [output(b, (1, 6, 4))])
    graph = load(b.finish())
    assert graph.tensor("y").shape == (-1, 6, 4)
    assert float_difference(b.finish(), rng) == 0


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_weights_behind_dequantize(kind: str, rng: np.random.Generator) -> None:
    """Models with float16 or int8 weights that are computed in float."""
    b = ModelBuilder()
    x, y = image(b, 6, 6, 3), output(b, (1, 4, 4, 5))
    value = int8(rng, 5, 3, 3, 3) if kind == "int8" else rng.normal(size=(5, 3, 3, 3)).astype(np.float16)
    stored = b.constant("stored", value, kind, (0.01, 0) if kind == "int8" else None)
    w = b.tensor("w", (5, 3, 3, 3))
    b.op("DEQUANTIZE", [stored], [w], 2)
    b.op("CONV_2D", [x, w, b.constant("b", np.zeros(5, np.float32))], [y], **PLAIN)
    model = read(b.finish())
    assert not model.quantized
    assert model.notes == ()
    assert float_difference(b.finish(), rng) < 1e-5


def test_hybrid_layers_become_float_and_say_so(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x, y = image(b, 24), output(b, (1, 5))
    w = b.constant("w", int8(rng, 5, 24), "int8", (0.01, 0))
    b.op("FULLY_CONNECTED", [x, w, ""], [y], 3)
    model = read(b.finish())
    assert not model.quantized
    assert any("while it runs" in note for _, note in model.notes)
    # LiteRT rounds the input to 8 bits at each run.
    assert float_difference(b.finish(), rng) < 0.05


def test_operator_codes_of_old_files() -> None:
    """Files from before 2020 have only the narrow field of operator codes."""
    b = ModelBuilder()
    b.op("RELU", [image(b, 3)], [output(b, (1, 3))])
    b.codes[0].builtinCode = 0
    assert [node.op for node in load(b.finish()).nodes] == ["relu"]


def test_ends_are_as_in_the_file_whatever_reads_them(rng: np.random.Generator) -> None:
    """An image that is reshaped, not convolved, is no less [N, H, W, C]."""
    data = model_of(MOVES["reshape"])
    graph = channels_last(float_pipeline(load(data)))
    assert graph.tensor("x").shape == (-1, 4, 3, 2)
    assert not graph.is_turned("x")


# --- refusals ---


def refused(data: bytes, match: str, kind: type[ImportModelError] = ImportModelError) -> None:
    with pytest.raises(kind, match=match):
        load(data)


def test_unsupported_operators_are_named() -> None:
    refused(one("TOPK_V2", (5,), (5,), {"k": i32(2)}), "TOPK_V2.*Supported are ADD", UnsupportedOperatorError)
    refused(one("custom:Weird", (5,), (5,)), "'y': operator custom operator Weird", UnsupportedOperatorError)


INTERNAL: list[tuple[str, Callable[[], bytes], str]] = [
    ("16-bit activations", lambda: one("RELU", (5,), (5,), kind="int16", quant=(0.1, 0)), "16-bit"),
    ("no scale", lambda: one("RELU", (5,), (5,), kind="int8"), "without a single scale"),
    ("batch of 1 left", lambda: one("RESHAPE", (4, 6), (24,), {"s": i32(4, 6)}), "batch must stay axis 0"),
    ("batch moved", lambda: one("TRANSPOSE", (4, 6), (4, 6), {"p": i32(1, 0, 2)}), "moves the batch"),
    ("wrong shape", lambda: one("RELU", (5,), (6,)), "declares its output as"),
    ("beta", lambda: one("SOFTMAX", (5,), (5,), beta=2.0), "beta 2"),
    ("sign bit", lambda: binary("ADD", ((5,), (5,)), (5,), "float32", [None] * 3,
                                fused_activation_function="SIGN_BIT"), "fused activation"),
    ("odd gather", lambda: one("GATHER", (5,), (3,), {"i": i32(4, 0, 2)}, axis=1), "indices"),
    ("requantizing reshape", lambda: one("RESHAPE", (4, 6), (24,), {"s": i32(1, 24)}, kind="int8", quant=(0.1, 0),
                                         quant_out=(0.2, 0)), "not quantized alike"),
]  # fmt: skip


@pytest.mark.parametrize("name, build, match", INTERNAL, ids=[row[0] for row in INTERNAL])
def test_refusals(name: str, build: Callable[[], bytes], match: str) -> None:
    refused(build(), match)


def test_a_softmax_in_the_middle_is_refused(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x, p = image(b, 6, kind="int8", quant=QUANT), b.tensor("p", (1, 6), "int8", (1 / 256, -128))
    b.op("SOFTMAX", [x], [p], 2, beta=1.0)
    b.op("LOGISTIC", [p], [output(b, (1, 6), "int8", (1 / 256, -128))], 2)
    refused(b.finish(), "softmax only at the end")


def test_a_softmax_that_is_reshaped_or_turned_at_the_end(rng: np.random.Generator) -> None:
    b = ModelBuilder()
    x, p = image(b, 4, 6, kind="int8", quant=QUANT), b.tensor("p", (1, 4, 6), "int8", (1 / 256, -128))
    b.op("SOFTMAX", [x], [p], 2, beta=1.0)
    b.op("RESHAPE", [p, b.constant("s", i32(1, 2, 2, 6))], [output(b, (1, 2, 2, 6), "int8", (1 / 256, -128))])
    assert code_differences(b.finish(), rng).max() <= 1


def test_a_variable_and_a_fixed_batch_are_refused() -> None:
    b = ModelBuilder()
    b.op("RELU", [image(b, 3)], [output(b, (1, 3))])
    b.tensors[0].isVariable = True
    refused(b.finish(), "variable")
    b = ModelBuilder()
    b.inputs.append(b.tensor("x", (4, 3)))
    b.op("RELU", ["x"], [output(b, (4, 3))])
    refused(b.finish(), "batch of 1")
    b = ModelBuilder()
    b.inputs.append(b.tensor("x", (1, 1, 1, 3), signature=(1, -1, -1, 3)))
    b.op("RELU", ["x"], [output(b, (1, 1, 1, 3))])
    refused(b.finish(), "fixed size")
