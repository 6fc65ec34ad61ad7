"""What the writer and the reader of .edgeq files share: the container's numbers and the model's information.

docs/format.md describes the layout; `edgeq_operators` has the operators' codes and attributes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from edgeq.data.preprocessing import Preprocessing
from edgeq.errors import UsageError

MAGIC = b"\x89EDGEQ\r\n"
VERSION = 1
OPTIONAL_KIND = 0x80000000
"""A reader skips an unknown section whose kind has this bit."""

ALIGNMENT = 64
MAX_SECTIONS = 64
MAX_RANK = 6
MAX_DIMENSION = 1 << 24
MAX_ELEMENTS = (1 << 31) - 1
MAX_TENSORS = MAX_NODES = 1 << 16
MAX_STRINGS = 1 << 20
MAX_NODE_FIELDS = 1024
MAX_META_BYTES = 1 << 20

HEADER = struct.Struct("<8sIIQQ32s")
SECTION = struct.Struct("<IIQQ")
TENSOR = struct.Struct("<IBBBB6iiiIIQQQ16s")
NODE = struct.Struct("<HHHHI")
END = struct.Struct("<II8s")
PREPROCESSING = struct.Struct("<6I")
GUARD = struct.Struct("<ff8s")


class Section(IntEnum):
    """Kinds of sections, in the order in which they are written."""

    STRINGS = 1
    TENSORS = 2
    NODES = 3
    ENDS = 4
    DATA = 5
    META = OPTIONAL_KIND | 6
    PREPROCESSING = OPTIONAL_KIND | 7
    LABELS = OPTIONAL_KIND | 8
    GUARD = OPTIONAL_KIND | 9


REQUIRED_SECTIONS = (Section.STRINGS, Section.TENSORS, Section.NODES, Section.ENDS, Section.DATA)


class ElementType(IntEnum):
    """How the elements of a tensor are stored."""

    INT8 = 1
    INT4 = 2
    INT32 = 3
    FLOAT32 = 4
    INT64 = 5


DTYPE_OF_TYPE = {
    ElementType.INT8: "int8",
    ElementType.INT4: "int8",
    ElementType.INT32: "int32",
    ElementType.FLOAT32: "float32",
    ElementType.INT64: "int64",
}
TYPE_OF_DTYPE = {
    "int8": ElementType.INT8,
    "int32": ElementType.INT32,
    "float32": ElementType.FLOAT32,
    "int64": ElementType.INT64,
}
BYTES_OF_TYPE = {ElementType.INT8: 1, ElementType.INT32: 4, ElementType.FLOAT32: 4, ElementType.INT64: 8}

CHANNEL_ORDERS = ("rgb", "bgr", "gray")
INTERPOLATIONS = ("bilinear", "bicubic")


def value_bytes(kind: ElementType, elements: int) -> int:
    """Returns the bytes that a constant of that many elements takes in DATA."""
    return (elements + 1) // 2 if kind == ElementType.INT4 else elements * BYTES_OF_TYPE[kind]


@dataclass(frozen=True, slots=True)
class Guard:
    """What turns logits into calibrated probabilities and a defer flag.

    Attributes:
        temperature: Logits are divided by it before the softmax; positive.
        margin: An input whose two largest probabilities differ by less is deferred; 0 defers nothing. In 0..1.
    """

    temperature: float = 1.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"the guard's temperature must be a positive number, not {self.temperature}")
        if not 0 <= self.margin <= 1:
            raise UsageError(f"the guard's margin must lie in 0..1, not {self.margin}")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a .edgeq file holds beside the graph.

    Attributes:
        preprocessing: How an image becomes input 0, or None when nobody said.
        labels: Class names in the order of the logits, or empty.
        guard: Temperature and margin, or None when not fitted.
        metadata: JSON values for people and tools: producer, scheme, calibration, manifest.
    """

    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    guard: Guard | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
