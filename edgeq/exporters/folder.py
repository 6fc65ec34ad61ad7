"""What an exported folder holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
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


def check_target(out: Path, sources: Iterable[Path] = ()) -> None:
    """Sees to it that an export into `out` replaces and removes nothing but what an export wrote there.

    Args:
        out: The folder for the results; it need not exist.
        sources: Files that the export reads: the model, a plan that is replayed.

    Raises:
        UsageError: If a file that would be replaced or removed is one of the sources (a plan may be, it is written
            again), is not known to be edgeq's, or is a plan that was edited.
    """
    if not str(out) or not out.is_dir():
        return
    found = [name for name in FILES if (out / name).exists()]
    if not found:
        return
    reading = {path.resolve() for path in sources}
    for name in found:
        if (out / name).resolve() in reading and name not in (PLAN_FILE, REFERENCE_FILE, REFERENCE_TFLITE):
            raise UsageError(f"{out / name} is what is exported, and the result would replace it; name another folder")
    try:
        written = read_manifest(out)
    except FormatError:
        written = {}
    if not str(written.get("producer", "")).startswith("edgeq"):
        written = {}
    known = {*written.get("files", {}), *((MANIFEST_FILE, TRIALS_FILE) if written else ())}
    for name in found:
        if name not in known:
            raise UsageError(
                f"{out / name} was not written by edgeq, and an export would replace or remove it; name another folder"
            )
    plan = out / PLAN_FILE
    if PLAN_FILE not in found or plan.resolve() in reading:
        return
    if hashlib.sha256(plan.read_bytes()).hexdigest() != written["files"][PLAN_FILE]["sha256"]:
        raise UsageError(
            f"{plan} was edited, and this export would replace or remove it; replay it (--bits {plan}), or name "
            "another folder"
        )


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
