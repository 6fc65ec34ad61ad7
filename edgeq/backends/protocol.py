"""What a backend is: something that runs a model on a batch and returns logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import BackendError

Logits = NDArray[np.float32]


@runtime_checkable
class Backend(Protocol):
    """Runs one model.

    Attributes:
        name: What reports call it, with the version of the runtime where there is one.
    """

    name: str

    def run(self, x: NDArray[np.float32]) -> Logits:
        """Logits of a batch; probabilities where the model ends in a softmax (`edgeq.verification.scores`).

        Args:
            x: Inputs, float32, as the source model takes them (NCHW), batch first.

        Returns:
            float32, shape (batch, classes).

        Raises:
            BackendError: If the runtime refuses the model or the input.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """A batch that a backend has made ready, so that only the runtime's own work is left.

    Attributes:
        run: Runs the batch once, with no more around the runtime than the fastest form of its Python interface needs,
            and returns the first output as the runtime gives it. The next call may overwrite it.
        logits: Turns what `run` returned into logits.
    """

    run: Callable[[], Any]
    logits: Callable[[Any], Logits]


@runtime_checkable
class TimedBackend(Backend, Protocol):
    """A backend that benches can time."""

    def bind(self, x: NDArray[np.float32]) -> Bound:
        """Prepares one batch, given as `run` takes it.

        Raises:
            BackendError: If the runtime refuses the model or the input.
        """
        ...


def one_line(error: object) -> str:
    """An error of a runtime as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def where_to_look(rank: int) -> str:
    """What sets the shape of a model's input of that rank, for the error that it is not the data's."""
    return "--resize, --crop and --channels, or the data" if rank == 4 else "the data"


def in_layout(x: NDArray[np.float32], shape: Sequence[int | None]) -> NDArray[np.float32]:
    """A batch with channels first as a model takes it: channels last where only that fits, as in files that come from
    TFLite; as it is where neither does, for the runtime to refuse.

    Args:
        x: Inputs, batch first.
        shape: What the model takes, batch first; None stands for any size.
    """

    def fits(sizes: Sequence[int]) -> bool:
        pairs = zip(sizes[1:], shape[1:], strict=True)
        return all(wanted is None or size == wanted for size, wanted in pairs)

    if x.ndim != 4 or len(shape) != 4 or fits(x.shape):
        return x
    last = np.moveaxis(x, 1, 3)
    return np.ascontiguousarray(last) if fits(last.shape) else x


def as_logits(output: Any, batch: int, who: str) -> Logits:
    """A backend's output as float32 logits of shape (batch, classes); axes of length 1 after the batch fall
    away.

    Raises:
        BackendError: If the output is not one row of scores a sample.
    """
    array = np.asarray(output, dtype=np.float32)
    shape = array.shape
    if array.ndim < 2 or shape[0] != batch or sum(length > 1 for length in shape[1:]) > 1:
        raise BackendError(
            f"{who}: the first output has shape {shape} for a batch of {batch}; verification needs logits of "
            "shape (batch, classes). Give a classifier."
        )
    return np.ascontiguousarray(array.reshape(batch, -1))
