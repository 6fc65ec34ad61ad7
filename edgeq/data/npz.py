"""Opens .npz files for streaming, with limits, and without unpickling anything.

Members that are stored uncompressed are mapped from the file; compressed ones are unpacked once, small ones
into memory, large ones into an unnamed temporary file that is mapped. So memory does not grow with the number
of samples.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeq.data.dataset import ArrayDataset
from edgeq.data.files import file_digest, read_class_names
from edgeq.errors import DataError

_CHUNK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 64 << 20
_BOMB_BYTES = 256 << 20
_BOMB_RATIO = 200


class NpzDataset(ArrayDataset):
    """The arrays x (or x_enc) and y of a .npz file.

    `x_enc` is uint8 (n, 3, h, w): 2-D-differenced planes (G, R - G, B - G, modulo 256). `y` may be absent. A
    file classes.txt beside it names the classes, one a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        arrays = read_npz(path, ("x", "x_enc", "y"))
        if "x" in arrays and "x_enc" in arrays:
            raise DataError(f"{path}: holds both x and x_enc. Keep one of them.")
        if "x" not in arrays and "x_enc" not in arrays:
            raise DataError(
                f"{path}: holds no array x. Save it with numpy.savez(path, x=images, y=labels), x being "
                "uint8 images or float32 network inputs (NCHW)."
            )
        differenced = "x_enc" in arrays
        x = arrays["x_enc" if differenced else "x"]
        if x.ndim == 0:
            raise DataError(f"{path}: x is a single number, not an array of samples.")
        names = read_class_names(path.parent / "classes.txt")
        super().__init__(x, arrays.get("y"), names, str(path), differenced)

    def digest(self) -> str:
        """SHA-256 of the file."""
        return file_digest(self._path)


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that the file holds.

    Raises:
        DataError: If the file is not a .npz, is damaged, or an array holds Python objects or absurd sizes.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            members = {info.filename: info for info in archive.infolist()}
            wanted = {name: members[f"{name}.npy"] for name in names if f"{name}.npy" in members}
            return {
                name: _read_member(archive, file, info, f"{path}: {name}") for name, info in wanted.items()
            }
    except DataError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many types on damaged bytes
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as a .npz file ({reason}). Write it again with numpy.savez or "
            "savez_compressed."
        ) from error


def _read_member(archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo, what: str) -> NDArray[Any]:
    with archive.open(info) as stream:
        shape, fortran, dtype = _read_header(stream, what)
        header_bytes = stream.tell()
        size = dtype.itemsize
        for length in shape:
            size *= length
        if size != info.file_size - header_bytes:
            raise DataError(
                f"{what} claims shape {shape} of {dtype}, {size} bytes, but {info.file_size - header_bytes} "
                "bytes follow. The file is damaged; write it again."
            )
        if size > _BOMB_BYTES and size > _BOMB_RATIO * max(info.compress_size, 1):
            raise DataError(
                f"{what} would unpack {info.compress_size} bytes to {size}: refused, as it looks like a "
                "decompression bomb. If it is real, save it uncompressed with numpy.savez."
            )
        if size == 0:
            return np.empty(shape, dtype)
        if info.compress_type == zipfile.ZIP_STORED and size > _IN_MEMORY_BYTES:
            _unpack(stream, size, None, what)
            return _mapped(file, _data_offset(file, info) + header_bytes, shape, fortran, dtype, what)
        if size > _IN_MEMORY_BYTES:
            # The mapping keeps a handle of its own, so the file lives as long as the array.
            with tempfile.TemporaryFile(prefix="edgeq-") as spool:
                _unpack(stream, size, spool, what)
                spool.flush()
                return _mapped(spool, 0, shape, fortran, dtype, what)
        return _in_memory(stream, size, shape, fortran, dtype, what)


def _read_header(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise DataError(f"{what} has .npy version {version}; 1.0 and 2.0 are read. Save it with numpy.savez.")
    if dtype.hasobject:
        raise DataError(
            f"{what} holds Python objects, which are never unpickled (a pickle can run any code). Save "
            "numbers: numpy.asarray(x, dtype='uint8') or 'float32'."
        )
    if len(shape) > 8 or any(length < 0 for length in shape):
        raise DataError(f"{what} claims the impossible shape {shape}. The file is damaged; write it again.")
    return shape, fortran, dtype


def _unpack(stream: IO[bytes], size: int, into: IO[bytes] | None, what: str) -> None:
    """Reads to the end, which checks the CRC, and copies to `into`."""
    left = size
    while left:
        piece = stream.read(min(_CHUNK_BYTES, left))
        if not piece:
            raise DataError(f"{what} ends {left} bytes early. The file is truncated; write it again.")
        left -= len(piece)
        if into is not None:
            into.write(piece)
    stream.read(1)


def _in_memory(
    stream: IO[bytes], size: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any], what: str
) -> NDArray[Any]:
    buffer = bytearray()
    while len(buffer) < size:
        piece = stream.read(min(_CHUNK_BYTES, size - len(buffer)))
        if not piece:
            raise DataError(
                f"{what} ends {size - len(buffer)} bytes early. The file is truncated; write it again."
            )
        buffer += piece
    stream.read(1)
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if fortran else "C")


def _data_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    # A local header is 30 bytes, then the name and the extra field, whose lengths stand at bytes 26 and 28.
    file.seek(info.header_offset)
    header = file.read(30)
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return int(info.header_offset) + 30 + int(name_bytes) + int(extra_bytes)


def _mapped(
    file: IO[bytes], offset: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any], what: str
) -> NDArray[Any]:
    if dtype.itemsize == 0:
        raise DataError(f"{what} has elements of no size ({dtype}). Save numbers.")
    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    count = 1
    for length in shape:
        count *= length
    if offset + count * dtype.itemsize > len(view):
        raise DataError(f"{what} reaches beyond the end of the file. The file is truncated; write it again.")
    return np.frombuffer(view, dtype, count, offset).reshape(shape, order="F" if fortran else "C")
