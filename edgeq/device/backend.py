"""A device as a backend: verification runs on what it computes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.conversion import edgeq_bytes
from edgeq.backends.protocol import Logits, as_logits
from edgeq.device.device import Device
from edgeq.errors import UsageError


@contextlib.contextmanager
def edgeq_file(path: Path) -> Iterator[Path]:
    """Yields a .edgeq file: `path` itself, or what a quantized .onnx or .tflite file converts to, while it lasts."""
    if path.suffix.lower() == ".edgeq":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder:
        converted = Path(folder) / "model.edgeq"
        converted.write_bytes(edgeq_bytes(path))
        yield converted


class DeviceBackend:
    """A .edgeq classifier with one input, run by edgeq-runner on a device.

    Args:
        device: Connected.
        path: The .edgeq file.
        threads: Threads of the engine there; None for one.

    Raises:
        DeviceError: If the device refuses the model.
        UsageError: If the model has several inputs.
    """

    def __init__(self, device: Device, path: Path, threads: int | None = None) -> None:
        self.device = device
        self._path = path
        self._threads = threads or 1
        found = device.json(["info", "{0}"], files=[path])
        inputs, outputs = found["model"]["inputs"], found["model"]["outputs"]
        if len(inputs) != 1:
            raise UsageError(f"{path}: verification needs a model with one input, not {len(inputs)}.")
        self._outputs = len(outputs)
        self.cpu: str = found["machine"]["cpu"]
        self.isa: str = found["in_use"]
        self.name = f"{device.address.text} ({', '.join(part for part in (self.cpu, self.isa) if part)})"

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; see `Backend.run`.

        Raises:
            DeviceError: If the device fails; one that comes back in time goes on where it was.
        """
        found = self.device.outputs(self._path, x, threads=self._threads, count=self._outputs)
        return as_logits(found[0], len(x), self.name)
