"""XXH64 in plain Python against published values; the native one against it."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.exporters.xxh64 import xxh64, xxh64_plain

# From the xxHash project's documentation and tests (seed 0).
VECTORS = {
    b"": 0xEF46DB3751D8E999,
    b"a": 0xD24EC4F1A98C6E5B,
    b"abc": 0x44BC2CF5AD770999,
    b"Nobody inspects the spammish repetition": 0xFBCEA83C8A378BF1,
}


@pytest.mark.parametrize(("data", "expected"), VECTORS.items(), ids=[str(len(data)) for data in VECTORS])
def test_known_values(data: bytes, expected: int) -> None:
    assert xxh64_plain(data) == expected
    assert xxh64(data) == expected


def test_native_equals_plain() -> None:
    native = pytest.importorskip("edgeq._native", reason="the native module is not built")
    data = np.random.default_rng(0).integers(0, 256, 4096, np.uint8).tobytes()
    for size in [*range(100), 1000, 4095, 4096]:
        assert native.xxh64(data[:size]) == xxh64_plain(data[:size]), size
        assert native.xxh64(memoryview(data)[1 : 1 + size]) == xxh64_plain(data[1 : 1 + size]), size
