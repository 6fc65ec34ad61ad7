"""The .edgeq reader on damaged and hostile files: a clear error or a sound graph, quickly and within memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from mutations import mutate, refreshed
from quantized_graphs import CASES, build

from edgeq.data.preprocessing import Preprocessing
from edgeq.errors import FormatError
from edgeq.exporters.edgeq_file import encode
from edgeq.exporters.edgeq_format import HEADER, SECTION, TENSOR, Guard, ModelInfo, Section
from edgeq.importers.from_edgeq import decode
from edgeq.ops import check_graph
from edgeq.passes import channels_last, lower

MEMORY_LIMIT = 64 << 20
INFO = ModelInfo(Preprocessing(32, (28, 28)), ("a", "b"), Guard(1.1, 0.2), {"producer": "a test"})


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """A file for each case, with information."""
    return [encode(lower(channels_last(build(case, "w4a8", 7))), INFO) for case in CASES]


def check_mutations(files: list[bytes], count: int, seed: int) -> None:
    """Reads `count` mutations; fails at the first that is slow, greedy or raises anything but FormatError."""
    rng = np.random.default_rng(seed)
    accepted = 0
    reasons: set[str] = set()
    tracemalloc.start()
    try:
        for index in range(count):
            content = mutate(files[int(rng.integers(len(files)))], rng, files)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            begin = time.perf_counter()
            try:
                graph, _ = decode(content)
                check_graph(graph)
                accepted += 1
            except FormatError as error:
                message = str(error)
                assert 10 < len(message) < 1000, message
                reasons.add("".join(c for c in message if not c.isdigit())[:60])
            except Exception as error:
                pytest.fail(f"mutation {index} of seed {seed}: {type(error).__name__}: {error}")
            seconds = time.perf_counter() - begin
            peak = tracemalloc.get_traced_memory()[1] - before
            assert seconds < 1, f"mutation {index} of seed {seed} took {seconds:.1f} s"
            assert peak < MEMORY_LIMIT, f"mutation {index} of seed {seed} took {peak} bytes"
    finally:
        tracemalloc.stop()
    assert accepted < 0.9 * count
    assert len(reasons) > min(count, 2000) / 40, "the mutations reach few of the reader's checks"


def test_mutations(files: list[bytes]) -> None:
    check_mutations(files, 2000, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_mutations(files: list[bytes], seed: int) -> None:
    check_mutations(files, 2000, seed)


def test_every_truncation(files: list[bytes]) -> None:
    content = files[8]
    for size in [*range(200), *range(200, len(content), 7)]:
        with pytest.raises(FormatError):
            decode(content[:size])
        with pytest.raises(FormatError):
            decode(refreshed(content[:size]))


def test_every_bit_of_the_header(files: list[bytes]) -> None:
    content = files[8]
    for bit in range(8 * HEADER.size):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode(bytes(damaged))


def test_line_end_conversion_is_recognised(files: list[bytes]) -> None:
    with pytest.raises(FormatError, match="copy it as binary"):
        decode(files[0].replace(b"\r\n", b"\n"))


def sections(content: bytes) -> dict[int, tuple[int, int]]:
    """Kind to (offset, size) of each section."""
    (count,) = struct.unpack_from("<I", content, 12)
    table = [SECTION.unpack_from(content, HEADER.size + i * SECTION.size) for i in range(count)]
    return {kind: (offset, size) for kind, _, offset, size in table}


def tensor_field(at: int, code: str, value: float, tensor: int = 0) -> Callable[[bytes], bytes]:
    """Sets a field of a tensor's record."""

    def change(content: bytes) -> bytes:
        damaged = bytearray(content)
        offset = sections(content)[Section.TENSORS][0] + 8 + tensor * TENSOR.size + at
        struct.pack_into(f"<{code}", damaged, offset, value)
        return refreshed(bytes(damaged))

    return change


def in_section(kind: Section, at: int, code: str, value: float) -> Callable[[bytes], bytes]:
    """Sets a field of a section."""

    def change(content: bytes) -> bytes:
        damaged = bytearray(content)
        struct.pack_into(f"<{code}", damaged, sections(content)[kind][0] + at, value)
        return refreshed(bytes(damaged))

    return change


def hostile() -> Iterator[tuple[str, Callable[[bytes], bytes], str]]:
    """(name, change of a file with one 3x3 convolution, what the message says)."""
    yield "version", lambda c: refreshed(c[:8] + struct.pack("<I", 2) + c[12:]), "version 2"
    yield "section kind", in_table(0, 0, "I", 99), "unknown"
    yield "section twice", in_table(0, 0, "I", 2), "twice"
    yield "section overlap", in_table(1, 8, "Q", 64), "misplaced"
    yield "section beyond the file", in_table(4, 16, "Q", 1 << 62), "outside the file"
    yield "many strings", in_section(Section.STRINGS, 0, "I", 0xFFFFFFFF), "strings"
    yield "string ends descend", in_section(Section.STRINGS, 8, "I", 0xFFFFFFF), "ascend"
    yield "many tensors", in_section(Section.TENSORS, 0, "I", 0x7FFFFFFF), "tensors"
    yield "many nodes", in_section(Section.NODES, 0, "I", 0x7FFFFFFF), "nodes"
    yield "name out of range", tensor_field(0, "I", 1 << 30), "no string"
    yield "unknown type", tensor_field(4, "B", 9), "type 9"
    yield "rank", tensor_field(5, "B", 7), "rank 7"
    yield "absurd dimension", tensor_field(12, "i", 1 << 25), "dimension 1"
    yield "zero dimension", tensor_field(12, "i", 0), "dimension 1"
    yield "too many elements", tensor_field(12, "i", 1 << 24), "elements|declared|does not fit"
    yield "batch", tensor_field(8, "i", 1), "dimension 0"
    yield "zero point", tensor_field(36, "i", 1000), "zero point"
    yield "axis", tensor_field(32, "i", 4), "axis 4"
    yield "scales beyond DATA", tensor_field(48, "Q", 1 << 60), "outside section DATA"
    yield "misaligned scales", tensor_field(48, "Q", 1), "misaligned"
    yield "value beyond DATA", tensor_field(56, "Q", 1 << 60, tensor=1), "outside section DATA"
    yield "value size", tensor_field(64, "Q", 3, tensor=1), "bytes"
    yield "overlap", tensor_field(56, "Q", 0, tensor=1), "overlaps"
    yield "scale is not a number", in_section(Section.DATA, 0, "f", float("nan")), "scale"
    yield "scale is zero", in_section(Section.DATA, 0, "f", 0.0), "scale"
    yield "operator", in_section(Section.NODES, 8, "H", 300), "operator 300"
    yield "many inputs", in_section(Section.NODES, 10, "H", 60000), "fields"
    yield "no such tensor", in_section(Section.NODES, 20, "i", 77), "no tensor 77"
    yield "absent weights", in_section(Section.NODES, 24, "i", -1), "absent"
    yield "stride 0", in_section(Section.NODES, 36, "i", 0), "attribute 0 is 0"
    yield "absurd padding", in_section(Section.NODES, 44, "i", 1 << 24), "absurd"
    yield "groups", in_section(Section.NODES, 68, "i", 5), "groups"
    yield "code bounds", in_section(Section.NODES, 72, "i", -200), "attribute"
    yield "end", in_section(Section.ENDS, 8, "I", 1000), "does not exist"
    yield "constant end", in_section(Section.ENDS, 8, "I", 1), "constant"
    yield "layout", in_section(Section.ENDS, 12, "I", 2), "layout"
    yield "guard", in_section(Section.GUARD, 0, "f", -1.0), "GUARD"
    yield "labels", in_section(Section.LABELS, 4, "I", 1 << 20), "LABELS"
    yield "preprocessing", in_section(Section.PREPROCESSING, 0, "I", 9), "PREPROCESSING"
    yield "metadata", in_section(Section.META, 0, "B", 0x5B), "META"


def in_table(index: int, at: int, code: str, value: int) -> Callable[[bytes], bytes]:
    """Sets a field of the section table."""

    def change(content: bytes) -> bytes:
        damaged = bytearray(content)
        struct.pack_into(f"<{code}", damaged, HEADER.size + index * SECTION.size + at, value)
        return refreshed(bytes(damaged))

    return change


@pytest.mark.parametrize(("change", "message"), [item[1:] for item in hostile()], ids=[item[0] for item in hostile()])
def test_hostile(change: Callable[[bytes], bytes], message: str) -> None:
    case = next(case for case in CASES if case.name == "conv 3x3 3to16")
    content = encode(lower(channels_last(build(case, "w4a8", 7))), INFO)
    with pytest.raises(FormatError, match=message):
        decode(change(content))


def test_forbidden_weight_and_overflow() -> None:
    case = next(case for case in CASES if case.name == "conv 1x1 16to17")
    graph = lower(channels_last(build(case, "w8a8", 7)))
    weights = next(t for t in graph.tensors.values() if t.is_constant and len(t.shape) == 4)
    assert weights.data is not None
    value = weights.data.copy()
    value[0, 0, 0, 0] = -128
    graph.add_tensor(weights.with_(data=value))
    with pytest.raises(FormatError, match="weights must lie"):
        decode(encode(graph))
    graph.add_tensor(weights)
    bias = next(t for t in graph.tensors.values() if t.dtype == "int32")
    assert bias.data is not None
    graph.add_tensor(bias.with_(data=np.full_like(bias.data, 2**31 - 1)))
    with pytest.raises(FormatError, match="beyond 32 bits"):
        decode(encode(graph))


def test_metadata_that_is_deep() -> None:
    content = encode(lower(channels_last(build(CASES[0], "w8a8", 7))), ModelInfo(metadata={"x": "[" * 100000}))
    damaged = content.replace(b'"x":"[', b'"x":[[').replace(b'[[[[[["}', b"[[[[[[[}")
    with pytest.raises(FormatError, match="META"):
        decode(refreshed(damaged))


def test_unknown_optional_section_is_skipped() -> None:
    content = bytearray(encode(lower(channels_last(build(CASES[0], "w8a8", 7)))))
    index = list(sections(bytes(content))).index(Section.META)
    struct.pack_into("<I", content, HEADER.size + index * SECTION.size, 0x80000099)
    _, info = decode(refreshed(bytes(content)))
    assert info.metadata == {}
