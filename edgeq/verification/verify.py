"""`edgeq.verify`: runs the float model and the quantized model on the same data and compares them."""

from __future__ import annotations

import math
import os
import platform
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq import __version__
from edgeq.backends.protocol import Backend
from edgeq.data import Batch, Dataset, Preprocessing, as_dataset, open_dataset
from edgeq.data.files import file_digest
from edgeq.errors import BackendError, DataError, UsageError
from edgeq.verification.compare import Comparison, compare
from edgeq.verification.subject import Subject, resolve
from edgeq.verification.table import format_table

_BATCH_BYTES = 32 << 20
_LARGEST_BATCH = 64


@dataclass(frozen=True, slots=True)
class Provenance:
    """What it takes to do a verification again.

    Attributes:
        command: The command line that does it; MODEL stands for a backend that was handed in.
        target: Path or name of the quantized model.
        target_sha256: Of its file, or None where the model is no file.
        reference: Path or name of the float model.
        reference_sha256: Of its file, or None where the model is no file.
        scheme: Bits of the quantized model where a manifest states them, such as w4a8.
        model: Name of the model where a manifest states it.
        backend: What ran the quantized model.
        reference_backend: What ran the float model.
        data: What the data set is called.
        data_sha256: Of its content.
        samples: How many samples were asked for; None means all.
        preprocessing: As `Preprocessing.to_dict`, or None where none is known.
        versions: Of edgeq, Python, numpy and the platform.
    """

    command: str
    target: str
    target_sha256: str | None
    reference: str
    reference_sha256: str | None
    scheme: str | None
    model: str | None
    backend: str
    reference_backend: str
    data: str
    data_sha256: str
    samples: int | None
    preprocessing: Mapping[str, Any] | None
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True)
class Verification:
    """A comparison together with where it comes from.

    Attributes:
        comparison: The figures.
        provenance: How to do it again.
        class_names: The name of each class, or None.
        seconds: Time spent in the reference backend, in the quantized backend, in data and preprocessing, in
            metrics.
    """

    comparison: Comparison
    provenance: Provenance
    class_names: tuple[str, ...] | None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The comparison's values, with `provenance` and `seconds` beside them."""
        return {
            **self.comparison.to_json(),
            "provenance": self.provenance.to_json(),
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
        }

    def summary(self) -> str:
        """The comparison as a plain-text table."""
        title = " ".join(
            part for part in (self.provenance.scheme, self.provenance.backend.split(" ")[0]) if part
        )
        return format_table(self.comparison, title)

    def html(self) -> str:
        """The report: one self-contained HTML page.

        Raises:
            UsageError: If jinja2 is not installed.
        """
        from edgeq.verification.report import render

        return render(self)


def verify(
    target: str | os.PathLike[str] | Backend,
    *,
    data: Any,
    reference: str | os.PathLike[str] | Backend | None = None,
    backend: str = "native",
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Verification:
    """Compares a quantized model with its float model on the same inputs.

    Inputs stream through both models; memory grows with the logits alone.

    Args:
        target: A folder that `edgeq export` wrote, a .edgeq, .onnx or .tflite file, or a backend.
        data: What `edgeq.data.open_dataset` opens, a `Dataset`, an array of inputs, or a pair (inputs,
            labels). A bare `digits` means its test part.
        reference: The float model: a .onnx file or a backend; without it the reference.onnx beside the
            target.
        backend: Who runs the target: a name of `edgeq.backends.registry.KINDS`.
        preprocessing: How an image becomes an input; without it, what the export stored.
        samples: Use the first this many samples; None uses all.
        batch_size: Inputs that run at once; without it, as many as fit 32 MiB, at most 64.
        threads: Threads of each runtime; None lets it choose.
        progress: Whether a bar on a terminal's standard error shows how far it is.

    Raises:
        EdgeqError: If a model, a runtime or the data are missing or do not fit; one paragraph that names the
            cure.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"The batch size must be at least 1, not {batch_size}.")
    subject = resolve(target, reference, backend, threads)
    dataset = open_dataset(data) if isinstance(data, (str, os.PathLike)) else as_dataset(data)
    chosen = preprocessing or subject.preprocessing
    count = len(dataset) if samples is None else min(samples, len(dataset))
    clock = _Clock()
    batches = _stream(dataset, chosen, count, batch_size, clock)
    logits = _run(subject, batches, count, clock, progress)
    labels = None if dataset.labels is None else dataset.labels[:count]
    started = time.perf_counter()
    comparison = compare(*logits, labels)
    clock.seconds["metrics"] = time.perf_counter() - started
    return Verification(
        comparison=comparison,
        provenance=_provenance(subject, dataset, chosen, preprocessing is not None, samples, backend),
        class_names=subject.labels or dataset.class_names,
        seconds=clock.seconds,
    )


class _Clock:
    """Where the time goes."""

    def __init__(self) -> None:
        self.seconds = {"data": 0.0, "reference": 0.0, "quantized": 0.0, "metrics": 0.0}


def _stream(
    dataset: Dataset, preprocessing: Preprocessing | None, count: int, batch_size: int | None, clock: _Clock
) -> Iterator[Batch]:
    started = time.perf_counter()
    if batch_size is None:
        first = next(iter(dataset.batches(1, preprocessing, [0]))).inputs
        batch_size = max(1, min(_LARGEST_BATCH, _BATCH_BYTES // max(first.nbytes, 1)))
    for batch in dataset.batches(batch_size, preprocessing, range(count)):
        clock.seconds["data"] += time.perf_counter() - started
        yield batch
        started = time.perf_counter()


def _run(
    subject: Subject, batches: Iterator[Batch], count: int, clock: _Clock, progress: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    outputs: dict[str, list[NDArray[np.float32]]] = {"reference": [], "quantized": []}
    with _progress_bar(count, progress) as bar:
        for batch in batches:
            for name, runner in (("reference", subject.reference), ("quantized", subject.quantized)):
                started = time.perf_counter()
                outputs[name].append(_checked_run(runner, batch.inputs))
                clock.seconds[name] += time.perf_counter() - started
            bar.update(len(batch.inputs))
    return np.concatenate(outputs["reference"]), np.concatenate(outputs["quantized"])


def _checked_run(runner: Backend, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = runner.run(inputs)
    if logits.ndim != 2 or len(logits) != len(inputs):
        raise BackendError(
            f"{runner.name}: gave shape {logits.shape} for {len(inputs)} inputs, not one row each."
        )
    return logits


class _NoBar:
    """Stands in for a progress bar."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Does nothing."""


def _progress_bar(count: int, wanted: bool) -> Any:
    if not wanted:
        return _NoBar()
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(total=count, desc="verify", unit="input", disable=None, leave=False)


def _provenance(
    subject: Subject,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    overridden: bool,
    samples: int | None,
    backend: str,
) -> Provenance:
    words = ["edgeq", "verify", subject.target if subject.target_file else "MODEL"]
    if subject.reference_given:
        words += ["--reference", subject.reference_name]
    words += ["--data", dataset.source, "--backend", backend]
    words += ["--samples", str(samples)] if samples is not None else []
    words += _preprocessing_words(preprocessing) if overridden and preprocessing else []
    return Provenance(
        command=shlex.join(words),
        target=subject.target,
        target_sha256=_digest(subject.target_file),
        reference=subject.reference_name,
        reference_sha256=_digest(subject.reference_file),
        scheme=subject.scheme,
        model=subject.model,
        backend=subject.quantized.name,
        reference_backend=subject.reference.name,
        data=dataset.source,
        data_sha256=dataset.digest(),
        samples=samples,
        preprocessing=None if preprocessing is None else preprocessing.to_dict(),
        versions={
            "edgeq": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "platform": f"{platform.system()} {platform.machine()}",
        },
    )


def _preprocessing_words(preprocessing: Preprocessing) -> list[str]:
    words = ["--mean", _numbers(preprocessing.mean), "--std", _numbers(preprocessing.std)]
    words += ["--channels", preprocessing.channels]
    if preprocessing.resize is not None:
        words += ["--resize", str(preprocessing.resize), "--interpolation", preprocessing.interpolation]
    if preprocessing.crop is not None:
        words += ["--crop", "x".join(str(side) for side in preprocessing.crop)]
    return words


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(str(int(v)) if math.isfinite(v) and v == int(v) else repr(v) for v in values)


def _digest(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return file_digest(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
