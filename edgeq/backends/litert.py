"""Runs .tflite models with LiteRT (ai-edge-litert) or with its predecessor tflite-runtime."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends import tflite_runner
from edgeq.backends.protocol import Bound, Logits, as_logits, one_line, where_to_look
from edgeq.errors import BackendError

PYTHON_VARIABLE = "EDGEQ_TFLITE_PYTHON"
"""Names the Python of an environment with tflite-runtime and numpy<2, for machines whose own has NumPy 2."""

BATCH = 16
"""Samples run together where the model leaves the batch free."""


class LitertBackend:
    """A .tflite model.

    Images go in and come out as the source model has them (NCHW); the file has its channels last. Quantized ends are
    quantized and dequantized here.

    Args:
        path: The .tflite file.
        runtime: "ai-edge-litert" or "tflite-runtime"; None takes the first that works here.
        xnnpack: Whether XNNPACK runs the operators that it has; without it the built-in kernels run all.
        threads: Threads within an operator; None for one.

    Attributes:
        name: Runtime, version and kernels, for reports.
        inputs: The file's inputs, as `tflite_runner.describe` gives them.
        outputs: The file's outputs.

    Raises:
        BackendError: If no runtime works, or it refuses the model.
    """

    def __init__(
        self, path: Path | str, *, runtime: str | None = None, xnnpack: bool = True, threads: int | None = None
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise BackendError(f"{path}: there is no such .tflite file. Check the path.")
        if runtime is not None and runtime not in tflite_runner.RUNTIMES:
            raise BackendError(f"{runtime!r} is no TFLite runtime; choose {' or '.join(tflite_runner.RUNTIMES)}.")
        self._runner: _InProcess | _OtherPython
        try:
            self._runner = _InProcess(self.path, runtime, xnnpack, threads or 1)
        except tflite_runner.RuntimeMissingError as error:
            python = os.environ.get(PYTHON_VARIABLE)
            if not python:
                raise BackendError(
                    f"Running a .tflite model needs a runtime: {error}. Install 'edgeq[tflite]' (ai-edge-litert)."
                    if runtime != "tflite-runtime"
                    else f"{error}."
                ) from None
            self._runner = _OtherPython(python, self.path, runtime, xnnpack, threads or 1)
        kernels = "" if xnnpack else ", built-in kernels"
        self.name = f"{self._runner.package} {self._runner.version}{kernels}"
        self.inputs: list[dict[str, Any]] = self._runner.ends["inputs"]
        self.outputs: list[dict[str, Any]] = self._runner.ends["outputs"]

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; see `Backend.run`.

        Raises:
            BackendError: If the model has several inputs or takes another shape, or the runtime fails.
        """
        return as_logits(self.run_all(x)[0], len(x), str(self.path))

    def run_all(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """All outputs of a batch, float32 with the channels of images first, in the model's order.

        Raises:
            BackendError: As `run`.
        """
        found = self.run_arrays([self._encoded(x)])
        return [_decode(values, end).astype(np.float32) for values, end in zip(found, self.outputs, strict=True)]

    def bind(self, x: NDArray[np.float32]) -> Bound:
        """See `TimedBackend.bind`: the input has the file's type and layout already, and so has the result.

        Raises:
            BackendError: If the model takes another shape, or the runtime is another environment's.
        """
        if not isinstance(self._runner, _InProcess):
            raise BackendError(f"{self.name} runs in the Python of {PYTHON_VARIABLE}: it cannot be timed from here.")
        once = self._runner.bind(self._encoded(x))
        return Bound(once, lambda result: as_logits(_decode(result, self.outputs[0]), len(x), str(self.path)))

    def _encoded(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Returns a batch in the file's type and layout."""
        if len(self.inputs) != 1:
            raise BackendError(f"{self.path}: verification needs a model with one input; it has {len(self.inputs)}.")
        end = self.inputs[0]
        # A rank-4 input is channels last in the file, unless the source model itself took it as it is there.
        values = np.moveaxis(x, 1, 3) if x.ndim == 4 else x
        if not _fits(values, end) and _fits(x, end):
            values = x
        if not _fits(values, end):
            raise BackendError(
                f"{self.path}: the model takes inputs of {_sizes(end['shape'][1:])} (channels last here), but "
                f"the data give {_sizes(values.shape[1:])}. Check {where_to_look(len(end['shape']))}."
            )
        return np.ascontiguousarray(_encode(np.ascontiguousarray(values), end))

    def run_arrays(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs arrays of the file's own types and layout, batch first, in parts of the size that the model takes.

        Raises:
            BackendError: If the runtime fails.
        """
        count = inputs[0].shape[0]
        free = self.inputs[0]["shape"][:1] == [-1]
        step = min(BATCH, count) if free else max(1, self.inputs[0]["shape"][0])
        parts = []
        for start in range(0, count, step):
            part = [value[start : start + step] for value in inputs]
            missing = step - part[0].shape[0]
            if missing:
                part = [np.concatenate([value, np.repeat(value[-1:], missing, axis=0)]) for value in part]
            found = self._runner.run([np.ascontiguousarray(value) for value in part])
            parts.append([value[: step - missing] for value in found])
        return [np.concatenate([part[i] for part in parts]) for i in range(len(parts[0]))]


def installed_version(package: str) -> str | None:
    """Returns the version of a TFLite runtime, here or in the environment of EDGEQ_TFLITE_PYTHON; None without one."""
    try:
        return tflite_runner.find_runtime(package)[1]
    except tflite_runner.RuntimeMissingError:
        pass
    python = os.environ.get(PYTHON_VARIABLE)
    if not python:
        return None
    words = [python, "-c", "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))", package]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


class _InProcess:
    """A runtime of this environment."""

    def __init__(self, path: Path, runtime: str | None, xnnpack: bool, threads: int) -> None:
        self.package, self.version, module = tflite_runner.find_runtime(runtime)
        self._path = path
        try:
            self._interpreter = tflite_runner.open_interpreter(module, str(path), xnnpack, threads)
            self.ends = tflite_runner.describe(self._interpreter)
        except (ValueError, RuntimeError, SystemError) as error:
            raise BackendError(f"{path}: {self.package} cannot load it ({one_line(error)}).") from error

    def run(self, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return tflite_runner.run_interpreter(self._interpreter, inputs)
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"{self._path}: {self.package} failed ({one_line(error)}).") from error

    def bind(self, value: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        interpreter: Any = self._interpreter
        entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
        index = entry["index"]
        if tuple(entry["shape"]) != value.shape:
            interpreter.resize_tensor_input(index, value.shape)
        interpreter.allocate_tensors()

        def once() -> NDArray[Any]:
            # The runtime may use an input's memory for later tensors: it must be given each time.
            interpreter.set_tensor(index, value)
            interpreter.invoke()
            found: NDArray[Any] = interpreter.get_tensor(result)
            return found

        return once


class _OtherPython:
    """A runtime of another environment: a process for each call."""

    def __init__(self, python: str, path: Path, runtime: str | None, xnnpack: bool, threads: int) -> None:
        self._command = [python, str(Path(tflite_runner.__file__)), str(path)]
        self._options = ["--runtime", runtime] if runtime else []
        described = json.loads(self._call(["--describe"]))
        self.package, self.version, self.ends = described["package"], described["version"], described
        self._options += ["--xnnpack", "on" if xnnpack else "off", "--threads", str(threads)]

    def run(self, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
            arrays: Any = {str(i): value for i, value in enumerate(inputs)}
            np.savez(source, **arrays)
            self._call([str(source), str(target)])
            with np.load(target) as archive:
                return [archive[str(i)] for i in range(len(archive.files))]

    def _call(self, arguments: list[str]) -> str:
        command = [*self._command, *arguments, *self._options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise BackendError(f"{PYTHON_VARIABLE}={command[0]} cannot be started ({error.strerror}).") from None
        if done.returncode:
            raise BackendError(f"{command[2]}: the Python of {PYTHON_VARIABLE} failed ({_last_line(done.stderr)}).")
        return done.stdout


def _fits(values: NDArray[Any], end: dict[str, Any]) -> bool:
    wanted, given = end["shape"][1:], values.shape[1:]
    return len(wanted) == len(given) and all(w in (-1, g) for w, g in zip(wanted, given, strict=True))


def _encode(values: NDArray[np.float32], end: dict[str, Any]) -> NDArray[Any]:
    if end["type"] == "float32":
        return values.astype(np.float32, copy=False)
    limits = np.iinfo(end["type"])
    steps = np.rint(values / np.float32(end["scale"])) + np.float32(end["zero_point"])
    codes: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(end["type"])
    return codes


def _decode(values: NDArray[Any], end: dict[str, Any]) -> NDArray[Any]:
    if end["type"] != "float32":
        values = (values.astype(np.int32) - end["zero_point"]).astype(np.float32) * np.float32(end["scale"])
    return np.moveaxis(values, 3, 1) if values.ndim == 4 else values


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _last_line(text: str) -> str:
    """The line that says what failed; the runtime's own notices come before it."""
    return one_line(text.strip().rpartition("\n")[2])
