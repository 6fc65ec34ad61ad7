"""Writes .edgeq files (docs/format.md): the same graph and information give the same bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeq.errors import FormatError
from edgeq.exporters.edgeq_format import (
    ALIGNMENT,
    CHANNEL_ORDERS,
    END,
    GUARD,
    HEADER,
    INTERPOLATIONS,
    MAGIC,
    MAX_META_BYTES,
    MAX_NODES,
    MAX_RANK,
    MAX_TENSORS,
    NODE,
    PREPROCESSING,
    SECTION,
    TENSOR,
    TYPE_OF_DTYPE,
    VERSION,
    ElementType,
    Guard,
    ModelInfo,
    Section,
)
from edgeq.exporters.edgeq_operators import operator_of
from edgeq.exporters.xxh64 import xxh64
from edgeq.ir import Graph, Tensor, validate
from edgeq.ir.int4 import pack_int4
from edgeq.outputs import whole_file


def encode(graph: Graph, info: ModelInfo | None = None) -> bytes:
    """Returns the bytes of a .edgeq file.

    Args:
        graph: Quantized, NHWC, lowered (`edgeq.passes.channels_last`, `edgeq.passes.lower`).
        info: What else the file holds; nothing when None.

    Raises:
        FormatError: If the graph or the information cannot be held by a .edgeq file.
    """
    if graph.layout != "nhwc":
        raise FormatError(f"graph {graph.name} is {graph.layout}; a .edgeq file holds NHWC: run channels_last first")
    validate(graph)
    return _Writer(graph, info or ModelInfo()).encode()


def write(path: str | Path, graph: Graph, info: ModelInfo | None = None) -> None:
    """Writes a .edgeq file, whole or not at all.

    Raises:
        FormatError: As `encode`.
        UsageError: If the folder cannot be written to.
    """
    content = encode(graph, info)
    with whole_file(Path(path)) as scratch:
        scratch.write_bytes(content)


class _Writer:
    def __init__(self, graph: Graph, info: ModelInfo) -> None:
        self.graph = graph
        self.info = info
        self.strings: dict[str, int] = {"": 0}
        self.data = bytearray()
        # In the order of first use, so that the file does not depend on how the graph was built.
        order = [*graph.inputs, *(name for node in graph.nodes for name in (*node.inputs, *node.outputs) if name)]
        self.tensors = {name: index for index, name in enumerate(dict.fromkeys(order))}

    def encode(self) -> bytes:
        if len(self.tensors) > MAX_TENSORS or len(self.graph.nodes) > MAX_NODES:
            raise FormatError(
                f"graph {self.graph.name} has {len(self.tensors)} tensors and {len(self.graph.nodes)} nodes; a .edgeq "
                f"file holds at most {MAX_TENSORS} and {MAX_NODES}"
            )
        tensors = struct.pack("<II", len(self.tensors), TENSOR.size)
        tensors += b"".join(self.tensor(self.graph.tensor(name)) for name in self.tensors)
        nodes = struct.pack("<II", len(self.graph.nodes), 0) + b"".join(self.nodes())
        sections: dict[Section, bytes] = {
            Section.TENSORS: tensors,
            Section.NODES: nodes,
            Section.ENDS: self.ends(),
            Section.META: self.meta(),
        }
        if self.info.preprocessing is not None:
            sections[Section.PREPROCESSING] = self.preprocessing()
        if self.info.labels:
            labels = [self.string(label) for label in self.info.labels]
            sections[Section.LABELS] = struct.pack(f"<I{len(labels)}I", len(labels), *labels)
        if self.info.guard is not None:
            sections[Section.GUARD] = GUARD.pack(self.info.guard.temperature, self.info.guard.margin, bytes(8))
        sections[Section.STRINGS] = self.string_section()
        sections[Section.DATA] = bytes(self.data)
        return _container({kind: sections[kind] for kind in Section if kind in sections})

    def string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def string_section(self) -> bytes:
        for text in self.strings:
            if "\0" in text:
                raise FormatError(f"a name or label holds a zero character: {text!r}")
        encoded = [text.encode() for text in self.strings]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.uint32)
        return struct.pack("<I", len(encoded)) + ends.astype("<u4").tobytes() + b"".join(encoded)

    def append(self, content: bytes, alignment: int) -> int:
        self.data += bytes(-len(self.data) % alignment)
        offset = len(self.data)
        self.data += content
        return offset

    def tensor(self, tensor: Tensor) -> bytes:
        if tensor.dtype not in TYPE_OF_DTYPE or len(tensor.shape) > MAX_RANK:
            raise FormatError(
                f"tensor {tensor.name!r}: {tensor.dtype} of rank {len(tensor.shape)} has no place in a .edgeq file"
            )
        kind, quant = TYPE_OF_DTYPE[tensor.dtype], tensor.quant
        axis, zero, scales, scale_offset = -1, 0, 0, 0
        if quant is not None:
            axis = -1 if quant.axis is None else quant.axis
            zero = int(quant.zero_point) if quant.axis is None else 0
            if quant.axis is not None and np.any(quant.zero_point):
                raise FormatError(f"tensor {tensor.name!r}: per-channel quantization must have zero points 0")
            scales = quant.scale.size
            scale_offset = self.append(quant.scale.astype("<f4").tobytes(), 4)
        offset = size = 0
        if tensor.data is not None:
            if kind == ElementType.INT8 and quant is not None and quant.bits == 4:
                kind = ElementType.INT4
                if tensor.data.size and (tensor.data.min() < -8 or tensor.data.max() > 7):
                    raise FormatError(f"tensor {tensor.name!r}: 4-bit values must lie in -8..7")
                value = pack_int4(tensor.data).tobytes()
            else:
                value = tensor.data.astype(tensor.data.dtype.newbyteorder("<")).tobytes()
            offset, size = self.append(value, ALIGNMENT), len(value)
        shape = (*tensor.shape, *(0,) * (MAX_RANK - len(tensor.shape)))
        return TENSOR.pack(
            self.string(tensor.name), kind, len(tensor.shape), tensor.is_constant, 0 if quant is None else quant.bits,
            *shape, axis, zero, scales, 0, scale_offset, offset, size, bytes(16),
        )  # fmt: skip

    def nodes(self) -> list[bytes]:
        records = []
        for node in self.graph.nodes:
            operator = operator_of(node)
            attributes = operator.encode(node, self.graph)
            operands = [self.tensors[name] if name else -1 for name in node.inputs]
            while operands and operands[-1] < 0:
                operands.pop()
            operands += [self.tensors[name] for name in node.outputs]
            head = NODE.pack(
                operator.code, len(operands) - len(node.outputs), len(node.outputs), len(attributes),
                self.string(node.name),
            )  # fmt: skip
            try:
                records.append(head + struct.pack(f"<{len(operands) + len(attributes)}i", *operands, *attributes))
            except struct.error:
                raise FormatError(f"{node.name}: an attribute of {node.op} does not fit 32 bits") from None
        return records

    def ends(self) -> bytes:
        content = struct.pack("<II", len(self.graph.inputs), len(self.graph.outputs))
        for name in (*self.graph.inputs, *self.graph.outputs):
            content += END.pack(self.tensors[name], self.graph.is_turned(name), bytes(8))
        return content

    def meta(self) -> bytes:
        values = {"name": self.graph.name, **self.info.metadata}
        try:
            content = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise FormatError(f"the metadata of {self.graph.name} cannot be written as JSON: {error}") from None
        encoded = content.encode()
        if len(encoded) > MAX_META_BYTES:
            raise FormatError(f"the metadata takes {len(encoded)} bytes; a .edgeq file holds at most {MAX_META_BYTES}")
        return encoded

    def preprocessing(self) -> bytes:
        record = self.info.preprocessing
        assert record is not None
        count = max(len(record.mean), len(record.std))
        mean, std = (np.broadcast_to(np.asarray(values, "<f4"), count) for values in (record.mean, record.std))
        return (
            PREPROCESSING.pack(
                CHANNEL_ORDERS.index(record.channels),
                record.resize or 0,
                *(record.crop or (0, 0)),
                INTERPOLATIONS.index(record.interpolation),
                count,
            )
            + mean.tobytes()
            + std.tobytes()
        )


def with_guard(content: bytes, guard: Guard | None) -> bytes:
    """Returns a .edgeq file with this guard in place of its own, every other section as it was.

    Args:
        content: A file that `edgeq.importers.from_edgeq` takes.
        guard: Temperature and margin; None leaves the file without.
    """
    _, _, count, *_ = HEADER.unpack_from(content)
    sections: dict[int, bytes] = {}
    for index in range(count):
        kind, _, offset, size = SECTION.unpack_from(content, HEADER.size + index * SECTION.size)
        sections[kind] = content[offset : offset + size]
    sections.pop(Section.GUARD, None)
    if guard is not None:
        sections[Section.GUARD] = GUARD.pack(guard.temperature, guard.margin, bytes(8))
    return _container(sections)


def _container(sections: Mapping[int, bytes]) -> bytes:
    """Returns header, section table and the aligned sections, in their order."""
    body = bytearray()
    start = HEADER.size + SECTION.size * len(sections)
    table = b""
    for kind, section in sections.items():
        body += bytes(-(start + len(body)) % ALIGNMENT)
        table += SECTION.pack(kind, 0, start + len(body), len(section))
        body += section
    content = table + bytes(body)
    header = HEADER.pack(MAGIC, VERSION, len(sections), HEADER.size + len(content), xxh64(content), bytes(32))
    return header + content
