"""The engine's reader and the Python one on damaged .edgeq files: what both take, both compute alike."""

from __future__ import annotations

import time

import numpy as np
import pytest
from mutations import mutate
from quantized_graphs import CASES, build

from edgeq.data.preprocessing import Preprocessing
from edgeq.errors import BackendError, FormatError
from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.edgeq_format import Guard, ModelInfo
from edgeq.importers.from_edgeq import decode
from edgeq.passes import channels_last, lower
from edgeq.session import Session
from edgeq.simulate import simulate_codes

INFO = ModelInfo(Preprocessing(32, (28, 28)), ("a", "b"), Guard(1.1, 0.2), {"producer": "a test"})
MEMORY = 64 << 20


def check_agreement(count: int, seed: int) -> None:
    """Feeds `count` mutations to both readers.

    The engine does not look into META, PREPROCESSING and the scales of biases, so it may take more; never less.
    """
    files = [encode(lower(channels_last(build(case, "w4a8", 7))), INFO) for case in CASES]
    rng = np.random.default_rng(seed)
    both = 0
    for index in range(count):
        content = mutate(files[int(rng.integers(len(files)))], rng, files)
        where = f"mutation {index} of seed {seed}"
        begin = time.perf_counter()
        try:
            session = Session(content, max_memory_bytes=MEMORY)
        except FormatError:
            session = None
        except BackendError:  # It would need more than MEMORY.
            continue
        assert time.perf_counter() - begin < 1, where
        try:
            graph, _ = decode(content)
        except FormatError:
            continue
        assert session is not None, f"{where}: only the Python reader takes it"
        both += 1
        if sum(int(np.prod(tensor.shape[1:])) for tensor in graph.activations()) > 1 << 16:
            continue
        codes = []
        for info, name in zip(session.inputs, graph.inputs, strict=True):
            quant = graph.quant(name)
            shape = (2, *(size for size in info.shape if size is not None))
            codes.append(rng.integers(quant.qmin, quant.qmax + 1, shape).astype(np.int8))
        found = session.run(codes)
        found = found if isinstance(found, list) else [found]
        for got, wanted in zip(found, simulate_codes(graph, codes), strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=where)
    assert both > count / 50


def test_readers_agree() -> None:
    check_agreement(1000, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_readers_agree_on_many(seed: int) -> None:
    check_agreement(1000, seed)
