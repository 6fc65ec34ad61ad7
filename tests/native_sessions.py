"""Comparing the native engine with the integer statements on one graph, in every way that a session can run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from quantized_graphs import random_codes

from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.passes import channels_last, lower
from edgeq.session import Session, native_module
from edgeq.simulate import simulate_codes

ISAS: list[str] = native_module().cpu_info()["available"]


class SplitSession(Session):
    """Splits every layer over its threads, however small."""

    _engine_options = {"split_cost": 0}  # noqa: RUF012


def expect_exact(
    build: Callable[[], Graph], *, threads: Sequence[int] = (1, 2, 5), batches: Sequence[int] = (1, 3)
) -> SplitSession:
    """Runs random codes on every instruction set, thread count and batch; returns the last session.

    Args:
        build: Makes the NCHW graph; called again for each batch, because lowering changes it.
        threads: Thread counts.
        batches: Batch sizes.
    """
    graph = lower(channels_last(build()))
    content = encode(graph)
    feeds = {batch: random_codes(build(), batch, seed=batch) for batch in batches}
    wanted = {batch: simulate_codes(graph, codes) for batch, codes in feeds.items()}
    for isa in ISAS:
        for count in threads:
            session = SplitSession(content, count, max_isa=isa)
            for batch in batches:
                found = session.run(feeds[batch])
                found = found if isinstance(found, list) else [found]
                for got, expected in zip(found, wanted[batch], strict=True):
                    assert got.dtype == expected.dtype
                    np.testing.assert_array_equal(got, expected, err_msg=f"{isa}, {count} threads, batch {batch}")
    return session
