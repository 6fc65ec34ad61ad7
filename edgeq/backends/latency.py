"""Latency of a callable: warm-up, then enough runs; several callables in alternating rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one run in milliseconds.

    Attributes:
        median_ms: Median over the runs.
        p10_ms: 10th percentile.
        p90_ms: 90th percentile.
        runs: How many runs were timed.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int

    @staticmethod
    def of(samples_ms: npt.NDArray[np.float64]) -> Latency:
        """Summarises the times of single runs, shape (runs,)."""
        p10, median, p90 = np.percentile(samples_ms, [10, 50, 90])
        return Latency(float(median), float(p10), float(p90), int(samples_ms.size))

    def to_json(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several callables timed in turn, round by round, so that a drift of the machine meets all of them.

    Attributes:
        latency: Over all rounds, by name.
        rounds_ms: The median of each round, by name, shape (rounds,).
    """

    latency: Mapping[str, Latency]
    rounds_ms: Mapping[str, npt.NDArray[np.float64]]

    def ratio(self, name: str, other: str) -> tuple[float, float, float]:
        """Returns (median, smallest, largest) over the rounds of time(name) / time(other)."""
        ratios = self.rounds_ms[name] / self.rounds_ms[other]
        return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


def measure(
    run: Callable[[], object], *, min_seconds: float = 1.0, min_runs: int = 20, max_runs: int = 2000
) -> Latency:
    """Times `run` until both minima are met, after a warm-up of at least 3 runs and a tenth of `min_seconds`.

    Raises:
        ValueError: If a minimum is not positive.
    """
    if min_runs < 1 or min_seconds <= 0:
        raise ValueError("min_runs and min_seconds must be positive")
    _warm_up(run, min_seconds / 10)
    return Latency.of(_samples(run, min_seconds, min_runs, max_runs))


def compare(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    seconds: float = 0.5,
    min_runs: int = 10,
    before: Mapping[str, Callable[[], None]] | None = None,
) -> Comparison:
    """Times the callables A, B, ..., A, B, ..., in alternating rounds.

    Args:
        runs: What is timed, by name.
        rounds: How often each has its turn.
        seconds: A turn takes at least this long.
        min_runs: And at least so many runs.
        before: What sets the process up for a turn, such as its CPUs, by name.
    """
    prepare = before or {}
    for name, run in runs.items():
        prepare.get(name, _nothing)()
        _warm_up(run, seconds / 5)
    samples: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            prepare.get(name, _nothing)()
            run()  # Brings this callable's data back into the caches before it is timed.
            samples[name].append(_samples(run, seconds, min_runs, 100_000))
    return Comparison(
        {name: Latency.of(np.concatenate(parts)) for name, parts in samples.items()},
        {name: np.array([np.median(part) for part in parts]) for name, parts in samples.items()},
    )


def _nothing() -> None:
    pass


def _warm_up(run: Callable[[], object], seconds: float) -> None:
    end = time.perf_counter() + seconds
    for _ in range(3):
        run()
    while time.perf_counter() < end:
        run()


def _samples(
    run: Callable[[], object], seconds: float, min_runs: int, max_runs: int
) -> npt.NDArray[np.float64]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < min_runs or (time.perf_counter() < end and len(times) < max_runs):
        start = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return np.array(times)
