"""What of a 64-bit ELF program the bench reads: its instructions, its functions, the compiler that made it."""

from __future__ import annotations

import bisect
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

_FUNCTION = 2  # STT_FUNC


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its name (as C++ spells it, without arguments and name spaces), address and length in bytes."""

    name: str
    address: int
    length: int


class Program:
    """A 64-bit little-endian program.

    Args:
        path: The file.

    Raises:
        ValueError: If it is something else.
    """

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        if self._data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path}: is no 64-bit little-endian ELF file")
        (table,) = struct.unpack_from("<Q", self._data, 40)
        size, count, names = struct.unpack_from("<3H", self._data, 58)
        # Of each: name, type, flags, address, offset, size, link, info, alignment, entry size.
        headers = [struct.unpack_from("<IIQQQQIIQQ", self._data, table + i * size) for i in range(count)]
        text = self._content(headers[names])
        self._sections = {_string(text, header[0]): header for header in headers}
        code = self._sections[".text"]
        self.text_address: int = code[3]
        self.text = self._content(code)
        self.functions = self._functions()
        self._starts = [one.address for one in self.functions]

    def _content(self, header: tuple[int, ...]) -> bytes:
        return self._data[header[4] : header[4] + header[5]]

    @property
    def compiler(self) -> str:
        """What the compiler wrote of itself; "unknown" in a program without it."""
        header = self._sections.get(".comment")
        found = [] if header is None else [word.decode() for word in self._content(header).split(b"\0") if word]
        return min(found, key=len) if found else "unknown"

    def function_at(self, address: int) -> Function | None:
        """Returns the function that holds an address."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.functions[index].address + max(self.functions[index].length, 4):
            return None
        return self.functions[index]

    def words(self, begin: int, end: int) -> tuple[int, ...]:
        """Returns the instruction words of a range of addresses in .text."""
        part = self.text[begin - self.text_address : end - self.text_address]
        return struct.unpack(f"<{len(part) // 4}I", part)

    def _functions(self) -> list[Function]:
        header, strings = self._sections.get(".symtab"), self._sections.get(".strtab")
        if header is None or strings is None:
            return []
        names = self._content(strings)
        found = [
            (_string(names, name), value, size)
            for name, info, _, _, value, size in struct.iter_unpack("<IBBHQQ", self._content(header))
            if info & 15 == _FUNCTION and size
        ]
        spelled = _demangled([name for name, _, _ in found])
        functions = [Function(name, value, size) for name, (_, value, size) in zip(spelled, found, strict=True)]
        return sorted(functions, key=lambda one: one.address)


def _string(data: bytes, begin: int) -> str:
    return data[begin : data.index(0, begin)].decode()


def _demangled(names: list[str]) -> list[str]:
    tool = shutil.which("c++filt")
    if tool is None:
        return names
    done = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True)
    return [short_name(name) for name in done.stdout.splitlines()]


def short_name(name: str) -> str:
    """Returns a C++ function's name without its name spaces, arguments and result."""
    for word in ("(anonymous namespace)::", "edgeq::", "void "):
        name = name.replace(word, "")
    depth = 0
    for index, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:index]
    return name
