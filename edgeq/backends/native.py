"""Runs .edgeq models with the native engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Logits, as_logits
from edgeq.errors import UsageError


class NativeBackend:
    """A .edgeq classifier with one input, run by `edgeq.Session`.

    Args:
        path: The .edgeq file, or a quantized .onnx or .tflite file, which is converted.
        threads: Threads of the engine; None lets it choose.

    Raises:
        EdgeqError: If the file is damaged or the engine is not built.
        UsageError: If the model has several inputs.
    """

    name = "native"

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        from edgeq import Session
        from edgeq.backends.conversion import edgeq_bytes

        self.path = Path(path)
        source = self.path if self.path.suffix.lower() == ".edgeq" else edgeq_bytes(self.path)
        self._session = Session(source) if threads is None else Session(source, threads=threads)
        if len(self._session.inputs) != 1:
            raise UsageError(
                f"{path}: verification needs a model with one input, not {len(self._session.inputs)}."
            )

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; see `Backend.run`.

        Raises:
            DataError: If the model takes another shape.
        """
        output = self._session.run(x)
        first = output[0] if isinstance(output, (list, tuple)) else output
        return as_logits(first, len(x), str(self.path))
