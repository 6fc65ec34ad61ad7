"""Runs .edgeq models with the native engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Bound, Logits, as_logits, in_layout
from edgeq.errors import UsageError


class NativeBackend:
    """A .edgeq classifier with one input, run by `edgeq.Session`.

    Args:
        path: The .edgeq file, or a quantized .onnx or .tflite file, which is converted.
        threads: Threads of the engine; None for one.
        max_isa: Highest instruction set to use; None for what EDGEQ_MAX_ISA says, else all.

    Raises:
        EdgeqError: If the file is damaged or the engine is not built.
        UsageError: If the model has several inputs.
    """

    name = "native"

    def __init__(self, path: Path | str, threads: int | None = None, max_isa: str | None = None) -> None:
        from edgeq import Session
        from edgeq.backends.conversion import edgeq_bytes

        self.path = Path(path)
        source = self.path if self.path.suffix.lower() == ".edgeq" else edgeq_bytes(self.path)
        self._session = Session(source, threads=threads or 1, max_isa=max_isa)
        if len(self._session.inputs) != 1:
            raise UsageError(
                f"{path}: verification needs a model with one input, not {len(self._session.inputs)}."
            )

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; see `Backend.run`.

        Raises:
            DataError: If the model takes another shape.
        """
        return as_logits(self.run_all(x)[0], len(x), str(self.path))

    def run_all(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """All outputs of a batch, float32, in the model's order.

        Raises:
            DataError: If the model takes another shape.
        """
        output = self._session.run(in_layout(x, self._session.inputs[0].shape))
        return list(output) if isinstance(output, (list, tuple)) else [output]

    def bind(self, x: NDArray[np.float32]) -> Bound:
        """See `TimedBackend.bind`."""
        session = self._session
        laid_out = in_layout(x, session.inputs[0].shape)

        def once() -> NDArray[Any]:
            output: Any = session.run(laid_out)
            found: NDArray[Any] = output[0] if isinstance(output, list) else output
            return found

        return Bound(once, lambda result: as_logits(result, len(x), str(self.path)))
