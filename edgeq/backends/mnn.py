"""Runs .mnn models with MNN on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Bound, Logits, as_logits
from edgeq.errors import BackendError


class MnnBackend:
    """A classifier with one float input, NCHW.

    Args:
        path: The .mnn file; `edgeq.backends.peers.convert_mnn` makes one.
        threads: Threads of an inference; None for one.

    Attributes:
        name: Runtime and version, for reports.

    Raises:
        BackendError: If MNN is not installed, or it refuses the model.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        try:
            import MNN
        except ImportError:
            raise BackendError(
                "Running a .mnn model needs MNN, which is not installed: pip install 'edgeq[peers]' or pip install MNN."
            ) from None
        self.path = Path(path)
        if not self.path.is_file():
            raise BackendError(f"{path}: there is no such .mnn file. Check the path.")
        self.name = f"mnn {MNN.version()}"
        self._mnn: Any = MNN
        try:
            self._interpreter: Any = MNN.Interpreter(str(self.path))
            self._session: Any = self._interpreter.createSession({"numThread": threads or 1})
        except Exception as error:  # the package raises plain Exception
            raise BackendError(f"{path}: MNN cannot load it ({error}).") from error
        self._input: Any = self._interpreter.getSessionInput(self._session)

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch, one sample after the other; see `Backend.run`.

        Raises:
            BackendError: If the model gives no logits.
        """
        bound = [self.bind(x[i : i + 1]) for i in range(len(x))]
        return np.concatenate([one.logits(one.run()) for one in bound])

    def bind(self, x: NDArray[np.float32]) -> Bound:
        """See `TimedBackend.bind`: one copy in, one copy out, as MNN's sessions need."""
        mnn, interpreter, session = self._mnn, self._interpreter, self._session
        shape = tuple(x.shape)
        if tuple(self._input.getShape()) != shape:
            interpreter.resizeTensor(self._input, shape)
            interpreter.resizeSession(session)
        output = interpreter.getSessionOutput(session)
        given = mnn.Tensor(shape, mnn.Halide_Type_Float, np.ascontiguousarray(x), mnn.Tensor_DimensionType_Caffe)
        result = np.zeros(output.getShape(), np.float32)
        host = mnn.Tensor(output.getShape(), mnn.Halide_Type_Float, result, mnn.Tensor_DimensionType_Caffe)

        def once() -> NDArray[Any]:
            self._input.copyFrom(given)
            interpreter.runSession(session)
            output.copyToHostTensor(host)
            return np.asarray(host.getNumpyData())

        return Bound(once, lambda result: as_logits(result, len(x), str(self.path)))
