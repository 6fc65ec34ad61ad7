"""Kernels that were measured to be the fastest on one CPU: a small file beside a .edgeq file.

The engine's cost model chooses a kernel for each shape of a layer; `edgeq bench --tune` measures the others and writes
what beat it. The results of a model do not depend on it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.outputs import write_text

SUFFIX = ".tune.json"
_FORMAT = 1
_LIMIT = 1 << 20  # Bytes: far beyond what any model needs.


class TuningWarning(UserWarning):
    """A tuning file was left out of account."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a tuning file holds.

    Attributes:
        cpu: Name of the CPU that it was measured on.
        engine: Version of edgeq that measured it.
        threads: Threads of the engine while it measured.
        kernels: Names of kernels by the shape that they are for (`edgeq.session.KernelChoice.shape`).
    """

    cpu: str
    engine: str
    threads: int
    kernels: Mapping[str, str]

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all; raises UsageError when it cannot be written."""
        content = {
            "format": _FORMAT,
            "cpu": self.cpu,
            "engine": self.engine,
            "threads": self.threads,
            "kernels": dict(sorted(self.kernels.items())),
        }
        write_text(path, json.dumps(content, indent=1) + "\n")


def tuning_file(model: Path) -> Path:
    """Where the tuning of a .edgeq file lies: `model.edgeq.tune.json` beside `model.edgeq`."""
    return model.with_name(model.name + SUFFIX)


def tuning_beside(model: Path, cpu: str, engine: str) -> Mapping[str, str]:
    """The kernels that a tuning file beside the model names; none without such a file.

    A file that is damaged, or that another CPU or another version of edgeq was measured for, is left out of account,
    with a TuningWarning that says so.
    """
    path = tuning_file(model)
    try:
        with path.open("rb") as stream:
            content = stream.read(_LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        _warn(path, f"it cannot be read ({error.strerror})")
        return {}
    tuning = _parse(content)
    if tuning is None:
        _warn(path, "it is no tuning file that this version reads")
    elif tuning.cpu != cpu:
        _warn(path, f'it was measured on another CPU ("{tuning.cpu}"; this one is "{cpu}")')
    elif tuning.engine != engine:
        _warn(path, f"edgeq {tuning.engine} measured it, this is {engine}")
    else:
        return tuning.kernels
    return {}


def _parse(content: bytes) -> Tuning | None:
    if len(content) > _LIMIT:
        return None
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        return None
    cpu, engine, threads, kernels = (found.get(name) for name in ("cpu", "engine", "threads", "kernels"))
    if not isinstance(cpu, str) or not isinstance(engine, str) or not isinstance(threads, int):
        return None
    if not isinstance(kernels, dict) or not all(isinstance(name, str) for name in kernels.values()):
        return None
    return Tuning(cpu, engine, threads, kernels)


def _warn(path: Path, why: str) -> None:
    message = f"{path} is left out of account: {why}. Measure again with `edgeq bench --tune`, or remove the file."
    warnings.warn(message, TuningWarning, stacklevel=4)
