"""Small reads that the file-backed data sets share."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeq.errors import DataError

MAX_TEXT_BYTES = 256 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def read_text(path: Path) -> str:
    """A UTF-8 text file, at most 256 MiB.

    Raises:
        DataError: If it cannot be read, is larger, or is not UTF-8.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise DataError(f"{path}: larger than {MAX_TEXT_BYTES >> 20} MiB, which no list of labels is.")
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def decode_text(data: bytes, name: str) -> str:
    """Bytes as UTF-8 text, without a byte-order mark.

    Raises:
        DataError: If they are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """The lines of a file of class names, or None if it is absent or empty."""
    if not path.is_file():
        return None
    lines = [line.strip() for line in read_text(path).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines) or None
