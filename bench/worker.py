"""Times contenders in turn, in a process of its own: what caps a runtime's instruction sets is read when it is loaded.

    python -m bench.worker JOB.json EVENTS.jsonl

The process works through a job (`bench.timing`) and appends an event a line, so that who ended it by a signal is known.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from edgeq.backends.latency import compare
from edgeq.backends.native import NativeBackend
from edgeq.backends.onnxruntime import OnnxRuntimeBackend
from edgeq.backends.openvino import OpenVinoBackend
from edgeq.backends.protocol import Bound, TimedBackend
from edgeq.backends.registry import backend_kind
from edgeq.backends.simulate import SimulateBackend
from edgeq.errors import EdgeqError

LARGEST_STEPS = 3.0
"""Steps of the output's quantization by which a logit of edgeq's QDQ export in ONNX Runtime may differ from edgeq's;
docs/conformance.md has none that does."""


class Worker:
    """One job.

    Args:
        job: As `bench.timing.Job.to_json` gives it.
        events: Where events go.
    """

    def __init__(self, job: dict[str, Any], events: TextIO) -> None:
        self._job = job
        self._events = events
        # The last CPU first: the first one takes more of the machine's interrupts.
        self._cpus = sorted(os.sched_getaffinity(0), reverse=True)
        self._x = np.random.default_rng(job["seed"]).standard_normal(job["shape"]).astype(np.float32)
        self._logits: dict[str, npt.NDArray[np.float32]] = {}
        self._exact: dict[str, npt.NDArray[np.float32]] = {}

    def run(self) -> None:
        """Loads and checks every contender, then times those that are right."""
        bound = {}
        expected = OnnxRuntimeBackend(self._job["reference"], 1).bind(self._x)
        reference = expected.logits(expected.run())
        for entry in self._job["contenders"]:
            name = entry["name"]
            self._event("open", name=name)
            made = self._open(entry)
            if made is None:
                continue
            self._logits[name] = made.logits(made.run())
            problem, decibels = self._judge(entry, reference)
            self._event("checked", name=name, problem=problem, decibels=decibels)
            if problem is None:
                bound[name] = made
        if not bound:
            return
        for name, one in bound.items():
            self._event("warm", name=name)
            one.run()
        self._event("time", name="all")
        self._time(bound)
        for name, one in bound.items():
            again = one.logits(one.run())
            if not np.array_equal(again, self._logits[name]):
                self._event("checked", name=name, problem="its output changed while it was timed", decibels=0.0)
        self._event("done", name="all")

    def _open(self, entry: dict[str, Any]) -> Bound | None:
        # A runtime's threads inherit the affinity of the one that makes them.
        os.sched_setaffinity(0, self._cpus[: entry["threads"]])
        try:
            made = backend(entry)
            bound = made.bind(self._batch(entry))
        except EdgeqError as error:
            self._event("checked", name=entry["name"], problem=str(error), decibels=None)
            return None
        primitives = getattr(made, "primitives", None)
        if primitives is not None:
            self._event("primitives", name=entry["name"], primitives=primitives(self._x.shape))
        return bound

    def _batch(self, entry: dict[str, Any]) -> npt.NDArray[np.float32]:
        return np.repeat(self._x, entry["batch"], axis=0)

    def _judge(self, entry: dict[str, Any], one: npt.NDArray[np.float32]) -> tuple[str | None, float]:
        """Returns why an output is wrong (None when it is right), and its signal-to-noise ratio."""
        reference = np.repeat(one, entry["batch"], axis=0)
        found = self._logits[entry["name"]]
        if found.shape != reference.shape:
            return f"its output has the shape {found.shape}, not {reference.shape}", 0.0
        noise = float(np.square(found.astype(np.float64) - reference).sum())
        decibels = 10 * np.log10(float(np.square(reference.astype(np.float64)).sum()) / max(noise, 1e-30))
        if not np.isfinite(decibels):
            return "its output is not finite", 0.0
        if entry["least_db"] is None:
            exact = np.array_equal(found, np.repeat(self._simulated(entry["path"]), entry["batch"], axis=0))
            return (None if exact else "its output is not that of the numpy statements"), decibels
        if decibels < entry["least_db"]:
            return f"its output is {decibels:.1f} dB from the float model's, not {entry['least_db']:.0f}", decibels
        if entry.get("same_as") in self._logits:
            steps = np.abs(found - self._logits[entry["same_as"]]).max() / entry["step"]
            if steps > LARGEST_STEPS + 0.5:
                return f"its output is {steps:.0f} steps from edgeq's", decibels
        return None, decibels

    def _simulated(self, path: str) -> npt.NDArray[np.float32]:
        if path not in self._exact:
            self._exact[path] = SimulateBackend(path).run(self._x)
        return self._exact[path]

    def _time(self, bound: dict[str, Bound]) -> None:
        threads = {entry["name"]: entry["threads"] for entry in self._job["contenders"]}

        def pin(count: int) -> Callable[[], None]:
            return lambda: os.sched_setaffinity(0, self._cpus[:count])

        found = compare(
            {name: one.run for name, one in bound.items()},
            rounds=self._job["rounds"],
            seconds=self._job["seconds"],
            min_runs=self._job["min_runs"],
            before={name: pin(threads[name]) for name in bound},
        )
        for name in bound:
            latency = found.latency[name].to_json()
            self._event("timed", name=name, rounds_ms=found.rounds_ms[name].tolist(), latency=latency)

    def _event(self, kind: str, **values: Any) -> None:
        self._events.write(json.dumps({"event": kind, "at": time.time(), **values}) + "\n")
        self._events.flush()


def backend(entry: dict[str, Any]) -> TimedBackend:
    """Opens an entry of a job, with the fastest settings that its runtime has.

    Raises:
        BackendError: If the runtime refuses it.
    """
    path, threads = Path(entry["path"]), entry["threads"]
    if entry["backend"] == "native":
        return NativeBackend(path, threads, max_isa=entry["isa"])
    if entry["backend"] == "openvino":
        return OpenVinoBackend(path, threads, exact=entry["exact"])
    made = backend_kind(entry["backend"]).open(path, threads)
    assert isinstance(made, TimedBackend)
    return made


def main(arguments: Sequence[str]) -> None:
    """Works through a job."""
    job, events = arguments
    with Path(events).open("a", encoding="utf-8") as stream:
        Worker(json.loads(Path(job).read_text(encoding="utf-8")), stream).run()


if __name__ == "__main__":
    main(sys.argv[1:])
