from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from quantized_graphs import CASES, Case, QuantizedBuilder, build, random_codes
from small_graphs import inverted_residual

from edgeq.errors import GraphError
from edgeq.exporters.onnx_qdq import QdqOptions, runtime_notes, to_qdq_onnx
from edgeq.ir import Graph, Node, QuantParams, Tensor
from edgeq.ops.base import NO_CLAMP, Window, dequantize, quantize
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.resize import ResizeAttrs, ResizeMode
from edgeq.passes import channels_last, lower
from edgeq.simulate import simulate_codes

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

EXACT = frozenset(
    {"avg_pool", "channel_shuffle", "concat", "conv", "linear", "max_pool", "mean", "pad", "reshape", "slice"}
) | {"transpose"}
"""Where ONNX Runtime gives the oracle's codes: products and sums of integers, and codes that are copied."""

BILINEAR_SHARE, PADDED_AVERAGE_SHARE, RARE_SHARE = 0.2, 0.3, 0.002
"""Largest share of codes that are one step off: bilinear weights are rounded to 11 bits here and are floats there; the
means of padded windows are float sums there, which decide ties by their last bit; all else is off where a float sum or
function lies next to a tie."""

QDQ = {"QuantizeLinear", "DequantizeLinear"}
INTEGER = {
    "Clip", "Concat", "Flatten", "Gather", "MaxPool", "NhwcMaxPool", "QGemm", "QLinearAdd", "QLinearAveragePool",
    "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid",
    "Reshape", "Resize", "Slice", "Split", "Transpose",
}  # fmt: skip
"""What a graph without notes may hold once ONNX Runtime has optimized it, besides its ends."""

ids = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def session(model: onnx.ModelProto, folder: Path) -> tuple[onnxruntime.InferenceSession, Counter[str]]:
    """Loads a model and tells which operators are left once it is optimized."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    loaded = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(folder / "optimized.onnx")
    return loaded, Counter(node.op_type for node in optimized.graph.node)


def check(graph: Graph, options: QdqOptions, folder: Path, seed: int = 0, batch: int = 8) -> tuple[list, Counter[str]]:
    """Runs the exported model; returns (codes wanted, codes found) or floats for each output, and the operators."""
    model = to_qdq_onnx(graph, options)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    loaded, operators = session(model, folder)
    assert [info.name for info in loaded.get_inputs()] == graph.inputs
    assert [info.name for info in loaded.get_outputs()] == graph.outputs
    codes = random_codes(graph, batch, seed)
    real = options.io == "float"
    feeds = {
        name: dequantize(value, graph.quant(name)) if real else value
        for name, value in zip(graph.inputs, codes, strict=True)
    }
    pairs = []
    for name, wanted, found in zip(graph.outputs, simulate_codes(graph, codes), loaded.run(None, feeds), strict=True):
        quant = graph.tensor(name).quant
        if quant is not None and real:
            np.testing.assert_array_equal(dequantize(quantize(found, quant), quant), found)
            found = quantize(found, quant)
        assert found.dtype == wanted.dtype
        pairs.append((wanted, found))
    return pairs, operators


def allowed_share(case: Case, graph: Graph) -> float:
    ops = {node.op for node in graph.nodes}
    if any(isinstance(node.attrs, ResizeAttrs) and node.attrs.mode is ResizeMode.BILINEAR for node in graph.nodes):
        return BILINEAR_SHARE
    if case.name == "avg_pool 3x3 padded":
        return PADDED_AVERAGE_SHARE
    in_float = any(tensor.quant is not None and tensor.quant.bits == 4 for tensor in graph.activations())
    return 0.0 if ops <= EXACT | {"resize", "lut"} and not in_float else RARE_SHARE


def assert_agrees(pairs: list, share: float) -> None:
    for wanted, found in pairs:
        if wanted.dtype == np.float32:
            np.testing.assert_allclose(found, wanted, atol=1e-6)
            continue
        steps = np.abs(wanted.astype(np.int16) - found)
        assert steps.max() <= (1 if share else 0)
        assert np.count_nonzero(steps) <= max(share * steps.size, 1 if share else 0)


@ids
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4"])
def test_onnxruntime_agrees(case: Case, scheme: str, tmp_path: Path) -> None:
    for seed in range(2):
        graph = build(case, scheme, seed)
        pairs, operators = check(graph, QdqOptions(), tmp_path, seed)
        assert_agrees(pairs, allowed_share(case, graph))
        if not runtime_notes(graph):
            assert set(operators) - QDQ <= INTEGER
            if scheme != "w4a4":  # 4-bit codes are widened and narrowed on the way.
                assert operators["QuantizeLinear"] <= len(graph.inputs)
                assert operators["DequantizeLinear"] <= len(graph.outputs)


@pytest.mark.parametrize(
    "options",
    [QdqOptions("int8"), QdqOptions("uint8", "int8"), QdqOptions("int8", "int8"), QdqOptions(packed_int4=False)],
    ids=["int8", "integer ends", "int8, integer ends", "int8 storage"],
)
@ids
def test_other_forms_agree(case: Case, options: QdqOptions, tmp_path: Path) -> None:
    for scheme in ("w8a8", "w4a4") if options.packed_int4 else ("w4a8",):
        graph = build(case, scheme, 5)
        pairs, _ = check(graph, options, tmp_path, 5, 3)
        share = allowed_share(case, graph)
        if options.activations == "int8":  # Computed in float where ONNX Runtime cannot make them unsigned.
            averages = any(node.op == "avg_pool" for node in graph.nodes)
            share = max(share, PADDED_AVERAGE_SHARE if averages else RARE_SHARE)
        assert_agrees(pairs, share)


@ids
def test_tables_agree_to_the_bit(case: Case, tmp_path: Path) -> None:
    graph = build(case, "w8a8", 3)
    if not any(node.op in ("sub", "add", "mul", "conv_transpose") for node in graph.nodes):
        pairs, _ = check(lower(graph), QdqOptions(), tmp_path, 3, 4)
        assert_agrees(pairs, allowed_share(case, lower(graph)))


def one(name: str, scheme: str = "w8a8", seed: int = 1) -> Graph:
    return build(next(case for case in CASES if case.name == name), scheme, seed)


@pytest.mark.parametrize(
    "name, operator",
    [
        ("conv 3x3 3to16", "QLinearConv"),
        ("conv clamp", "QLinearConv"),
        ("conv depthwise 32 5x5 stride 1", "QLinearConv"),
        ("conv per tensor", "QLinearConv"),
        ("linear 64to100", "QGemm"),
        ("linear rank 3", "MatMulIntegerToFloat"),
        ("add images", "QLinearAdd"),
        ("add constant a channel", "QLinearAdd"),
        ("mul a value a channel", "QLinearMul"),
        ("concat channels", "QLinearConcat"),
        ("avg_pool 2x2", "QLinearConv"),
        ("avg_pool 3x3 padded", "QLinearAveragePool"),
        ("mean", "QLinearGlobalAveragePool"),
        ("sigmoid", "QLinearSigmoid"),
        ("leaky_relu", "QLinearLeakyRelu"),
    ],
)
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_integer_operators(name: str, operator: str, scheme: str, tmp_path: Path) -> None:
    """Packed 4-bit weights too are computed in integers."""
    _, operators = check(one(name, scheme), QdqOptions(), tmp_path)
    assert operators[operator] == 1
    assert not {"Conv", "Gemm", "MatMul", "Add", "Mul", "Concat"} - {"Add"} & set(operators)


@pytest.mark.parametrize(
    "name, scheme, nodes",
    [
        ("block inverted residual", "w4a4", 4),
        ("conv_transpose 2x2", "w8a8", 1),
        ("sub rows", "w8a8", 1),
        ("gelu", "w8a8", 1),
        ("resize bilinear half_pixel", "w8a8", 1),
        ("resize nearest half_pixel floor", "w8a8", 0),
        ("block squeeze and excite", "w8a8", 2),
        ("conv 3x3 stride 2", "w8a8", 1),
    ],
)
def test_notes_name_what_is_computed_in_float(name: str, scheme: str, nodes: int) -> None:
    graph = one(name, scheme)
    notes = runtime_notes(graph)
    assert len({node for note in notes for node in note.nodes}) == nodes
    assert all(note.text for note in notes)
    assert {node for note in notes for node in note.nodes} <= {node.name for node in graph.nodes}


def test_notes_on_signed_activations() -> None:
    (note,) = runtime_notes(one("conv 3x3 3to16"), QdqOptions("int8"))
    assert "ARM" in note.text


def clamped(scale: float, zero: int, clamp: tuple[float, float]) -> Graph:
    b = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    inputs, _ = b.weights(b.input(4, 6, 6), (8, 4, 1, 1), 4, True, True)
    b.graph.add_tensor(Tensor("y", (-1, 8, 6, 6), "int8", QuantParams.per_tensor(scale, zero)))
    b.graph.nodes.append(Node("conv", "conv", tuple(inputs), ("y",), ConvAttrs(Window((1, 1)), 1, clamp)))
    return b.finish("y")


@pytest.mark.parametrize(
    "scale, zero, clamp, fused",
    [
        (0.02, -128, (0.0, np.inf), True),
        (6 / 255, -128, (0.0, 6.0), True),
        (6.001 / 255, -128, (0.0, 6.0), True),
        (5.0 / 255, -128, (0.0, 6.0), True),
        (6.1 / 255, -128, (0.0, 6.0), False),
        (0.02, -127, (0.0, np.inf), False),
        (0.02, 0, (0.0, 6.0), False),
        (11.9 / 255, 0, (-6.0, 6.0), True),
        (12 / 255, 0, (-6.0, 6.0), False),
    ],
)
def test_clamps_vanish_where_saturation_does_them(
    scale: float, zero: int, clamp: tuple[float, float], fused: bool, tmp_path: Path
) -> None:
    graph = clamped(scale, zero, clamp)
    pairs, operators = check(graph, QdqOptions(), tmp_path)
    assert_agrees(pairs, 0.0)
    assert operators["QLinearConv"] == 1
    assert (operators["Clip"] + operators["Relu"] == 0) == fused
    assert bool(runtime_notes(graph)) != fused


@pytest.mark.parametrize("name", ["conv 3x3 3to16", "conv depthwise 32 5x5 stride 1"])
def test_eight_bit_weights_between_four_bit_activations(name: str, tmp_path: Path) -> None:
    graph = one(name, "w4a4")
    weights = graph.tensor(graph.nodes[0].inputs[1])
    assert weights.quant is not None
    wide = QuantParams(weights.quant.scale, weights.quant.zero_point, 8, weights.quant.axis)
    graph.add_tensor(weights.with_(quant=wide))
    pairs, _ = check(graph, QdqOptions(), tmp_path)
    assert_agrees(pairs, RARE_SHARE)


# --- the file ---


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def test_bias_scales_are_products() -> None:
    graph = one("conv 3x3 3to16")
    stored = initializers(to_qdq_onnx(graph))
    x, w, b = graph.nodes[0].inputs
    product = np.float32(graph.quant(x).scale) * graph.quant(w).scale
    model = to_qdq_onnx(graph)
    (dequantize_bias,) = (node for node in model.graph.node if node.output[0] == b)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored[dequantize_bias.input[1]]), product)
    assert stored[dequantize_bias.input[0]].data_type == onnx.TensorProto.INT32


def test_types_and_zero_points() -> None:
    graph = one("conv 3x3 3to16")
    quant = graph.quant(graph.inputs[0])
    for options, kind, offset in (
        (QdqOptions(), onnx.TensorProto.UINT8, 128),
        (QdqOptions("int8"), onnx.TensorProto.INT8, 0),
    ):
        model = to_qdq_onnx(graph, options)
        first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
        zero = initializers(model)[first.input[2]]
        assert zero.data_type == kind
        assert onnx.numpy_helper.to_array(zero) == int(quant.zero_point) + offset


def test_four_bit_weights_are_packed() -> None:
    graph = one("conv large", "w4a8")
    weights = graph.tensor(graph.nodes[0].inputs[1])
    size = int(np.prod(weights.shape))
    packed, plain = to_qdq_onnx(graph), to_qdq_onnx(graph, QdqOptions(packed_int4=False))
    (stored,) = (t for t in packed.graph.initializer if t.data_type == onnx.TensorProto.INT4)
    assert len(stored.raw_data) == -(-size // 2)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored).astype(np.int8), weights.data)
    assert all(t.data_type != onnx.TensorProto.INT4 for t in plain.graph.initializer)
    assert len(plain.SerializeToString()) - len(packed.SerializeToString()) > 0.45 * size


@pytest.mark.parametrize(
    "name, scheme, packed, opset",
    [
        ("conv 3x3 3to16", "w8a8", True, 17),
        ("gelu", "w8a8", True, 20),
        ("conv 3x3 3to16", "w4a8", True, 21),
        ("conv 3x3 3to16", "w4a8", False, 17),
        ("relu", "w4a4", True, 21),
    ],
)
def test_the_lowest_opset_that_serves(name: str, scheme: str, packed: bool, opset: int) -> None:
    model = to_qdq_onnx(one(name, scheme), QdqOptions(packed_int4=packed))
    assert [entry.version for entry in model.opset_import] == [opset]


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4"])
def test_the_same_bytes_twice(scheme: str) -> None:
    first, second = (
        to_qdq_onnx(one("block shuffle unit", scheme), metadata={"b": "1", "a": "2"}).SerializeToString()
        for _ in range(2)
    )
    assert first == second
    model = onnx.load_model_from_string(first)
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("b", "1"), ("a", "2")]


def test_float_and_channels_last_graphs_are_refused() -> None:
    with pytest.raises(GraphError, match="quantized and NCHW"):
        to_qdq_onnx(inverted_residual())
    with pytest.raises(GraphError, match="quantized and NCHW"):
        to_qdq_onnx(channels_last(one("conv 3x3 3to16")))


def test_no_clamp_stands_where_there_is_none() -> None:
    assert one("conv 3x3 3to16").nodes[0].attrs.clamp == NO_CLAMP  # type: ignore[attr-defined]
    model = to_qdq_onnx(one("conv 3x3 3to16"))
    assert not {"Clip", "Relu"} & {node.op_type for node in model.graph.node}
