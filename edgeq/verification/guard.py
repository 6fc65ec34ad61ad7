"""`edgeq.guard`: a temperature and a margin that catch disagreements with the float model, fitted and checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq import metrics
from edgeq.data import Preprocessing, as_dataset, open_dataset
from edgeq.errors import DataError, FormatError, UsageError
from edgeq.exporters.edgeq_file import with_guard
from edgeq.exporters.edgeq_format import Guard
from edgeq.exporters.folder import MANIFEST_FILE, read_manifest
from edgeq.importers import from_edgeq
from edgeq.outputs import whole_file, whole_folder
from edgeq.simulate.prediction import predict
from edgeq.verification.scaling import FEWEST, split
from edgeq.verification.subject import resolve
from edgeq.verification.verify import run_both

CATCH = 0.9
"""Of the disagreements, the share to catch."""

FIT_SHARE = 0.5
"""Of the inputs, the share that a guard is fitted on."""

FEW = 20
"""Disagreements below which a fitted guard says little."""


@dataclass(frozen=True, slots=True)
class GuardFigures:
    """What a guard does on some inputs.

    Attributes:
        n: Number of inputs.
        disagreements: On how many the quantized model's answer is not the float model's.
        caught: How many of these are deferred.
        deferred: How many of all inputs are deferred: the price.
    """

    n: int
    disagreements: int
    caught: int
    deferred: int

    @property
    def catch_rate(self) -> float | None:
        """Share of the disagreements that is caught; None where there is none."""
        return self.caught / self.disagreements if self.disagreements else None

    @property
    def catch_interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval of the catch rate."""
        return metrics.wilson_interval(self.caught, self.disagreements) if self.disagreements else None

    @property
    def price(self) -> float:
        """Share of the inputs that is deferred."""
        return self.deferred / self.n

    @property
    def price_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the price."""
        return metrics.wilson_interval(self.deferred, self.n)

    def to_json(self) -> dict[str, Any]:
        """The counts with the rates and their intervals."""
        names = ("catch_rate", "catch_interval", "price", "price_interval")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class GuardFit:
    """A guard and what is known of it.

    Attributes:
        guard: Temperature and margin, as the file holds them (float32).
        catch: The share of disagreements that was asked for.
        confidence: How often the share holds over draws of the data it is fitted on; None: on average.
        rank: The margin lies just above the rank-th smallest margin of the disagreements that it was fitted on.
        expected: 95 % of guards fitted so catch a share of new disagreements that lies here.
        fitted: On the inputs that it was fitted on. The catch rate there says nothing: it was made so.
        tested: On the others, or None where it was fitted on all.
        notes: What the user should know.
    """

    guard: Guard
    catch: float
    confidence: float | None
    rank: int
    expected: tuple[float, float]
    fitted: GuardFigures
    tested: GuardFigures | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Nested JSON values."""
        return {
            "temperature": self.guard.temperature,
            "margin": self.guard.margin,
            "catch": self.catch,
            "confidence": self.confidence,
            "rank": self.rank,
            "expected_catch": list(self.expected),
            "fitted": self.fitted.to_json(),
            "tested": None if self.tested is None else self.tested.to_json(),
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """The figures as plain text."""
        low, high = self.expected
        promise = "on average" if self.confidence is None else f"with confidence {self.confidence:g}"
        lines = [
            f"guard: temperature {self.guard.temperature:.6g}; defers where the two highest probabilities differ by "
            f"less than {self.guard.margin:.6g}",
            f"catches at least {_percent(self.catch)} of new disagreements {promise}, 95 % of guards fitted so between "
            f"{_percent(low)} and {_percent(high)}",
            "",
            *_lines("fitted on", self.fitted, False),
        ]
        if self.tested is not None:
            lines += _lines("checked on", self.tested, True)
        return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _lines(name: str, one: GuardFigures, with_interval: bool) -> list[str]:
    caught = f"{one.caught} of {one.disagreements} disagreements"
    if one.catch_rate is not None and one.catch_interval is not None:
        caught += f", {_percent(one.catch_rate)}"
        if with_interval:
            caught += " [{:.1f}, {:.1f}]".format(*(100 * bound for bound in one.catch_interval))
    low, high = one.price_interval
    return [
        f"{name} {one.n} inputs",
        f"  caught    {caught}",
        f"  deferred  {one.deferred} inputs, {_percent(one.price)} [{100 * low:.1f}, {100 * high:.1f}]",
        f"  missed    {one.disagreements - one.caught} disagreements among the {one.n - one.deferred} answers kept",
    ]


def fit_guard(
    reference: NDArray[np.floating[Any]],
    quantized: NDArray[np.floating[Any]],
    labels: NDArray[np.int64] | None = None,
    *,
    catch: float = CATCH,
    confidence: float | None = None,
    fit_share: float = FIT_SHARE,
    seed: int = 0,
) -> GuardFit:
    """Fits a guard on a share of the inputs and checks it on the rest.

    The temperature minimises the negative log-likelihood of the quantized model (Guo et al. 2017, arXiv 1706.04599).
    The margin is the least that defers the k disagreements of the smallest margins, k from `metrics.conformal_rank`: on
    new inputs of the same kind the asked share is caught on average, where the plain quantile catches less.

    Args:
        reference: The float model's logits, shape (n, classes).
        quantized: The quantized model's, the same shape.
        labels: Class indices, shape (n,); None keeps the temperature at 1.
        catch: Of the disagreements, the share to catch; in (0, 1).
        confidence: How sure that share shall be over draws of the data; None: on average.
        fit_share: Of the inputs, the share to fit on, drawn by `seed`; in (0, 1], and 1 checks nothing.
        seed: Of the draw.

    Raises:
        DataError: If there are no, or too few, disagreements to fit on, or no margin would catch them.
        UsageError: If an argument lies outside its range.
    """
    if not 0.0 < catch < 1.0 or not (confidence is None or 0.0 < confidence < 1.0):
        raise UsageError(f"The share to catch and the confidence must lie in (0, 1), not {catch} and {confidence}.")
    if not 0.0 < fit_share <= 1.0:
        raise UsageError(f"The share to fit the guard on must lie in (0, 1], not {fit_share}.")
    differ = metrics.predicted_class(reference) != metrics.predicted_class(quantized)
    fit, test = split(len(differ), fit_share, seed)
    count = int(differ[fit].sum())
    rank = _rank(count, len(fit), catch, confidence, fit_share)
    notes = []
    if count < FEW:
        notes.append(f"fitted on {count} disagreements only: its catch rate is uncertain; more data make it surer")
    temperature = 1.0
    if labels is None:
        notes.append("without labels the temperature stays 1: probabilities are not calibrated")
    elif len(fit) < FEWEST:
        notes.append(f"fewer than {FEWEST} inputs to fit on: the temperature stays 1, probabilities are not calibrated")
    else:
        # As the file holds it, so that margins here are those of every runtime.
        temperature = float(np.float32(metrics.fit_temperature(quantized[fit], labels[fit])))
    margins = predict(quantized, temperature).margin
    highest = np.sort(margins[fit][differ[fit]])[rank - 1]
    if highest >= 1.0:
        raise DataError(
            f"Of {count} disagreements {count - rank + 1} or more have a margin of 1: no threshold tells them from "
            "sure answers. Lower --catch, or quantize with more bits."
        )
    guard = Guard(temperature, float(np.nextafter(highest, np.float32(1.0))))
    defer = margins < np.float32(guard.margin)
    return GuardFit(
        guard=guard,
        catch=catch,
        confidence=confidence,
        rank=rank,
        expected=metrics.coverage_interval(rank, count),
        fitted=_figures(defer[fit], differ[fit]),
        tested=_figures(defer[test], differ[test]) if len(test) else None,
        notes=tuple(notes),
    )


def _rank(count: int, n: int, catch: float, confidence: float | None, fit_share: float) -> int:
    more = "give more data" + (", fit on more of them (--fit-share 1)" if fit_share < 1.0 else "")
    if count == 0:
        raise DataError(
            f"There is nothing to catch on {n} inputs: both models give the same answers. To fit a guard all the same, "
            f"{more}, or data on which the models differ; a model that never differs needs none."
        )
    rank = metrics.conformal_rank(count, catch, confidence)
    if rank is None:
        if confidence is None:
            needed = math.ceil(catch / (1.0 - catch) * (1.0 - 1e-9))
        else:
            needed = math.ceil(math.log(1.0 - confidence) / math.log(catch) * (1.0 - 1e-9))
        raise DataError(
            f"The models disagree on {count} of {n} inputs, too few to promise a catch of {catch:g}: {needed} are "
            f"needed. To fit a guard, {more}, or lower --catch{'' if confidence is None else ' or --confidence'}."
        )
    return rank


def _figures(defer: NDArray[np.bool_], differ: NDArray[np.bool_]) -> GuardFigures:
    return GuardFigures(len(defer), int(differ.sum()), int((defer & differ).sum()), int(defer.sum()))


def guard(
    target: str | os.PathLike[str],
    *,
    data: Any,
    catch: float = CATCH,
    confidence: float | None = None,
    fit_share: float = FIT_SHARE,
    reference: Any = None,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> GuardFit:
    """Fits a guard to a quantized model and writes it into its model.edgeq.

    `Session.predict` and `edgeq-runner predict` then defer what it catches. The file's other sections stay byte for
    byte; its entry in the manifest beside it, if there is one, follows. docs/guard.md says what is promised.

    Args:
        target: A folder that `edgeq export` wrote, or a .edgeq file.
        data: Held-out inputs, which neither calibrated nor trained the model, as for `edgeq.verify`; labels fit the
            temperature.
        catch: Of the disagreements with the float model, the share to catch; in (0, 1).
        confidence: How sure that share shall be over draws of the data; None: on average.
        fit_share: Of the inputs, the share to fit on; the rest checks the guard. In (0, 1]; 1 checks nothing.
        reference: The float model, as for `edgeq.verify`.
        preprocessing: How an image becomes an input; without it, what the export stored.
        samples: Use the first this many samples; None uses all.
        batch_size: Inputs that run at once.
        threads: Threads of each runtime; None lets it choose.
        progress: Whether a bar on a terminal's standard error shows how far it is.

    Raises:
        EdgeqError: If a model, a runtime or the data are missing or do not fit, or there is too little to fit on;
            nothing is written then.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}.")
    subject = resolve(target, reference, "native", threads)
    if subject.target_file is None:
        raise UsageError("A guard is written into a .edgeq file; pass the path of one, or of its folder.")
    dataset = open_dataset(data) if isinstance(data, (str, os.PathLike)) else as_dataset(data)
    count = len(dataset) if samples is None else min(samples, len(dataset))
    scores = run_both(subject, dataset, preprocessing or subject.preprocessing, count, batch_size, progress, "guard")
    if scores[1].shape[1] < 2 or scores[0].shape != scores[1].shape:
        raise DataError(
            f"{target}: a guard is for classifiers of at least two classes; the models give "
            f"{list(scores[0].shape)} and {list(scores[1].shape)}."
        )
    endings = subject.settle(scores)
    logits = endings.logits("reference", scores[0]), endings.logits("quantized", scores[1])
    if not all(np.isfinite(values).all() for values in logits):
        raise DataError(f"{target}: a score is not finite; no margin can be fitted. Compare the models: edgeq verify.")
    labels = None if dataset.labels is None else np.asarray(dataset.labels[:count])
    fit = fit_guard(*logits, labels, catch=catch, confidence=confidence, fit_share=fit_share)
    facts = {**fit.to_json(), "data": dataset.source, "data_sha256": dataset.digest(), "samples": count}
    write_guard(subject.target_file, fit.guard, facts)
    return fit


def write_guard(path: Path, guard: Guard, facts: dict[str, Any] | None = None) -> None:
    """Puts a guard into a .edgeq file, and what is known of it into the manifest beside it, if one lists the file.

    Args:
        path: The file.
        guard: Replaces the file's own.
        facts: JSON values for the manifest.

    Raises:
        FormatError: If the file or the manifest is damaged.
        UsageError: If the folder cannot be written to.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        from_edgeq.decode(content)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    content = with_guard(content, guard)
    folder = path.parent
    manifest = read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else {}
    files = manifest.get("files")
    if not isinstance(files, dict) or path.name not in files:
        with whole_file(path) as scratch:
            scratch.write_bytes(content)
        return
    files[path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["guard"] = facts or {"temperature": guard.temperature, "margin": guard.margin}
    text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
    with whole_folder(folder, (path.name, MANIFEST_FILE)) as scratch:
        (scratch / path.name).write_bytes(content)
        (scratch / MANIFEST_FILE).write_text(text, encoding="utf-8")
