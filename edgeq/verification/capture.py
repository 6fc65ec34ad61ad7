"""Outputs that were captured where a model runs, to be verified where the float model is.

A capture is an .npz file: the logits, a hash of every input as the model got it, and facts: the model's SHA-256, the
preprocessing, the backend. Verification refuses one whose model, preprocessing or inputs are not those it compares.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeq import __version__
from edgeq.backends.protocol import Backend
from edgeq.backends.registry import backend_kind, target_file
from edgeq.data import Preprocessing, as_dataset, finite_batches, open_dataset
from edgeq.data.files import file_digest
from edgeq.errors import DataError, UsageError
from edgeq.outputs import whole_file
from edgeq.verification.subject import stored_facts

if TYPE_CHECKING:
    from edgeq.device.device import Device

_FORMAT = 1
_HASH_BYTES = 16
_MOST_BYTES = 4 << 30
_BATCH = 32

Hashes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Capture:
    """What a model answered.

    Attributes:
        logits: The scores as the model gave them (probabilities behind a softmax), float32, shape (n, classes).
        inputs: Hash of each input, uint8, shape (n, 16).
        model_sha256: Of the file that was run.
        preprocessing: As `Preprocessing.to_dict`, or None where inputs were taken as they are.
        backend: What ran it.
        data: What the data set was called.
        edgeq: Version that captured.
    """

    logits: NDArray[np.float32]
    inputs: Hashes
    model_sha256: str
    preprocessing: Mapping[str, Any] | None
    backend: str
    data: str
    edgeq: str

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        facts = {
            "format": _FORMAT,
            "model_sha256": self.model_sha256,
            "preprocessing": None if self.preprocessing is None else dict(self.preprocessing),
            "backend": self.backend,
            "data": self.data,
            "edgeq": self.edgeq,
        }
        text = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), dtype=np.uint8)
        with whole_file(path) as scratch, scratch.open("wb") as stream:
            np.savez_compressed(stream, logits=self.logits, inputs=self.inputs, facts=text)


def load_capture(path: Path) -> Capture:
    """Reads a capture.

    Raises:
        DataError: If the file is missing, damaged, no capture, or of a newer format.
    """
    damaged = f"{path}: is not a whole capture of `edgeq capture`"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: is larger than 4 GiB, which no capture is.")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            logits, inputs, text = (arrays[name] for name in ("logits", "inputs", "facts"))
            facts = json.loads(text.tobytes().decode())
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{path}: there is no such file. Make it with `edgeq capture`.") from error
        raise DataError(f"{damaged} ({error}). Capture again.") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise DataError(f"{damaged} ({error}). Capture again.") from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise DataError(f"{damaged} of this version. Capture again, or update edgeq.")
    good = logits.dtype == np.float32 and logits.ndim == 2 and 0 not in logits.shape
    if not good or inputs.dtype != np.uint8 or inputs.shape != (len(logits), _HASH_BYTES):
        raise DataError(f"{damaged}: logits {logits.dtype} {logits.shape}, inputs {inputs.dtype} {inputs.shape}.")
    return Capture(
        logits=logits,
        inputs=inputs,
        model_sha256=str(facts.get("model_sha256")),
        preprocessing=facts.get("preprocessing"),
        backend=str(facts.get("backend")),
        data=str(facts.get("data")),
        edgeq=str(facts.get("edgeq")),
    )


def input_hashes(inputs: NDArray[np.float32]) -> Hashes:
    """SHA-256 of each input's shape and values, cut to 16 bytes; -0 counts as 0.

    Args:
        inputs: float32, the batch first.

    Returns:
        uint8, shape (n, 16).
    """
    # Adding 0 turns -0 into 0: backends on other machines may differ in it, models do not see it.
    rows = np.ascontiguousarray(inputs, dtype="<f4") + np.float32(0)
    head = str(rows.shape[1:]).encode()
    digests = [hashlib.sha256(head + row.tobytes()).digest()[:_HASH_BYTES] for row in rows]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(len(rows), _HASH_BYTES)


def capture(
    target: str | os.PathLike[str],
    *,
    data: Any,
    backend: str = "native",
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    threads: int | None = None,
    device: Device | None = None,
) -> Capture:
    """Runs a quantized model alone and keeps what it answers.

    Args:
        target: A folder that `edgeq export` wrote, or a model file.
        data: What `edgeq.data.open_dataset` opens, a `Dataset`, or an array of inputs.
        backend: A name of `edgeq.backends.registry.KINDS`.
        preprocessing: How an image becomes an input; without it, what the export stored.
        samples: The first this many; None for all.
        threads: Of the runtime; None lets it choose.
        device: Runs the model in place of `backend`; connected.

    Raises:
        EdgeqError: If the model, the runtime or the data are missing or do not fit.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}.")
    path = Path(target)
    kind = backend_kind(backend)
    file = target_file(path, kind)
    chosen = preprocessing or stored_facts(file, path).preprocessing
    dataset = open_dataset(data) if isinstance(data, (str, os.PathLike)) else as_dataset(data)
    count = len(dataset) if samples is None else min(samples, len(dataset))
    with ExitStack() as stack:
        runner: Backend
        if device is None:
            runner = kind.open(file, threads)
        else:
            from edgeq.device.backend import DeviceBackend, edgeq_file

            if backend != "native":
                raise UsageError(f"A device runs edgeq's own engine; leave out backend {backend}, or the device.")
            runner = DeviceBackend(device, stack.enter_context(edgeq_file(file)), threads)
        logits, hashes = [], []
        for batch in finite_batches(dataset, _BATCH, chosen, range(count)):
            logits.append(np.asarray(runner.run(batch.inputs), dtype=np.float32))
            hashes.append(input_hashes(batch.inputs))
        return Capture(
            logits=np.concatenate(logits),
            inputs=np.concatenate(hashes),
            model_sha256=file_digest(file),
            preprocessing=None if chosen is None else chosen.to_dict(),
            backend=runner.name,
            data=dataset.source,
            edgeq=__version__,
        )


class CapturedBackend:
    """Answers with what was captured, in the order of the capture.

    Args:
        path: The capture.
        target: The quantized model that it must be of: a file, or a folder that holds the file.
        preprocessing: That the inputs come from.

    Raises:
        DataError: If the capture is damaged, holds NaN, or is of another model or preprocessing.
    """

    def __init__(self, path: Path, target: Path, preprocessing: Preprocessing | None) -> None:
        self._capture = load_capture(path)
        self._path = path
        self._next = 0
        self.name = f"captured from {self._capture.backend}"
        broken = np.flatnonzero(~np.isfinite(self._capture.logits).all(axis=1))
        if broken.size:
            raise DataError(
                f"{path}: holds NaN or infinite logits on {broken.size} of {len(self)} inputs, first on input "
                f"{broken[0]}. The model that was run, or the device, is broken."
            )
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        models = {file_digest(file): file.name for file in files if file.suffix in (".edgeq", ".onnx", ".tflite")}
        if self._capture.model_sha256 not in models:
            raise DataError(
                f"{path}: was captured from another model (SHA-256 {self._capture.model_sha256[:16]}...) than "
                f"{target} holds. Capture again with this model, or name the folder that it was captured from."
            )
        wanted = None if preprocessing is None else preprocessing.to_dict()
        if self._capture.preprocessing != wanted:
            raise DataError(
                f"{path}: was captured with another preprocessing ({self._capture.preprocessing}) than this one "
                f"({wanted}). Give verify the same options, or capture again."
            )

    def __len__(self) -> int:
        return len(self._capture.logits)

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The captured logits of the next inputs.

        Raises:
            DataError: If these are not the inputs that come next in the capture.
        """
        found = self._capture.inputs[self._next : self._next + len(x)]
        given = input_hashes(x)
        if len(found) < len(given):
            raise DataError(
                f"{self._path}: holds {len(self)} answers, fewer than there are inputs. Verify those alone with "
                f"--samples {len(self)}, or capture the rest."
            )
        wrong = np.flatnonzero((found != given).any(axis=1))
        if wrong.size:
            place = self._next + int(wrong[0])
            known = (self._capture.inputs == given[wrong[0]]).all(axis=1)
            why = (
                f"it stands at place {int(np.argmax(known))} of the capture: the rows are in another order"
                if known.any()
                else "the capture does not have it: the data are others, or were preprocessed otherwise"
            )
            raise DataError(
                f"{self._path}: input {place} is not what was captured there; {why}. Verify with the data that were "
                f"captured ({self._capture.data})."
            )
        start, self._next = self._next, self._next + len(x)
        return self._capture.logits[start : self._next]
