"""4-bit values two to a byte, as files hold them: the lower nibble first, the upper one of an odd end zero."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.ir.tensor import Array


def pack_int4(codes: Array) -> npt.NDArray[np.uint8]:
    """Packs values in -8..7 (or 0..15), whatever their shape, in C order; shape ((elements + 1) // 2,)."""
    flat = codes.reshape(-1).astype(np.uint8) & 15
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return np.asarray(flat[0::2] | flat[1::2] << 4, dtype=np.uint8)


def unpack_uint4(packed: npt.NDArray[np.uint8], elements: int) -> npt.NDArray[np.uint8]:
    """Returns the first `elements` values, 0..15; `packed` holds at least as many, shape (bytes,)."""
    codes = np.empty(packed.size * 2, np.uint8)
    codes[0::2] = packed & 15
    codes[1::2] = packed >> 4
    return codes[:elements]


def unpack_int4(packed: npt.NDArray[np.uint8], elements: int) -> npt.NDArray[np.int8]:
    """Returns the first `elements` values, -8..7; `packed` holds at least as many, shape (bytes,)."""
    codes = unpack_uint4(packed, elements).view(np.int8)
    codes ^= 8
    codes -= 8
    return codes
