"""Runs .edgeq models with the numpy statements of the arithmetic contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Logits, as_logits, in_layout
from edgeq.errors import UsageError


class SimulateBackend:
    """A .edgeq classifier with one input, run by `edgeq.simulate`.

    Args:
        path: The .edgeq file, or a quantized .onnx or .tflite file, which is converted.

    Raises:
        FormatError: If the file is damaged.
        UsageError: If the model has several inputs.
    """

    name = "simulate"

    def __init__(self, path: Path | str) -> None:
        from edgeq.backends.conversion import edgeq_bytes
        from edgeq.importers.from_edgeq import decode, load

        self.path = Path(path)
        converted = self.path.suffix.lower() in (".onnx", ".tflite")
        self._graph, _ = decode(edgeq_bytes(self.path)) if converted else load(self.path)
        if len(self._graph.inputs) != 1:
            raise UsageError(
                f"{path}: verification needs a model with one input, not {len(self._graph.inputs)}."
            )

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; see `Backend.run`.

        Raises:
            DataError: If the model takes another shape.
        """
        from edgeq.simulate import simulate

        if self.path.suffix.lower() == ".tflite":
            # A converted file takes its own layout; the graph of a .edgeq file takes what its source took.
            shape = self._graph.tensor(self._graph.inputs[0]).shape
            x = in_layout(x, [size if isinstance(size, int) else None for size in shape])
        return as_logits(simulate(self._graph, x)[0], len(x), str(self.path))
