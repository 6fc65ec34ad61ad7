"""Runs a .tflite file on arrays: used by the adapter, and a script for another environment's Python.

    python tflite_runner.py MODEL.tflite INPUTS.npz OUTPUTS.npz [--xnnpack on|off] [--threads N]

INPUTS.npz holds one array for each input, OUTPUTS.npz gets one for each output, both named "0", "1", ... in the
model's order. It imports numpy and the runtime only, not edgeq: tflite-runtime wants an environment of its own
(numpy < 2).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

RUNTIMES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
"""Packages that run .tflite files, the preferred one first, and the modules they install."""


class RuntimeMissing(Exception):
    """No runtime can be had; the message says why and what to do."""


def find_runtime(wanted: str | None = None) -> tuple[str, str, Any]:
    """Returns (package, its version, its interpreter module): the first that is installed and works here.

    Args:
        wanted: A key of RUNTIMES, or None for any.

    Raises:
        RuntimeMissing: If there is none.
    """
    reasons = []
    for package in [wanted] if wanted else list(RUNTIMES):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            reasons.append(f"{package} is not installed")
            continue
        if package == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
            reasons.append(
                f"{package} {version} was built for NumPy 1 and fails under NumPy {np.__version__}; give it an "
                "environment with 'numpy<2' and name its Python in EDGEQ_TFLITE_PYTHON"
            )
            continue
        try:
            module = importlib.import_module(f"{RUNTIMES[package]}.interpreter")
        except ImportError as error:
            reasons.append(f"{package} {version} cannot be imported ({error})")
            continue
        return package, version, module
    raise RuntimeMissing("; ".join(reasons))


def open_interpreter(module: Any, model: str | bytes, xnnpack: bool, threads: int) -> Any:
    """Returns an interpreter for a file or its bytes; without XNNPACK the built-in kernels run everything."""
    kinds = module.OpResolverType
    return module.Interpreter(
        **{"model_content" if isinstance(model, bytes) else "model_path": model},
        num_threads=threads,
        experimental_op_resolver_type=kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )


def run_interpreter(interpreter: Any, inputs: Sequence[Any]) -> list[Any]:
    """Returns the outputs of one batch; arrays have the types and the layout of the file."""
    details = interpreter.get_input_details()
    if len(details) != len(inputs):
        raise ValueError(f"the model has {len(details)} inputs, {len(inputs)} were given")
    for detail, value in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != value.shape:
            interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail, value in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def main(arguments: Sequence[str] | None = None) -> int:
    """The script; errors are one line and exit status 1."""
    parser = argparse.ArgumentParser(description="Runs a .tflite file on arrays.")
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("outputs")
    parser.add_argument("--xnnpack", choices=("on", "off"), default="on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runtime", choices=tuple(RUNTIMES))
    options = parser.parse_args(arguments)
    try:
        package, version, module = find_runtime(options.runtime)
        with np.load(options.inputs) as archive:
            values = [archive[str(i)] for i in range(len(archive.files))]
        interpreter = open_interpreter(module, options.model, options.xnnpack == "on", options.threads)
        found = run_interpreter(interpreter, values)
    except (RuntimeMissing, ValueError, RuntimeError, OSError, SystemError) as error:
        print(str(error).strip(), file=sys.stderr)
        return 1
    np.savez(options.outputs, **{str(i): value for i, value in enumerate(found)})
    print(f"{package} {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
