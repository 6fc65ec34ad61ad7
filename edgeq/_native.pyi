"""The native engine (csrc/bindings); `edgeq.session` is its Python side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

End = tuple[str, tuple[int, ...], str, int, float, int]
"""Name, shape (-1: the batch), dtype, bits, scale, zero point."""

class Session:
    def __init__(
        self,
        source: str | bytes,
        *,
        threads: int,
        max_isa: str,
        max_memory_bytes: int,
        profile: bool,
        keep_all: bool,
        split_cost: int = ...,
        tuning: dict[str, str] = ...,
    ) -> None: ...
    def run(self, inputs: Sequence[npt.NDArray[Any]], codes: bool) -> list[npt.NDArray[Any]]: ...
    def run_images(self, images: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]: ...
    def predict_rows(
        self, scores: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]: ...
    def layers(self) -> list[dict[str, Any]]: ...
    def read_activations(self) -> list[tuple[str, npt.NDArray[Any]]]: ...
    def set_profile(self, profile: bool) -> None: ...
    def arena_bytes(self, batch: int) -> int: ...
    @property
    def inputs(self) -> list[End]: ...
    @property
    def outputs(self) -> list[End]: ...
    @property
    def guard(self) -> tuple[float, float] | None: ...
    @property
    def image_refusal(self) -> str: ...
    @property
    def image_shape(self) -> tuple[int, int, int] | None: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def macs(self) -> int: ...
    @property
    def work(self) -> int: ...
    @property
    def file_bytes(self) -> int: ...

def cpu_info() -> dict[str, Any]:
    """CPU model, available instruction sets, those that the CPU has and the operating system refused (AMX; under a
    lower cap it is not asked), the highest in use and the cap (EDGEQ_MAX_ISA, "" without one)."""

def kernel_variants(max_isa: str = ...) -> dict[str, list[str]]:
    """Names of the kernels that can run, best first, by family."""

def measure_peaks(max_isa: str = ...) -> list[tuple[str, str, float]]:
    """Name, instruction set and 8-bit multiply-accumulates a second of one core's fastest loops, best first."""

def measure_clock() -> float:
    """Cycles a second of the core that the calling thread runs on."""

def xxh64(data: bytes | memoryview) -> int:
    """XXH64 with seed 0."""

def minmax(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Smallest and largest value; both NaN when a value is NaN."""

def histogram(values: npt.NDArray[np.float32], low: float, high: float, bins: int) -> npt.NDArray[np.int64]:
    """Counts in equal-width bins; `edgeq.quantize.counting.numpy_histogram` says exactly how."""
