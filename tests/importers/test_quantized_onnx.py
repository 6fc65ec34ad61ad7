from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_graphs import CASES, Case, build, random_codes
from small_graphs import RELU, RELU6, Builder

from edgeq.errors import EdgeqError, ImportModelError, UnsupportedOperatorError
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.exporters.onnx_qdq import QdqOptions, to_qdq_onnx
from edgeq.importers.from_quantized_onnx import is_quantized, load
from edgeq.ir import Attrs, Graph
from edgeq.ops.base import NO_CLAMP, Window, clamp_codes
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.max_pool import MaxPoolAttrs
from edgeq.ops.mean import MeanAttrs
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.passes import lower
from edgeq.simulate import simulate, simulate_codes

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Model = Any
ids = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


# --- edgeq's own files ---


def parameters(graph: Graph) -> list[object]:
    """What a graph computes with: operators, attributes (clamps as codes), codes and scales of everything."""
    found: list[object] = []
    for node in graph.nodes:
        quant = graph.tensor(node.outputs[0]).quant
        clamp = getattr(node.attrs, "clamp", None)
        bounds = None if clamp is None or quant is None else clamp_codes(clamp, quant)
        others = [getattr(node.attrs, field) for field in node.attrs.__dataclass_fields__ if field != "clamp"]
        others = [np.float32(value) if isinstance(value, float) else value for value in others]  # as ONNX keeps them
        constants = []
        for name in node.inputs:
            tensor = graph.tensor(name)
            if tensor.data is not None:
                scales = None if tensor.quant is None else (tensor.quant.bits, tensor.quant.scale.tobytes())
                constants.append((tensor.shape, tensor.data.tobytes(), scales))
            else:
                constants.append(name)
        found.append((node.op, bounds, others, constants, node.outputs))
    for name in [*graph.inputs, *(out for node in graph.nodes for out in node.outputs)]:
        quant = graph.tensor(name).quant
        found.append(quant and (quant.bits, float(quant.scale), int(quant.zero_point)))
    return found


REWRITTEN = (
    "avg_pool",  # with 4-bit codes
    "clip",  # where they have no effect on their input's codes
    "relu",
    "block pad then convolution",
    "block residual with a table after it",
    "block squeeze and excite",
    "block flatten, elementwise, two linears",
    "block NHWC input that is read twice",
    "block shuffle written as reshapes",
    "block classifier",
    "block dense",
    "reshape to and from 1x1",
    "transpose to nhwc and back",
)
"""Cases that come back in a simpler or wider form: the passes for float graphs have not seen them."""


@ids
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4"])
def test_what_edgeq_wrote_comes_back(case: Case, scheme: str) -> None:
    graph = build(case, scheme, 3)
    found = load(to_qdq_onnx(graph))
    assert found.notes == ()
    assert (found.graph.inputs, found.graph.outputs) == (graph.inputs, graph.outputs)
    codes = random_codes(graph, 2, 5)
    for wanted, got in zip(simulate_codes(graph, codes), simulate_codes(found.graph, codes), strict=True):
        np.testing.assert_array_equal(got, wanted)
    if not case.name.startswith(REWRITTEN) and "constant" not in case.name:
        assert parameters(found.graph) == parameters(graph)


@ids
@pytest.mark.parametrize(
    "options",
    [QdqOptions("int8"), QdqOptions("uint8", "int8"), QdqOptions("int8", "int8"), QdqOptions(packed_int4=False)],
    ids=["int8", "integer ends", "int8, integer ends", "int8 storage"],
)
def test_every_form_means_the_same(case: Case, options: QdqOptions) -> None:
    graph = build(case, "w8a8" if options.packed_int4 else "w4a8", 4)
    found = load(to_qdq_onnx(graph, options)).graph
    codes = random_codes(graph, 2, 6)
    for wanted, got in zip(simulate_codes(graph, codes), simulate_codes(found, codes), strict=True):
        np.testing.assert_array_equal(got, wanted)
    for name in (*graph.inputs, *graph.outputs):
        quant = graph.tensor(name).quant
        assert quant is None or quant.same_as(found.quant(name))


@ids
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_tables_come_back(case: Case, activations: Any) -> None:
    for scheme in ("w8a8", "w4a4"):
        graph = lower(build(case, scheme, 5))
        found = load(to_qdq_onnx(graph, QdqOptions(activations))).graph
        codes = random_codes(graph, 2, 7)
        for wanted, got in zip(simulate_codes(graph, codes), simulate_codes(found, codes), strict=True):
            np.testing.assert_array_equal(got, wanted)


# --- what ONNX Runtime's quantizer writes ---


class _Reader:
    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantized(
    graph: Graph, folder: Path, form: str = "QDQ", activations: str = "QUInt8", weights: str = "QInt8",
    per_channel: bool = True, **options: Any,
) -> Model:  # fmt: skip
    """A float graph, quantized by quantize_static on random inputs."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    onnx.save(to_float_onnx(graph).proto, folder / "float.onnx")
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        quantize_static(
            str(folder / "float.onnx"), str(folder / "quantized.onnx"), _Reader([{"x": inputs(4)}, {"x": inputs(5)}]),
            quant_format=QuantFormat[form], per_channel=per_channel,
            activation_type=QuantType[activations], weight_type=QuantType[weights], **options,
        )  # fmt: skip
    finally:
        logging.root.setLevel(level)
    return onnx.load(folder / "quantized.onnx")


def inputs(seed: int, batch: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (batch, 3, 8, 8)).astype(np.float32)


def run(model: Model, x: np.ndarray, optimize: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


def branches(softmax: bool = False) -> Graph:
    """Branches of different scales that are joined, a pool, an activation that quantizers leave in float, a sum."""
    b = Builder(1)
    stem = b.conv("stem", "x", 8, 3, RELU)
    left = b.node("hard_swish", "swish", [b.conv("left", stem, 6, 3, NO_CLAMP)], Attrs())
    right = b.conv("right", b.conv("deep", stem, 8, 3, RELU6, groups=8), 6)
    joined = b.node("concat", "join", [left, right], ConcatAttrs(1))
    pooled = b.node("max_pool", "pool", [joined], MaxPoolAttrs(Window((3, 3), (2, 2), (1, 1, 1, 1))))
    summed = b.add("sum", b.conv("last", pooled, 12, 1, NO_CLAMP), pooled, RELU)
    gate = b.node("sigmoid", "gate", [summed], Attrs())
    scores = b.linear("scores", b.node("mean", "mean", [gate], MeanAttrs(keep_dims=False)), 10)
    return b.done(b.node("softmax", "softmax", [scores], SoftmaxAttrs(1)) if softmax else scores)


def plain() -> Graph:
    """Convolutions and a sum only: what is exact everywhere."""
    b = Builder(2)
    stem = b.conv("stem", "x", 8, 3, RELU)
    deep = b.conv("deep", stem, 8, 3, RELU6, groups=8)
    wide = b.conv("wide", deep, 16, 1, NO_CLAMP)
    return b.done(b.linear("scores", b.node("mean", "mean", [wide], MeanAttrs(keep_dims=False)), 10))


CONFIGURATIONS = [
    ("QDQ", "QUInt8", "QInt8", True),
    ("QDQ", "QInt8", "QInt8", True),
    ("QDQ", "QUInt8", "QInt8", False),
    ("QDQ", "QUInt8", "QUInt8", False),
    ("QOperator", "QUInt8", "QInt8", True),
    ("QOperator", "QInt8", "QInt8", True),
    ("QOperator", "QUInt8", "QInt8", False),
    ("QOperator", "QUInt8", "QUInt8", True),
    ("QOperator", "QUInt8", "QUInt8", False),
]


@pytest.mark.parametrize("build_net", [branches, plain])
@pytest.mark.parametrize("form, activations, weights, per_channel", CONFIGURATIONS)
def test_quantize_static(
    build_net: Any, form: str, activations: str, weights: str, per_channel: bool, tmp_path: Path
) -> None:
    model = quantized(build_net(), tmp_path, form, activations, weights, per_channel)
    found = load(model)
    x = inputs(9, 200)
    wanted, got = run(model, x), simulate(found.graph, x)[0]
    steps = np.abs(wanted - got) / float(found.graph.quant(found.graph.outputs[0]).scale)
    assert np.mean(steps < 1.01) >= 0.99
    assert np.mean(wanted.argmax(1) == got.argmax(1)) >= 0.99
    if build_net is plain and activations == "QUInt8":
        assert steps.max() < 0.01
    # Asymmetric weights reach further than 127 from their zero point.
    assert {text.split()[0] for _, text in found.notes} <= ({"weights"} if weights == "QUInt8" else set())


@pytest.mark.parametrize(
    "options",
    [
        {"ActivationSymmetric": True},
        {"QuantizeBias": False},
        {"DedicatedQDQPair": True},
        {"AddQDQPairToWeight": True},
        {"UseQDQContribOps": True},
        {"QDQKeepRemovableActivations": True},
        {"QDQDisableWeightAdjustForInt32Bias": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_quantize_static(options: dict[str, bool], tmp_path: Path) -> None:
    model = quantized(branches(), tmp_path, extra_options=options)
    found = load(model)
    x = inputs(10, 100)
    wanted, got = run(model, x), simulate(found.graph, x)[0]
    steps = np.abs(wanted - got) / float(found.graph.quant(found.graph.outputs[0]).scale)
    assert np.mean(steps < 1.01) >= 0.99
    rounded = [node for node, text in found.notes if "bias was rounded" in text]
    assert bool(rounded) == ("QuantizeBias" in options)


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_scales_are_the_model_s_own(form: str, tmp_path: Path) -> None:
    model = quantized(branches(), tmp_path, form)
    stored = {
        tuple(np.atleast_1d(onnx.numpy_helper.to_array(tensor)).tolist())
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    graph = load(model).graph
    for tensor in graph.tensors.values():
        if tensor.quant is not None and tensor.quant.bits == 8:
            assert tuple(np.atleast_1d(tensor.quant.scale).tolist()) in stored
    names = [node.name.removesuffix("_quant") for node in graph.nodes if node.op == "conv"]
    assert names == ["stem", "left", "deep", "right", "last"]


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_the_rounding_of_a_last_softmax_is_left_out(form: str, tmp_path: Path) -> None:
    model = quantized(branches(softmax=True), tmp_path, form)
    found = load(model)
    assert [node.removesuffix("_quant") for node, text in found.notes if "probabilities" in text] == ["softmax"]
    x = inputs(11)
    assert np.abs(run(model, x) - simulate(found.graph, x)[0]).max() < 1.6 / 256


def test_tensors_left_in_float_need_samples(tmp_path: Path) -> None:
    """Only layers with weights quantized: what lies between is float in the model."""
    b = Builder(4)
    left, right = b.conv("left", "x", 6, 3, NO_CLAMP), b.conv("right", "x", 6, 1, NO_CLAMP)
    summed = b.add("sum", b.node("hard_swish", "swish", [left], Attrs()), right)
    scores = b.linear("scores", b.node("mean", "mean", [summed], MeanAttrs(keep_dims=False)), 10)
    model = quantized(b.done(scores), tmp_path, op_types_to_quantize=["Conv", "Gemm"])
    with pytest.raises(ImportModelError, match=r"leaves \d tensors in float \(.*sum"):
        load(model)
    found = load(model, samples={"x": inputs(1, 64)})
    assert {"sum.out"} <= {name for name, text in found.notes if "from the samples" in text}
    x = inputs(12, 200)
    wanted, got = run(model, x), simulate(found.graph, x)[0]
    steps = np.abs(wanted - got) / float(found.graph.quant(found.graph.outputs[0]).scale)
    assert steps.mean() < 1
    assert np.mean(wanted.argmax(1) == got.argmax(1)) >= 0.97


# --- by hand ---


class Hand:
    """A QDQ model written node by node."""

    def __init__(self, *shape: int, opset: int = 17) -> None:
        self.nodes: list[Model] = []
        self.constants: list[Model] = []
        self.shape, self.opset, self.kind = ["n", *shape], opset, onnx.TensorProto.FLOAT

    def constant(self, value: Any, dtype: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, operands: Sequence[str], domain: str = "", **attributes: Any) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, operands, [out], out, domain=domain, **attributes))
        return out

    def parameters(self, scale: float, zero: int, dtype: Any = np.uint8) -> list[str]:
        return [self.constant(scale, np.float32), self.constant(zero, dtype)]

    def round(self, x: str, scale: float = 0.05, zero: int = 128, dtype: Any = np.uint8) -> str:
        operands = self.parameters(scale, zero, dtype)
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, *operands]), *operands])

    def weights(self, codes: Any, scale: Any = 0.02, zero: Any = 0, dtype: Any = np.int8, **attributes: Any) -> str:
        operands = [self.constant(codes, dtype), self.constant(scale, np.float32), self.constant(zero, dtype)]
        return self.node("DequantizeLinear", operands, **attributes)

    def model(self, *outputs: str) -> Model:
        graph = onnx.helper.make_graph(
            self.nodes,
            "hand",
            [onnx.helper.make_tensor_value_info("x", self.kind, self.shape)],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        domains = [onnx.helper.make_opsetid("", self.opset), onnx.helper.make_opsetid("com.microsoft", 1)]
        return onnx.helper.make_model(graph, opset_imports=domains, ir_version=10)


def assert_exact(model: Model, shape: tuple[int, ...], optimize: bool = True) -> Graph:
    x = np.random.default_rng(3).normal(0, 3, (16, *shape)).astype(np.float32)
    graph = load(model).graph
    np.testing.assert_array_equal(simulate(graph, x)[0], run(model, x, optimize))
    return graph


WIDE = [
    (np.int8, 0, -128, 127),
    (np.uint8, 128, 0, 255),
    (np.uint8, 117, 0, 255),
    (np.uint8, 0, 0, 255),
    (np.int8, -100, -128, 127),
]


@pytest.mark.parametrize("dtype, zero, low, high", WIDE)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_weights_beyond_the_codes_are_exact(dtype: Any, zero: int, low: int, high: int, groups: int) -> None:
    """-128, and weights with a zero point, are split over copies of the input."""
    h, rng = Hand(6, 7, 7), np.random.default_rng(groups)
    codes = rng.integers(low, high + 1, (12, 6 // groups, 3, 3))
    codes.flat[0], codes.flat[1] = low, high
    y = h.node("Conv", [h.round("x", 0.05, 120), h.weights(codes, 0.02, zero, dtype)], group=groups, pads=[1] * 4)
    model = h.model(h.round(y, 0.9, 100))
    # Signed weights with a zero point are nothing that ONNX Runtime fuses rightly; its float form is right.
    x = np.random.default_rng(3).normal(0, 3, (4, 6, 7, 7)).astype(np.float32)
    found = load(model)
    wanted, got = run(model, x), simulate(found.graph, x)[0]
    assert np.abs(wanted - got).max() <= 0.91
    assert np.mean(wanted == got) > 0.999
    copies = -(-max(abs(low - zero), abs(high - zero)) // 127)
    assert sum(f"over {copies} copies" in text for _, text in found.notes) == 1
    assert sum(node.op == "channel_shuffle" for node in found.graph.nodes) == (groups > 1)


def test_linear_weights_beyond_the_codes_are_exact() -> None:
    for op in ("Gemm", "MatMul"):
        h = Hand(5)
        codes = np.random.default_rng(1).integers(0, 256, (5, 4))
        y = h.node(op, [h.round("x"), h.weights(codes, 0.02, 100, np.uint8)])
        graph = assert_exact(h.model(h.round(y, 0.3, 128)), (5,))
        assert [node.op for node in graph.nodes] == ["concat", "linear"]


def test_transposed_convolution_by_channel() -> None:
    h, rng = Hand(4, 3, 3), np.random.default_rng(1)
    weights = h.weights(rng.integers(-127, 128, (4, 5, 2, 2)), rng.uniform(0.01, 0.02, 5), np.zeros(5), axis=1)
    y = h.node("ConvTranspose", [h.round("x"), weights], strides=[2, 2])
    graph = load(h.model(h.round(y, 0.5))).graph
    assert graph.quant(graph.nodes[0].inputs[1]).scale.shape == (5,)


def test_weights_by_channel_in_any_order() -> None:
    h, rng = Hand(6), np.random.default_rng(1)
    codes, scales = rng.integers(-127, 128, (6, 3)), rng.uniform(0.01, 0.05, 3)
    turned = h.node("Transpose", [h.weights(codes, scales, np.zeros(3), axis=1)], perm=[1, 0])
    y = h.round(h.node("Gemm", [h.round("x"), turned], transB=1), 0.4)
    graph = load(h.model(y)).graph
    weights = graph.tensor(graph.nodes[0].inputs[1])
    np.testing.assert_array_equal(weights.data, codes.T)
    assert weights.quant is not None
    np.testing.assert_array_equal(weights.quant.scale, scales.astype(np.float32))


def test_a_bias_with_another_scale_is_rounded() -> None:
    h = Hand(3, 4, 4)
    bias = h.weights([100, -200], 0.013, 0, np.int32)
    y = h.node("Conv", [h.round("x"), h.weights(np.ones((2, 3, 1, 1))), bias])
    found = load(h.model(h.round(y)))
    (note,) = found.notes
    assert "bias was rounded" in note[1]
    stored = found.graph.tensor(found.graph.nodes[0].inputs[2])
    np.testing.assert_array_equal(stored.data, np.rint(np.array([100, -200]) * 0.013 / (0.05 * 0.02)))


def test_concat_of_different_scales() -> None:
    """Where a scale is a simple multiple of another, float32 decides ties between codes, and the import as it does."""

    def joined(scale: float) -> Model:
        h = Hand(3, 4, 4)
        a, b = h.round("x", 0.05), h.round(h.node("Relu", [h.round("x", 0.05)]), 0.0213, 0)
        return h.model(h.round(h.node("Concat", [a, b], axis=1), scale, 90))

    graph = assert_exact(joined(0.04), (3, 4, 4))
    assert sorted(node.op for node in graph.nodes) == ["clip", "concat", "lut", "relu"]
    assert "lut" not in {node.op for node in load(joined(0.0437)).graph.nodes}


def test_pools_of_different_scales() -> None:
    for op in ("MaxPool", "AveragePool", "GlobalAveragePool"):
        h = Hand(3, 4, 4)
        kernel = {} if op[0] == "G" else {"kernel_shape": [3, 3], "strides": [1, 1]}
        model = h.model(h.round(h.node(op, [h.round("x", 0.05, 100)], **kernel), 0.03, 77))
        x = np.random.default_rng(0).normal(0, 3, (20, 3, 4, 4)).astype(np.float32)
        found = load(model).graph
        assert np.abs(run(model, x) - simulate(found, x)[0]).max() < 0.0301


def test_a_tensor_rounded_in_two_ways() -> None:
    h = Hand(3, 4, 4)
    y = h.node("Conv", [h.round("x"), h.weights(np.full((2, 3, 1, 1), 50))])
    model = h.model(h.round(y, 0.0937), h.round(y, 0.0519, 10))
    graph = load(model).graph
    assert [node.op for node in graph.nodes] == ["conv", "conv"]
    x = np.random.default_rng(0).normal(0, 3, (5, 3, 4, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for wanted, found in zip(session.run(None, {"x": x}), simulate(graph, x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_functions_of_several_nodes_become_one_table(channels: int) -> None:
    h = Hand(3, 4, 4)
    factor = h.constant(np.linspace(0.5, 1.5, channels).reshape(1, channels, 1, 1), np.float32)
    x = h.round("x", 0.05)
    y = h.node("Mul", [h.node("Tanh", [h.node("Mul", [x, factor])]), x])
    graph = assert_exact(h.model(h.round(y, 0.03, 90)), (3, 4, 4))
    (node,) = graph.nodes
    assert node.op == "lut"
    assert graph.tensor(node.inputs[1]).shape == ((256,) if channels == 1 else (3, 256))


def test_a_normalisation_between_roundings_is_a_table() -> None:
    h = Hand(3, 4, 4)
    others = [h.constant(values, np.float32) for values in ([1, 2, 0.5], [0.1, 0, -1], [0, 0.2, 0.3], [1, 0.5, 2])]
    graph = load(h.model(h.round(h.node("BatchNormalization", [h.round("x"), *others])))).graph
    assert [node.op for node in graph.nodes] == ["lut"]


def test_integer_ends_and_codes_in_between() -> None:
    h = Hand(3, 4, 4)
    h.kind = onnx.TensorProto.UINT8
    scale, zero = h.parameters(0.05, 100)
    turned = h.node("Transpose", ["x"], perm=[0, 1, 3, 2])
    y = h.node("MaxPool", [turned], kernel_shape=[2, 2], strides=[2, 2])
    y = h.node("DequantizeLinear", [y, scale, zero])
    graph = load(h.model(h.round(h.node("Conv", [y, h.weights(np.full((2, 3, 1, 1), 9))])))).graph
    assert [node.op for node in graph.nodes] == ["transpose", "max_pool", "conv"]
    assert (float(graph.quant("x").scale), int(graph.quant("x").zero_point)) == (np.float32(0.05), -28)


def test_quantized_models_are_known_from_float_ones() -> None:
    h = Hand(3, 4, 4)
    h.node("Relu", ["x"])
    assert not is_quantized(h.model("t0"))
    assert is_quantized(to_qdq_onnx(build(CASES[0], "w8a8", 0)))


# --- refusals ---


def refused(h: Hand, output: str, match: str, kind: type[EdgeqError] = ImportModelError) -> None:
    with pytest.raises(kind, match=match):
        load(h.model(output))


def test_sixteen_bits() -> None:
    h = Hand(3)
    refused(h, h.round("x", 0.1, 0, np.uint16), r"'t0'.*uint16.*8 and 4 bits")


def test_activations_by_channel() -> None:
    h = Hand(3, 4, 4)
    operands = [h.constant([0.1, 0.2, 0.3], np.float32), h.constant([0, 0, 0], np.uint8)]
    y = h.node("DequantizeLinear", [h.node("QuantizeLinear", ["x", *operands], axis=1), *operands], axis=1)
    refused(h, y, "per tensor")


def test_dynamic_quantization() -> None:
    h = Hand(3)
    refused(h, h.node("DynamicQuantizeLinear", ["x"]), "'t0'.*quantize_static", UnsupportedOperatorError)


def test_codes_read_with_another_scale() -> None:
    h = Hand(3)
    q = h.node("QuantizeLinear", ["x", *h.parameters(0.1, 3)])
    refused(h, h.node("DequantizeLinear", [q, *h.parameters(0.2, 3)]), "'t1'.*another scale")


def test_arithmetic_on_codes() -> None:
    h = Hand(3)
    q = h.node("QuantizeLinear", ["x", *h.parameters(0.1, 3)])
    refused(h, h.node("BitShift", [q, h.constant(1, np.uint8)], direction="LEFT"), "'t1'.*codes themselves")


def test_scales_that_are_computed() -> None:
    h = Hand(3)
    refused(h, h.node("QuantizeLinear", ["x", "x", h.constant(0, np.uint8)]), "'t0'.*scale.*constant")


def test_bad_scales_and_zero_points() -> None:
    for scale in (0.0, -1.0, np.inf, np.nan):
        h = Hand(3)
        refused(h, h.round("x", scale), "not a finite positive number")


def test_weights_with_several_scales_in_a_channel() -> None:
    h = Hand(3, 4, 4)
    weights = h.weights(np.ones((2, 3, 1, 1)), [0.1, 0.2, 0.3], np.zeros(3), axis=1)
    refused(h, h.round(h.node("Conv", [h.round("x"), weights])), "several scales within an output channel")


def test_float_weights() -> None:
    h = Hand(3, 4, 4)
    weights = h.constant(np.ones((2, 3, 1, 1)), np.float32)
    refused(h, h.round(h.node("Conv", [h.round("x"), weights])), "weights are float")


def test_an_input_that_is_not_quantized() -> None:
    h = Hand(3, 4, 4)
    y = h.node("Sub", ["x", h.constant(0.5, np.float32)])
    refused(h, h.round(h.node("Conv", [h.round(y), h.weights(np.ones((2, 3, 1, 1)))])), "input 'x'.*read in float")


def test_softmax_in_the_middle() -> None:
    h = Hand(3)
    y = h.round(h.node("Softmax", [h.round("x")]))
    refused(h, h.round(h.node("Gemm", [y, h.weights(np.ones((3, 2)))])), "softmax only at the end")


def test_models_saved_after_optimization() -> None:
    h = Hand(4, 4, 3)
    operands = [h.node("QuantizeLinear", ["x", *h.parameters(0.1, 3)]), *h.parameters(0.1, 3), *h.parameters(0.1, 3)]
    refused(h, h.node("QLinearGlobalAveragePool", operands, "com.microsoft", channels_last=1), "works on NHWC")


def test_damaged_models_give_an_error(rng: np.random.Generator, tmp_path: Path) -> None:
    """Whatever is wrong with a file, it is an EdgeqError, soon."""
    named = {case.name: case for case in CASES}
    files = [
        quantized(branches(softmax=True), tmp_path).SerializeToString(),
        quantized(branches(), tmp_path, "QOperator").SerializeToString(),
        to_qdq_onnx(build(named["block fire"], "w4a8", 1)).SerializeToString(),
        to_qdq_onnx(build(named["block dense"], "w4a4", 1)).SerializeToString(),
        to_qdq_onnx(lower(build(named["block squeeze and excite"], "w8a8", 1))).SerializeToString(),
    ]
    refusals = 0
    for _ in range(300):
        content = bytearray(files[rng.integers(len(files))])
        kind = rng.integers(4)
        for _ in range(int(rng.choice([1, 1, 2, 5]))):
            place = int(rng.integers(len(content)))
            if kind == 0:
                content = content[: max(place, 1)]
            elif kind == 1:
                content[place] ^= 1 << int(rng.integers(8))
            elif kind == 2:
                content[place] = int(rng.choice([0, 1, 2, 8, 127, 128, 255]))
            else:
                begin, length = int(rng.integers(len(content))), int(rng.integers(1, 40))
                content[place : place + length] = content[begin : begin + length]
        try:
            load(bytes(content))
        except EdgeqError:
            refusals += 1
    assert refusals > 150
