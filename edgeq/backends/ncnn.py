"""Runs .param models with ncnn on the CPU."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Bound, Logits, as_logits
from edgeq.errors import BackendError


class NcnnBackend:
    """A classifier with one float input, NCHW.

    Args:
        path: The .param file, its weights beside it as .bin; `edgeq.backends.ncnn_files` writes both.
        threads: Threads of an inference; None for one.

    Attributes:
        name: Runtime and version, for reports.

    Raises:
        BackendError: If ncnn is not installed, or it refuses the model.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        try:
            import ncnn
        except ImportError:
            raise BackendError(
                "Running a .param model needs ncnn, which is not installed: pip install 'edgeq[peers]' or pip install "
                "ncnn."
            ) from None
        self.path = Path(path)
        if not self.path.is_file() or not self.path.with_suffix(".bin").is_file():
            raise BackendError(f"{path}: there is no such .param file with a .bin file beside it. Check the path.")
        self.name = f"ncnn {metadata.version('ncnn')}"
        self._ncnn: Any = ncnn
        self._net: Any = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = threads or 1
        if self._net.load_param(str(self.path)) or self._net.load_model(str(self.path.with_suffix(".bin"))):
            raise BackendError(f"{path}: ncnn cannot load it.")
        self._in: str = self._net.input_names()[0]
        self._out: str = self._net.output_names()[0]

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch, one sample after the other; see `Backend.run`.

        Raises:
            BackendError: If ncnn fails, or the model gives no logits.
        """
        bound = [self.bind(x[i : i + 1]) for i in range(len(x))]
        return np.concatenate([one.logits(one.run()) for one in bound])

    def bind(self, x: NDArray[np.float32]) -> Bound:
        """See `TimedBackend.bind`; ncnn takes one image."""
        if len(x) != 1:
            raise BackendError(f"{self.path}: ncnn runs one image at a time, not {len(x)}.")
        given = self._ncnn.Mat(np.ascontiguousarray(x[0])).clone()

        def once() -> NDArray[Any]:
            extractor = self._net.create_extractor()
            extractor.input(self._in, given)
            status, found = extractor.extract(self._out)
            if status:
                raise BackendError(f"{self.path}: ncnn failed (status {status}).")
            return np.array(found)

        return Bound(once, lambda result: as_logits(result[None], 1, str(self.path)))
