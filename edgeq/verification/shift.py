"""Both models on shifted inputs: corruptions of the same images, or another data set with the same classes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq import metrics, shift
from edgeq.data import ArrayDataset, Dataset, Preprocessing, finite_batches
from edgeq.errors import DataError
from edgeq.shift import SUITES, Cell
from edgeq.verification.compare import BINS
from edgeq.verification.scores import Logits

NATURAL = "natural"
"""The suite of what is no corruption but another data set."""


@dataclass(frozen=True, slots=True)
class ShiftFigures:
    """One model on shifted inputs.

    Attributes:
        top1: Share of right answers.
        ece: Expected calibration error, 15 equal-width bins.
        mean_confidence: Mean top-1 probability.
    """

    top1: float
    ece: float
    mean_confidence: float


@dataclass(frozen=True, slots=True)
class ShiftCell:
    """Both models under one shift.

    Attributes:
        suite: Of the corruption; `natural` for another data set.
        kind: The corruption, or the name of the data set.
        severity: From 1; 0 for another data set.
        n: Number of inputs.
        reference: The float model, or None without labels.
        quantized: The quantized model, or None without labels.
        disagreement: Share of inputs that they answer differently.
        interval: 95 % Wilson interval of it.
    """

    suite: str
    kind: str
    severity: int
    n: int
    reference: ShiftFigures | None
    quantized: ShiftFigures | None
    disagreement: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SuiteMean:
    """Means over the cells of a suite's main types that were run.

    Attributes:
        suite: Its name.
        cells: How many cells.
        reference_error: Mean share of wrong answers of the float model, or None without labels.
        quantized_error: The same of the quantized model.
        error_ratio: The second over the first, or None where that is 0.
        reference_ece: Mean expected calibration error of the float model.
        quantized_ece: The same of the quantized model.
        disagreement: Mean disagreement.
    """

    suite: str
    cells: int
    reference_error: float | None
    quantized_error: float | None
    error_ratio: float | None
    reference_ece: float | None
    quantized_ece: float | None
    disagreement: float


@dataclass(frozen=True, slots=True)
class ShiftStudy:
    """Everything that was run on shifted inputs.

    Attributes:
        cells: One a corruption and severity, in the order of the suite.
        means: One a suite.
    """

    cells: tuple[ShiftCell, ...]
    means: tuple[SuiteMean, ...]

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values."""
        return {"cells": [asdict(one) for one in self.cells], "means": [asdict(one) for one in self.means]}


class Bar(Protocol):
    """What shows how far the work is."""

    def update(self, count: int) -> None:
        """Adds to what is done."""

    def say(self, text: str) -> None:
        """Shows what is being done."""


Runner = Callable[[str, NDArray[np.float32]], Logits]
"""Runs `reference` or `quantized` on a batch: (which, inputs) to logits of shape (n, classes)."""


class _Answers:
    """The answers of both models in one cell, batch by batch: all that the figures need."""

    def __init__(self) -> None:
        self._classes: dict[str, list[NDArray[np.int64]]] = {"reference": [], "quantized": []}
        self._confidences: dict[str, list[NDArray[np.float64]]] = {"reference": [], "quantized": []}

    def add(self, who: str, logits: Logits, where: str) -> None:
        if not np.isfinite(logits).all():
            raise DataError(f"The {who} model gives NaN or infinite logits under {where}.")
        self._classes[who].append(metrics.predicted_class(logits))
        self._confidences[who].append(np.minimum(metrics.softmax(logits).max(axis=1), 1.0))

    def cell(self, suite: str, kind: str, severity: int, labels: NDArray[np.int64] | None) -> ShiftCell:
        answers = {who: np.concatenate(parts) for who, parts in self._classes.items()}
        differ = int((answers["reference"] != answers["quantized"]).sum())
        n = len(answers["reference"])

        def figures(who: str) -> ShiftFigures | None:
            if labels is None:
                return None
            right, sure = answers[who] == labels, np.concatenate(self._confidences[who])
            error = metrics.expected_calibration_error(sure, right, BINS)
            return ShiftFigures(float(right.mean()), error, float(sure.mean()))

        return ShiftCell(
            suite, kind, severity, n, figures("reference"), figures("quantized"), differ / n,
            metrics.wilson_interval(differ, n),
        )


def run_corruptions(
    cells: Sequence[Cell],
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    count: int,
    batch_size: int,
    run: Runner,
    bar: Bar,
    seconds: dict[str, float],
) -> list[ShiftCell]:
    """Every cell on the first `count` images; images are decoded and resized once for all cells.

    Args:
        cells: What to apply.
        dataset: Images, not network inputs.
        preprocessing: Of the model; corruptions come after its resize and crop.
        count: Number of images.
        batch_size: Images that run at once.
        run: Runs the models.
        bar: Advances by one an image and cell.
        seconds: `data` and `corruption` grow by what is spent.

    Raises:
        DataError: If the samples are network inputs already, or too small.
    """
    if isinstance(dataset, ArrayDataset) and dataset.preprocessed:
        raise DataError(
            f"{dataset.source}: holds network inputs, and corruptions are made of images. Give uint8 images and their "
            "preprocessing, or another data set with --shift-data."
        )
    record = preprocessing or Preprocessing.identity("gray" if dataset.images([0])[0].shape[2] == 1 else "rgb")
    workers = os.cpu_count() or 1
    answers = [_Answers() for _ in cells]
    for start in range(0, count, batch_size):
        positions = range(start, min(start + batch_size, count))
        began = time.perf_counter()
        images = record.arrange(dataset.images(positions))
        seconds["data"] += time.perf_counter() - began
        for cell, found in zip(cells, answers, strict=True):
            bar.say(f"{cell.kind} {cell.severity}")
            began = time.perf_counter()
            inputs = record.normalise(shift.apply(images, cell, positions, workers))
            seconds["corruption"] += time.perf_counter() - began
            for who in ("reference", "quantized"):
                found.add(who, run(who, inputs), str(cell))
            bar.update(len(images))
    labels = None if dataset.labels is None else dataset.labels[:count]
    pairs = zip(cells, answers, strict=True)
    return [found.cell(cell.suite, cell.kind, cell.severity, labels) for cell, found in pairs]


def run_dataset(
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    batch_size: int,
    run: Runner,
    bar: Bar,
    seconds: dict[str, float],
) -> ShiftCell:
    """Both models on another data set with the same classes: natural shift.

    Args:
        dataset: All of its samples run.
        preprocessing: Of the model.
        batch_size: Samples that run at once.
        run: Runs the models.
        bar: Advances by one a sample.
        seconds: `data` grows by what is spent.
    """
    answers = _Answers()
    bar.say(dataset.source)
    began = time.perf_counter()
    classes = 0
    for batch in finite_batches(dataset, batch_size, preprocessing):
        seconds["data"] += time.perf_counter() - began
        for who in ("reference", "quantized"):
            logits = run(who, batch.inputs)
            classes = logits.shape[1]
            answers.add(who, logits, dataset.source)
        bar.update(len(batch.inputs))
        began = time.perf_counter()
    if dataset.labels is not None and int(dataset.labels.max()) >= classes:
        raise DataError(
            f"{dataset.source}: has class {int(dataset.labels.max())}, and the model has {classes} classes: shifted "
            "data must have the classes that the model was trained with."
        )
    return answers.cell(NATURAL, dataset.source, 0, dataset.labels)


def suite_means(cells: Sequence[ShiftCell]) -> tuple[SuiteMean, ...]:
    """The mean of each suite over its main types, in the order of the cells."""
    means = []
    for name in dict.fromkeys(cell.suite for cell in cells):
        main: Sequence[str] | None = SUITES[name].main if name in SUITES else None
        own = [cell for cell in cells if cell.suite == name]
        members = [cell for cell in own if main is None or cell.kind in main] or own
        means.append(_mean(name, members))
    return tuple(means)


def _mean(name: str, cells: Sequence[ShiftCell]) -> SuiteMean:
    values: Mapping[str, list[ShiftFigures]] = {
        who: [figures for cell in cells if (figures := getattr(cell, who)) is not None]
        for who in ("reference", "quantized")
    }
    errors = {who: _average([1.0 - one.top1 for one in found]) for who, found in values.items()}
    first, second = errors["reference"], errors["quantized"]
    return SuiteMean(
        suite=name,
        cells=len(cells),
        reference_error=first,
        quantized_error=second,
        error_ratio=second / first if first and second is not None else None,
        reference_ece=_average([one.ece for one in values["reference"]]),
        quantized_ece=_average([one.ece for one in values["quantized"]]),
        disagreement=float(np.mean([cell.disagreement for cell in cells])),
    )


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
