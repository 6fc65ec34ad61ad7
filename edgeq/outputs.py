"""Files written whole or not at all, and arrays read with care."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import DataError, UsageError


@contextmanager
def whole_folder(out: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Yields a scratch folder beside `out`; on success its files move into `out`, else nothing changes.

    Those of `names` that the scratch folder lacks are removed from `out`: the folder holds one set of results.

    Raises:
        UsageError: If `out` is a file or cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder for the results")
    missing = next((parent for parent in (out, *out.parents) if parent.exists()), Path())
    created = not out.exists()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UsageError(f"{out}: the folder for the results cannot be made ({error.strerror})") from None
    try:
        yield scratch
        if created:
            scratch.chmod(0o755)
            scratch.rename(out)
        else:
            for name in names:
                if (scratch / name).exists():
                    os.replace(scratch / name, out / name)
                else:
                    (out / name).unlink(missing_ok=True)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(out.parent, missing)
        raise
    shutil.rmtree(scratch, ignore_errors=True)


def _remove_empty(folder: Path, until: Path) -> None:
    """Removes the empty folders that were made for the results, up to one that was there before."""
    while folder != until and folder not in until.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a scratch path beside `path` that replaces it on success and is removed on failure."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror}); name a file in an existing folder"
        ) from None
    scratch = Path(name)
    try:
        yield scratch
        scratch.chmod(0o644)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all."""
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def load_npy(path: Path) -> npt.NDArray[Any]:
    """Reads a .npy file; raises DataError naming the file when it is absent, malformed or holds objects."""
    try:
        with path.open("rb") as stream:
            if stream.read(6) != b"\x93NUMPY":
                raise DataError(f"{path}: is not a .npy file; save the array with numpy.save")
        # Mapping checks the size that the header claims against the file before anything is allocated.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, SyntaxError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{path}: is truncated or malformed ({error}); save the array again with numpy.save"
        ) from None
    if mapped.dtype.kind not in "fiub":
        raise DataError(f"{path}: holds {mapped.dtype}; numbers are needed (float32, or int8 codes)")
    return np.array(mapped)


def load_inputs(path: Path) -> npt.NDArray[Any]:
    """Reads a .npy file of a network's inputs: floats as float32, finite; others as they are.

    Raises:
        DataError: As `load_npy`, or naming the file and the first sample that is not finite.
    """
    x = load_npy(path)
    if x.dtype.kind != "f":
        return x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    broken = first_not_finite(x)
    if broken is not None:
        raise DataError(
            f"{path}: sample {broken} holds NaN or infinite values; remove it or repair how the array was made"
        )
    return x


def first_not_finite(x: npt.NDArray[Any]) -> int | None:
    """Returns the position of the first sample, along axis 0, that holds NaN or infinity; None where there is none."""
    finite = np.isfinite(x)
    if finite.all():
        return None
    return int(np.argmin(finite.reshape(len(x), -1).all(axis=1))) if x.ndim else 0


def save_npy(path: Path, value: npt.NDArray[Any]) -> None:
    """Writes a .npy file whole or not at all."""
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.save(stream, value)
