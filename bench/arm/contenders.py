"""Who is counted: edgeq's runner, and the peers' int8 models in an arm64 Python."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from bench import contenders, networks, store
from bench.arm import counting, guest
from bench.arm.cores import Core
from bench.arm.counting import Profile
from edgeq.deployment.formats import FormatOptions
from edgeq.exporters.folder import MODEL_FILE, ONNX_FILE

NETWORKS = ("mobilenet_v2", "shufflenet_v2_x1_0", "resnet18", "efficientnet_lite0")

_PEER = Path(__file__).with_name("peer.py")
_RESULT = "count.json"
_BLOCKS = 400


@dataclass(frozen=True, slots=True)
class Runner:
    """A build of edgeq's runner for aarch64.

    Attributes:
        path: The program.
        compiler: Which compiler built it, in words.
        sysroot: Where it finds its libraries; None for a static one.
    """

    path: Path
    compiler: str
    sysroot: Path | None


@dataclass(frozen=True, slots=True)
class Peer:
    """One way of running a network in a peer.

    Attributes:
        name: In tables.
        runtime: As `peer.py` knows it.
        recipe: How its file is made: see `model_of`.
        package: The wheel whose version counts.
    """

    name: str
    runtime: str
    recipe: str
    package: str


PEERS = (
    Peer("LiteRT", "litert", "tflite", "ai-edge-litert"),
    Peer("LiteRT, int8 ends", "litert", "tflite-int8", "ai-edge-litert"),
    Peer("ONNX Runtime", "onnxruntime", "onnx-int8", "onnxruntime"),
    Peer("ncnn", "ncnn", "ncnn-int8", "ncnn"),
    Peer("MNN", "mnn", "mnn-kl", "mnn"),
)


@functools.cache
def model_of(network: str, recipe: str) -> Path:
    """Returns the file of a network: as `bench.contenders.file_of`, and "onnx-int8", QDQ with int8 activations.

    ONNX Runtime has kernels for products of int8 by int8 on Arm; the uint8 activations of "onnx" are for x86.

    Raises:
        PreparationError: If the peer's tool fails on this network.
    """
    if recipe != "onnx-int8":
        return contenders.file_of(network, recipe)
    source = networks.reference(network)

    def make(folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            edgeq.export(
                source,
                bits="w8a8",
                calibration=np.concatenate(networks.calibration(network)),
                out=folder / "out",
                to="onnx",
                format_options=FormatOptions(onnx_activations="int8"),
                bias_correction=False,
            )

    # The same export as w8a8's model.edgeq, from which the key of what it depends on is taken.
    key = store.digest(recipe, networks.exported(network, "w8a8") / MODEL_FILE, source)
    return store.entry(f"{network}.onnx-int8", key, make) / "out" / ONNX_FILE


def count_edgeq(runner: Runner, network: str, scheme: str, core: Core) -> dict[str, Any]:
    """Counts an inference of edgeq's runner, from the float image to the float logits.

    Returns:
        As `count_peer`.

    Raises:
        CountingError: If it cannot be counted, or its output is not that of the numpy statements.
    """
    model = model_of(network, scheme)

    def check(found: np.ndarray[Any, Any]) -> None:
        if not np.array_equal(found, _simulated(model, network)):
            raise counting.CountingError(f"{network} {scheme} on {core.name}: not what the numpy statements give")

    def run(times: int, folder: Path) -> Profile:
        np.save(folder / "in.npy", np.repeat(networks.sample(network), times, axis=0))
        files = ["--input", folder / "in.npy", "--output", folder / "out.npy"]
        command = [runner.path, "run", model, *files, "--batch", "1", "--threads", "1"]
        return counting.executed(command, core, runner.sysroot)

    return _counted(f"arm.{network}.{scheme}.{core.name}", [runner.path.read_bytes(), model], run, check, None)


def count_peer(peer: Peer, network: str, core: Core) -> dict[str, Any]:
    """Counts an inference of a peer, from the image to the logits, copies in and out and a line of Python included.

    Returns:
        JSON values: total, classes (see `counting.CLASSES`) and blocks, the hottest ones as [address, executions,
        words]. A failure is remembered with the versions that it came from.

    Raises:
        CountingError: If it cannot be counted, or its output is far from the float model's.
        PreparationError: If the arm64 Python or the model cannot be made.
    """
    model = model_of(network, peer.recipe)
    root = guest.roots() / core.name
    environment = guest.environment()

    def check(found: np.ndarray[Any, Any]) -> None:
        wanted = _float_logits(network)
        noise = max(float(np.square(found.astype(np.float64) - wanted).sum()), 1e-30)
        decibels = 10 * np.log10(float(np.square(wanted.astype(np.float64)).sum()) / noise)
        if not decibels >= contenders.INT8_DB:
            raise counting.CountingError(f"its output is {decibels:.1f} dB from the float model's")

    def run(times: int, folder: Path) -> Profile:
        np.save(folder / "in.npy", networks.sample(network))
        guest.compile_modules(peer.runtime)
        command = [root / guest.PYTHON, _PEER, peer.runtime, model]
        command += [folder / "in.npy", str(times), folder / "out.npy"]
        return counting.executed(command, core, root, environment)

    weights = [path for path in (model.with_suffix(".bin"),) if path.is_file()]
    parts = [peer.runtime, guest.versions()[peer.package], _PEER, model, *weights]
    return _counted(f"arm.{network}.{peer.recipe}.{core.name}", parts, run, check, (2, 2))


def _counted(
    label: str,
    parts: list[str | bytes | Path],
    run: Callable[[int, Path], Profile],
    check: Callable[[np.ndarray[Any, Any]], None],
    images: tuple[int, int] | None,
) -> dict[str, Any]:
    """Counts once for the same program, model and core, and keeps the result in the store.

    Args:
        label: Names the entry.
        parts: What the count depends on.
        run: Runs so many images, with files in the folder it is given, out.npy the logits.
        check: Raises CountingError if the logits of an image are wrong.
        images: Of the shorter run, and by how many the longer one is longer; None to count to the instruction, which a
            program of one thread allows. ONNX Runtime has more, told to use one or not, which wait while that works.
    """

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="edgeq-count-") as scratch:
            try:

                def run_here(times: int) -> Profile:
                    return run(times, Path(scratch))

                if images is None:
                    profile = counting.exact_inference(run_here)
                else:
                    profile = counting.per_inference(run_here, *images)
                if images is None and profile.threads > 1:
                    raise counting.CountingError(f"it ran {profile.threads} threads; counts are exact for one")
                for one in np.load(Path(scratch) / "out.npy"):
                    check(one[None])
            except counting.CountingError as error:
                raise store.PreparationError(str(error)) from None
        hottest = sorted(profile.executions.items(), key=lambda item: -item[1] * len(item[0][1]))[:_BLOCKS]
        result = {
            "threads": profile.threads,
            "words": {f"{word:08x}": times for word, times in profile.words().items()},
            "blocks": [[address, times, list(words)] for (address, words), times in hottest],
        }
        (folder / _RESULT).write_text(json.dumps(result), encoding="utf-8")

    key = store.digest(label, str(images), counting.SOURCE, *parts)
    try:
        folder = store.entry(label, key, make)
    except store.PreparationError as error:
        raise counting.CountingError(str(error)) from None
    found = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    words = {int(word, 16): times for word, times in found["words"].items()}
    return {"total": sum(words.values()), "classes": counting.classes(words), "blocks": found["blocks"]}


@functools.cache
def _simulated(model: Path, network: str) -> np.ndarray[Any, Any]:
    from edgeq.backends.simulate import SimulateBackend

    return SimulateBackend(model).run(networks.sample(network))


@functools.cache
def _float_logits(network: str) -> np.ndarray[Any, Any]:
    from edgeq.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(networks.reference(network), 1).run(networks.sample(network))
