"""Measures which kernels are the fastest for the layers of a .edgeq file on this machine.

Each candidate runs in its place: a whole session with it is timed layer by layer in turns with a session of the cost
model's choices, so that caches, fused layers and threads are as they will be, and a drift of the machine meets both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.backends.latency import compare
from edgeq.session import KernelChoice, Session
from edgeq.tuning import Tuning

_GAIN = 0.97
"""A candidate is taken when its layers need at most this share of their time: less may be chance."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found for one shape.

    Attributes:
        shape: As in `edgeq.session.KernelChoice`.
        default: The cost model's kernel.
        kernel: The fastest one.
        ratio: Its time divided by the default's, of the steps concerned; 1 where the default stays.
    """

    shape: str
    default: str
    kernel: str
    ratio: float


@dataclass(frozen=True, slots=True)
class TuningResult:
    """What a tuning found.

    Attributes:
        tuning: The kernels to use instead of the cost model's; none where they did not make the model faster.
        choices: Every shape that there is a choice for, in execution order.
        ratio: Time of the model with these kernels divided by that without, the median over the rounds; 1 without any.
    """

    tuning: Tuning
    choices: tuple[Choice, ...]
    ratio: float

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {
            "kernels": dict(self.tuning.kernels),
            "ratio": self.ratio,
            "choices": [
                {"shape": c.shape, "default": c.default, "kernel": c.kernel, "ratio": c.ratio} for c in self.choices
            ],
        }


def tune_model(
    path: Path,
    *,
    threads: int = 1,
    batch: int = 1,
    runs: int = 24,
    report: Callable[[int, int], None] | None = None,
) -> TuningResult:
    """Measures the candidates of each shape of the model once.

    Args:
        path: A .edgeq file; a tuning file beside it does not matter.
        threads: Threads of the engine.
        batch: Inputs a run.
        runs: Timed runs of each session of candidates.
        report: Called with the number of sessions that are measured and how many there are.
    """
    from edgeq import __version__

    base = Session(path, threads=threads, profile=True, tuning={})
    rng = np.random.default_rng(0)
    shapes = [[batch if size is None else size for size in info.shape] for info in base.inputs]
    x = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    uses = _uses(base.kernel_choices)
    waves = _waves(base.kernel_choices)
    best: dict[str, tuple[float, str]] = {}
    for number, wave in enumerate(waves):
        if report is not None:
            report(number, len(waves))
        trial = Session(path, threads=threads, profile=True, tuning=wave)
        before, after = _times(base, trial, x, runs)
        for shape, kernel in wave.items():
            default_ms = sum(before[step] for step in uses[shape])
            trial_ms = sum(after[step] for step in uses[shape])
            if default_ms > 0 and trial_ms / default_ms <= min(_GAIN, best.get(shape, (1.0, ""))[0]):
                best[shape] = (trial_ms / default_ms, kernel)
    kernels = {shape: kernel for shape, (_, kernel) in best.items()}
    ratio = 1.0
    if kernels:
        # Kernels that win alone may lose together, by what they leave in the caches.
        tuned = Session(path, threads=threads, tuning=kernels)
        plain = Session(path, threads=threads, tuning={})
        found = compare({"tuned": lambda: tuned.run(x), "plain": lambda: plain.run(x)}, rounds=7, seconds=0.2)
        ratio = found.ratio("tuned", "plain")[0]
        if ratio >= 1.0:
            kernels, ratio, best = {}, 1.0, {}
    choices = {
        choice.shape: Choice(
            choice.shape, choice.kernel, kernels.get(choice.shape, choice.kernel), best.get(choice.shape, (1.0, ""))[0]
        )
        for choice in base.kernel_choices
    }
    return TuningResult(Tuning(base.cpu, __version__, threads, kernels), tuple(choices.values()), ratio)


def _uses(choices: Sequence[KernelChoice]) -> dict[str, list[str]]:
    """The steps in which kernels for a shape run, each once."""
    uses: dict[str, list[str]] = {}
    for choice in choices:
        steps = uses.setdefault(choice.shape, [])
        if choice.step not in steps:
            steps.append(choice.step)
    return uses


def _waves(choices: Sequence[KernelChoice]) -> list[dict[str, str]]:
    """Sessions to measure: kernels by shape, such that no step runs two that are not the default.

    Shapes that meet in a step, directly or through others, are measured one after the other; all else at the same time.
    """
    group: dict[str, str] = {}

    def root(shape: str) -> str:
        while group.setdefault(shape, shape) != shape:
            shape = group[shape]
        return shape

    first_of_step: dict[str, str] = {}
    for choice in choices:
        group[root(choice.shape)] = root(first_of_step.setdefault(choice.step, choice.shape))
    trials: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    for choice in choices:
        if choice.shape in seen:
            continue
        seen.add(choice.shape)
        others = [(choice.shape, name) for name in choice.candidates if name != choice.kernel]
        trials.setdefault(root(choice.shape), []).extend(others)
    return [dict(pair for pair in wave if pair is not None) for wave in zip_longest(*trials.values())]


def _times(
    base: Session, trial: Session, x: list[npt.NDArray[np.float32]], runs: int
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Median times of the steps of both sessions, from bursts of runs in turns."""
    burst = 6
    for session in (base, trial):
        session.run(x)
        session.forget_times()
    for _ in range(-(-runs // burst)):
        for session in (base, trial):
            for _ in range(burst):
                session.run(x)
    before, after = ({layer.name: layer.median_ms for layer in session.layers} for session in (base, trial))
    return before, after
