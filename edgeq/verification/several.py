"""Several quantized models of one float model, side by side: size, latency, accuracy, calibration, disagreement."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends import latency
from edgeq.backends.latency import Latency
from edgeq.backends.protocol import Backend, TimedBackend
from edgeq.backends.registry import backend_kind, target_file
from edgeq.data import Dataset, Preprocessing, as_dataset, open_dataset
from edgeq.data.files import file_digest
from edgeq.errors import UsageError
from edgeq.verification.charts import pareto_front
from edgeq.verification.compare import Quality
from edgeq.verification.subject import find_reference, open_reference, stored_facts
from edgeq.verification.verify import Verification, verify

FLOAT_NAME = "FP32"
ROUNDS = 7
_TURN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Standing:
    """One quantized model among several.

    Attributes:
        name: Short, unlike the others'.
        path: Folder or file, as the user named it.
        bytes: Size of its file.
        latency: Of one input in the native engine, or None where it was not timed.
        verification: Against the float model.
    """

    name: str
    path: str
    bytes: int
    latency: Latency | None
    verification: Verification


@dataclass(frozen=True, slots=True)
class Several:
    """Quantized models beside each other, and the float model that they were made of.

    Attributes:
        command: The command line that does it again.
        reference: Path of the float model.
        reference_sha256: Of its file.
        reference_bytes: Size of its file.
        reference_backend: What ran it.
        reference_latency: Of one input, or None where it was not timed.
        threads: Of each runtime.
        models: In the order in which they were named; at least one.
    """

    command: str
    reference: str
    reference_sha256: str
    reference_bytes: int
    reference_backend: str
    reference_latency: Latency | None
    threads: int
    models: tuple[Standing, ...]

    @property
    def n(self) -> int:
        """Number of inputs."""
        return self.models[0].verification.comparison.n

    @property
    def float_quality(self) -> Quality | None:
        """The float model's figures, or None without labels."""
        return self.models[0].verification.comparison.reference

    def notes(self) -> tuple[str, ...]:
        """What each model's verification notes, with the names of the models that it is true of."""
        models: dict[str, list[str]] = {}
        for one in self.models:
            for note in one.verification.notes:
                models.setdefault(note, []).append(one.name)
        return tuple(f"{', '.join(names)}: {note}" for note, names in models.items())

    def names(self) -> tuple[str, ...]:
        """Of the float model and then of the others."""
        return (FLOAT_NAME, *(one.name for one in self.models))

    def worths(self) -> tuple[float, ...]:
        """What the Pareto fronts weigh, in the order of `names`: accuracy, or without labels the share of answers that
        are the float model's."""
        quality = self.float_quality
        own = []
        for one in self.models:
            comparison = one.verification.comparison
            known = comparison.quantized
            own.append(1.0 - comparison.disagreement.rate if known is None else known.top1)
        return (1.0 if quality is None else quality.top1, *own)

    def sizes(self) -> tuple[float, ...]:
        """Bytes, in the order of `names`."""
        return (float(self.reference_bytes), *(float(one.bytes) for one in self.models))

    def latencies(self) -> tuple[float, ...] | None:
        """Median milliseconds, in the order of `names`, or None where they were not timed."""
        times = (self.reference_latency, *(one.latency for one in self.models))
        known = [one.median_ms for one in times if one is not None]
        return tuple(known) if len(known) == len(times) else None

    def fronts(self) -> dict[str, tuple[str, ...]]:
        """The names on the Pareto front of worth over size, and over latency where that is known, by rising cost."""
        costs = {"size": self.sizes(), "latency": self.latencies()}
        return {
            name: tuple(self.names()[place] for place in pareto_front(list(zip(cost, self.worths(), strict=True))))
            for name, cost in costs.items()
            if cost is not None
        }

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values; each model's with those of its verification."""
        return {
            "n": self.n,
            "command": self.command,
            "threads": self.threads,
            "reference": {
                "path": self.reference,
                "sha256": self.reference_sha256,
                "bytes": self.reference_bytes,
                "backend": self.reference_backend,
                "latency": None if self.reference_latency is None else self.reference_latency.to_json(),
            },
            "models": [
                {
                    "name": one.name,
                    "path": one.path,
                    "bytes": one.bytes,
                    "latency": None if one.latency is None else one.latency.to_json(),
                    **one.verification.to_json(),
                }
                for one in self.models
            ],
            "fronts": {name: list(names) for name, names in self.fronts().items()},
        }

    def html(self) -> str:
        """One self-contained HTML page.

        Raises:
            UsageError: If jinja2 is not installed.
        """
        from edgeq.verification.several_report import render

        return render(self)


@dataclass(frozen=True, slots=True)
class TableCell:
    """A figure in words, and its 95 % interval or nothing."""

    text: str
    interval: str = ""

    @property
    def whole(self) -> str:
        """Both, the interval in brackets."""
        return f"{self.text} ({self.interval})" if self.interval else self.text


def table_rows(several: Several) -> tuple[tuple[str, ...], list[tuple[TableCell, ...]]]:
    """Headings, and a row for the float model and for each other."""
    labelled, times = several.float_quality is not None, several.latencies()
    suites = _suites(several)
    header = ["model", "scheme", "size"]
    header += ["latency"] if times is not None else []
    header += ["top-1", "ECE"] if labelled else []
    header.append("disagreement")
    for suite in suites:
        header += [f"{suite} top-1", "its ECE"] if labelled else []
        header.append("its disagreement")
    rows = []
    for place, name in enumerate(several.names()):
        standing = None if place == 0 else several.models[place - 1]
        comparison = several.models[max(place - 1, 0)].verification.comparison
        quality = comparison.reference if standing is None else comparison.quantized
        cells = [TableCell(name), TableCell("float" if standing is None else _scheme(standing))]
        cells.append(TableCell(size_text(several.sizes()[place])))
        if times is not None:
            cells.append(TableCell(f"{times[place]:.3f} ms"))
        if quality is not None:
            cells.append(_percent(quality.top1, quality.intervals["top1"]))
            low, high = quality.intervals["ece"]
            cells.append(TableCell(f"{quality.ece:.4f}", f"{low:.4f} to {high:.4f}"))
        differ = comparison.disagreement
        cells.append(TableCell("") if standing is None else _percent(differ.rate, differ.interval))
        cells += [cell for suite in suites for cell in _suite_cells(several, place, suite)]
        rows.append(tuple(cells))
    return tuple(header), rows


def _scheme(standing: Standing) -> str:
    return standing.verification.provenance.scheme or "other"


def size_text(size: float) -> str:
    """Bytes in KiB or MiB."""
    return f"{size / 1024:.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.2f} MiB"


def _percent(value: float, bounds: tuple[float, float]) -> TableCell:
    return TableCell(f"{100 * value:.2f} %", f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}")


def _suites(several: Several) -> tuple[str, ...]:
    shifts = several.models[0].verification.shifts
    return () if shifts is None else tuple(mean.suite for mean in shifts.means)


def _suite_cells(several: Several, place: int, suite: str) -> list[TableCell]:
    """Accuracy, ECE and disagreement of one model, as means over a suite."""
    shifts = several.models[max(place - 1, 0)].verification.shifts
    assert shifts is not None
    mean = next(one for one in shifts.means if one.suite == suite)
    error = mean.reference_error if place == 0 else mean.quantized_error
    ece = mean.reference_ece if place == 0 else mean.quantized_ece
    cells = []
    if error is not None and ece is not None:
        cells += [TableCell(f"{100 * (1 - error):.2f} %"), TableCell(f"{ece:.4f}")]
    return [*cells, TableCell("" if place == 0 else f"{100 * mean.disagreement:.2f} %")]


class _Remembering:
    """Runs a float model once for all that are compared with it: equal inputs get the answers of their first run.

    Args:
        backend: Runs it.
        path: Its file.
    """

    def __init__(self, backend: Backend, path: Path) -> None:
        self.name = backend.name
        self.path = path
        self._backend = backend
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of a batch."""
        key = hashlib.blake2b(np.ascontiguousarray(x).data, digest_size=16, key=repr(x.shape).encode()).digest()
        if key not in self._known:
            self._known[key] = self._backend.run(x)
        return self._known[key]


def verify_several(
    targets: Sequence[str | os.PathLike[str]],
    *,
    data: Any,
    reference: str | os.PathLike[str] | None = None,
    backend: str = "native",
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    threads: int = 1,
    timed: bool = True,
    rounds: int = ROUNDS,
    shift: str | None = None,
    shift_samples: int | None = None,
    progress: bool = False,
) -> Several:
    """Verifies several quantized models of one float model on the same inputs; the float model runs once.

    Args:
        targets: Folders that `edgeq export` wrote, .edgeq, .onnx or .tflite files; at least one.
        data: What `edgeq.data.open_dataset` opens, a `Dataset`, an array of inputs, or a pair (inputs, labels).
        reference: The float model: a .onnx or .tflite file; without it the one beside the targets.
        backend: Who runs the targets for the figures: a name of `edgeq.backends.registry.KINDS`.
        preprocessing: How an image becomes an input; without it, what each export stored, and for files without a
            record what the first with one stored.
        samples: Use the first this many samples; None uses all.
        threads: Threads of each runtime.
        timed: Whether latencies are measured, of one input, in the native engine; the float model's in its own.
        rounds: Alternating rounds of that.
        shift: Corruptions to run too, as `verify` takes them.
        shift_samples: Use the first this many samples for them.
        progress: Whether bars on a terminal's standard error show how far it is.

    Raises:
        EdgeqError: If a model, a runtime or the data are missing or do not fit.
    """
    if not targets:
        raise UsageError("Name at least one model to compare with its float model.")
    paths = [Path(target) for target in targets]
    files = [target_file(path, backend_kind(backend)) for path in paths]
    first = _one_reference(paths, reference)
    dataset = open_dataset(data) if isinstance(data, (str, os.PathLike)) else as_dataset(data)
    records = [preprocessing or stored_facts(file, path).preprocessing for file, path in zip(files, paths, strict=True)]
    common = next((one for one in records if one is not None), None)
    records = [one or common for one in records]
    runner = open_reference(first, threads)
    remembering = _Remembering(runner, first)
    found = [
        verify(
            path,
            data=dataset,
            reference=remembering,
            backend=backend,
            preprocessing=record,
            samples=samples,
            threads=threads,
            shift=shift,
            shift_samples=shift_samples,
            progress=progress,
        )
        for path, record in zip(paths, records, strict=True)
    ]
    names = _names(paths)
    times = _latencies(runner, paths, names, dataset, records, threads, rounds) if timed else {}
    return Several(
        command=_command(paths, reference, dataset, backend, samples, threads, timed, shift, shift_samples),
        reference=str(first),
        reference_sha256=file_digest(first),
        reference_bytes=first.stat().st_size,
        reference_backend=runner.name,
        reference_latency=times.get(FLOAT_NAME),
        threads=threads,
        models=tuple(
            Standing(name, str(path), file.stat().st_size, times.get(name), one)
            for name, path, file, one in zip(names, paths, files, found, strict=True)
        ),
    )


def _one_reference(paths: Sequence[Path], given: str | os.PathLike[str] | None) -> Path:
    """The float model that all targets are compared with.

    Raises:
        UsageError: If those beside the targets differ, or there is none.
    """
    if given is not None:
        found = find_reference(None, given)
        assert found is not None
        return found
    beside: list[Path] = []
    for path in paths:
        try:
            one = find_reference(path, None)
        except UsageError:
            # A file of another tool stands alone, and is compared with the float model of the others.
            if path.is_dir():
                raise
            continue
        if one is not None:
            beside.append(one)
    if not beside:
        raise UsageError("There is no float model beside the targets. Name one with --reference MODEL.onnx.")
    digests = {file_digest(one) for one in beside}
    if len(digests) > 1:
        raise UsageError(
            f"The targets lie beside different float models ({beside[0]} and others): their figures could not be "
            "compared. Name the one to compare with by --reference MODEL.onnx, or compare exports of one model."
        )
    return beside[0]


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names, unlike each other and the float model's: the last part of each path, or all of it."""
    short = [path.resolve().name for path in paths]
    names = [
        name if short.count(name) == 1 and name != FLOAT_NAME else str(path)
        for name, path in zip(short, paths, strict=True)
    ]
    if len(set(names)) < len(names):
        raise UsageError("The same model is named twice; name each once.")
    return names


def _latencies(
    runner: Backend,
    paths: Sequence[Path],
    names: Sequence[str],
    dataset: Dataset,
    records: Sequence[Preprocessing | None],
    threads: int,
    rounds: int,
) -> dict[str, Latency]:
    """Latency of one input of the float model and of every target in the native engine, in alternating rounds."""
    native = backend_kind("native")
    runs = {}
    for name, path, record in zip(names, paths, records, strict=True):
        x = next(iter(dataset.batches(1, record, [0]))).inputs
        if FLOAT_NAME not in runs and isinstance(runner, TimedBackend):
            runs[FLOAT_NAME] = runner.bind(x).run
        timed = native.open(target_file(path, native), threads)
        assert isinstance(timed, TimedBackend)
        runs[name] = timed.bind(x).run
    return dict(latency.compare(runs, rounds=rounds, seconds=_TURN_SECONDS).latency)


def _command(
    paths: Sequence[Path],
    reference: str | os.PathLike[str] | None,
    dataset: Dataset,
    backend: str,
    samples: int | None,
    threads: int,
    timed: bool,
    shift: str | None,
    shift_samples: int | None,
) -> str:
    words = ["edgeq", "compare", *(str(path) for path in paths)]
    options = {
        "--reference": reference,
        "--data": dataset.source,
        "--backend": None if backend == "native" else backend,
        "--samples": samples,
        "--threads": None if threads == 1 else threads,
        "--shift": shift,
        "--shift-samples": shift_samples,
    }
    for name, value in options.items():
        words += [] if value is None else [name, str(value)]
    return shlex.join(words if timed else [*words, "--no-latency"])
