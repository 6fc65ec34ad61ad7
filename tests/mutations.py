"""Damaged and hostile .edgeq files: seeded mutations of valid ones."""

from __future__ import annotations

import struct

import numpy as np

from edgeq.exporters.edgeq_format import HEADER, NODE, SECTION, TENSOR, Section
from edgeq.exporters.xxh64 import xxh64

ABSURD_U32 = (0, 1, 2, 3, 7, 63, 64, 65, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 1 << 24, (1 << 24) + 1,
              0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF)  # fmt: skip
ABSURD_U64 = (*ABSURD_U32, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 64, (1 << 64) - 1)
ABSURD_FLOATS = (0.0, -0.0, -1.0, float("nan"), float("inf"), 1e-45, 1e-38, 3e38, 1e30)


def refreshed(content: bytes) -> bytes:
    """Returns the file with size and hash of its header made right, so that a change behind it is looked at."""
    if len(content) < HEADER.size:
        return content
    header = bytearray(content[: HEADER.size])
    struct.pack_into("<QQ", header, 16, len(content), xxh64(content[HEADER.size :]))
    return bytes(header) + content[HEADER.size :]


def mutate(content: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Returns a damaged copy: truncated, flipped, spliced with another file, or with absurd fields."""
    damaged = bytearray(content)
    kind = rng.choice(len(_KINDS), p=_WEIGHTS)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        damaged = _KINDS[kind](damaged, rng, others)
    # Most changes must get past the hash to be of interest.
    return refreshed(bytes(damaged)) if rng.random() < 0.95 else bytes(damaged)


def _truncate(content: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytearray:
    cut = int(rng.integers(len(content) + 1))
    return content[:cut] if rng.random() < 0.7 else content + bytes(int(rng.integers(200)))


def _flip(content: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytearray:
    if content:
        content[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return content


def _byte(content: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytearray:
    if content:
        content[_place(content, rng)] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
    return content


def _number(content: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytearray:
    position = _place(content, rng) // 4 * 4
    if position + 8 <= len(content):
        if rng.random() < 0.6:
            struct.pack_into("<I", content, position, int(rng.choice(ABSURD_U32)))
        elif rng.random() < 0.5:
            struct.pack_into("<Q", content, position // 8 * 8, ABSURD_U64[int(rng.integers(len(ABSURD_U64)))])
        else:
            struct.pack_into("<f", content, position, float(rng.choice(ABSURD_FLOATS)))
    return content


def _small_change(content: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytearray:
    position = _place(content, rng) // 4 * 4
    if position + 4 <= len(content):
        (value,) = struct.unpack_from("<I", content, position)
        change = int(rng.choice([-64, -8, -2, -1, 1, 2, 8, 64]))
        struct.pack_into("<I", content, position, (value + change) & 0xFFFFFFFF)
    return content


def _splice(content: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytearray:
    """Copies a stretch of this or another file over, into or out of this one."""
    source = bytes(others[int(rng.integers(len(others)))]) if rng.random() < 0.5 else bytes(content)
    length = int(rng.choice([4, 8, 16, NODE.size, SECTION.size, TENSOR.size, int(rng.integers(1, 512))]))
    if len(source) <= length or len(content) <= length:
        return content
    begin, at = int(rng.integers(len(source) - length)), _place(content, rng)
    if rng.random() < 0.7:
        begin, at = begin // 4 * 4, at // 4 * 4
    piece = source[begin : begin + length]
    action = rng.integers(3)
    if action == 0:
        content[at : at + length] = piece
    elif action == 1:
        content[at:at] = piece
    else:
        del content[at : at + length]
    return content


def _section(content: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytearray:
    """Changes a field of the section table."""
    if len(content) < HEADER.size + 5 * SECTION.size:
        return content
    (count,) = struct.unpack_from("<I", content, 12)
    position = HEADER.size + int(rng.integers(min(count, 16))) * SECTION.size
    field = int(rng.integers(3))
    if field == 0:
        kinds = [*(int(kind) for kind in Section), 0, 6, 77, 0x80000077, 0xFFFFFFFF]
        struct.pack_into("<I", content, position, kinds[int(rng.integers(len(kinds)))])
    else:
        (old,) = struct.unpack_from("<Q", content, position + 8 * field)
        new = [old + 64, old - 64, old + 1, old - 1, old * 2, 0, len(content), *ABSURD_U64]
        struct.pack_into("<Q", content, position + 8 * field, new[int(rng.integers(len(new)))] % (1 << 64))
    return content


def _place(content: bytearray, rng: np.random.Generator) -> int:
    """A position, mostly where the structure is: the weights are most of a file and say little."""
    if len(content) > HEADER.size + SECTION.size and rng.random() < 0.85:
        (count,) = struct.unpack_from("<I", content, 12)
        count = min(count, 16, (len(content) - HEADER.size) // SECTION.size)
        wanted = int(rng.integers(-1, max(count, 1)))
        if wanted < 0:
            return int(rng.integers(HEADER.size + count * SECTION.size))
        _, _, offset, size = SECTION.unpack_from(content, HEADER.size + wanted * SECTION.size)
        if size and offset + size <= len(content):
            return int(offset + rng.integers(min(size, 1 << 16)))
    return int(rng.integers(len(content))) if content else 0


_KINDS = (_truncate, _flip, _byte, _number, _small_change, _splice, _section)
_WEIGHTS = (0.05, 0.15, 0.15, 0.25, 0.2, 0.12, 0.08)
