"""Who is timed: every runtime with each way in which it can run a network, and the files that takes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import edgeq
from bench import networks, store
from edgeq.backends.registry import backend_kind
from edgeq.exporters.folder import MODEL_FILE, ONNX_FILE, TFLITE_FILE

_BACKENDS = Path(edgeq.__file__).parent / "backends"

INT8_DB = 10.0
"""Least signal-to-noise ratio, in dB, of int8 logits against the float model's. Logits that have nothing to do with it
lie below 0, a model with every layer right lies between 13 and 35 on the networks here."""

FP32_DB = 50.0
"""The same for float32."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of running a network.

    Attributes:
        name: In tables.
        backend: Name in `edgeq.backends.registry`.
        precision: "int8", "int4" or "fp32".
        recipe: How its file is made: see `file_of`.
        least_db: What its output must reach; None where it must equal the numpy statements bit for bit.
        about: One clause for the tables' notes.
    """

    name: str
    backend: str
    precision: str
    recipe: str
    least_db: float | None
    about: str

    @property
    def runtime(self) -> str:
        """What one setting competes with another of: edgeq, onnxruntime, ..."""
        return "edgeq" if self.backend == "native" else self.backend

    def version(self) -> str | None:
        """Version of the runtime; None when it is not installed."""
        if self.recipe.startswith("nncf") and _version_of("nncf") is None:
            return None
        return backend_kind(self.backend).version()


CONTENDERS = (
    Contender("edgeq w8a8", "native", "int8", "w8a8", None, "this engine"),
    Contender("edgeq w4a8", "native", "int4", "w4a8", None, "this engine, weights of 4 bits"),
    Contender("onnxruntime QDQ", "onnxruntime", "int8", "onnx", INT8_DB, "model.onnx as edgeq exports it"),
    Contender("onnxruntime own", "onnxruntime", "int8", "ort", INT8_DB, "its quantize_static: QDQ, U8S8, per channel"),
    Contender("openvino QDQ", "openvino", "int8", "onnx", INT8_DB, "model.onnx as edgeq exports it"),
    Contender("openvino NNCF", "openvino", "int8", "nncf", INT8_DB, "quantized by NNCF, preset MIXED"),
    Contender("openvino NNCF 7 bit", "openvino", "int8", "nncf-7bit", INT8_DB, "NNCF with overflow_fix for all layers"),
    Contender("litert", "litert", "int8", "tflite", INT8_DB, "model.tflite as edgeq exports it"),
    Contender("litert int8 ends", "litert", "int8", "tflite-int8", INT8_DB, "the same, given and giving int8 codes"),
    Contender("litert own", "litert", "int8", "tflite-own", INT8_DB, "int8 ends, its own hard-swish for the tables"),
    Contender("ncnn", "ncnn", "int8", "ncnn-int8", INT8_DB, "largest magnitudes, per channel"),
    Contender("mnn KL", "mnn", "int8", "mnn-kl", INT8_DB, "its quantizer, KL divergence"),
    Contender("mnn EMA", "mnn", "int8", "mnn-ema", INT8_DB, "its quantizer, moving averages"),
    Contender("onnxruntime fp32", "onnxruntime", "fp32", "reference", FP32_DB, "the float model"),
    Contender("openvino fp32", "openvino", "fp32", "reference", FP32_DB, "the float model"),
    Contender("litert fp32", "litert", "fp32", "tflite-fp32", INT8_DB, "model.tflite in float32, weights dequantized"),
    Contender("ncnn fp32", "ncnn", "fp32", "ncnn-fp32", FP32_DB, "the float model"),
    Contender("mnn fp32", "mnn", "fp32", "mnn-fp32", FP32_DB, "the float model"),
)
"""Everyone, int8 first."""

CAPPED = ("native", "openvino")
"""Backends whose instruction sets can be capped from outside; the others' kernels ask the CPU alone."""

_PACKAGES = {
    "ort": ("onnxruntime",),
    "nncf": ("nncf", "openvino"),
    "nncf-7bit": ("nncf", "openvino"),
    "mnn-kl": ("mnn",),
    "mnn-ema": ("mnn",),
    "mnn-fp32": ("mnn",),
    "ncnn-int8": (),
    "ncnn-fp32": (),
    "tflite-int8": (),
    "tflite-own": (),
    "tflite-fp32": (),
}
"""What `bench.prepare` can make, and the packages whose versions it depends on."""

_PREPARATION_SECONDS = 900


def contender(name: str) -> Contender:
    """Returns the contender of that name."""
    return next(one for one in CONTENDERS if one.name == name)


def not_installed() -> list[str]:
    """Names the packages of `edgeq[peers]` that are missing."""
    needed = ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "ncnn", "mnn")
    return [package for package in needed if _version_of(package) is None]


def versions() -> dict[str, str]:
    """Returns the versions of edgeq and of the peers that are installed."""
    found = {"edgeq": edgeq.__version__}
    for package in ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "ncnn", "mnn"):
        version = _version_of(package)
        if version is not None:
            found[package] = version
    return found


@functools.cache
def file_of(network: str, recipe: str) -> Path:
    """Returns the file of a network that a recipe names, made where it is not there yet.

    Args:
        network: In the zoo.
        recipe: "reference", a scheme, "onnx" or "tflite" (of the w8a8 export), or a form that `bench.prepare` makes.

    Raises:
        PreparationError: If the peer's tool fails on this network.
    """
    if recipe == "reference":
        return networks.reference(network)
    if recipe in networks.SCHEMES:
        return networks.exported(network, recipe) / MODEL_FILE
    if recipe in ("onnx", "tflite"):
        return networks.exported(network, "w8a8") / (ONNX_FILE if recipe == "onnx" else TFLITE_FILE)
    from bench.prepare import FILES

    source = networks.exported(network, "w8a8") / TFLITE_FILE if recipe.startswith("tflite") else None
    reference = networks.reference(network)
    found = [f"{package} {_version_of(package)}" for package in _PACKAGES[recipe]]
    sources = [_BACKENDS / name for name in ("peers.py", "ncnn_files.py", "tflite_variants.py")]
    own = Path(__file__).with_name("prepare.py")
    key = store.digest(recipe, *found, reference, *([source] if source else []), *sources, own)

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "bench.prepare", recipe, network, str(folder), str(reference)]
        if source is not None:
            command.append(str(source))
        # The tools of OpenVINO report their use to their makers unless they take the machine for a CI system.
        environment = {**os.environ, "CI": "true", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            command,
            cwd=folder,  # MNN's converter leaves a file where it is called.
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PREPARATION_SECONDS,
            check=False,
        )
        if done.returncode or not (folder / FILES[recipe]).is_file():
            raise store.PreparationError(_why(done))

    return store.entry(f"{network}.{recipe}", key, make) / FILES[recipe]


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the tool ended by signal {-done.returncode}"
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"the tool ended with status {done.returncode}"


def _version_of(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
