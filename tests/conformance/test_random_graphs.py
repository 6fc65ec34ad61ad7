"""Random graphs: simulate in NCHW, in NHWC and read back from the file, and the native engine agree.

The matrix of single operators and typical blocks is in tests/native/test_conformance.py, tests/passes and
tests/exporters, all over the cases of `quantized_graphs`. Here operators meet in every order, with branches and
several readers, which is where fusion, in-place concatenation and layout changes could go wrong.
"""

from __future__ import annotations

import numpy as np
import pytest
from quantized_graphs import SCHEMES, QuantizedBuilder, random_codes

from edgeq.exporters.edgeq_file import encode
from edgeq.importers.from_edgeq import decode
from edgeq.ir import Graph
from edgeq.ops import check_graph
from edgeq.ops.base import Window
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.resize import Coordinates, NearestRounding, ResizeAttrs, ResizeMode
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.passes import channels_last, lower
from edgeq.session import Session, native_module
from edgeq.simulate import simulate_codes

STEPS = 12
CHANNELS = (1, 2, 3, 4, 7, 8, 12, 16, 17, 24, 33)


def random_graph(seed: int, scheme: str) -> Graph:
    """A graph of about STEPS random operators on images, rows and sequences, most of whose loose ends are outputs."""
    rng = np.random.default_rng(seed)
    b = QuantizedBuilder(rng, scheme)
    for _ in range(int(rng.integers(1, 3))):
        b.input(int(rng.choice(CHANNELS)), int(rng.integers(1, 10)), int(rng.integers(1, 10)))
    pool = list(b.graph.inputs)
    while len(b.graph.nodes) < STEPS:
        # The newest tensors are the likeliest, so that graphs grow deep as well as wide.
        x = pool[-1] if rng.random() < 0.6 else pool[int(rng.integers(len(pool)))]
        rank = len(b.shape(x))
        made = _image(b, rng, x, pool) if rank == 4 else _rows(b, rng, x, pool)
        if made and made not in pool:
            pool.append(made)
    read = {name for node in b.graph.nodes for name in node.inputs}
    made = [name for node in b.graph.nodes for name in node.outputs]
    outputs = [name for name in made if name not in read]
    extra = [name for name in made if name in read and rng.random() < 0.08]
    if rng.random() < 0.3 and len(b.shape(outputs[-1])) > 1 and b.graph.tensor(outputs[-1]).quant is not None:
        axis = int(rng.integers(1, len(b.shape(outputs[-1]))))
        outputs.append(b.node("softmax", [outputs[-1]], SoftmaxAttrs(axis)))
    return b.finish(*outputs, *extra)


def _partner(b: QuantizedBuilder, rng: np.random.Generator, x: str, pool: list[str], same_quant: bool) -> str | None:
    """Another tensor of the same shape (and quantization), if there is one."""
    fitting = [name for name in pool if b.shape(name) == b.shape(x) and b.graph.tensor(name).quant is not None]
    if same_quant:
        fitting = [name for name in fitting if b.graph.quant(name).same_as(b.graph.quant(x))]
    return fitting[int(rng.integers(len(fitting)))] if fitting else None


def _image(b: QuantizedBuilder, rng: np.random.Generator, x: str, pool: list[str]) -> str | None:
    _, channels, height, width = b.shape(x)
    kernel = int(rng.choice([k for k in (1, 2, 3, 5) if k <= min(height, width) + 2]))
    pads = tuple(int(p) for p in rng.integers(0, max(kernel, 1), 4))
    strides = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    fits = height + pads[0] + pads[2] >= kernel and width + pads[1] + pads[3] >= kernel
    clamp = bool(rng.random() < 0.5)
    kind = rng.choice(
        ["conv1", "conv1", "conv", "depthwise", "groups", "add", "mul", "unary", "prelu", "max_pool", "avg_pool",
         "mean", "concat", "slice", "pad", "resize", "shuffle", "flatten", "sequence", "transpose", "deconv", "gate",
         "constant"]
    )  # fmt: skip
    if height * width > 400 and kind in ("deconv", "resize", "pad"):
        return None
    if kind == "conv1":
        return b.conv(x, int(rng.choice(CHANNELS)), clamp=clamp, bias=bool(rng.random() < 0.8))
    if kind == "conv" and fits:
        return b.conv(x, int(rng.choice(CHANNELS)), (kernel, kernel), strides, pads, clamp=clamp)
    if kind == "depthwise" and fits:
        return b.conv(x, channels, (kernel, kernel), strides, pads, groups=channels, clamp=clamp)
    if kind == "groups" and fits:
        groups = int(rng.choice([g for g in (1, 2, 3, 4) if channels % g == 0]))
        return b.conv(x, groups * int(rng.integers(1, 9)), (kernel, kernel), strides, pads, groups=groups)
    if kind in ("add", "mul"):
        other = _partner(b, rng, x, pool, False)
        return other and b.binary(str(rng.choice(["add", "sub"])) if kind == "add" else "mul", x, other, clamp)
    if kind == "unary":
        return b.unary(str(rng.choice(["relu", "sigmoid", "hard_swish", "tanh"])), x)
    if kind == "prelu":
        return b.prelu(x, bool(rng.random() < 0.5))
    if kind in ("max_pool", "avg_pool") and min(height, width) >= kernel > 1:
        inside = (kernel - 1, 0, 0, kernel - 1) if rng.random() < 0.3 else (0, 0, 0, 0)
        window = Window((kernel, kernel), strides, inside)
        if kind == "max_pool":
            return b.max_pool(x, window.kernel, window.strides, window.pads)
        return b.avg_pool(x, window, bool(rng.random() < 0.5))
    if kind == "mean":
        return b.mean(x, bool(rng.random() < 0.5))
    if kind == "concat":
        other = _partner(b, rng, x, pool, True)
        axis = int(rng.choice([1, 1, 1, 2, 3]))
        return (
            b.node("concat", [x, other, x] if rng.random() < 0.2 else [x, other], ConcatAttrs(axis)) if other else None
        )
    if kind == "slice":
        axis = int(rng.choice([1, 1, 2, 3]))
        size = b.shape(x)[axis]
        begin = int(rng.integers(size))
        stride = int(rng.integers(1, 3))
        return b.part(x, axis, begin, int(rng.integers(1, (size - begin - 1) // stride + 2)), stride)
    if kind == "pad":
        before, after = ((0, *(int(v) for v in rng.integers(0, 3, 3))) for _ in range(2))
        return b.node("pad", [x], PadAttrs(before, after, float(rng.normal(0, 0.3))))
    if kind == "resize":
        size = (int(rng.integers(1, 13)), int(rng.integers(1, 13)))
        attrs = ResizeAttrs(
            size,
            ResizeMode(int(rng.integers(2))),
            Coordinates(int(rng.integers(4))),
            NearestRounding(int(rng.integers(4))),
        )
        return b.node("resize", [x], attrs)
    if kind == "shuffle":
        groups = [g for g in range(2, channels) if channels % g == 0]
        return b.node("channel_shuffle", [x], ChannelShuffleAttrs(int(rng.choice(groups)))) if groups else None
    if kind == "flatten":
        return b.flatten(x)
    if kind == "sequence":
        flat = b.reshape(x, channels, height * width)
        return b.transpose(flat, 0, 2, 1) if rng.random() < 0.5 else flat
    if kind == "transpose":
        return b.transpose(x, 0, *(int(a) for a in rng.permutation([1, 2, 3])))
    if kind == "deconv":
        return b.conv_transpose(x, int(rng.choice(CHANNELS)), (kernel, 2), (2, 2))
    if kind == "gate":
        return b.binary("mul", x, b.unary("sigmoid", b.conv(b.mean(x), channels)))
    if kind == "constant":
        shape = [(1, channels, 1, 1), (1, 1, 1, 1), (1, channels, height, width), (1, 1, height, 1)][
            int(rng.integers(4))
        ]
        return b.binary(str(rng.choice(["add", "sub", "mul"])), x, b.constant(*shape), clamp)
    return None


def _rows(b: QuantizedBuilder, rng: np.random.Generator, x: str, pool: list[str]) -> str | None:
    shape = b.shape(x)
    kind = rng.choice(["linear", "linear", "unary", "add", "constant", "slice", "concat", "image", "transpose"])
    if kind == "linear":
        return b.linear(x, int(rng.choice(CHANNELS)), clamp=bool(rng.random() < 0.5))
    if kind == "unary":
        return b.unary(str(rng.choice(["relu", "sigmoid", "tanh"])), x)
    if kind == "add":
        other = _partner(b, rng, x, pool, False)
        return other and b.binary(str(rng.choice(["add", "mul"])), x, other)
    if kind == "constant":
        return b.binary("mul", x, b.constant(*((1,) * (len(shape) - 1)), shape[-1]))
    if kind == "slice":
        begin = int(rng.integers(shape[-1]))
        return b.part(x, len(shape) - 1, begin, int(rng.integers(1, shape[-1] - begin + 1)))
    if kind == "concat":
        other = _partner(b, rng, x, pool, True)
        return other and b.concat([x, other], int(rng.integers(1, len(shape))))
    if kind == "image" and len(shape) == 2:
        sizes = [c for c in (1, 2, 3, 4) if shape[1] % c == 0]
        channels = int(rng.choice(sizes))
        return b.reshape(x, channels, shape[1] // channels, 1)
    if kind == "transpose" and len(shape) == 3:
        return b.transpose(x, 0, 2, 1)
    return None


def check(seed: int, scheme: str) -> None:
    graph = random_graph(seed, scheme)
    check_graph(graph)
    lowered = lower(channels_last(graph))
    check_graph(lowered)
    content = encode(lowered)
    read, _ = decode(content)
    feeds = {batch: random_codes(graph, batch, seed + batch) for batch in (1, 3)}
    wanted = {batch: simulate_codes(graph, codes) for batch, codes in feeds.items()}
    for what, other in (("channels last", lowered), ("read back", read)):
        for found, expected in zip(simulate_codes(other, feeds[3]), wanted[3], strict=True):
            np.testing.assert_array_equal(found, expected, err_msg=f"seed {seed}, simulate {what}")
    for isa in native_module().cpu_info()["available"]:
        for threads in (1, 2):
            session = Session(content, threads, max_isa=isa)
            for batch in (3, 1):
                found = session.run(feeds[batch])
                for name, got, expected in zip(
                    graph.outputs, found if isinstance(found, list) else [found], wanted[batch], strict=True
                ):
                    where = f"seed {seed}, {name}, {isa}, {threads} threads, batch {batch}"
                    np.testing.assert_array_equal(got, expected, err_msg=where)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("seed", range(15))
def test_random_graph(seed: int, scheme: str) -> None:
    check(seed, scheme)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 2000, 50))
def test_many_random_graphs(seed: int) -> None:
    for offset in range(50):
        check(seed + offset, list(SCHEMES)[offset % len(SCHEMES)])
