"""Latency of a .edgeq file, alone or beside a peer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.backends.conversion import edgeq_bytes
from edgeq.backends.latency import compare, measure
from edgeq.backends.peers import quantize_onnxruntime
from edgeq.backends.protocol import TimedBackend
from edgeq.backends.registry import backend_kind, target_file
from edgeq.errors import UsageError
from edgeq.exporters.folder import REFERENCE_FILE, model_file
from edgeq.session import Session

PEERS = ("onnxruntime", "openvino", "litert")
"""Runtimes that run a file of an exported folder, so that they can be timed beside it."""


def bench_model(
    target: Path,
    *,
    threads: int = 1,
    batch: int = 1,
    seconds: float = 2.0,
    layers: bool = False,
    beside: str | None = None,
    rounds: int = 7,
) -> dict[str, Any]:
    """Times a model with random inputs.

    Args:
        target: A .edgeq file, a quantized .onnx or .tflite file, or an exported folder (which `beside` needs, for its
            float model).
        threads: Threads of the engine, and of the peer.
        batch: Inputs a run.
        seconds: Time at least this long.
        layers: Whether each layer is timed (in runs of their own: the clock costs a little).
        beside: One of PEERS, or None. It runs the folder's own file and, where it reads them, the float model and the
            float model in its own quantization.
        rounds: Alternating rounds beside the peer.

    Returns:
        JSON values: latency (ms), isa, threads, batch, weight_bytes, arena_bytes, macs, gmac_per_s, and layers and
        peers where asked for.
    """
    path = model_file(target)
    source = path if path.suffix.lower() == ".edgeq" else edgeq_bytes(path)
    session = Session(source, threads=threads)
    shape = [batch if size is None else size for size in session.inputs[0].shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    latency = measure(lambda: session.run(x), min_seconds=seconds)
    result: dict[str, Any] = {
        "model": str(path),
        "latency": latency.to_json(),
        "isa": session.isa,
        "threads": threads,
        "batch": batch,
        "weight_bytes": session.weight_bytes,
        "arena_bytes": session.arena_bytes(batch),
        "macs": session.macs * batch,
        "gmac_per_s": session.macs * batch / latency.median_ms / 1e6,
    }
    if layers:
        result["layers"] = _layers(source, x, threads, seconds)
    if beside is not None:
        result["peers"] = _beside(target, session, x, threads, seconds, rounds, beside)
    return result


def _layers(source: Path | bytes, x: npt.NDArray[np.float32], threads: int, seconds: float) -> list[dict[str, Any]]:
    session = Session(source, threads=threads, profile=True)
    measure(lambda: session.run(x), min_seconds=seconds)
    times = [step.median_ms for step in session.layers]
    total = sum(times) or 1.0
    return [
        {
            "name": step.name,
            "op": step.op,
            "kernel": step.kernel,
            "ms": step.median_ms,
            "share": step.median_ms / total,
            "macs": step.macs * len(x),
            "gmac_per_s": step.macs * len(x) / step.median_ms / 1e6 if step.median_ms else 0.0,
        }
        for step in session.layers
    ]


def _beside(
    target: Path, session: Session, x: npt.NDArray[np.float32], threads: int, seconds: float, rounds: int, beside: str
) -> dict[str, Any]:
    reference = target / REFERENCE_FILE
    if not target.is_dir() or not reference.is_file():
        raise UsageError(
            f"{target}: --beside needs the folder of an export, whose files and {REFERENCE_FILE} the peer runs"
        )
    kind = backend_kind(beside)
    files = {"exported": target_file(target, kind)}
    with tempfile.TemporaryDirectory() as scratch:
        if beside == "onnxruntime":
            files["own int8"] = Path(scratch) / "peer.onnx"
            rng = np.random.default_rng(1)
            one = (1, *x.shape[1:])
            samples = [rng.standard_normal(one).astype(np.float32) for _ in range(8)]
            quantize_onnxruntime(reference, files["own int8"], samples)
        if kind.suffix == reference.suffix:
            files["fp32"] = reference
        runs: dict[str, Callable[[], Any]] = {"edgeq": lambda: session.run(x)}
        for form, file in files.items():
            backend = kind.open(file, threads)
            if not isinstance(backend, TimedBackend):
                raise UsageError(f"--beside {beside}: this backend is for checking, not for speed")
            runs[f"{backend.name} {form}"] = backend.bind(x).run
        found = compare(runs, rounds=rounds, seconds=seconds / rounds)
    peers: dict[str, Any] = {}
    for name in runs:
        if name == "edgeq":
            continue
        ratio, low, high = found.ratio("edgeq", name)
        peers[name] = {
            "latency": found.latency[name].to_json(),
            "edgeq": found.latency["edgeq"].to_json(),
            "ratio": ratio,
            "ratio_min": low,
            "ratio_max": high,
            "rounds": rounds,
        }
    return peers
