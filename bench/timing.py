"""Runs a job of `bench.worker` and reads what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to time: a file in a backend.

    Attributes:
        name: Unique in its job.
        backend: Name in `edgeq.backends.registry`.
        path: Of its file.
        batch: How many copies of the input it is given at once.
        exact: Whether OpenVINO computes its float layers in float32 rather than in bfloat16.
        threads: Of the runtime; its process may use as many CPUs.
        isa: Cap of edgeq's instruction sets, or None for the job's.
        least_db: Least signal-to-noise ratio of its output, in dB, against the float model's; None where it must equal
            the numpy statements bit for bit.
        same_as: An entry whose output differs by a few steps at most, or None.
        step: Of the output's quantization, where `same_as` is given.
    """

    name: str
    backend: str
    path: Path
    batch: int = 1
    exact: bool = True
    threads: int = 1
    isa: str | None = None
    least_db: float | None = None
    same_as: str | None = None
    step: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the fields by name."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**fields, "path": str(self.path)}


@dataclass(frozen=True, slots=True)
class Job:
    """Entries that are timed in alternating rounds of one process.

    Attributes:
        entries: In the order of a round.
        reference: The float model, whose output in ONNX Runtime is what outputs are compared with.
        shape: Of the input.
        rounds: How many.
        seconds: Each entry's turn takes at least this long,
        min_runs: and at least so many runs.
        environment: Variables of the process, beside this one's own.
        seed: Of the input.
    """

    entries: Sequence[Entry]
    reference: Path
    shape: tuple[int, ...]
    rounds: int
    seconds: float
    min_runs: int = 3
    environment: Mapping[str, str] = field(default_factory=dict)
    seed: int = 1

    def to_json(self) -> dict[str, Any]:
        """Returns what the worker reads."""
        return {
            "contenders": [entry.to_json() for entry in self.entries],
            "reference": str(self.reference),
            "shape": list(self.shape),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "min_runs": self.min_runs,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Timing:
    """What a job found of one entry.

    Attributes:
        rounds_ms: The median of each round.
        p10_ms: 10th percentile over all runs.
        runs: How many runs were timed.
        decibels: Signal-to-noise ratio of its output against the float model's.
        primitives: Implementations that the runtime names, and how many layers run on each.
    """

    rounds_ms: tuple[float, ...]
    p10_ms: float
    runs: int
    decibels: float
    primitives: Mapping[str, int]

    @property
    def median_ms(self) -> float:
        """The median over the rounds."""
        return float(np.median(self.rounds_ms))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job found.

    Attributes:
        timings: By entry.
        problems: Why the other entries were not timed.
    """

    timings: Mapping[str, Timing]
    problems: Mapping[str, str]


def ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Returns (median, smallest, largest) over the rounds of one / other."""
    ratios = np.asarray(one, np.float64) / np.asarray(other, np.float64)
    return float(np.median(ratios)), float(ratios.min()), float(ratios.max())


def run(job: Job) -> Outcome:
    """Runs a job; an entry that ends the process is left out and named, and the others are run again.

    Raises:
        RuntimeError: If the worker itself fails.
    """
    crashed: dict[str, str] = {}
    while True:
        status, events, words = _run_once(job)
        if status == 0:
            return _read(events, crashed)
        last = events[-1]["name"] if events else ""
        if status > 0 or last not in {entry.name for entry in job.entries}:
            raise RuntimeError(f"the bench's worker failed with status {status} at {last or 'its start'}:\n{words}")
        crashed[last] = f"the runtime ended the process by signal {-status}"
        job = replace(job, entries=[entry for entry in job.entries if entry.name != last])


def _run_once(job: Job) -> tuple[int, list[dict[str, Any]], str]:
    with tempfile.TemporaryDirectory() as scratch:
        task, events = Path(scratch) / "job.json", Path(scratch) / "events.jsonl"
        task.write_text(json.dumps(job.to_json()), encoding="utf-8")
        events.touch()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(max(entry.threads for entry in job.entries)),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **job.environment,
        }
        done = subprocess.run(
            [sys.executable, "-m", "bench.worker", str(task), str(events)],
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
        lines = events.read_text(encoding="utf-8").splitlines()
        return done.returncode, [json.loads(line) for line in lines], done.stderr[-2000:]


def _read(events: Sequence[dict[str, Any]], crashed: Mapping[str, str]) -> Outcome:
    timings: dict[str, Timing] = {}
    problems = dict(crashed)
    decibels: dict[str, float] = {}
    primitives: dict[str, Mapping[str, int]] = {}
    for event in events:
        name = event["name"]
        if event["event"] == "checked":
            if event["problem"] is not None:
                problems[name] = event["problem"]
                timings.pop(name, None)
            decibels[name] = event["decibels"]
        elif event["event"] == "primitives":
            primitives[name] = event["primitives"]
        elif event["event"] == "timed":
            latency = event["latency"]
            timings[name] = Timing(
                tuple(event["rounds_ms"]),
                latency["p10_ms"],
                latency["runs"],
                decibels[name],
                primitives.get(name, {}),
            )
    return Outcome(timings, problems)
