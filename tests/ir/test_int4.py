"""4-bit values two to a byte: the lower nibble first, odd ends filled with zero."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.ir.int4 import pack_int4, unpack_int4, unpack_uint4


@pytest.mark.parametrize("codes, packed", [([1, -2, 7], [0xE1, 0x07]), ([-8, -1], [0xF8]), ([], [])])
def test_the_bytes(codes: list[int], packed: list[int]) -> None:
    np.testing.assert_array_equal(pack_int4(np.array(codes, np.int8)), packed)


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (3, 5), (4, 4, 4)])
def test_unpacking_undoes_packing(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    codes = rng.integers(-8, 8, shape).astype(np.int8)
    packed = pack_int4(codes)
    assert packed.shape == ((codes.size + 1) // 2,)
    np.testing.assert_array_equal(unpack_int4(packed, codes.size), codes.reshape(-1))
    np.testing.assert_array_equal(unpack_uint4(packed, codes.size), codes.reshape(-1) & 15)


def test_reads_packed_bytes_that_may_not_be_written() -> None:
    packed = np.frombuffer(bytes([0xE1, 0x07]), np.uint8)
    np.testing.assert_array_equal(unpack_int4(packed, 3), [1, -2, 7])
    np.testing.assert_array_equal(packed, [0xE1, 0x07])
