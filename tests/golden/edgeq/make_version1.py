"""Makes the frozen files of format version 1: run once, when the version was made. Never run it again.

    PYTHONPATH=.:tests python tests/golden/edgeq/make_version1.py

A later version of the format gets its own script and its own files beside these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from quantized_graphs import QuantizedBuilder, random_codes

from edgeq.data.preprocessing import Preprocessing
from edgeq.exporters.edgeq_file import write
from edgeq.exporters.edgeq_format import Guard, ModelInfo
from edgeq.ir import Graph
from edgeq.ops.base import Window
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.hard_sigmoid import HardSigmoidAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.resize import ResizeAttrs, ResizeMode
from edgeq.ops.softmax import SoftmaxAttrs
from edgeq.passes import channels_last, lower
from edgeq.simulate import simulate_codes

INFO = ModelInfo(
    Preprocessing(16, (12, 12), (127.0, 120.5, 99.25), (128.0, 64.0, 32.0), "bgr", "bicubic"),
    ("ant", "bee", "Käfer", "moth", "wasp"),
    Guard(1.25, 0.125),
    {"producer": "edgeq", "scheme": "w4a8"},
)


def every_operator(scheme: str, seed: int) -> Graph:
    """A small graph that holds every operator of format version 1."""
    b = QuantizedBuilder(np.random.default_rng(seed), scheme)
    x = b.node("pad", [b.input(3, 12, 12)], PadAttrs((0, 0, 0, 0), (0, 0, 1, 1)))
    x = b.conv(x, 8, (3, 3), (2, 2), clamp=True)
    y = b.depthwise(b.conv(x, 12, clamp=True))
    x = b.binary("add", b.conv(y, 8), x)
    gate = b.unary("hard_sigmoid", b.conv(b.mean(x), 8), HardSigmoidAttrs())
    x = b.binary("mul", x, gate)
    x = b.node("channel_shuffle", [b.concat([b.part(x, 1, 0, 4), x])], ChannelShuffleAttrs(3))
    x = b.max_pool(b.prelu(x, True), (2, 2), (2, 2))
    x = b.conv_transpose(x, 6)
    x = b.node("resize", [x], ResizeAttrs((8, 8), ResizeMode.BILINEAR))
    x = b.avg_pool(x, Window((2, 2), (2, 2)))
    x = b.binary("sub", x, b.constant(1, 6, 1, 1))
    sequence = b.transpose(b.reshape(x, 6, 16), 0, 2, 1)
    mixed = b.linear(b.transpose(b.linear(sequence, 5), 0, 2, 1), 3)
    logits = b.linear(b.flatten(x), 5)
    return b.finish(b.node("softmax", [logits], SoftmaxAttrs(1)), logits, mixed)


if __name__ == "__main__":
    folder = Path(__file__).parent
    for scheme, seed in (("w8a8", 11), ("w4a8", 12), ("w4a4", 13)):
        path = folder / f"version1_{scheme}.edgeq"
        if path.exists():
            raise SystemExit(f"{path.name} exists; frozen files are never made again")
        graph = every_operator(scheme, seed)
        codes = random_codes(graph, 3, seed)
        write(path, lower(channels_last(graph)), INFO)
        outputs = simulate_codes(graph, codes)
        np.savez(folder / f"version1_{scheme}.npz", x=codes[0], **{f"y{i}": y for i, y in enumerate(outputs)})
