"""Which backends there are, which files each runs, and what is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeq.backends.protocol import Backend
from edgeq.errors import UsageError
from edgeq.exporters.folder import FILES, MODEL_FILE, ONNX_FILE, TFLITE_FILE


@dataclass(frozen=True, slots=True)
class BackendKind:
    """One way of running a model.

    Attributes:
        name: As `--backend` takes it.
        file: The file of a folder that it runs; `edgeq export` writes those of `edgeq.exporters.folder.FILES`.
        open: Starts it on a file with that many threads (None: its own choice).
        package: The package whose version says whether it is there; None for what comes with edgeq.
        purpose: One clause for `edgeq backends`.
    """

    name: str
    file: str
    open: Callable[[Path, int | None], Backend]
    package: str | None
    purpose: str

    @property
    def suffix(self) -> str:
        """Ending of the files that it runs."""
        return Path(self.file).suffix

    def version(self) -> str | None:
        """Returns the version in use, or None when it cannot run here."""
        if self.package is None:
            from edgeq import __version__

            return __version__
        if self.suffix == ".tflite":
            return _tflite_version(self.package)
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def _native(path: Path, threads: int | None) -> Backend:
    from edgeq.backends.native import NativeBackend

    return NativeBackend(path, threads)


def _simulate(path: Path, threads: int | None) -> Backend:
    from edgeq.backends.simulate import SimulateBackend

    return SimulateBackend(path)


def _onnxruntime(path: Path, threads: int | None) -> Backend:
    from edgeq.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, threads)


def _tflite(runtime: str, xnnpack: bool) -> Callable[[Path, int | None], Backend]:
    def start(path: Path, threads: int | None) -> Backend:
        from edgeq.backends.litert import LitertBackend

        return LitertBackend(path, runtime=runtime, xnnpack=xnnpack, threads=threads)

    return start


def _openvino(path: Path, threads: int | None) -> Backend:
    from edgeq.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(path, threads)


def _ncnn(path: Path, threads: int | None) -> Backend:
    from edgeq.backends.ncnn import NcnnBackend

    return NcnnBackend(path, threads)


def _mnn(path: Path, threads: int | None) -> Backend:
    from edgeq.backends.mnn import MnnBackend

    return MnnBackend(path, threads)


def _tflite_version(package: str) -> str | None:
    from edgeq.backends.litert import installed_version

    return installed_version(package)


KINDS = (
    BackendKind("native", MODEL_FILE, _native, None, "edgeq's own integer kernels"),
    BackendKind("simulate", MODEL_FILE, _simulate, None, "the integer-exact numpy statements"),
    BackendKind("onnxruntime", ONNX_FILE, _onnxruntime, "onnxruntime", "ONNX Runtime on the CPU"),
    BackendKind("litert", TFLITE_FILE, _tflite("ai-edge-litert", True), "ai-edge-litert", "LiteRT with XNNPACK"),
    BackendKind(
        "litert-builtin", TFLITE_FILE, _tflite("ai-edge-litert", False), "ai-edge-litert", "LiteRT's built-in kernels"
    ),
    BackendKind(
        "tflite-runtime", TFLITE_FILE, _tflite("tflite-runtime", True), "tflite-runtime", "TensorFlow Lite 2.14"
    ),
    BackendKind("openvino", ONNX_FILE, _openvino, "openvino", "OpenVINO on the CPU"),
    BackendKind("ncnn", "model.param", _ncnn, "ncnn", "ncnn on the CPU (files of edgeq.backends.peers)"),
    BackendKind("mnn", "model.mnn", _mnn, "mnn", "MNN on the CPU (files of edgeq.backends.peers)"),
)
"""Every backend, in the order in which it is listed."""


def backend_kind(name: str) -> BackendKind:
    """Returns the backend of that name; raises UsageError naming the choices."""
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise UsageError(f"There is no backend {name!r}; use one of {', '.join(kind.name for kind in KINDS)}.")


def target_file(path: Path, kind: BackendKind) -> Path:
    """Returns the file that a backend runs for a folder or a file.

    Raises:
        UsageError: If there is none of its type.
    """
    if not path.exists():
        raise UsageError(
            f"{path}: there is no such file or folder. Name a folder that `edgeq export` wrote, or a model file."
        )
    if path.is_dir():
        file = path / kind.file
        if not file.is_file() and kind.file not in FILES:
            raise UsageError(
                f"{path}: holds no {kind.file}, which backend {kind.name} runs and `edgeq export` does not write. "
                "Convert reference.onnx with edgeq.backends.peers, or choose another backend."
            )
        if not file.is_file():
            raise UsageError(
                f"{path}: holds no {kind.file}, which backend {kind.name} runs. Export again (--to), or choose another "
                f"of {', '.join(one.name for one in KINDS)}."
            )
        return file
    # What comes with edgeq converts a quantized model of another tool first.
    converts = kind.package is None and path.suffix.lower() in (".onnx", ".tflite")
    if path.suffix.lower() != kind.suffix and not converts:
        fitting = [one.name for one in KINDS if one.suffix == path.suffix.lower()]
        cure = f"Use --backend {' or '.join(fitting)} for this one." if fitting else "Name a model file."
        raise UsageError(f"{path}: backend {kind.name} runs {kind.suffix} files. {cure}")
    return path

