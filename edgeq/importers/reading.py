"""Model files read whole, within a limit."""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import ImportModelError


def read_limited(path: Path, limit: int, kind: str) -> bytes:
    """Returns the bytes of a file, which has at most `limit` of them.

    Args:
        path: The file.
        limit: In bytes; looked at before anything is read.
        kind: What such files are called in a message, e.g. ".tflite".

    Raises:
        ImportModelError: If it is no file, too large or cannot be read.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ImportModelError(f"{path} is not a file")
        if size > limit:
            raise ImportModelError(f"{path} has {size} bytes; {kind} files are limited to {limit}")
        return path.read_bytes()
    except OSError as error:
        raise ImportModelError(f"cannot read {path}: {error.strerror or error}") from None
