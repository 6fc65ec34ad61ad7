"""Runs a .tflite file on arrays: used by the adapter, and a script for another environment's Python.

    python tflite_runner.py MODEL.tflite --describe [--runtime NAME]
    python tflite_runner.py MODEL.tflite INPUTS.npz OUTPUTS.npz [--xnnpack on|off] [--threads N] [--runtime NAME]

The first form prints the runtime and the model's ends as JSON. INPUTS.npz holds one array for each input, OUTPUTS.npz
gets one for each output, both named "0", "1", ... in the model's order. It imports numpy and the runtime only, not
edgeq: tflite-runtime wants an environment of its own (Python 3.10 or 3.11, numpy < 2).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

RUNTIMES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
"""Packages that run .tflite files, the preferred one first, and the modules they install."""


class RuntimeMissingError(Exception):
    """No runtime can be had; the message says why and what to do."""


def find_runtime(wanted: str | None = None) -> tuple[str, str, Any]:
    """Returns (package, its version, its interpreter module): the first that is installed and works here.

    Args:
        wanted: A key of RUNTIMES, or None for any.

    Raises:
        RuntimeMissingError: If there is none.
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
                "environment of its own with 'numpy<2' and name its Python in EDGEQ_TFLITE_PYTHON"
            )
            continue
        try:
            module = importlib.import_module(f"{RUNTIMES[package]}.interpreter")
        except ImportError as error:
            reasons.append(f"{package} {version} cannot be imported ({error})")
            continue
        return package, version, module
    raise RuntimeMissingError("; ".join(reasons))


def open_interpreter(module: Any, model: str | bytes, xnnpack: bool = True, threads: int = 1) -> Any:
    """Returns an interpreter for a file or its bytes; without XNNPACK the built-in kernels run everything."""
    kinds = module.OpResolverType
    return module.Interpreter(
        **{"model_content" if isinstance(model, bytes) else "model_path": model},
        num_threads=threads,
        experimental_op_resolver_type=kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )


def describe(interpreter: Any) -> dict[str, Any]:
    """Returns the ends as {"inputs": [...], "outputs": [...]}, each with name, shape, type, scale and zero point.

    The shape has -1 where the model leaves a size free; scale is 0 where there is no quantization.
    """

    def end(detail: Any) -> dict[str, Any]:
        scale, zero_point = detail["quantization"]
        return {
            "name": str(detail["name"]),
            "shape": [int(size) for size in detail["shape_signature"]],
            "type": np.dtype(detail["dtype"]).name,
            "scale": float(scale),
            "zero_point": int(zero_point),
        }

    return {
        "inputs": [end(detail) for detail in interpreter.get_input_details()],
        "outputs": [end(detail) for detail in interpreter.get_output_details()],
    }


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
    """The script; an error is one line and exit status 1."""
    parser = argparse.ArgumentParser(description="Runs a .tflite file on arrays.")
    parser.add_argument("model")
    parser.add_argument("files", nargs="*", metavar="INPUTS.npz OUTPUTS.npz")
    parser.add_argument("--describe", action="store_true")
    parser.add_argument("--xnnpack", choices=("on", "off"), default="on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runtime", choices=tuple(RUNTIMES))
    options = parser.parse_args(arguments)
    if len(options.files) != (0 if options.describe else 2):
        parser.error("give the inputs and the outputs, or --describe alone")
    try:
        package, version, module = find_runtime(options.runtime)
        interpreter = open_interpreter(module, options.model, options.xnnpack == "on", options.threads)
        if options.describe:
            print(json.dumps({"package": package, "version": version, **describe(interpreter)}))
            return 0
        with np.load(options.files[0]) as archive:
            values = [archive[str(i)] for i in range(len(archive.files))]
        found = run_interpreter(interpreter, values)
        np.savez(options.files[1], **{str(i): value for i, value in enumerate(found)})
    except (RuntimeMissingError, ValueError, RuntimeError, OSError, SystemError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
