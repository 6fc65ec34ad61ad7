"""Repeats an export with other calibration samples: how much the figures owe to the choice of samples."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeq.deployment.export import export, open_calibration
from edgeq.errors import DataError, UsageError
from edgeq.quantize import DEFAULT_SAMPLES
from edgeq.verification import verify

SHARE = 0.8
"""A trial calibrates on at most this share of the calibration data, so that trials see different samples."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One repetition.

    Attributes:
        seed: Chose the calibration samples.
        samples: How many there were.
        minutes: What the export took.
        top1: Accuracy of the quantized model; None without labels.
        ece: Its expected calibration error; None without labels.
        disagreement: Share of inputs on which it answers otherwise than the float model.
        logit_sqnr_db: Of its logits; None where they are equal.
    """

    seed: int
    samples: int
    minutes: float
    top1: float | None
    ece: float | None
    disagreement: float
    logit_sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, sample standard deviation and extremes of one figure over the trials."""

    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Trials:
    """All repetitions.

    Attributes:
        trials: In order.
        inputs: How many inputs each was evaluated on.
        reference_top1: Accuracy of the float model; None without labels.
    """

    trials: tuple[Trial, ...]
    inputs: int
    reference_top1: float | None

    def spread(self, figure: str) -> Spread | None:
        """Returns the spread of a figure of `Trial`; None where a trial lacks it."""
        values = [getattr(trial, figure) for trial in self.trials]
        if any(value is None for value in values):
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return Spread(statistics.fmean(values), deviation, min(values), max(values))

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for the manifest."""
        names = ("top1", "ece", "disagreement", "logit_sqnr_db", "minutes")
        spreads = {name: self.spread(name) for name in names}
        return {
            "inputs": self.inputs,
            "reference_top1": self.reference_top1,
            "trials": [asdict(trial) for trial in self.trials],
            "spread": {name: None if found is None else asdict(found) for name, found in spreads.items()},
        }

    def summary(self) -> str:
        """Returns a line a figure for the terminal."""
        lines = [f"{len(self.trials)} trials, each on other calibration samples, evaluated on {self.inputs} inputs:"]
        for figure, name, factor, unit in (
            ("top1", "top-1", 100, " %"),
            ("ece", "ECE", 1, ""),
            ("disagreement", "disagreement", 100, " %"),
            ("logit_sqnr_db", "logit SQNR", 1, " dB"),
        ):
            found = self.spread(figure)
            if found is None:
                continue
            digits = 3 if figure == "ece" else 1
            mean, deviation, low, high = (
                f"{factor * value:.{digits}f}" for value in (found.mean, found.deviation, found.low, found.high)
            )
            beside = ""
            if figure == "top1" and self.reference_top1 is not None:
                beside = f", FP32 {100 * self.reference_top1:.1f} %"
            lines.append(f"  {name}: {mean} +- {deviation}{unit} ({low} to {high}){beside}")
        return "\n".join(lines)


def run_trials(
    model: Any,
    count: int,
    *,
    data: Any,
    calibration: Any = None,
    calib_samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    threads: int | None = None,
    done: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Trials:
    """Exports a model several times, each time calibrated on another random draw, and verifies each export.

    Args:
        model: As for `export`.
        count: How many trials.
        data: What to evaluate on: as for `verify`.
        calibration: As for `export`.
        calib_samples: A trial uses at most so many samples, and at most SHARE of the data.
        seed: Of the first trial; the others count up from it.
        threads: For verification.
        done: Called with (trials done, trials).
        **options: The rest of what `export` takes; `out` and `to` do not apply.

    Raises:
        EdgeqError: As `export` and `verify`; if there are too few calibration samples to draw from.
    """
    if count < 1:
        raise UsageError(f"the number of trials (--trials) must be at least 1, not {count}")
    opened = open_calibration(calibration, model)
    samples = min(calib_samples, int(SHARE * len(opened)))
    if samples < 1:
        raise DataError(f"{len(opened)} calibration samples are too few to draw different ones for each trial")
    trials = []
    for index in range(count):
        with tempfile.TemporaryDirectory(prefix="edgeq-trial-") as scratch:
            started = time.perf_counter()
            out = Path(scratch) / "out"
            export(
                model,
                calibration=opened,
                calib_samples=samples,
                seed=seed + index,
                out=out,
                to="edgeq",
                **options,
            )
            minutes = (time.perf_counter() - started) / 60
            found = verify(out, data=data, threads=threads, preprocessing=options.get("preprocessing")).to_json()
        quality = found["quantized"]
        trials.append(
            Trial(
                seed + index,
                samples,
                minutes,
                quality["top1"],
                quality["ece"],
                found["disagreement"]["rate"],
                found["logit_sqnr_db"],
            )
        )
        if done is not None:
            done(index + 1, count)
    return Trials(tuple(trials), found["n"], found["reference"]["top1"])
