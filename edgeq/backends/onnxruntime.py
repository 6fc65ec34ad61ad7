"""Runs .onnx models with ONNX Runtime on the CPU: the float reference, and quantized models in QDQ form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Bound, Logits, as_logits, where_to_look
from edgeq.errors import BackendError

_FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxRuntimeBackend:
    """An ONNX classifier with one float input.

    Args:
        path: The .onnx file.
        threads: Threads within an operator; None lets the runtime choose.

    Raises:
        BackendError: If onnxruntime is not installed, or it refuses the model.
    """

    def __init__(self, path: Path | str, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise BackendError(
                "Running a .onnx model needs onnxruntime, which is not installed: pip install "
                "'edgeq[export]' or pip install onnxruntime."
            ) from None
        self.path = Path(path)
        if not self.path.is_file():
            raise BackendError(f"{path}: there is no such .onnx file. Check the path of the reference model.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # On x86 too, signed codes are computed in integers; without this they often are in float.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises its own types, all derived from Exception
            raise BackendError(f"{path}: ONNX Runtime cannot load it ({_first_line(error)}).") from error
        inputs = session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _FLOAT_TYPES:
            found = ", ".join(f"{one.name}: {one.type}" for one in inputs) or "none"
            raise BackendError(
                f"{path}: verification needs a model with one float input; its inputs are {found}."
            )
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._session: Any = session
        self._input: Any = inputs[0]
        self._output: str = session.get_outputs()[0].name

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; see `Backend.run`.

        Raises:
            BackendError: If the model takes another shape, or the runtime fails.
        """
        [output] = self._run_outputs(x, [self._output])
        return as_logits(output, len(x), str(self.path))

    def run_all(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """All outputs of a batch, float32, in the model's order.

        Raises:
            BackendError: As `run`.
        """
        names = [one.name for one in self._session.get_outputs()]
        return [np.asarray(output, np.float32) for output in self._run_outputs(x, names)]

    def bind(self, x: NDArray[np.float32]) -> Bound:
        """See `TimedBackend.bind`: input and output are bound to memory once.

        Raises:
            BackendError: If the model takes another shape.
        """
        self._check_shape(x.shape)
        given = np.ascontiguousarray(x.astype(_FLOAT_TYPES[self._input.type], copy=False))
        session = self._session
        binding = session.io_binding()
        binding.bind_cpu_input(self._input.name, given)
        binding.bind_output(self._output)

        def once() -> NDArray[Any]:
            session.run_with_iobinding(binding)
            found: NDArray[Any] = binding.get_outputs()[0].numpy()
            return found

        return Bound(once, lambda result: as_logits(result, len(given), str(self.path)))

    def _run_outputs(self, x: NDArray[np.float32], names: list[str]) -> list[NDArray[Any]]:
        """The outputs of those names, in parts of the size that the model takes."""
        self._check_shape(x.shape)
        fixed = self._input.shape[0]
        step = fixed if isinstance(fixed, int) and fixed > 0 else len(x)
        values = x.astype(_FLOAT_TYPES[self._input.type], copy=False)
        parts = [self._run_part(values[start : start + step], step, names) for start in range(0, len(values), step)]
        return parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _run_part(self, values: NDArray[Any], step: int, names: list[str]) -> list[NDArray[Any]]:
        missing = step - len(values)
        padded = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values
        try:
            outputs = self._session.run(names, {self._input.name: padded})
        except Exception as error:  # the runtime raises its own types, all derived from Exception
            raise BackendError(f"{self.path}: ONNX Runtime failed ({_first_line(error)}).") from error
        return [output[: len(values)] for output in outputs] if missing else outputs

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        wanted = self._input.shape
        fits = len(wanted) == len(shape) and all(
            not isinstance(length, int) or length == given
            for length, given in zip(wanted[1:], shape[1:], strict=True)
        )
        if not fits:
            takes = "x".join(str(length) for length in wanted[1:])
            gives = "x".join(str(length) for length in shape[1:])
            axes = {2: " (channels x length)", 3: " (channels x height x width)"}.get(len(wanted) - 1, "")
            raise BackendError(
                f"{self.path}: the model takes inputs of {takes}{axes}, but the data give {gives}. "
                f"Check {where_to_look(len(wanted))}."
            )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
