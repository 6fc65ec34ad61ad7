"""Reads FlatBuffers from anywhere: no offset, count or length is followed before it is known to stay in the file.

The readers that `flatc` generates trust the file; a damaged one sends them round for billions of elements, or to
bytes counted from the end. Only what the schema of TFLite needs is here: tables, scalars, vectors, strings.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import ImportModelError
from edgeq.ir.tensor import Array

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")
_SCALARS = {
    "bool": struct.Struct("<?"),
    "int8": struct.Struct("<b"),
    "uint8": struct.Struct("<B"),
    "int32": _I32,
    "uint32": _U32,
    "int64": struct.Struct("<q"),
    "uint64": struct.Struct("<Q"),
    "float32": struct.Struct("<f"),
}


class Table:
    """One table of a FlatBuffer; its fields by their number in the schema, absent ones as None or a default.

    Every method raises ImportModelError when the field does not lie in the file.
    """

    __slots__ = ("_data", "_fields", "_position", "_size", "_vtable")

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._vtable = position - int(self._scalar(_I32, position))
        self._fields = (int(self._scalar(_U16, self._vtable)) - 4) // 2
        self._size = int(self._scalar(_U16, self._vtable + 2))
        if self._fields < 0 or self._vtable + 4 + 2 * self._fields > len(data) or position + self._size > len(data):
            raise damaged(f"the table at byte {position} reaches beyond the file")

    def scalar(self, field: int, kind: str, default: Any = 0) -> Any:
        """Returns a number or flag; `kind` is a numpy name of its type."""
        place = self._place(field)
        return default if place is None else self._scalar(_SCALARS[kind], place)

    def table(self, field: int) -> Table | None:
        """Returns a table that this one points to."""
        place = self._place(field)
        return None if place is None else Table(self._data, self._target(place))

    def tables(self, field: int, limit: int, what: str) -> list[Table]:
        """Returns a vector of tables, at most `limit` of them; `what` names them in the error."""
        begin, count = self._vector(field, 4)
        if count > limit:
            raise damaged(f"it has {count} {what}, more than {limit}")
        return [Table(self._data, self._target(begin + 4 * i)) for i in range(count)]

    def vector(self, field: int, dtype: npt.DTypeLike) -> Array | None:
        """Returns a vector of numbers, read-only and without a copy."""
        if self._place(field) is None:
            return None
        kind = np.dtype(dtype).newbyteorder("<")
        begin, count = self._vector(field, kind.itemsize)
        return np.frombuffer(self._data, kind, count, begin)

    def text(self, field: int) -> str:
        """Returns a string; what is not UTF-8 in it is replaced."""
        value = self.vector(field, np.uint8)
        return "" if value is None else value.tobytes().decode("utf-8", "replace")

    def _scalar(self, kind: struct.Struct, position: int) -> Any:
        if not 0 <= position <= len(self._data) - kind.size:
            raise damaged(f"byte {position} is not in it")
        return kind.unpack_from(self._data, position)[0]

    def _place(self, field: int) -> int | None:
        """Where a field's bytes begin."""
        if field >= self._fields:
            return None
        offset = int(self._scalar(_U16, self._vtable + 4 + 2 * field))
        if offset >= self._size > 0:
            raise damaged(f"a field of the table at byte {self._position} lies outside the table")
        return self._position + offset if offset else None

    def _target(self, place: int) -> int:
        """Follows an offset, which counts from its own place and never backwards."""
        return place + int(self._scalar(_U32, place))

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Returns (first byte, number of elements) of a vector; none when it is absent."""
        place = self._place(field)
        if place is None:
            return 0, 0
        target = self._target(place)
        count = int(self._scalar(_U32, target))
        if target + 4 + count * size > len(self._data):
            raise damaged(f"a vector at byte {target} has {count} elements, which do not fit")
        return target + 4, count


def root(data: bytes, identifier: bytes) -> Table:
    """Returns the root table of a FlatBuffer; raises ImportModelError when the identifier is another one."""
    if len(data) < 8 or data[4:8] != identifier:
        raise damaged(f"it does not carry the identifier {identifier.decode()}")
    return Table(data, int(_U32.unpack_from(data)[0]))


def damaged(why: str) -> ImportModelError:
    """Returns (does not raise) the error for a file that breaks the format."""
    return ImportModelError(f"this is not a whole .tflite file: {why}. It is damaged or truncated; copy it again")
