"""The native engine equals the integer statements bit for bit: every case, scheme, instruction set and thread count."""

from __future__ import annotations

import numpy as np
import pytest
from native_sessions import SplitSession, expect_exact
from quantized_graphs import CASES, SCHEMES, Case, build, random_codes

from edgeq.exporters.edgeq_file import encode
from edgeq.passes import channels_last, lower
from edgeq.session import Session
from edgeq.simulate import simulate
from edgeq.simulate.executor import execute


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_statements(case: Case, scheme: str) -> None:
    expect_exact(lambda: build(case, scheme, seed=7))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_dump_equals_the_statements(case: Case) -> None:
    graph = lower(channels_last(build(case, "w4a8", seed=8)))
    codes = random_codes(build(case, "w4a8", seed=8), 2, seed=9)
    session = Session(encode(graph))
    dumped = session.dump(codes)
    feeds = {name: dumped[name] for name in graph.inputs}
    wanted = execute(graph, feeds, [name for node in graph.nodes for name in node.outputs])
    assert list(dumped) == [*graph.inputs, *wanted]
    for name, expected in wanted.items():
        np.testing.assert_array_equal(dumped[name], expected, err_msg=name)


@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith("block")], ids=lambda case: case.name)
def test_real_ends_equal_simulate(case: Case, rng: np.random.Generator) -> None:
    graph = lower(channels_last(build(case, "w8a8", seed=2)))
    session = SplitSession(encode(graph), threads=2)
    feeds = []
    for info in session.inputs:
        shape = (3, *(size for size in info.shape if size is not None))
        x = rng.normal(0, 4, shape).astype(np.float32)
        x.reshape(-1)[:4] = (np.nan, np.inf, -np.inf, 1e30)
        feeds.append(x)
    found = session.run(feeds)
    for got, expected in zip(found if isinstance(found, list) else [found], simulate(graph, feeds), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)
