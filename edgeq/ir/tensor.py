"""Tensors of a graph and how their integers map to real numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import GraphError

Array = npt.NDArray[Any]

BATCH = -1
"""The dimension that stands for the free batch axis; only axis 0 of an activation has it."""

DTYPES = ("float32", "int8", "int32", "int64", "bool")


@dataclass(frozen=True, slots=True, eq=False)
class QuantParams:
    """How a real tensor maps to integers: real = (q - zero_point) * scale.

    Attributes:
        scale: float32, positive; shape () per tensor or (channels,) per channel.
        zero_point: int32, same shape as scale; all zero for weights and biases.
        bits: 4, 8, or 32 for a bias.
        axis: Channel axis, or None for per-tensor.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int32]
    bits: int
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in (4, 8, 32):
            raise GraphError(f"quantization to {self.bits} bits does not exist; use 4 or 8 (32 for a bias)")
        scale = np.asarray(self.scale, dtype=np.float32)
        zero_point = np.asarray(self.zero_point, dtype=np.int32)
        if scale.shape != zero_point.shape or scale.ndim != (0 if self.axis is None else 1):
            raise GraphError(
                f"scale {scale.shape} and zero_point {zero_point.shape} must both have shape () per tensor "
                f"or (channels,) per channel (axis is {self.axis})"
            )
        if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
            raise GraphError("every scale must be a finite positive number")
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)

    @staticmethod
    def per_tensor(scale: float, zero_point: int, bits: int = 8) -> QuantParams:
        """Returns per-tensor parameters; scale is rounded to float32."""
        return QuantParams(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32), bits)

    @property
    def qmin(self) -> int:
        """The smallest code an activation may take: -8 or -128."""
        return -(1 << (self.bits - 1))

    @property
    def qmax(self) -> int:
        """The largest code an activation may take: 7 or 127."""
        return (1 << (self.bits - 1)) - 1

    def same_as(self, other: QuantParams | None) -> bool:
        """Whether both map integers to the same reals, bit for bit."""
        return (
            other is not None
            and self.bits == other.bits
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A named value: an activation, or a constant when `data` is there.

    Attributes:
        name: Unique in its graph.
        shape: Dimensions; axis 0 of an activation may be BATCH, all others are >= 1 (0-d is allowed).
        dtype: One of DTYPES. Quantized activations and weights are int8 (4-bit ones too, a code a byte).
        quant: Present exactly when the integers stand for reals.
        data: The value of a constant, with this dtype and shape; None for an activation.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    quant: QuantParams | None = None
    data: Array | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise GraphError(f"{self.name}: dtype {self.dtype} is not one of {', '.join(DTYPES)}")
        object.__setattr__(self, "shape", tuple(int(d) for d in self.shape))
        for axis, size in enumerate(self.shape):
            free = axis == 0 and self.data is None and size == BATCH
            if not free and size < (0 if self.data is not None else 1):
                raise GraphError(
                    f"{self.name}: dimension {axis} of shape {list(self.shape)} must be a positive number; "
                    "only the batch axis (axis 0) may be free"
                )
        if self.data is not None and (
            tuple(self.data.shape) != self.shape or self.data.dtype != np.dtype(self.dtype)
        ):
            raise GraphError(
                f"{self.name}: data is {self.data.dtype}{list(self.data.shape)}, "
                f"declared {self.dtype}{list(self.shape)}"
            )

    @staticmethod
    def constant(name: str, data: Array, quant: QuantParams | None = None) -> Tensor:
        """Returns a constant tensor holding `data` (made contiguous)."""
        data = np.ascontiguousarray(data).reshape(np.shape(data))
        return Tensor(name, tuple(data.shape), str(data.dtype), quant, data)

    @property
    def is_constant(self) -> bool:
        """Whether the value is known without running the graph."""
        return self.data is not None

    def with_(self, **changes: Any) -> Tensor:
        """Returns a copy with some fields replaced."""
        return replace(self, **changes)
