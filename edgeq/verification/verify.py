"""`edgeq.verify`: runs the float model and the quantized model on the same data and compares them."""

from __future__ import annotations

import math
import os
import platform
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeq import __version__
from edgeq.backends.protocol import Backend
from edgeq.data import Batch, Dataset, Preprocessing, as_dataset, finite_batches, open_dataset
from edgeq.data.files import file_digest
from edgeq.errors import BackendError, DataError, UsageError
from edgeq.shift import Cell, parse
from edgeq.verification.capture import CapturedBackend
from edgeq.verification.compare import Comparison, compare
from edgeq.verification.examples import Example, worst_disagreements
from edgeq.verification.gates import GateResult, Gates, check_gates
from edgeq.verification.inputs import Watched
from edgeq.verification.prediction import DisagreementPrediction, predict_disagreement
from edgeq.verification.scaling import TemperatureScaling, scale_temperatures
from edgeq.verification.scores import Endings, Logits
from edgeq.verification.shift import ShiftStudy, run_corruptions, run_dataset, suite_means
from edgeq.verification.subject import Subject, resolve
from edgeq.verification.table import format_table, prediction_lines, scaling_lines, shift_lines

if TYPE_CHECKING:
    from edgeq.device.backend import DeviceBackend
    from edgeq.device.device import Device
    from edgeq.verification.blame import Blame

_BATCH_BYTES = 32 << 20
_LARGEST_BATCH = 64
_SHIFT_BATCH = 32
FIT_SHARE = 0.5
"""Of the inputs, the share that temperatures are fitted on."""

_DEVICE_BATCH_BYTES = 8 << 20
"""On a device: a slow one shows how far it is, and repeats little when its line breaks."""


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
class DeviceCheck:
    """Whether a device computes, bit for bit, what the native engine computes here.

    Attributes:
        device: Its address.
        cpu: Its CPU, as its runner names it.
        isa: The instruction set in use there.
        differing: How many inputs give other logits there.
        first_differing: Position of the first of them, or None.
        largest_difference: Largest absolute difference of a logit; NaN where one side gives NaN.
    """

    device: str
    cpu: str
    isa: str
    differing: int
    first_differing: int | None
    largest_difference: float

    @property
    def exact(self) -> bool:
        """Whether all logits are the same bits."""
        return self.differing == 0

    def sentence(self, n: int) -> str:
        """The finding in one line, for the table and the report."""
        if self.exact:
            return f"computes exactly what the host computes: {n} of {n} inputs, bit for bit"
        return (
            f"DIFFERS from the host on {self.differing} of {n} inputs, first on input {self.first_differing}; logits "
            f"by {self.largest_difference:.3g} at most"
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """A comparison together with where it comes from.

    Attributes:
        comparison: The figures.
        provenance: How to do it again.
        class_names: The name of each class, or None.
        seconds: Time spent in the reference backend, in the quantized backend, in data and preprocessing, in
            metrics.
        device: The device beside the host, where a device ran the quantized model.
        prediction: Whether uncertainty tells where the models disagree, or None for models of one class.
        scaling: What temperature scaling does, or None without labels or with too few inputs.
        shifts: Both models on shifted inputs, or None where none were asked.
        gates: The verdict of each gate that was asked.
        examples: Inputs on which the models disagree, those with the largest change of probability first.
        blame: Every layer's part in what changed, or None where it was not asked.
        notes: Sentences about what looks like a mistake but may be meant.
    """

    comparison: Comparison
    provenance: Provenance
    class_names: tuple[str, ...] | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    device: DeviceCheck | None = None
    prediction: DisagreementPrediction | None = None
    scaling: TemperatureScaling | None = None
    shifts: ShiftStudy | None = None
    gates: tuple[GateResult, ...] = ()
    examples: tuple[Example, ...] = ()
    blame: Blame | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every gate that was asked is kept."""
        return all(one.passed for one in self.gates)

    def to_json(self) -> dict[str, Any]:
        """The comparison's values, with the other parts beside them."""
        device = {} if self.device is None else {"device": {**asdict(self.device), "exact": self.device.exact}}
        return {
            **self.comparison.to_json(),
            **device,
            "prediction": self.prediction.to_json() if self.prediction else None,
            "scaling": self.scaling.to_json() if self.scaling else None,
            "shifts": self.shifts.to_json() if self.shifts else None,
            "gates": [asdict(one) for one in self.gates],
            "blame": self.blame.to_json() if self.blame else None,
            "notes": list(self.notes),
            "provenance": self.provenance.to_json(),
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
        }

    def summary(self) -> str:
        """The comparison as a plain-text table."""
        title = " ".join(
            part for part in (self.provenance.scheme, self.provenance.backend.split(" ")[0]) if part
        )
        blocks = [[format_table(self.comparison, title)]]
        if self.scaling is not None:
            blocks.append(scaling_lines(self.scaling))
        if self.prediction is not None and self.comparison.disagreement.count:
            blocks.append(prediction_lines(self.prediction))
        if self.shifts is not None:
            blocks.append(shift_lines(self.shifts))
        if self.device is not None:
            blocks.append([f"device  {self.device.device} {self.device.sentence(self.comparison.n)}"])
        if self.notes:
            blocks.append([f"note: {note}" for note in self.notes])
        return "\n\n".join("\n".join(block) for block in blocks)

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
    gates: Gates | None = None,
    fit_share: float = FIT_SHARE,
    shift: str | None = None,
    shift_samples: int | None = None,
    shift_data: Any = None,
    blame_samples: int | None = None,
    outputs: str | os.PathLike[str] | None = None,
    progress: bool = False,
    device: Device | None = None,
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
        batch_size: Inputs that run at once; without it, as many as fit 32 MiB (8 MiB on a device), at most 64.
        threads: Threads of each runtime; None lets it choose.
        gates: Bounds that the quantized model must keep; their verdicts stand in the result.
        fit_share: Of the inputs, the share that temperatures are fitted on; the rest judges them.
        shift: Corruptions to run too, `suite[:types[:severities]]`; see `edgeq.shift.parse`.
        shift_samples: Use the first this many samples for them; None uses as many as for the rest.
        shift_data: Another data set with the same classes to run too, as `data` is given.
        blame_samples: Measure every layer's part on the first this many samples too, as `edgeq blame` does.
        outputs: What `edgeq capture` wrote: the quantized model's answers, which then are not computed here.
        progress: Whether a bar on a terminal's standard error shows how far it is.
        device: Runs the target in place of `backend`, with the native engine here beside it, bit for bit; connected.

    Raises:
        EdgeqError: If a model, a runtime or the data are missing or do not fit; one paragraph that names the
            cure.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"The batch size must be at least 1, not {batch_size}.")
    if not 0.0 < fit_share < 1.0:
        raise UsageError(f"The share to fit temperatures on must lie in (0, 1), not {fit_share}.")
    if device is not None and backend != "native":
        raise UsageError(f"A device runs edgeq's own engine; leave out backend {backend}, or the device.")
    if shift_samples is not None and shift_samples < 1:
        raise UsageError(f"The samples to shift must be at least 1, not {shift_samples}.")
    if blame_samples is not None and blame_samples < 1:
        raise UsageError(f"The samples to blame layers on must be at least 1, not {blame_samples}.")
    cells = () if shift is None else parse(shift)
    if outputs is not None and (device is not None or cells or shift_data is not None):
        raise UsageError("Captured outputs are of the inputs that were captured: leave out --device and --shift.")
    subject = resolve(target, reference, backend, threads)
    if outputs is not None:
        if subject.target_file is None:
            raise UsageError("Captured outputs are of a file: pass the model's folder or file as the target.")
        place = Path(subject.target) if Path(subject.target).is_dir() else subject.target_file
        captured = CapturedBackend(Path(outputs), place, preprocessing or subject.preprocessing)
        subject = replace(subject, quantized=captured)
    host = None
    with ExitStack() as stack:
        if device is not None:
            subject, host = _on_device(subject, device, threads, stack)
        judged = (gates, fit_share, shift, cells, shift_samples, shift_data, blame_samples)
        return _verify(
            subject, host, data, _Asked(backend, preprocessing, samples, batch_size, *judged, outputs, progress)
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """The arguments of `verify` that say how."""

    backend: str
    preprocessing: Preprocessing | None
    samples: int | None
    batch_size: int | None
    gates: Gates | None
    fit_share: float
    shift: str | None
    cells: tuple[Cell, ...]
    shift_samples: int | None
    shift_data: Any
    blame_samples: int | None
    outputs: str | os.PathLike[str] | None
    progress: bool


def _on_device(
    subject: Subject, device: Device, threads: int | None, stack: ExitStack
) -> tuple[Subject, _Beside]:
    """The subject with the device in the native engine's place, and the native engine to compare it with."""
    from edgeq.device.backend import DeviceBackend, edgeq_file

    if subject.target_file is None:
        raise UsageError("A device runs a file; pass the path of a folder or a .edgeq file as the target.")
    file = stack.enter_context(edgeq_file(subject.target_file))
    there = DeviceBackend(device, file, threads)
    return replace(subject, quantized=there), _Beside(there, subject.quantized)


def _verify(subject: Subject, host: _Beside | None, data: Any, asked: _Asked) -> Verification:
    dataset = open_dataset(data) if isinstance(data, (str, os.PathLike)) else as_dataset(data)
    chosen = asked.preprocessing or subject.preprocessing
    count = len(dataset) if asked.samples is None else min(asked.samples, len(dataset))
    clock = _Clock()
    # First, because it refuses some targets, and what follows may take long.
    blamed = _blame(subject, dataset, chosen, asked, clock)
    most_bytes = _BATCH_BYTES if host is None else _DEVICE_BATCH_BYTES
    watched = Watched(_stream(dataset, chosen, count, asked.batch_size, most_bytes, clock))
    scores = _run(subject, iter(watched), count, clock, asked.progress, host)
    endings = subject.settle(scores)
    logits = endings.logits("reference", scores[0]), endings.logits("quantized", scores[1])
    labels = None if dataset.labels is None else dataset.labels[:count]
    started = time.perf_counter()
    comparison = compare(*logits, labels)
    prediction = predict_disagreement(*logits)
    scaling = None if labels is None else scale_temperatures(*logits, labels, asked.fit_share)
    clock.seconds["metrics"] = time.perf_counter() - started
    shifts = _shifts(subject, endings, dataset, chosen, count, asked, clock)
    started = time.perf_counter()
    results = () if asked.gates is None else check_gates(asked.gates, *logits, labels)
    clock.seconds["metrics"] += time.perf_counter() - started
    found = None if host is None else host.finding()
    return Verification(
        comparison=comparison,
        provenance=_provenance(subject, dataset, chosen, asked, None if host is None else host.given),
        class_names=subject.labels or dataset.class_names,
        seconds=clock.seconds,
        device=found,
        prediction=prediction,
        scaling=scaling,
        shifts=shifts,
        gates=results,
        examples=worst_disagreements(*logits, labels, dataset),
        blame=blamed,
        notes=tuple(note for note in (watched.note(subject.input_range),) if note is not None),
    )


def _blame(
    subject: Subject, dataset: Dataset, preprocessing: Preprocessing | None, asked: _Asked, clock: _Clock
) -> Blame | None:
    """Every layer's part where it was asked."""
    if asked.blame_samples is None:
        return None
    if subject.target_file is None:
        raise UsageError("Blame reads a folder of `edgeq export`; pass its path as the target.")
    from edgeq.verification.blame import blame

    started = time.perf_counter()
    done = 0
    with _progress_bar(1000, asked.progress, "blame") as bar:

        def show(layers: int, count: int) -> None:
            nonlocal done
            bar.update(1000 * layers // count - done)
            done = 1000 * layers // count

        found = blame(
            subject.target,
            data=dataset,
            samples=asked.blame_samples,
            preprocessing=preprocessing,
            progress=show,
        )
    clock.seconds["blame"] = time.perf_counter() - started
    return found


def _shifts(
    subject: Subject,
    endings: Endings,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    count: int,
    asked: _Asked,
    clock: _Clock,
) -> ShiftStudy | None:
    """Both models on the shifts that were asked, or None."""
    if not asked.cells and asked.shift_data is None:
        return None
    clock.seconds["corruption"] = 0.0
    natural = None
    if asked.shift_data is not None:
        natural = asked.shift_data
        natural = open_dataset(natural) if isinstance(natural, (str, os.PathLike)) else as_dataset(natural)
    count = min(count, asked.shift_samples or count)
    total = count * len(asked.cells) + (0 if natural is None else len(natural))

    def run(who: str, inputs: NDArray[np.float32]) -> Logits:
        started = time.perf_counter()
        scores = _checked_run(subject.reference if who == "reference" else subject.quantized, inputs)
        clock.seconds[who] += time.perf_counter() - started
        return endings.logits(who, scores)

    found = []
    with _progress_bar(total, asked.progress, "shift") as bar:
        size = asked.batch_size or _SHIFT_BATCH
        if asked.cells:
            found += run_corruptions(
                asked.cells, dataset, preprocessing, count, size, run, bar, clock.seconds
            )
        if natural is not None:
            found.append(run_dataset(natural, preprocessing, size, run, bar, clock.seconds))
    return ShiftStudy(tuple(found), suite_means(found))


class _Beside:
    """Compares a device's logits with the host's, batch by batch."""

    def __init__(self, there: DeviceBackend, here: Backend) -> None:
        self._there, self._here = there, here
        self._seen = self._differing = 0
        self._first: int | None = None
        self._largest = 0.0

    @property
    def given(self) -> str:
        """The device's address as the user wrote it."""
        return self._there.device.address.given

    def compare(self, inputs: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        """Runs the inputs here and compares bits, so that a NaN equals itself and -0 is not 0."""
        own = _checked_run(self._here, inputs)
        if own.shape != logits.shape:
            raise BackendError(f"{self._there.name}: gave shape {logits.shape}, the host {own.shape}.")
        wrong = np.flatnonzero((own.view(np.uint32) != logits.view(np.uint32)).any(axis=1))
        if len(wrong):
            self._first = self._seen + int(wrong[0]) if self._first is None else self._first
            self._differing += len(wrong)
            largest = np.abs(own[wrong].astype(np.float64) - logits[wrong]).max()
            self._largest = float(np.fmax(self._largest, largest))
        self._seen += len(inputs)

    def finding(self) -> DeviceCheck:
        """What came out."""
        address = self._there.device.address.text
        return DeviceCheck(
            address, self._there.cpu, self._there.isa, self._differing, self._first, self._largest
        )


class _Clock:
    """Where the time goes."""

    def __init__(self) -> None:
        self.seconds = {"data": 0.0, "reference": 0.0, "quantized": 0.0, "metrics": 0.0}


def _stream(
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    count: int,
    batch_size: int | None,
    most_bytes: int,
    clock: _Clock,
) -> Iterator[Batch]:
    started = time.perf_counter()
    if batch_size is None:
        first = next(iter(dataset.batches(1, preprocessing, [0]))).inputs
        batch_size = max(1, min(_LARGEST_BATCH, most_bytes // max(first.nbytes, 1)))
    for batch in finite_batches(dataset, batch_size, preprocessing, range(count)):
        clock.seconds["data"] += time.perf_counter() - started
        yield batch
        started = time.perf_counter()


def _run(
    subject: Subject,
    batches: Iterator[Batch],
    count: int,
    clock: _Clock,
    progress: bool,
    host: _Beside | None,
    title: str = "verify",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    outputs: dict[str, list[NDArray[np.float32]]] = {"reference": [], "quantized": []}
    with _progress_bar(count, progress, title) as bar:
        for batch in batches:
            for name, runner in (("reference", subject.reference), ("quantized", subject.quantized)):
                started = time.perf_counter()
                outputs[name].append(_checked_run(runner, batch.inputs))
                clock.seconds[name] += time.perf_counter() - started
            if host is not None:
                host.compare(batch.inputs, outputs["quantized"][-1])
            bar.update(len(batch.inputs))
    return np.concatenate(outputs["reference"]), np.concatenate(outputs["quantized"])


def _checked_run(runner: Backend, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = runner.run(inputs)
    if logits.ndim != 2 or len(logits) != len(inputs):
        raise BackendError(
            f"{runner.name}: gave shape {logits.shape} for {len(inputs)} inputs, not one row each."
        )
    return logits


def run_both(
    subject: Subject,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    count: int,
    batch_size: int | None,
    progress: bool,
    title: str,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Runs the first `count` samples through both models; the scores of the float and of the quantized one.

    Raises:
        EdgeqError: If the data or a model cannot be run.
    """
    clock = _Clock()
    batches = _stream(dataset, preprocessing, count, batch_size, _BATCH_BYTES, clock)
    return _run(subject, batches, count, clock, progress, None, title)


class _NoBar:
    """Stands in for a progress bar."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Does nothing."""

    def say(self, text: str) -> None:
        """Does nothing."""


class _Bar(_NoBar):
    """A bar on a terminal's standard error, with what is being done and an estimate of the time left."""

    def __init__(self, count: int, title: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=count, desc=title, unit="input", disable=None, leave=False)

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, count: int) -> None:
        """Advances."""
        self._bar.update(count)

    def say(self, text: str) -> None:
        """Shows what is being done."""
        self._bar.set_postfix_str(text, refresh=False)


def _progress_bar(count: int, wanted: bool, title: str = "verify") -> _NoBar:
    if not wanted:
        return _NoBar()
    try:
        return _Bar(count, title)
    except ImportError:
        return _NoBar()


def _provenance(
    subject: Subject, dataset: Dataset, preprocessing: Preprocessing | None, asked: _Asked, device: str | None
) -> Provenance:
    words = ["edgeq", "verify", subject.target if subject.target_file else "MODEL"]
    if subject.reference_given:
        words += ["--reference", subject.reference_name]
    words += ["--data", dataset.source]
    words += ["--backend", asked.backend] if device is None else ["--device", device]
    natural = asked.shift_data if isinstance(asked.shift_data, (str, os.PathLike)) else None
    options = {
        "--samples": asked.samples,
        "--fit-share": None if asked.fit_share == FIT_SHARE else asked.fit_share,
        "--shift": asked.shift,
        "--shift-samples": asked.shift_samples,
        "--shift-data": natural,
        "--blame": asked.blame_samples,
        "--outputs": asked.outputs,
    }
    if asked.gates is not None:
        limits = asdict(asked.gates)
        options |= {f"--{name.replace('_', '-')}": value for name, value in limits.items()}
    for name, value in options.items():
        words += [] if value is None else [name, str(value)]
    words += _preprocessing_words(preprocessing) if asked.preprocessing is not None and preprocessing else []
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
        samples=asked.samples,
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
