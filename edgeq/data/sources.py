"""Opens a data set from what stands on the command line."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from edgeq.data.dataset import ArrayDataset, Dataset
from edgeq.data.images import open_folder, open_zip
from edgeq.data.npz import NpzDataset
from edgeq.errors import DataError, EdgeqError

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

FORMS = (
    "digits[:SPLIT], a .npz file (arrays x and y), a folder with one sub-folder a class, a .zip of images "
    "with a labels.csv (PATH or PATH:SPLIT), or package.module:factory"
)


def open_dataset(
    data: str | os.PathLike[str], digits_split: Literal["train", "calib", "test"] = "test"
) -> Dataset:
    """Opens a data set by name.

    Args:
        digits_split: What a bare `digits` means: `calib` where the data calibrate, `test` where they verify.
        data: `digits` or `digits:SPLIT` (the embedded set), PATH or PATH:SPLIT of a .npz file, a folder or a
            .zip, or `package.module:factory`, a function without arguments that returns a `Dataset`, an array
            x, a pair (x, y), or a mapping with x and y. A path that exists wins over a factory.

    Raises:
        DataError: If nothing of that name is found, or what is found is malformed.
    """
    name = os.fspath(data)
    if name == "digits" or name.startswith("digits:"):
        return _digits(name, digits_split)
    path, split = _split_path(name)
    if path is None:
        if _FACTORY.fullmatch(name):
            return _from_factory(name)
        raise DataError(f"No data at {name!r}: there is no such file or folder. Data is {FORMS}.")
    try:
        return _from_path(path, split, name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _split_path(name: str) -> tuple[Path | None, str | None]:
    """The existing path and the split, or None where nothing exists."""
    if not name or "\0" in name:
        return None, None
    try:
        if Path(name).exists():
            return Path(name), None
        head, colon, tail = name.rpartition(":")
        if colon and head and tail and Path(head).exists():
            return Path(head), tail
    except OSError:  # a name too long for the file system
        return None, None
    return None, None


def _from_path(path: Path, split: str | None, source: str) -> Dataset:
    if path.is_dir():
        return open_folder(path, split, source)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return open_zip(path, split, source)
    if suffix == ".npz":
        if split is not None:
            raise DataError(
                f"{path}: a .npz file has no splits. Leave out ':{split}', or name the file of that split."
            )
        return NpzDataset(path)
    raise DataError(f"{path}: a file of type {suffix or 'unknown'} is no data set. Data is {FORMS}.")


def _digits(name: str, default: Literal["train", "calib", "test"]) -> Dataset:
    from edgeq.data import digits

    chosen = cast(Literal["train", "calib", "test"], name.partition(":")[2] or default)
    x, y = digits.load_digits(chosen)
    return ArrayDataset(x, y, digits.CLASS_NAMES, f"digits:{chosen}")


def _from_factory(name: str) -> Dataset:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
        if callable(made):
            made = made()
    except EdgeqError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise DataError(
            f"{name}: cannot be loaded ({type(error).__name__}: {error}). Data is {FORMS}."
        ) from error
    return as_dataset(made, name)


def as_dataset(value: Any, source: str = "arrays") -> Dataset:
    """A data set from a `Dataset`, an array x, a pair (x, y), or a mapping with x and, where known, y.

    Raises:
        DataError: If the value is none of these, or its arrays are malformed.
    """
    if isinstance(value, Dataset):
        if len(value) == 0:
            raise DataError(f"{source}: holds no samples.")
        return value
    if isinstance(value, np.ndarray):
        return ArrayDataset(value, source=source)
    if isinstance(value, dict) and "x" in value:
        return ArrayDataset(np.asarray(value["x"]), value.get("y"), source=source)
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return ArrayDataset(np.asarray(value[0]), value[1], source=source)
    raise DataError(
        f"{source}: a {type(value).__name__} is no data set. Give a Dataset, an array x, a pair (x, y) of "
        "arrays, or a mapping with x and y."
    )
