"""What ONNX models say, and in how many ways, against ONNX Runtime."""

from __future__ import annotations

import math

import numpy as np
import onnx.parser
import pytest
from importers.onnx_models import assert_imports, onnx_model, run_onnx

from edgeq.errors import ImportModelError, UnsupportedOperatorError
from edgeq.importers.from_onnx import load, read, supported_operators
from edgeq.ir import BATCH
from edgeq.metrics import log_softmax
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.silu import SiluAttrs
from edgeq.ops.softplus import SoftplusAttrs
from edgeq.passes import float_pipeline
from edgeq.simulate.executor import run_float_graph

IMAGE = "(float[N, 4, 7, 6] x) => (float[] y)"


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.5, shape).astype(np.float32)


# --- weighted operators ---


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_auto_pad(rng: np.random.Generator, pad: str, stride: int) -> None:
    text = f'{IMAGE} {{ y = Conv<auto_pad="{pad}", strides=[{stride}, {stride}]>(x, w) }}'
    assert_imports(onnx_model(text, w=weights(rng, 5, 4, 3, 2)), rng, {"conv": 1})


def test_conv_groups_dilations_asymmetric_pads(rng: np.random.Generator) -> None:
    text = f"{IMAGE} {{ y = Conv<group=2, dilations=[2, 1], pads=[0, 1, 2, 0], strides=[1, 2]>(x, w, b) }}"
    assert_imports(onnx_model(text, w=weights(rng, 6, 2, 3, 3), b=weights(rng, 6)), rng, {"conv": 1})


@pytest.mark.parametrize(
    "attributes",
    [
        "strides=[2, 2]",
        "strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0]",
        "group=2, dilations=[2, 1]",
        "strides=[2, 2], output_shape=[14, 12]",
        'strides=[2, 2], auto_pad="SAME_UPPER"',
        'strides=[2, 2], auto_pad="SAME_LOWER"',
    ],
)
def test_conv_transpose(rng: np.random.Generator, attributes: str) -> None:
    text = f"{IMAGE} {{ y = ConvTranspose<{attributes}>(x, w, b) }}"
    out = 6 if "group" in attributes else 3
    model = onnx_model(text, w=weights(rng, 4, 3, 3, 3), b=weights(rng, out))
    assert_imports(model, rng, {"conv_transpose": 1})


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,), ()], ids=str)
def test_gemm_factors_and_bias_shapes(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    text = "(float[N, 5] x) => (float[N, 6] y) { y = Gemm<alpha=0.5, beta=2.0>(x, w, b) }"
    assert_imports(onnx_model(text, w=weights(rng, 5, 6), b=weights(rng, *shape)), rng, {"linear": 1})


def test_matmul_and_add_become_one_linear(rng: np.random.Generator) -> None:
    text = "(float[N, 5] x) => (float[N, 6] y) { t = MatMul(x, w) u = Add(b, t) y = Relu(u) }"
    done = assert_imports(onnx_model(text, w=weights(rng, 5, 6), b=weights(rng, 6)), rng, {"linear": 1})
    assert done.nodes[0].attrs.clamp == (0.0, math.inf)  # type: ignore[attr-defined]


def test_matmul_of_rank_3(rng: np.random.Generator) -> None:
    text = "(float[N, 3, 5] x) => (float[N, 3, 6] y) { t = MatMul(x, w) y = Add(t, b) }"
    assert_imports(onnx_model(text, w=weights(rng, 5, 6), b=weights(rng, 6)), rng, {"linear": 1, "add": 1})


# --- batch normalisation and arithmetic with constants ---


def norm_constants(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    spread = rng.uniform(0.3, 2, channels).astype(np.float32)
    values = {name: weights(rng, channels) for name in ("g", "b", "m")}
    return values | {"v": spread}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("t = Conv(x, w) y = BatchNormalization(t, g, b, m, v)", {"conv": 1}),
        ("t = BatchNormalization(x, g, b, m, v) y = Conv(t, w)", {"conv": 1}),
        ("t = BatchNormalization(x, g, b, m, v) y = Conv<pads=[1, 1, 1, 1]>(t, w)", {"conv": 2}),
        ("t = BatchNormalization(x, g, b, m, v) u = Conv(t, w) s = Conv(t, w) y = Add(u, s)", {"conv": 2, "add": 1}),
        ("t = BatchNormalization(x, g, b, m, v) u = Relu(t) y = Conv(u, w)", {"conv": 2}),
        ("t = Conv(x, w) u = Relu(t) y = BatchNormalization(u, g, b, m, v)", {"conv": 2}),
        ("t = ConvTranspose(x, w) y = BatchNormalization(t, g, b, m, v)", {"conv_transpose": 1}),
        ("t = BatchNormalization(x, g, b, m, v) y = BatchNormalization(t, b, m, g, v)", {"conv": 1}),
        ("t = Conv(x, w) s = BatchNormalization(t, g, b, m, v) y = Add(t, s)", {"conv": 2, "add": 1}),
        ("t = GlobalAveragePool(x) f = Flatten(t) y = BatchNormalization(f, g, b, m, v)",
         {"mean": 1, "mul": 1, "add": 1}),
        ("t = GlobalAveragePool(x) f = Flatten(t) s = BatchNormalization(f, g, b, m, v) y = Gemm(s, k)",
         {"mean": 1, "linear": 1}),
        ("t = GlobalAveragePool(x) f = Flatten(t) s = Gemm(f, k) y = BatchNormalization(s, g, b, m, v)",
         {"mean": 1, "linear": 1}),
    ],
)  # fmt: skip
def test_batch_norm_folds(rng: np.random.Generator, nodes: str, expected: dict[str, int]) -> None:
    constants = norm_constants(rng, 4) | {"w": weights(rng, 4, 4, 3, 3), "k": weights(rng, 4, 4)}
    assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants), rng, expected)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("t = Sub(x, c) s = Div(t, c) y = Conv(s, w)", {"conv": 1}),
        ("t = Sub(x, c) s = Div(t, c) y = Conv<pads=[1, 1, 1, 1]>(s, w)", {"conv": 2}),
        ("t = Mul(x, one) y = Conv<pads=[1, 1, 1, 1]>(t, w)", {"conv": 1}),
        ("t = Conv(x, w) s = Mul(t, c) y = Sub(one, s)", {"conv": 1}),
        ("t = Sub(c, x) y = Relu(t)", {"conv": 1}),
        ("t = Add(x, row) y = Relu(t)", {"add": 1}),
        ("t = Mul(row, x) y = Sub(t, row)", {"mul": 1, "sub": 1}),
    ],
)
def test_constants_fold(rng: np.random.Generator, nodes: str, expected: dict[str, int]) -> None:
    channel = rng.uniform(0.5, 2, (4, 1, 1)).astype(np.float32)
    constants = {"c": channel, "one": np.float32(1.7), "row": weights(rng, 6), "w": weights(rng, 4, 4, 3, 3)}
    assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants), rng, expected)


# --- activations in many spellings ---

CONSTANTS = {
    "half": 0.5, "one": 1.0, "three": 3.0, "six": 6.0, "zero": 0.0, "sixth": 1 / 6, "root": math.sqrt(2),
    "inverse": math.sqrt(0.5), "cubic": 0.044715, "slope": math.sqrt(2 / math.pi),
    "twenty": 20.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "op"),
    [
        ("s = Sigmoid(x) y = Mul(x, s)", "silu"),
        ("s = Sigmoid(x) y = Mul(s, x)", "silu"),
        ("s = HardSigmoid<alpha=0.16666667>(x) y = Mul(x, s)", "hard_swish"),
        ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", "hard_swish"),
        ("a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(d, x)", "hard_swish"),
        ("a = Add(three, x) r = Max(a, zero) c = Min(r, six) d = Mul(c, sixth) y = Mul(d, x)", "hard_swish"),
        ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", "hard_sigmoid"),
        ("a = Mul(x, sixth) b = Add(a, half) y = Clip(b, zero, one)", "hard_sigmoid"),
        ("d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)", "gelu"),
        ("d = Mul(x, inverse) e = Erf(d) a = Add(e, one) h = Mul(x, half) y = Mul(h, a)", "gelu"),
        ("d = Mul(x, inverse) e = Erf(d) a = Add(e, one) h = Mul(a, half) y = Mul(x, h)", "gelu"),
        ("p = Pow(x, three) c = Mul(p, cubic) a = Add(x, c) s = Mul(a, slope) t = Tanh(s) b = Add(t, one)"
         " h = Mul(x, half) y = Mul(h, b)", "gelu"),
        ("q = Mul(x, x) p = Mul(q, x) c = Mul(cubic, p) a = Add(x, c) s = Mul(a, slope) t = Tanh(s) b = Add(one, t)"
         " m = Mul(x, b) y = Mul(half, m)", "gelu"),
        ("s = Softplus(x) t = Tanh(s) y = Mul(x, t)", "mish"),
        ("s = Softplus(x) b = Greater(x, twenty) w = Where(b, x, s) t = Tanh(w) y = Mul(t, x)", "mish"),
        ("m = Mul(x, three) s = Softplus(m) y = Div(s, three)", "softplus"),
        ("m = Mul(half, x) s = Softplus(m) c = Constant<value_float=2.0>() y = Mul(c, s)", "softplus"),
        ("a = Abs(x) b = Add(a, one) y = Div(x, b)", "softsign"),
        ("a = Abs(x) b = Add(one, a) y = Div(x, b)", "softsign"),
    ],
)  # fmt: skip
def test_activation_patterns(rng: np.random.Generator, nodes: str, op: str) -> None:
    constants = {name: np.float32(value) for name, value in CONSTANTS.items() if name in nodes}
    assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants), rng, {op: 1})


@pytest.mark.parametrize(
    ("nodes", "attrs"),
    [
        ("s = Softplus(x) b = Greater(x, twenty) y = Where(b, x, s)", SoftplusAttrs()),
        ("s = Softplus(x) b = Greater(x, three) y = Where(b, x, s)", SoftplusAttrs(1.0, 3.0)),
        ("m = Mul(x, three) s = Softplus(m) d = Div(s, three) b = Greater(m, one) y = Where(b, x, d)",
         SoftplusAttrs(3.0, 1.0)),
        ("c = Constant<value_float=-2.0>() m = Mul(x, c) s = Softplus(m) d = Div(s, c) b = Greater(m, twenty)"
         " y = Where(b, x, d)", SoftplusAttrs(-2.0)),
    ],
)  # fmt: skip
def test_softplus_as_torch_writes_it(rng: np.random.Generator, nodes: str, attrs: SoftplusAttrs) -> None:
    constants = {name: np.float32(value) for name, value in CONSTANTS.items() if name in nodes}
    done = assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants), rng, {"softplus": 1})
    assert done.nodes[0].attrs == attrs


@pytest.mark.parametrize(
    ("nodes", "op"),
    [
        ("r = Relu(x) s = Softplus(x) b = Greater(r, three) y = Where(b, x, s)", "Greater"),
        ("r = Relu(x) s = Softplus(r) b = Greater(x, three) y = Where(b, x, s)", "Greater"),
        ("s = Softplus(x) b = Greater(x, three) y = Where(b, s, x)", "Greater"),
        ("m = Mul(x, three) s = Softplus(m) d = Div(s, six) b = Greater(m, one) y = Where(b, x, d)", "Greater"),
        ("a = Abs(x) b = Add(a, six) y = Div(x, b)", "Abs"),
        ("r = Relu(x) a = Abs(x) b = Add(a, one) y = Div(r, b)", "Abs"),
    ],
)
def test_what_only_looks_like_an_activation_is_refused(nodes: str, op: str) -> None:
    constants = {name: np.float32(value) for name, value in CONSTANTS.items() if name in nodes}
    with pytest.raises(UnsupportedOperatorError, match=f"operator {op} is not supported"):
        load(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants))


def test_parts_of_a_joined_activation_that_are_read_elsewhere_stay(rng: np.random.Generator) -> None:
    nodes = "s = Softplus(x) b = Greater(x, three) w = Where(b, x, s) y = Add(w, s)"
    model = onnx_model(f"{IMAGE} {{ {nodes} }}", three=np.float32(3))
    done = assert_imports(model, rng, {"softplus": 2, "add": 1})
    assert {node.attrs for node in done.nodes if node.op == "softplus"} == {SoftplusAttrs(), SoftplusAttrs(1.0, 3.0)}


def test_pattern_whose_parts_are_read_elsewhere(rng: np.random.Generator) -> None:
    text = f"{IMAGE} {{ s = Sigmoid(x) t = Mul(x, s) y = Add(t, s) }}"
    assert_imports(onnx_model(text), rng, {"silu": 1, "sigmoid": 1, "add": 1})


def test_excite_is_not_silu(rng: np.random.Generator) -> None:
    text = f"{IMAGE} {{ p = GlobalAveragePool(x) s = Sigmoid(p) y = Mul(x, s) }}"
    assert_imports(onnx_model(text), rng, {"mean": 1, "sigmoid": 1, "mul": 1})


@pytest.mark.parametrize(
    "op",
    [
        "Gelu", 'Gelu<approximate="tanh">', "HardSwish", "Tanh", "LeakyRelu<alpha=0.2>", "Elu", "Elu<alpha=0.3>",
        "Selu", "Selu<alpha=0.5, gamma=2.0>", "Celu", "Celu<alpha=0.4>", "Softplus", "Mish", "Softsign",
    ],
)  # fmt: skip
def test_native_activations(rng: np.random.Generator, op: str) -> None:
    assert_imports(onnx_model(f"{IMAGE} {{ y = {op}(x) }}", opset=20), rng)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1,), (1, 4, 1, 1)], ids=str)
def test_prelu_slopes(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    assert_imports(onnx_model(f"{IMAGE} {{ y = PRelu(x, s) }}", s=weights(rng, *shape)), rng, {"prelu": 1})


def test_clips_in_a_row_fuse(rng: np.random.Generator) -> None:
    text = f"{IMAGE} {{ t = Conv(x, w) r = Relu(t) c = Clip(r, a, b) y = Clip(c, , d) }}"
    model = onnx_model(text, w=weights(rng, 3, 4, 1, 1), a=np.float32(-1), b=np.float32(2), d=np.float32(1.5))
    done = assert_imports(model, rng, {"conv": 1})
    attrs = done.nodes[0].attrs
    assert isinstance(attrs, ConvAttrs)
    assert attrs.clamp == (0.0, 1.5)


def test_activation_of_what_is_read_twice_stays(rng: np.random.Generator) -> None:
    text = f"{IMAGE} {{ t = Conv(x, w) r = Relu(t) y = Add(t, r) }}"
    assert_imports(onnx_model(text, w=weights(rng, 4, 4, 1, 1)), rng, {"conv": 1, "relu": 1, "add": 1})


def test_activation_of_an_output_stays(rng: np.random.Generator) -> None:
    text = "(float[N, 4, 7, 6] x) => (float[] t, float[] y) { t = Conv(x, w) y = Relu(t) }"
    assert_imports(onnx_model(text, w=weights(rng, 4, 4, 1, 1)), rng, {"conv": 1, "relu": 1})


# --- pools and padding ---


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("window", [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (4, 3, 2)], ids=str)
def test_average_pool(rng: np.random.Generator, window: tuple[int, int, int], count: int, ceil: int) -> None:
    kernel, stride, pad = window
    text = (
        f"{IMAGE} {{ y = AveragePool<kernel_shape=[{kernel}, {kernel}], strides=[{stride}, {stride}], "
        f"pads=[{pad}, {pad}, {pad}, {pad}], ceil_mode={ceil}, count_include_pad={count}>(x) }}"
    )
    assert_imports(onnx_model(text, opset=19), rng)


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("window", [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1), (5, 4, 2)], ids=str)
def test_max_pool(rng: np.random.Generator, window: tuple[int, int, int], ceil: int) -> None:
    kernel, stride, pad = window
    text = (
        f"{IMAGE} {{ y = MaxPool<kernel_shape=[{kernel}, {kernel}], strides=[{stride}, {stride}], "
        f"pads=[{pad}, {pad}, {pad}, {pad}], ceil_mode={ceil}>(x) }}"
    )
    assert_imports(onnx_model(text), rng, {"max_pool": 1})


def test_average_over_everything_is_a_mean(rng: np.random.Generator) -> None:
    text = f"{IMAGE} {{ t = AveragePool<kernel_shape=[7, 6]>(x) y = Flatten(t) }}"
    assert_imports(onnx_model(text), rng, {"mean": 1})


@pytest.mark.parametrize("axes", [(2, 3), (-1, 2), (2,), (-1,)], ids=str)
@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("keep", [0, 1])
def test_reduce_max(rng: np.random.Generator, opset: int, keep: int, axes: tuple[int, ...]) -> None:
    given = f"axes={list(axes)}, " if opset < 18 else ""
    text = f"{IMAGE} {{ y = ReduceMax<{given}keepdims={keep}>(x{'' if given else ', a'}) }}"
    done = assert_imports(onnx_model(text, opset, **({} if given else {"a": np.array(axes)})), rng)
    assert [node.op for node in done.nodes] == ["max_pool"] + ["reshape"] * (1 - keep)


def test_global_max_pool(rng: np.random.Generator) -> None:
    assert_imports(onnx_model(f"{IMAGE} {{ y = GlobalMaxPool(x) }}"), rng, {"max_pool": 1})


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("keep", [0, 1])
def test_reduce_mean(rng: np.random.Generator, opset: int, keep: int) -> None:
    axes = "axes=[-1, 2], " if opset < 18 else ""
    text = f"{IMAGE} {{ y = ReduceMean<{axes}keepdims={keep}>(x{'' if axes else ', a'}) }}"
    constants = {} if axes else {"a": np.array([2, 3])}
    assert_imports(onnx_model(text, opset, **constants), rng, {"mean": 1})


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("t = Pad(x, p) y = Conv(t, w)", {"conv": 1}),
        ("t = Pad(x, p, seven) y = Conv(t, w)", {"pad": 1, "conv": 1}),
        ("t = Pad(x, p) u = Conv(t, w) s = MaxPool<kernel_shape=[3, 3]>(t) y = Add(u, s)",
         {"pad": 1, "conv": 1, "max_pool": 1, "add": 1}),
        ("r = Relu(x) t = Pad(r, p) y = MaxPool<kernel_shape=[3, 3]>(t)", {"relu": 1, "max_pool": 1}),
        ("t = Pad(x, p, low) y = MaxPool<kernel_shape=[3, 3], strides=[2, 2]>(t)", {"max_pool": 1}),
        ("t = Pad(x, p) y = AveragePool<kernel_shape=[3, 3]>(t)", {"avg_pool": 1}),
        ("t = Pad(x, p) y = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(t)", {"pad": 1, "avg_pool": 1}),
        ("t = Pad(x, small) y = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1>(t)",
         {"avg_pool": 1}),
        ("t = Pad(x, behind) y = AveragePool<kernel_shape=[2, 2], strides=[3, 3]>(t)", {"avg_pool": 1}),
        ("r = Pad(x, p) y = Pad(r, q)", {"pad": 2}),
    ],
)  # fmt: skip
def test_padding_folds_where_it_may(rng: np.random.Generator, nodes: str, expected: dict[str, int]) -> None:
    constants = {
        "p": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "q": np.array([0, 1, 0, 0, 0, 1, 0, 0]), "w": weights(rng, 4, 4, 3, 3),
        "small": np.array([0, 0, 1, 0, 0, 0, 0, 1]), "seven": np.float32(7),
        "low": np.float32(np.finfo(np.float32).min), "behind": np.array([0, 0, 0, 0, 0, 0, 2, 1]),
    }  # fmt: skip
    assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants), rng, expected)


# --- shapes ---


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Flatten(x)",
        "y = Flatten<axis=-3>(x)",
        "y = Reshape(x, all)",
        "y = Reshape(x, keep)",
        "y = Reshape(x, free)",
        "s = Shape(x) i = Constant<value_int=0>() n = Gather(s, i) u = Unsqueeze(n, zero) t = Concat<axis=0>(u, minus)"
        " y = Reshape(x, t)",
        "s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, pair) y = Reshape(x, t)",
        "s = Shape(x) b = Slice(s, zero, one) t = Concat<axis=0>(b, minus) f = Reshape(x, t) y = Relu(f)",
        "a = Unsqueeze(x, one) y = Squeeze(a, one)",
        "a = Transpose<perm=[0, 2, 3, 1]>(x) b = Transpose<perm=[0, 3, 1, 2]>(a) y = Relu(b)",
        "s = Shape(x) e = Expand(x, s) y = Relu(e)",
    ],
)
@pytest.mark.parametrize("batch", ["N", "1"])
def test_reshapes_keep_the_batch(rng: np.random.Generator, nodes: str, batch: str) -> None:
    constants = {
        "all": np.array([0, -1]), "keep": np.array([-1, 4, 42]), "free": np.array([0, 0, 42]), "zero": np.array([0]),
        "one": np.array([1]), "minus": np.array([-1]), "pair": np.array([2, 84]),
    }  # fmt: skip
    text = f"(float[{batch}, 4, 7, 6] x) => (float[] y) {{ {nodes} }}"
    done = assert_imports(onnx_model(text, **constants), rng, batch=1 if batch == "1" else 3)
    assert done.tensor("y").shape[0] == BATCH


def test_model_of_fixed_batch_1(rng: np.random.Generator) -> None:
    text = "(float[1, 4, 7, 6] x) => (float[] y) { a = Reshape(x, t) b = Relu(a) y = Reshape(b, u) }"
    model = onnx_model(text, t=np.array([1, 2, 84]), u=np.array([1, -1]))
    graph = assert_imports(model, rng, batch=1)
    assert graph.tensor("y").shape == (BATCH, 168)


def test_shape_nodes_alone_leave_a_reshape(rng: np.random.Generator) -> None:
    text = f"{IMAGE} {{ s = Shape(x) h = Reshape(x, t) y = Reshape(h, s) }}"
    done = assert_imports(onnx_model(text, t=np.array([0, 2, -1])), rng)
    assert [node.op for node in done.nodes] == ["reshape"]  # Input and output must keep their names.
    assert done.nodes[0].attrs == ReshapeAttrs((BATCH, 4, 7, 6))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("a, b = Split<axis=1>(x, sizes) y = Add(b, a)", {"slice": 2, "add": 1}),
        ("a, b, c = Split<axis=-1, num_outputs=3>(x) s = Add(a, b) y = Add(s, c)", {"slice": 3, "add": 2}),
        ("y = Slice(x, from, to, axes)", {"slice": 1}),
        ("y = Slice(x, from, to, axes, steps)", {"slice": 1}),
        ("a = Slice(x, from, to, axes, steps) y = Slice(a, from, to, axes)", {"slice": 1}),
        ("y = Gather<axis=1>(x, even)", {"slice": 1}),
        ("y = Gather<axis=2>(x, third)", {"slice": 1, "reshape": 1}),
        ("y = Gather<axis=1>(x, shuffled)", {"channel_shuffle": 1}),
        ("a = Reshape(x, groups) b = Transpose<perm=[0, 2, 1, 3, 4]>(a) y = Reshape(b, whole)", {"channel_shuffle": 1}),
        ("a = Reshape(x, flat) b = Transpose<perm=[0, 2, 1, 3]>(a) y = Reshape(b, whole)", {"channel_shuffle": 1}),
        ("a = Identity(x) b = Dropout(a) c = Cast<to=1>(b) y = Relu(c)", {"relu": 1}),
        ("a = Relu(x) b = Relu(x) y = Concat<axis=-3>(a, b, x)", {"relu": 2, "concat": 1}),
    ],
)
def test_parts_and_shuffles(rng: np.random.Generator, nodes: str, expected: dict[str, int]) -> None:
    constants = {
        "sizes": np.array([2, 2]), "from": np.array([1, -5]), "to": np.array([1 << 62, -1]), "axes": np.array([2, -1]),
        "steps": np.array([2, 1]), "even": np.array([1, 3]), "third": np.array(-2), "shuffled": np.array([0, 2, 1, 3]),
        "groups": np.array([0, 2, 2, 7, 6]), "flat": np.array([0, 2, 2, 42]), "whole": np.array([-1, 4, 7, 6]),
    }  # fmt: skip
    assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants), rng, expected)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("position", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
def test_resize(rng: np.random.Generator, mode: str, position: str) -> None:
    settings = f'mode="{mode}", coordinate_transformation_mode="{position}", nearest_mode="floor"'
    by_scale = onnx_model(f"{IMAGE} {{ y = Resize<{settings}>(x, , s) }}", s=np.array([1, 1, 2, 3], np.float32))
    assert_imports(by_scale, rng, {"resize": 1})
    nodes = f"a = Shape<start=0, end=2>(x) b = Concat<axis=0>(a, size) y = Resize<{settings}>(x, , , b)"
    assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", size=np.array([14, 3])), rng, {"resize": 1})
    # 7 / 3 and 31 / 7 in 32 bits are too little: sizes are counted, not the scale multiplied.
    for small, large in ((3, 7), (7, 31)):
        nodes = f"m = Relu(x) r = Resize<{settings}>(m, , , size) y = Add(r, c)"
        image = f"(float[1, 4, {small}, {small}] x) => (float[] y)"
        constants = {"size": np.array([1, 4, large, large]), "c": weights(rng, large, large)}
        assert_imports(onnx_model(f"{image} {{ {nodes} }}", **constants), rng, batch=1)


def test_outputs_of_nodes_that_change_nothing(rng: np.random.Generator) -> None:
    nodes = "r = Relu(x) y = Identity(r) z = Identity(r) x2 = Identity(x)"
    text = f"(float[N, 4] x) => (float[N, 4] y, float[N, 4] z, float[N, 4] x2) {{ {nodes} }}"
    assert_imports(onnx_model(text), rng)


def test_constants_are_folded(rng: np.random.Generator) -> None:
    nodes = (
        "one = ConstantOfShape(n) e = Expand(one, m) r = Range(a, b, c) f = Cast<to=1>(r) s = Sqrt(f)"
        " u = Unsqueeze(s, ax) k = Add(e, u) t = Transpose(k) q = Mul(t, half) p = Where(no, t, q) y = MatMul(x, p)"
    )
    constants = {
        "n": np.array([1, 1]), "m": np.array([6, 4]), "a": np.array(0), "b": np.array(4), "c": np.array(1),
        "ax": np.array([0]), "half": np.float32(0.5), "no": np.array(False),
    }  # fmt: skip
    model = onnx_model(f"(float[N, 4] x) => (float[] y) {{ {nodes} }}", **constants)
    assert_imports(model, rng, {"linear": 1})


@pytest.mark.parametrize("mode", [0, 1])
def test_standardized_weights_are_folded(rng: np.random.Generator, mode: int) -> None:
    """As torch exports a batch normalization of weights, whose statistics are their own."""
    outputs = "n, m1, v1" if mode else "n"
    nodes = (
        f"r = Reshape(w, flat) {outputs} = BatchNormalization<training_mode={mode}, epsilon=0.01>(r, g, b, m, v)"
        " u = Reshape(n, square) y = Conv(x, u)"
    )
    constants = norm_constants(rng, 4) | {
        "w": weights(rng, 4, 4, 3, 3), "flat": np.array([1, 4, 36]), "square": np.array([4, 4, 3, 3]),
    }  # fmt: skip
    assert_imports(onnx_model(f"{IMAGE} {{ {nodes} }}", **constants), rng, {"conv": 1})


# --- refusals ---


def test_unsupported_operator_names_node_and_what_is_supported() -> None:
    model = onnx_model(f'{IMAGE} {{ y = Einsum<equation="abcd->abcd">(x) }}')
    model.graph.node[0].name = "strange"
    with pytest.raises(UnsupportedOperatorError, match=r"'strange'.*Einsum.*Conv, ConvTranspose"):
        load(model)
    assert {"Conv", "Gemm", "Split", "Resize", "Identity", "BatchNormalization"} <= set(supported_operators())


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Relu(x) y = LogSoftmax(h)",
        "y = LogSoftmax<axis=1>(x)",
        "h = Relu(x) s = LogSoftmax<axis=-1>(h) y = Identity(s)",
        "h = Relu(x) i = Reshape(h, image) s = LogSoftmax<axis=1>(i) y = Flatten(s)",
    ],
)
def test_a_classifiers_last_log_softmax_is_left_out(nodes: str, rng: np.random.Generator) -> None:
    model = onnx_model(f"(float[N, 5] x) => (float[] y) {{ {nodes} }}", image=np.array([0, 5, 1, 1]))
    found = read(model)
    assert len(found.notes) == 1
    assert "LogSoftmax at the end is left out" in found.notes[0][1]
    x = rng.normal(0, 3, (4, 5)).astype(np.float32)
    (wanted,) = run_onnx(model, {"x": x})
    for graph in (found.graph, float_pipeline(found.graph)):
        assert graph.outputs == ["y"]
        (scores,) = run_float_graph(graph, x)
        assert scores.shape == wanted.shape
        np.testing.assert_array_equal(scores, np.maximum(x, 0) if "Relu" in nodes else x)
        np.testing.assert_allclose(log_softmax(scores), wanted, atol=1e-5)
    assert not read(onnx_model("(float[N, 5] x) => (float[] y) { y = Relu(x) }")).notes


@pytest.mark.parametrize(
    "text",
    [
        f"{IMAGE} {{ y = LogSoftmax<axis=1>(x) }}",
        "(float[N, 5] x) => (float[] y) { y = LogSoftmax<axis=0>(x) }",
        "(float[N, 1] x) => (float[] y) { y = LogSoftmax<axis=1>(x) }",
        "(float[N, 5] x) => (float[] y) { s = LogSoftmax<axis=1>(x) y = Relu(s) }",
        "(float[N, 5] x) => (float[] y) { s = LogSoftmax<axis=1>(x) y = Add(s, s) }",
        "(float[N, 5] x) => (float[] y, float[] z) { y = LogSoftmax<axis=1>(x) z = Relu(y) }",
        "(float[N, 5] x) => (float[] y, float[] z) { s = LogSoftmax<axis=1>(x) y = Identity(s) z = Relu(s) }",
        "(float[N, 5] x) => (float[] y) { s = LogSoftmax<axis=1>(x) z = Identity(s) y = Relu(x) }",
    ],
)
def test_another_log_softmax_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"LogSoftmax is not supported.*leave it out of the model"):
        load(onnx_model(text))


@pytest.mark.parametrize(
    ("text", "constants", "message"),
    [
        ("(float[N, 4] x) => (float[] y) { y = Reshape(x, t) }", {"t": np.array([-1, 2])}, "the batch must stay"),
        ("(float[N, 4] x) => (float[] y) { y = Transpose(x) }", {}, "moves the batch axis"),
        ("(float[N, 4] x) => (float[] y) { y = Concat<axis=0>(x, x) }", {}, "batch axis"),
        ("(float[N, 4] x) => (float[] y) { y = MatMul(x, x) }", {}, "must be constant"),
        (f"{IMAGE} {{ y = ReduceMax(x, a) }}", {"a": np.array([1])}, "maximum over height, width or both"),
        (f"{IMAGE} {{ y = ReduceMax(x) }}", {}, "maximum over height, width or both"),
        ("(float[N, 4] x) => (float[] y) { y = ReduceMax(x, a) }", {"a": np.array([1])}, "maximum over height"),
        ("(float[8, 4] x) => (float[] y) { y = Relu(x) }", {}, "fixed batch of 8"),
        ("(float[N, C] x) => (float[] y) { y = Relu(x) }", {}, "must have a fixed size"),
        ("(int64[N, 4] x) => (float[] y) { y = Relu(x) }", {}, "floating-point"),
        ("(float[N, 4] x) => (float[] y) { y = Relu(z) }", {}, "neither an input"),
        ("(float[N, 4] x) => (float[] y) { a = Add(x, b) b = Relu(a) y = Relu(b) }", {}, "cycle"),
        ("(float[N, 4] x) => (float[] y) { y = Relu(x) y = Tanh(x) }", {}, "defined twice"),
        ("(float[N, 4] x) => (float[] y) { a = Relu(x) }", {}, "not computed"),
        ("(float[N, 4] x) => (float[] y) { y = Relu(c) }", {"c": np.ones(3, np.float32)},
         "does not depend on the input"),
        ("(float[N, 4] x) => (float[] y) { y = Cast<to=7>(x) }", {}, "stay float"),
        ("(float[N, 4] x) => (float[] y) { y = Div(x, c) }", {"c": np.float32(0)}, "zero"),
        ("(float[N, 4] x) => (float[] y) { y = Add(x, c) }", {"c": np.full(4, np.nan, np.float32)}, "NaN"),
        ("(float[N, 4] x) => (float[] y) { y = Pad<mode=\"reflect\">(x, p) }", {"p": np.zeros(4, np.int64)}, "reflect"),
        ("(float[N, 4] x) => (float[] y) { y = Slice(x, a, b, c, d) }",
         {"a": np.array([3]), "b": np.array([-9]), "c": np.array([1]), "d": np.array([-1])}, "positive"),
        ("(float[N, 4] x) => (float[] y) { y = Slice(x, a, b, c) }",
         {"a": np.array([0]), "b": np.array([1]), "c": np.array([0])}, "cuts the batch"),
        ("(float[N, 4] x) => (float[] y) { c = ConstantOfShape(n) y = Add(x, c) }", {"n": np.array([1 << 40, 4])},
         "too large"),
        ("(float[N, 4] x) => (float[] y) { c = Expand(o, n) y = Add(x, c) }",
         {"o": np.ones(1, np.float32), "n": np.array([1 << 20, 1 << 20, 4])}, "too large"),
        ("(float[N, 4] x) => (float[] y) { c = Range(a, b, d) y = Add(x, c) }",
         {"a": np.float32(0), "b": np.float32(1e12), "d": np.float32(1e-3)}, "too large"),
        ("(float[N, 4] x) => (float[] y) { c = MatMul(a, b) y = Add(x, c) }",
         {"a": np.ones((9999, 1), np.float32), "b": np.ones((1, 9999), np.float32)}, "too large"),
        ("(float[N, 4, 5, 5] x) => (float[] y) { y = MaxPool<kernel_shape=[9, 9]>(x) }", {}, "does not fit"),
        ("(float[N, 4, 5, 5] x) => (float[] y) { y = MaxPool<kernel_shape=[2, 2], strides=[0, 1]>(x) }", {},
         "positive"),
        ("(float[N, 4, 5, 5] x) => (float[] y) { y = Conv(x, w) }", {"w": np.ones((2, 3, 1, 1), np.float32)},
         "do not fit"),
        ("(float[N, 4, 5, 5] x) => (float[] y) { y = Resize(x, , s) }", {"s": np.array([1, 1, 1.3, 1], np.float32)},
         "whole size"),
        ("(float[N, 4, 5, 5] x) => (float[] y) { y = Resize<mode=\"cubic\">(x, , s) }",
         {"s": np.array([1, 1, 2, 2], np.float32)}, "cubic"),
    ],
)  # fmt: skip
def test_refusals_name_the_cause(text: str, constants: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        load(onnx_model(text, **constants))


@pytest.mark.parametrize("opset", [9, 12, 99])
def test_opset_out_of_range(opset: int) -> None:
    with pytest.raises(ImportModelError, match="opset"):
        load(onnx_model(f"{IMAGE} {{ y = Relu(x) }}", opset))


def test_nodes_out_of_order(rng: np.random.Generator) -> None:
    model = onnx_model(f"{IMAGE} {{ a = Relu(x) b = Tanh(a) y = Add(a, b) }}")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [node.op for node in load(model).nodes] == ["relu", "tanh", "add"]


def test_clip_without_finite_bounds() -> None:
    model = onnx_model(f"{IMAGE} {{ y = Clip(x, a) }}", a=np.float32(np.finfo(np.float32).min))
    assert load(model).nodes[0].attrs == ClipAttrs()


def test_own_functions_are_expanded(rng: np.random.Generator) -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 18, "own" : 1]> agraph (float[N, 4] x) => (float[N, 4] y)'
        ' { y = own.twice(x) } <domain: "own", opset_import: ["" : 18]> twice (a) => (c) { b = Relu(a) c = Add(b, b) }'
    )
    assert [node.op for node in load(onnx.parser.parse_model(text)).nodes] == ["relu", "add"]


def test_newest_opset_and_its_swish() -> None:
    newest = onnx.defs.onnx_opset_version()
    if newest < 24:
        pytest.skip(f"the installed onnx knows opset {newest}; Swish came with 24")
    model = onnx_model(f"{IMAGE} {{ y = Swish<alpha=2.0>(x) }}", newest)
    (node,) = load(model).nodes
    assert (node.op, node.attrs) == ("silu", SiluAttrs(2.0))
