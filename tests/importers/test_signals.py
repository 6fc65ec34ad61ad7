"""1-D operators over [N, C, L], against ONNX Runtime: what they become, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from importers.onnx_models import assert_imports, onnx_model, run_onnx

from edgeq.errors import ImportModelError
from edgeq.importers.from_onnx import load
from edgeq.importers.from_quantized_onnx import load as load_quantized
from edgeq.ir import BATCH
from edgeq.ops.base import NO_CLAMP, Window
from edgeq.ops.conv import ConvAttrs
from edgeq.simulate import simulate

SIGNAL = "(float[N, 4, 17] x) => (float[] y)"
LIFTED = {"reshape": 2}
"""At the ends, where the model has signals."""


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.5, shape).astype(np.float32)


def norm_constants(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    values = {name: weights(rng, channels) for name in ("g", "h", "m")}
    return values | {"v": rng.uniform(0.3, 2, channels).astype(np.float32)}


# --- single operators ---


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "kernel_shape=[3]",
        "pads=[2, 0]",
        "pads=[0, 1], strides=[3]",
        "dilations=[4], pads=[4, 4]",
        "pads=[1, 2], strides=[2], dilations=[2]",
        'auto_pad="SAME_UPPER", strides=[2]',
        'auto_pad="SAME_LOWER", strides=[3]',
        'auto_pad="VALID", strides=[2]',
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv(rng: np.random.Generator, attributes: str, groups: int) -> None:
    joined = ", ".join(part for part in (f"group={groups}", attributes) if part)
    constants = {"w": weights(rng, 8, 4 // groups, 3), "b": weights(rng, 8)}
    model = onnx_model(f"{SIGNAL} {{ y = Conv<{joined}>(x, w, b) }}", **constants)
    done = assert_imports(model, rng, LIFTED | {"conv": 1})
    assert done.nodes[1].attrs.groups == groups  # type: ignore[attr-defined]


def test_the_length_is_the_width(rng: np.random.Generator) -> None:
    text = f"{SIGNAL} {{ y = Conv<pads=[1, 2], strides=[3], dilations=[2]>(x, w) }}"
    done = assert_imports(onnx_model(text, w=weights(rng, 5, 4, 3)), rng)
    assert done.tensor("x").shape == (BATCH, 4, 17)
    assert done.tensor("y").shape == (BATCH, 5, 6)
    _, conv, _ = done.nodes
    assert done.tensor(conv.inputs[0]).shape == (BATCH, 4, 1, 17)
    assert done.tensor(conv.inputs[1]).shape == (5, 4, 1, 3)
    assert conv.attrs == ConvAttrs(Window((1, 3), (1, 3), (0, 1, 0, 2), (1, 2)), 1, NO_CLAMP)


@pytest.mark.parametrize(
    "attributes",
    [
        "strides=[2]",
        "strides=[3], pads=[1, 0], output_padding=[1]",
        "group=2, dilations=[2]",
        "strides=[2], output_shape=[34]",
        'strides=[2], auto_pad="SAME_UPPER"',
    ],
)
def test_conv_transpose(rng: np.random.Generator, attributes: str) -> None:
    out = 6 if "group" in attributes else 3
    text = f"{SIGNAL} {{ y = ConvTranspose<{attributes}>(x, w, b) }}"
    assert_imports(onnx_model(text, w=weights(rng, 4, 3, 3), b=weights(rng, out)), rng, LIFTED | {"conv_transpose": 1})


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize(
    "window", ["[3], strides=[2]", "[3], strides=[2], pads=[1, 0]", "[5], strides=[4], pads=[2, 2]"]
)
def test_pools(rng: np.random.Generator, window: str, ceil: int) -> None:
    model = onnx_model(f"{SIGNAL} {{ y = MaxPool<kernel_shape={window}, ceil_mode={ceil}>(x) }}")
    assert_imports(model, rng, LIFTED | {"max_pool": 1})
    for count in (0, 1):
        text = f"{SIGNAL} {{ y = AveragePool<kernel_shape={window}, ceil_mode={ceil}, count_include_pad={count}>(x) }}"
        done = assert_imports(onnx_model(text), rng)
        assert [node.op for node in done.nodes if node.op not in ("pad", "reshape")] == ["avg_pool"]


def test_dilated_max_pool(rng: np.random.Generator) -> None:
    model = onnx_model(f"{SIGNAL} {{ y = MaxPool<kernel_shape=[3], dilations=[3], strides=[2]>(x) }}")
    assert_imports(model, rng, LIFTED | {"max_pool": 1})


@pytest.mark.parametrize(
    ("nodes", "op", "shape"),
    [
        ("y = GlobalAveragePool(x)", "mean", (4, 1)),
        ("y = AveragePool<kernel_shape=[17]>(x)", "mean", (4, 1)),
        ("y = ReduceMean<keepdims=1>(x, a)", "mean", (4, 1)),
        ("y = ReduceMean<keepdims=0>(x, a)", "mean", (4,)),
        ("y = ReduceMean<keepdims=0>(x, last)", "mean", (4,)),
        ("t = GlobalAveragePool(x) y = Flatten(t)", "mean", (4,)),
        ("y = GlobalMaxPool(x)", "max_pool", (4, 1)),
        ("y = ReduceMax<keepdims=1>(x, a)", "max_pool", (4, 1)),
        ("y = ReduceMax<keepdims=0>(x, last)", "max_pool", (4,)),
    ],
)
def test_over_the_length(rng: np.random.Generator, nodes: str, op: str, shape: tuple[int, ...]) -> None:
    done = assert_imports(onnx_model(f"{SIGNAL} {{ {nodes} }}", a=np.array([2]), last=np.array([-1])), rng)
    assert [node.op for node in done.nodes if node.op != "reshape"] == [op]
    assert done.tensor("y").shape == (BATCH, *shape)


def test_reduction_with_axes_as_an_attribute(rng: np.random.Generator) -> None:
    assert_imports(onnx_model(f"{SIGNAL} {{ y = ReduceMean<axes=[-1], keepdims=0>(x) }}", 13), rng)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("position", ["half_pixel", "align_corners", "asymmetric"])
def test_resize(rng: np.random.Generator, mode: str, position: str) -> None:
    nearest = "floor" if position == "asymmetric" else "round_prefer_floor"
    attributes = f'mode="{mode}", coordinate_transformation_mode="{position}", nearest_mode="{nearest}"'
    text = f"{SIGNAL} {{ y = Resize<{attributes}>(x, , s) }}"
    assert_imports(onnx_model(text, s=np.array([1, 1, 2], np.float32)), rng, LIFTED | {"resize": 1})
    text = f"{SIGNAL} {{ y = Resize<{attributes}, axes=[2]>(x, , , z) }}"
    assert_imports(onnx_model(text, z=np.array([51])), rng, LIFTED | {"resize": 1})


# --- networks ---


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("a = Conv(x, w) b = BatchNormalization(a, g, h, m, v) c = Relu(b) y = Conv(c, u)", {"conv": 2}),
        ("a = BatchNormalization(x, g, h, m, v) y = Conv(a, w)", {"conv": 1}),
        ("a = Mul(x, s) b = Add(a, t) y = Conv(b, w)", {"conv": 1}),
        ("a = Conv(x, w) b = Relu(a) c = Conv(b, u) d = Add(c, x) y = Relu(d)", {"conv": 2, "add": 1}),
        ("a = Conv(x, w) b = Sigmoid(a) y = Mul(a, b)", {"conv": 1, "silu": 1}),
        ("a = Conv(x, w) b = PRelu(a, p) y = Conv(b, u)", {"conv": 2, "prelu": 1}),
        ("a = PRelu(x, p) b = Add(a, x) y = PRelu(b, z)", {"prelu": 2, "add": 1}),
        ("a = Pad(x, q) y = Conv(a, w)", {"conv": 1}),
        ("a = Conv(x, w) y = Concat<axis=1>(a, x)", {"conv": 1, "concat": 1}),
        ("a = Conv(x, w) y = Concat<axis=-1>(a, x)", {"conv": 1, "concat": 1}),
        ("a = Conv(x, w) b = Slice(a, i, j, k) y = Conv(b, u)", {"conv": 2, "slice": 1}),
        ("a, b = Split<axis=1, num_outputs=2>(x) c = Concat<axis=1>(b, a) y = Conv(c, w)",
         {"conv": 1, "slice": 2, "concat": 1}),
        ("a = Conv(x, w) b = GlobalAveragePool(a) c = Conv(b, u) d = Sigmoid(c) y = Mul(a, d)",
         {"conv": 2, "mean": 1, "sigmoid": 1, "mul": 1}),
        ("a = Conv(x, w) b = Add(a, r) y = Conv(b, u)", {"conv": 2, "add": 1}),
        ("a = Conv(x, w) b = Sub(o, a) y = Conv(b, u)", {"conv": 2}),
    ],
)  # fmt: skip
def test_neighbours_meet(rng: np.random.Generator, nodes: str, expected: dict[str, int]) -> None:
    constants = norm_constants(rng, 4) | {
        "w": weights(rng, 4, 4, 1), "u": weights(rng, 4, 4, 1), "s": np.float32(0.5), "t": weights(rng, 4, 1),
        "p": weights(rng, 4, 1), "q": np.array([0, 0, 2, 0, 0, 1]), "i": np.array([1, 3]), "j": np.array([5, 16]),
        "k": np.array([1, 2]), "r": weights(rng, 1, 1, 17), "o": weights(rng, 1, 4, 1), "z": weights(rng, 1, 4, 1),
    }  # fmt: skip
    if "Slice" in nodes:
        constants["u"] = weights(rng, 4, 3, 1)
    done = assert_imports(onnx_model(f"{SIGNAL} {{ {nodes} }}", **constants), rng, LIFTED | expected)
    assert {len(done.tensor(name).shape) for node in done.nodes[1:-1] for name in node.outputs} == {4}


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Conv(x, w) b = Transpose<perm=[0, 2, 1]>(a) c = MatMul(b, e) d = Relu(c) y = Softmax<axis=1>(d)",
        "a = Conv(x, w) b = Transpose<perm=[0, 2, 1]>(a) c = Relu(b) d = Transpose<perm=[0, 2, 1]>(c) y = Conv(d, u)",
        "a = Conv(x, w) b = Relu(a) c = Flatten(b) y = Gemm(c, f)",
        "a = Conv(x, w) b = Reshape(a, n) c = Relu(b) d = Reshape(c, k) y = Conv(d, u)",
        "a = Conv(x, w) b = Squeeze(a, z) c = Unsqueeze(b, z) d = Relu(c) y = Add(d, a)",
        "a = Unsqueeze(x, z) b = Squeeze(a, z) c = Relu(b) y = Conv(c, u)",
        "a = Conv(x, w) y = Softmax<axis=-1>(a)",
        "a = Conv(x, w) y = Softmax<axis=1>(a)",
        "a = Relu(x) y = Concat<axis=2>(a, x)",
    ],
)
def test_other_operators_keep_their_ranks(rng: np.random.Generator, nodes: str) -> None:
    one = "Squeeze(a, z)" in nodes and "a = Conv" in nodes
    constants = {
        "w": weights(rng, 1 if one else 4, 4, 1), "u": weights(rng, 4, 4, 1), "e": weights(rng, 4, 3),
        "f": weights(rng, 68, 3), "n": np.array([-1, 2, 34]), "k": np.array([0, 4, 17]), "z": np.array([1]),
    }  # fmt: skip
    assert_imports(onnx_model(f"{SIGNAL} {{ {nodes} }}", **constants), rng)


def test_outputs_inside_keep_names_and_shapes(rng: np.random.Generator) -> None:
    text = "(float[N, 4, 17] x) => (float[] a, float[] b, float[] y) { a = Conv(x, w) b = Relu(a) y = Conv(b, w) }"
    done = assert_imports(onnx_model(text, w=weights(rng, 4, 4, 1)), rng)
    assert {done.tensor(name).shape for name in "aby"} == {(BATCH, 4, 17)}


def test_shape_arithmetic_sees_the_models_own_ranks(rng: np.random.Generator) -> None:
    text = f"""{SIGNAL} {{
        a = Conv(x, w) s = Shape(a) n = Gather(s, zero) u = Unsqueeze(n, axis) l = Slice(s, two, three)
        t = Concat<axis=0>(u, minus, l) b = Reshape(a, t) y = Relu(b) }}"""
    numbers = {"zero": np.int64(0), "axis": np.array([0]), "two": np.array([2]), "three": np.array([3])}
    done = assert_imports(onnx_model(text, w=weights(rng, 4, 4, 2), minus=np.array([-1]), **numbers), rng)
    assert done.tensor("y").shape == (BATCH, 4, 16)


# --- what is refused ---


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("y = ReduceMean(x, a)", r"\(ReduceMean\): .* mean over the length \(axis 2\) .* \[1\]; put a Transpose"),
        ("y = ReduceMean(x, both)", r"only the mean over the length .* got axes \[1, 2\]"),
        ("y = ReduceMean(x)", r"only the mean over the length .* got axes \[0, 1, 2\]"),
        ("y = ReduceMax(x, a)", r"ReduceMax.*only the maximum over the length .* got axes \[1\]"),
        ("y = Conv(x, w4)", "weights with 4 axes do not fit an input with one axis behind the channels"),
        ("y = Conv(x, x)", r"weights \(input 1\) must be constant"),
        ("y = Conv<strides=[1, 1]>(x, w)", r"'y' \(Conv\): strides \[1, 1\] do not fit an input with one axis"),
        ("y = MaxPool<kernel_shape=[3], pads=[1, 1, 1, 1]>(x)", r"pads \[1, 1, 1, 1\] do not fit an input"),
        ("y = MaxPool<kernel_shape=[3, 3]>(x)", r"kernel_shape \[3, 3\] do not fit"),
        ("y = Conv<pads=[-1, 0]>(x, w)", "none negative"),
        ("y = Conv(x, w2)", "do not fit"),
        ("y = AveragePool<kernel_shape=[3], dilations=[2]>(x)", "dilated average pooling"),
        ("y, i = MaxPool<kernel_shape=[3]>(x)", "indices output"),
        ("y = Resize(x, , s)", "resizes the channel axis"),
        ("y = PRelu(x, r)", "must have one value, or one a channel"),
        ("y = LpPool<kernel_shape=[3]>(x)", "operator LpPool is not supported"),
    ],
)  # fmt: skip
def test_refusals_name_the_cause(rng: np.random.Generator, nodes: str, message: str) -> None:
    constants = {
        "a": np.array([1]), "both": np.array([1, 2]), "w": weights(rng, 4, 4, 3), "w2": weights(rng, 4, 2, 3),
        "w4": weights(rng, 4, 4, 1, 3), "s": np.array([1, 2, 1], np.float32), "r": weights(rng, 17),
    }  # fmt: skip
    with pytest.raises(ImportModelError, match=message):
        load(onnx_model(f"{SIGNAL} {{ {nodes} }}", **constants))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("y = Conv(x, w)", r"only 1-D and 2-D convolution is supported, .* \[-1, 4, 5, 5, 5\] and \[4, 4, 3, 3, 3\]"),
        ("y = ConvTranspose(x, w)", "only 1-D and 2-D convolution is supported"),
        ("y = MaxPool<kernel_shape=[3, 3, 3]>(x)", r"only 1-D and 2-D pooling is supported, .* \[3, 3, 3\]"),
        ("y = ReduceMean(x, a)", r"got axes \[2, 3, 4\]"),
    ],
)
def test_three_dimensions_are_refused(rng: np.random.Generator, nodes: str, message: str) -> None:
    constants = {"w": weights(rng, 4, 4, 3, 3, 3), "a": np.array([2, 3, 4])}
    with pytest.raises(ImportModelError, match=message):
        load(onnx_model(f"(float[N, 4, 5, 5, 5] x) => (float[] y) {{ {nodes} }}", **constants))


# --- models that other tools have quantized ---


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_quantized_by_onnxruntime(rng: np.random.Generator, tmp_path: Any, form: str, per_channel: bool) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    text = """(float[N, 4, 17] x) => (float[] y) {
        a = Conv<pads=[2, 0], strides=[2]>(x, w, b) c = Relu(a) d = Conv<group=8, dilations=[2], pads=[2, 2]>(c, u, b)
        e = Add(d, c) f = MaxPool<kernel_shape=[2], strides=[2]>(e) h = GlobalAveragePool(f) i = Flatten(h)
        y = Gemm<transB=1>(i, k) }"""
    model = onnx_model(text, w=weights(rng, 8, 4, 3), b=weights(rng, 8), u=weights(rng, 8, 1, 3), k=weights(rng, 5, 8))
    x = rng.normal(0, 1, (16, 4, 17)).astype(np.float32)

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": x}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    import onnx

    onnx.save(model, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "integer.onnx", Samples(), quant_format=getattr(QuantFormat, form),
        per_channel=per_channel, weight_type=QuantType.QInt8,
    )  # fmt: skip
    [wanted] = run_onnx(onnx.load(tmp_path / "integer.onnx"), {"x": x})
    graph = load_quantized(tmp_path / "integer.onnx").graph
    assert [node.op for node in graph.nodes] == ["reshape", "conv", "conv", "add", "max_pool", "mean", "linear"]
    step = float(graph.quant("y").scale)
    # Where a float sum of ONNX Runtime lies next to a tie, a code is one off.
    assert np.abs(simulate(graph, x)[0] - wanted).max() <= 1.01 * step
