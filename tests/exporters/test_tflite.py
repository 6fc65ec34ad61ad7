"""The form of exported TFLite files: operators, padding, constants, ends, what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from quantized_graphs import CASES, QuantizedBuilder, build

from edgeq.errors import GraphError, QuantizationError
from edgeq.exporters.tflite import TfliteModel, to_tflite
from edgeq.exporters.tflite.builder import BUFFER_ALIGNMENT, METADATA_NAME, fused_codes
from edgeq.ir import BATCH, Graph, QuantParams
from edgeq.ir.int4 import pack_int4
from edgeq.ops.base import NO_CLAMP, Clamp, Int4Storage, Window
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.elementwise import ElementwiseAttrs
from edgeq.passes import channels_last

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs the extra edgeq[tflite]")


def case(name: str, scheme: str = "w8a8") -> Graph:
    return channels_last(build(next(case for case in CASES if case.name == name), scheme, seed=0))


def parse(model: TfliteModel) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(model.data), 0))


def convolution(
    size: int, kernel: int, stride: int, pads: tuple[int, int, int, int], bits: str = "w8a8", groups: int = 1
) -> Graph:
    builder = QuantizedBuilder(np.random.default_rng(0), bits)
    x = builder.input(4, size, size)
    y = builder.conv(x, 4, (kernel, kernel), (stride, stride), pads, groups=groups)
    return channels_last(builder.finish(y))


@pytest.mark.parametrize("name", ["block inverted residual", "block squeeze and excite", "block shuffle unit"])
def test_same_bytes_twice(name: str) -> None:
    metadata = {"labels": ["b", "a"], "mean": [127.0]}
    first, second = (to_tflite(case(name, "w4a8"), metadata=metadata).data for _ in range(2))
    assert first == second


@pytest.mark.parametrize("candidate", CASES, ids=lambda candidate: candidate.name)
def test_no_layout_transpose(candidate: Any) -> None:
    """Nothing is turned but what the channels-last graph turns itself, channel shuffles and an odd softmax axis."""
    graph = channels_last(build(candidate, "w8a8", seed=0))
    own = sum(node.op in ("transpose", "channel_shuffle") for node in graph.nodes)
    own += 2 * sum(
        node.op == "softmax" and "axis" in str(node.attrs) and _odd_axis(graph, node) for node in graph.nodes
    )
    assert to_tflite(graph).operators.get("TRANSPOSE", 0) == own


def _odd_axis(graph: Graph, node: Any) -> bool:
    return bool(node.attrs.axis != len(graph.tensor(node.inputs[0]).shape) - 1)


@pytest.mark.parametrize(
    "size, kernel, stride, pads, padding, padded",
    [
        (8, 3, 1, (0, 0, 0, 0), "VALID", False),
        (8, 3, 1, (1, 1, 1, 1), "SAME", False),
        (8, 3, 2, (0, 0, 1, 1), "SAME", False),
        (9, 3, 2, (1, 1, 1, 1), "SAME", False),
        (8, 3, 2, (1, 1, 1, 1), "VALID", True),
        (8, 5, 1, (2, 2, 2, 2), "SAME", False),
        (9, 2, 2, (0, 0, 0, 0), "VALID", False),
        (9, 2, 2, (0, 0, 1, 1), "SAME", False),
        (8, 3, 1, (2, 2, 0, 0), "VALID", True),
        (7, 1, 2, (0, 0, 0, 0), "VALID", False),
    ],
)
def test_padding_is_an_operator_only_where_neither_form_of_tflite_fits(
    size: int, kernel: int, stride: int, pads: tuple[int, int, int, int], padding: str, padded: bool
) -> None:
    model = to_tflite(convolution(size, kernel, stride, pads), ends="int8")
    assert model.operators == ({"CONV_2D": 1, "PAD": 1} if padded else {"CONV_2D": 1})
    options = parse(model).subgraphs[0].operators[-1].builtinOptions
    assert options.padding == getattr(schema.Padding, padding)


@pytest.mark.parametrize(
    "clamp, fused, others",
    [
        (NO_CLAMP, "NONE", {}),
        ((0.0, np.inf), "RELU", {}),
        ((0.0, 6.0), "RELU6", {}),
        ((-1.0, 1.0), "RELU_N1_TO_1", {}),
        ((0.0, 5.0), "NONE", {"MAXIMUM": 1, "MINIMUM": 1}),
        ((-2.0, np.inf), "NONE", {"MAXIMUM": 1}),
        ((-100.0, 100.0), "NONE", {}),
        ((0.0, 100.0), "RELU", {}),
    ],
)
def test_clamps_are_fused_where_the_codes_are_the_same(clamp: Clamp, fused: str, others: dict[str, int]) -> None:
    builder = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    x, z = builder.input(4, 5, 5), builder.input(4, 5, 5)
    y = builder.node("add", [x, z], ElementwiseAttrs(clamp))
    builder.graph.add_tensor(builder.graph.tensor(y).with_(quant=QuantParams.per_tensor(0.06, -3)))
    model = to_tflite(channels_last(builder.finish(y)), ends="int8")
    assert model.operators == {"ADD": 1, **others}
    options = parse(model).subgraphs[0].operators[0].builtinOptions
    assert options.fusedActivationFunction == getattr(schema.ActivationFunctionType, fused)


def test_fused_codes_round_half_away_from_zero() -> None:
    assert fused_codes((0.0, 6.0), QuantParams.per_tensor(4.0, 0)) == (0, 2)  # 1.5 steps
    assert fused_codes((-1.0, 1.0), QuantParams.per_tensor(2.0, 5)) == (4, 6)


@pytest.mark.parametrize(
    "int4, pointwise, plain, linear",
    [
        (Int4Storage.PACKED, ("FULLY_CONNECTED", 10, "INT4"), ("CONV_2D", 7, "INT4"), ("FULLY_CONNECTED", 10, "INT4")),
        (Int4Storage.FAST, ("FULLY_CONNECTED", 10, "INT4"), ("CONV_2D", 3, "INT8"), ("FULLY_CONNECTED", 10, "INT4")),
        (Int4Storage.OLD, ("CONV_2D", 7, "INT4"), ("CONV_2D", 7, "INT4"), ("CONV_2D", 7, "INT4")),
        (Int4Storage.NONE, ("CONV_2D", 3, "INT8"), ("CONV_2D", 3, "INT8"), ("FULLY_CONNECTED", 4, "INT8")),
    ],
)
def test_forms_of_4bit_weights(int4: Int4Storage, pointwise: Any, plain: Any, linear: Any) -> None:
    graphs = (
        convolution(6, 1, 1, (0,) * 4, "w4a8"),
        convolution(6, 3, 1, (1,) * 4, "w4a8"),
        case("linear 64to100", "w4a8"),
    )
    for graph, expected in zip(graphs, (pointwise, plain, linear), strict=True):
        model = parse(to_tflite(graph, ends="int8", int4=int4))
        subgraph = model.subgraphs[0]
        codes = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
        types = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
        (found,) = [
            (codes[code.builtinCode], code.version, types[subgraph.tensors[op.inputs[1]].type])
            for op in subgraph.operators
            if codes[(code := model.operatorCodes[op.opcodeIndex]).builtinCode] in ("CONV_2D", "FULLY_CONNECTED")
        ]
        assert found == expected


def test_layers_stored_wider_are_named() -> None:
    model = to_tflite(case("block inverted residual", "w4a8"))
    assert [name[:4] for name in model.widened] == ["conv"]
    assert "1 layers store their 4-bit weights as int8" in model.notes[-1]
    assert to_tflite(case("block inverted residual", "w4a8"), int4=Int4Storage.PACKED).notes == ()


def test_depthwise_weights() -> None:
    graph = convolution(6, 3, 1, (1,) * 4, "w4a8", groups=4)
    model = parse(to_tflite(graph, int4=Int4Storage.PACKED))
    weights = next(t for t in model.subgraphs[0].tensors if t.type == schema.TensorType.INT4)
    assert list(weights.shape) == [1, 3, 3, 4]
    assert weights.quantization.quantizedDimension == 3
    expected = pack_int4(graph.tensor(graph.nodes[0].inputs[1]).data.transpose(3, 1, 2, 0))
    np.testing.assert_array_equal(model.buffers[weights.buffer].data, expected)


def test_grouped_convolution_is_one_operator() -> None:
    model = parse(to_tflite(case("conv groups"), ends="int8"))
    assert [code.version for code in model.operatorCodes] == [6]


@pytest.mark.parametrize("ends, kind", [("float", "FLOAT32"), ("int8", "INT8")])
def test_ends(ends: Any, kind: str) -> None:
    graph = case("block two inputs, three outputs")
    model = parse(to_tflite(graph, ends=ends))
    subgraph = model.subgraphs[0]
    signature = model.signatureDefs[0]
    assert signature.signatureKey == b"serving_default"
    for names, indices, maps in (
        (graph.inputs, subgraph.inputs, signature.inputs),
        (graph.outputs, subgraph.outputs, signature.outputs),
    ):
        assert [entry.name.decode() for entry in maps] == list(names)
        assert [entry.tensorIndex for entry in maps] == list(indices)
        for name, index in zip(names, indices, strict=True):
            tensor = subgraph.tensors[index]
            assert tensor.type == getattr(schema.TensorType, kind)
            assert list(tensor.shapeSignature) == list(graph.tensor(name).shape)
            assert list(tensor.shape) == [1 if size == BATCH else size for size in graph.tensor(name).shape]


def test_constants_are_aligned_and_shared() -> None:
    model = to_tflite(case("block inverted residual"), metadata={"labels": ["a"]})
    found = schema.Model.GetRootAsModel(bytearray(model.data), 0)
    tables = [found.Buffers(i)._tab for i in range(found.BuffersLength())]
    starts = [table.Vector(offset) for table in tables if (offset := table.Offset(4))]  # 4: the field `data`
    assert len(starts) > 5
    assert all(start % BUFFER_ALIGNMENT == 0 for start in starts)
    contents = [bytes(b.data) for b in parse(model).buffers if b.data is not None]
    assert len(contents) == len(set(contents))


def test_metadata_is_json_in_a_buffer_of_its_own() -> None:
    metadata = {"labels": ["zebra", "ü"], "mean": [1.5]}
    model = parse(to_tflite(case("block classifier"), metadata=metadata))
    (entry,) = model.metadata
    assert entry.name.decode() == METADATA_NAME
    assert json.loads(bytes(model.buffers[entry.buffer].data)) == metadata
    assert parse(to_tflite(case("block classifier"))).metadata is None


def test_4bit_activations_are_refused_with_the_alternative() -> None:
    with pytest.raises(QuantizationError, match=r"4 bits .* weights only\. .*w4a8"):
        to_tflite(case("block classifier", "w4a4"))


def test_other_graphs_are_refused() -> None:
    with pytest.raises(GraphError, match="channels-last"):
        to_tflite(build(CASES[0], "w8a8", seed=0))


def test_uncounted_padding_of_an_average_is_refused_by_name() -> None:
    builder = QuantizedBuilder(np.random.default_rng(0), "w8a8")
    y = builder.avg_pool(builder.input(4, 8, 8), Window((3, 3), (2, 2), (1, 1, 1, 1)))
    with pytest.raises(QuantizationError, match=r"avg_pool0: .*AVERAGE_POOL_2D"):
        to_tflite(channels_last(builder.finish(y)))


def test_transposed_convolution_fixes_the_batch_and_says_so() -> None:
    model = to_tflite(case("conv_transpose 2x2"))
    assert model.fixed_batch
    assert "batch 1" in model.notes[0]
    assert not to_tflite(case("conv no bias")).fixed_batch


def test_missing_bias_becomes_zeros() -> None:
    graph = case("conv no bias")
    assert len(graph.nodes[0].inputs) == 2 or isinstance(graph.nodes[0].attrs, ConvAttrs)
    subgraph = parse(to_tflite(graph, ends="int8")).subgraphs[0]
    assert len(subgraph.operators[-1].inputs) == 3
