"""What an exported folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UsageError

MODEL_FILE = "model.edgeq"
ONNX_FILE = "model.onnx"
TFLITE_FILE = "model.tflite"
REFERENCE_FILE = "reference.onnx"
REFERENCE_TFLITE = "reference.tflite"
PLAN_FILE = "plan.toml"
TRIALS_FILE = "trials.json"
MANIFEST_FILE = "manifest.json"
FILES = (MODEL_FILE, ONNX_FILE, TFLITE_FILE, REFERENCE_FILE, REFERENCE_TFLITE, PLAN_FILE, TRIALS_FILE, MANIFEST_FILE)
"""Everything that an export may write; one that it does not write any more is removed from the folder."""


def model_file(target: Path) -> Path:
    """Returns the .edgeq file that `target`, itself one or an exported folder, names.

    Raises:
        UsageError: If there is none.
    """
    if target.is_dir():
        path = target / MODEL_FILE
        if not path.is_file():
            raise UsageError(
                f"{target} holds no {MODEL_FILE}; name a folder that `edgeq export` wrote, or a .edgeq file"
            )
        return path
    if not target.is_file():
        raise UsageError(f"{target}: there is no such file or folder")
    return target


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an exported folder.

    Raises:
        FormatError: If it is absent or malformed.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); export the model again") from None
    if not isinstance(manifest, dict):
        raise FormatError(f"{path}: is not a manifest; export the model again")
    return manifest
