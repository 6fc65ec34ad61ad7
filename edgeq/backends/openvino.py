"""Runs .onnx models, and the .xml models of NNCF, with OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Bound, Logits, as_logits, one_line
from edgeq.errors import BackendError


class OpenVinoBackend:
    """A classifier with one float input.

    Layers between QuantizeLinear and DequantizeLinear, or between NNCF's FakeQuantize, are computed in integers.

    Args:
        path: The .onnx or .xml file.
        threads: Threads of an inference; None lets the runtime choose.
        exact: Whether all other layers are computed in float32; else in what the runtime chooses, which is bfloat16
            where the CPU multiplies that fastest.

    Attributes:
        name: Runtime and version, for reports.

    Raises:
        BackendError: If openvino is not installed, or it refuses the model.
    """

    def __init__(self, path: Path | str, threads: int | None = None, *, exact: bool = True) -> None:
        try:
            import openvino
        except ImportError:
            raise BackendError(
                "Running a model with OpenVINO needs the package openvino, which is not installed: pip install "
                "'edgeq[peers]' or pip install openvino."
            ) from None
        self.path = Path(path)
        if not self.path.is_file():
            raise BackendError(f"{path}: there is no such model file. Check the path.")
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        self._openvino: Any = openvino
        self._core: Any = openvino.Core()
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if exact:
            self._options["INFERENCE_PRECISION_HINT"] = "f32"
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model: Any = self._core.read_model(str(self.path))
        except RuntimeError as error:
            raise BackendError(f"{path}: OpenVINO cannot load it ({one_line(error)}).") from error
        ends = self._model.inputs
        if len(ends) != 1 or not ends[0].element_type.is_real():
            raise BackendError(f"{path}: verification needs a model with one float input; it has {len(ends)}.")
        self._compiled: dict[tuple[int, ...], Any] = {}

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; see `Backend.run`.

        Raises:
            BackendError: If the model takes another shape, or the runtime fails.
        """
        request = self._compile(x.shape).create_infer_request()
        try:
            found = request.infer([np.ascontiguousarray(x)])
        except RuntimeError as error:
            raise BackendError(f"{self.path}: OpenVINO failed ({one_line(error)}).") from error
        return as_logits(found[0], len(x), str(self.path))

    def bind(self, x: NDArray[np.float32]) -> Bound:
        """See `TimedBackend.bind`: the tensors of both ends are the caller's memory."""
        compiled = self._compile(x.shape)
        request = compiled.create_infer_request()
        given = np.ascontiguousarray(x)
        result = np.zeros(tuple(compiled.outputs[0].shape), np.float32)
        request.set_input_tensor(self._openvino.Tensor(given, shared_memory=True))
        request.set_output_tensor(self._openvino.Tensor(result, shared_memory=True))

        def once() -> NDArray[Any]:
            # `infer` walks over its arguments and copies the results; these two calls do neither.
            request.start_async()
            request.wait()
            return result

        return Bound(once, lambda result: as_logits(result, len(given), str(self.path)))

    def primitives(self, shape: tuple[int, ...]) -> dict[str, int]:
        """Returns how many layers with weights run on each implementation, such as "brgconv_avx512_1x1_I8"."""
        found: dict[str, int] = {}
        for layer in self._compile(shape).get_runtime_model().get_ordered_ops():
            info = layer.get_rt_info()
            if info["layerType"].astype(str) in ("Convolution", "FullyConnected"):
                primitive = info["primitiveType"].astype(str)
                found[primitive] = found.get(primitive, 0) + 1
        return found

    def _compile(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            try:
                model = self._model.clone()
                model.reshape(list(shape))
                self._compiled[shape] = self._core.compile_model(model, "CPU", self._options)
            except RuntimeError as error:
                raise BackendError(f"{self.path}: OpenVINO cannot run it on {shape} ({one_line(error)}).") from error
        return self._compiled[shape]
