"""What the workers of `bench.studies.ptq_tools` share; needs numpy alone, since each runs in its tool's environment.

A worker is called as `python TOOL.py FOLDER OUT SETTING`. FOLDER holds the float network as model.onnx and
model.tflite, calibration.npy and evaluation.npy (float32, NCHW, preprocessed), and float.npy, the float network's
logits of the first calibration images. SETTING is a JSON object. The worker leaves logits.npy and facts.json in OUT.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

CORES_VARIABLE = "EDGEQ_STUDY_CORES"
"""Number of cores that a worker may use."""

BATCH = 20
"""Images computed together; it divides the number of calibration images."""

LEAST_DB = 60.0
"""Least signal-to-noise ratio, in dB, of a tool's own float form of the network against the given one."""


@dataclass(frozen=True)
class Job:
    """What a worker is asked for.

    Attributes:
        folder: Holds the network.
        out: Where results go.
        setting: Of the tool.
        calibration: Images to calibrate with, shape (n, channels, height, width).
        evaluation: Images to answer, mapped from a file.
        cores: How many the tool may use.
    """

    folder: Path
    out: Path
    setting: dict[str, Any]
    calibration: np.ndarray
    evaluation: np.ndarray
    cores: int

    @property
    def onnx(self) -> Path:
        """The float network."""
        return self.folder / "model.onnx"

    @property
    def tflite(self) -> Path:
        """The same network, channels last."""
        return self.folder / "model.tflite"

    def batches(self, count: int = BATCH) -> Iterator[np.ndarray]:
        """The calibration images."""
        for start in range(0, len(self.calibration), count):
            yield np.ascontiguousarray(self.calibration[start : start + count])

    def check_float(self, run: Callable[[np.ndarray], np.ndarray]) -> None:
        """Compares a tool's own float form of the network with the given one.

        Raises:
            ValueError: If they compute different things: the comparison would be of two networks.
        """
        expected = np.load(self.folder / "float.npy").astype(np.float64)
        found = np.asarray(run(np.ascontiguousarray(self.calibration[: len(expected)])), np.float64)
        noise = float(np.sum((found - expected) ** 2))
        decibels = float("inf") if noise == 0 else 10 * np.log10(float(np.sum(expected**2)) / noise)
        if decibels < LEAST_DB:
            raise ValueError(f"the tool's float form of the network is {decibels:.0f} dB from the network")


def read() -> Job:
    """Reads the command line and keeps to the cores that the study allows."""
    folder, out, setting = sys.argv[1:]
    cores = int(os.environ.get(CORES_VARIABLE, "1"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    return Job(
        Path(folder),
        Path(out),
        json.loads(setting),
        np.load(Path(folder) / "calibration.npy"),
        np.load(Path(folder) / "evaluation.npy", mmap_mode="r"),
        cores,
    )


def finish(
    job: Job,
    run: Callable[[np.ndarray], np.ndarray],
    seconds: float,
    packages: list[str],
    files: list[Path] | None = None,
    note: str = "",
    versions: dict[str, str] | None = None,
) -> None:
    """Answers the evaluation images and writes the results.

    Args:
        job: What was asked for.
        run: Computes the quantized network's logits of a batch.
        seconds: Processor time of the quantization, which others on the machine do not lengthen.
        packages: Whose versions are reported, the tool first.
        files: What the tool wrote to be shipped; None where it only simulates.
        note: What a reader of the table must know of this result.
        versions: Of what is no installed package.
    """
    parts = []
    for start in range(0, len(job.evaluation), BATCH):
        images = np.ascontiguousarray(job.evaluation[start : start + BATCH])
        # A runtime that was given a batch of fixed size gets the last images padded.
        short = BATCH - len(images)
        if short:
            images = np.concatenate([images, np.repeat(images[-1:], short, axis=0)])
        parts.append(np.asarray(run(images), np.float32)[: BATCH - short])
    facts = {
        "versions": {**(versions or {}), **{package: metadata.version(package) for package in packages}},
        "seconds": seconds,
        "bytes": None if files is None else sum(path.stat().st_size for path in files),
        "note": note,
    }
    np.save(job.out / "logits.npy", np.concatenate(parts))
    (job.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
