"""The protocol of a data set, and the data set over arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeq.data.preprocessing import Preprocessing
from edgeq.errors import DataError, UsageError
from edgeq.outputs import first_not_finite

Labels = NDArray[np.int64]


class Batch(NamedTuple):
    """Consecutive samples: float32 inputs of shape (b, c, h, w), and int64 labels of shape (b,) or None."""

    inputs: NDArray[np.float32]
    labels: Labels | None


@runtime_checkable
class Dataset(Protocol):
    """Labelled or unlabelled samples that can be read any number of times, in any order.

    Attributes:
        source: What the user called it, for messages and reports.
        labels: int64 class indices, shape (n,), or None.
        class_names: The name of each class index, or None.
    """

    source: str
    labels: Labels | None
    class_names: tuple[str, ...] | None

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, preprocessing: Preprocessing | None, indices: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Streams samples in the order of `indices`, or all; memory does not grow with n."""
        ...

    def images(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """The samples as pictures to look at: uint8, shape (h, w, 1 or 3)."""
        ...

    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        ...


def checked_indices(indices: Sequence[int] | NDArray[Any] | None, count: int) -> NDArray[np.int64]:
    """The positions to read as int64, shape (m,).

    Raises:
        UsageError: If a position lies outside [0, count).
    """
    if indices is None:
        return np.arange(count, dtype=np.int64)
    positions = np.asarray(indices, dtype=np.int64).reshape(-1)
    if positions.size and (positions.min() < 0 or positions.max() >= count):
        raise UsageError(
            f"Sample positions must lie in [0, {count}), not {positions.min()}..{positions.max()}."
        )
    return positions


def checked_batch_size(batch_size: int) -> int:
    """The batch size.

    Raises:
        UsageError: If it is not a positive integer.
    """
    if batch_size < 1:
        raise UsageError(f"The batch size must be at least 1, not {batch_size}.")
    return int(batch_size)


def checked_labels(y: Any, count: int, source: str) -> Labels:
    """Labels as int64, shape (count,).

    Raises:
        DataError: If they are not one non-negative integer class index a sample.
    """
    array = np.asarray(y)
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{source}: y must hold integer class indices, not {array.dtype}. Save y.astype('int64')."
        )
    if array.shape != (count,):
        hint = " For one-hot labels save y.argmax(1)." if array.ndim == 2 else ""
        raise DataError(
            f"{source}: y must have shape ({count},), one index a sample, not {array.shape}.{hint}"
        )
    if array.size and (int(array.min()) < 0 or int(array.max()) > 10_000_000):
        worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise DataError(f"{source}: y holds {worst}, which is not a class index (0, 1, 2, ...).")
    return array.astype(np.int64)


def checked_class_names(names: Sequence[str] | None, labels: Labels | None) -> tuple[str, ...] | None:
    """Class names if they cover every label, else None."""
    if not names or (labels is not None and labels.size and int(labels.max()) >= len(names)):
        return None
    return tuple(str(name) for name in names)


def finite_batches(
    dataset: Dataset,
    batch_size: int,
    preprocessing: Preprocessing | None,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
) -> Iterator[Batch]:
    """Streams samples as `Dataset.batches` does, of any data set, and looks whether they are finite.

    Raises:
        DataError: As `Dataset.batches`, or if a sample is not finite.
    """
    positions = checked_indices(indices, len(dataset))
    seen = 0
    for batch in dataset.batches(batch_size, preprocessing, positions.tolist()):
        # A data set of one's own may give a network several inputs.
        broken = first_not_finite(batch.inputs) if isinstance(batch.inputs, np.ndarray) else None
        if broken is not None:
            at = int(positions[seen + broken]) if seen + broken < len(positions) else seen + broken
            raise DataError(
                f"{dataset.source}: sample {at} holds NaN or infinite values once it is preprocessed. Remove it, or "
                "repair the data set or the preprocessing."
            )
        seen += len(batch.inputs)
        yield batch


class ArrayDataset:
    """Samples held in arrays (in memory, or mapped from a file).

    The meaning of `x` follows from its type and shape:

    - floating point, shape (n, ...): network inputs, already preprocessed, axes as the network has them
      (NCHW); no preprocessing is applied to them.
    - uint8, shape (n, h, w): grey images.
    - uint8, shape (n, h, w, 1 or 3): images, channels last. This reading wins where both fit.
    - uint8, shape (n, 1 or 3, h, w): images, channels first.

    Args:
        x: The samples.
        y: Class indices, shape (n,), or None.
        class_names: The name of each class, or None; ignored if fewer than the labels need.
        source: What messages call the data.
        differenced: Whether x is uint8 (n, 3, h, w) stored as 2-D-differenced planes G, R - G, B - G.

    Raises:
        DataError: If the arrays are empty, of another type or shape, or do not belong together.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: Any = None,
        class_names: Sequence[str] | None = None,
        source: str = "arrays",
        differenced: bool = False,
    ) -> None:
        self.source = source
        self._x = x
        self._differenced = differenced
        if x.dtype.kind == "f" and x.dtype.itemsize <= 8:
            if x.ndim < 2:
                raise DataError(f"{source}: x must have shape (n, channels, height, width), not {x.shape}.")
            self._order = "float"
        elif x.dtype == np.uint8:
            self._order = self._image_order(x.shape)
        else:
            raise DataError(
                f"{source}: x must be float32 (network inputs, NCHW) or uint8 (images), not {x.dtype}. "
                "Convert it with x.astype('float32') or x.astype('uint8')."
            )
        if 0 in x.shape:
            raise DataError(
                f"{source}: x has shape {x.shape} and so holds no samples. Check how it was made."
            )
        self.labels = None if y is None else checked_labels(y, len(x), source)
        self.class_names = checked_class_names(class_names, self.labels)

    def _image_order(self, shape: tuple[int, ...]) -> str:
        if self._differenced:
            if len(shape) != 4 or shape[1] != 3:
                raise DataError(f"{self.source}: x_enc must have shape (n, 3, height, width), not {shape}.")
            return "nchw"
        if len(shape) == 3:
            return "nhw"
        if len(shape) == 4 and shape[3] in (1, 3):
            return "nhwc"
        if len(shape) == 4 and shape[1] in (1, 3):
            return "nchw"
        raise DataError(
            f"{self.source}: uint8 x must have shape (n, h, w), (n, h, w, 1 or 3) or (n, 1 or 3, h, w), not "
            f"{shape}."
        )

    def __len__(self) -> int:
        return len(self._x)

    @property
    def preprocessed(self) -> bool:
        """Whether x holds network inputs, so that no preprocessing is applied."""
        return self._order == "float"

    def _pixels(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images as uint8 (m, h, w, c), RGB."""
        part = np.asarray(self._x[_as_slice(positions)])
        if self._differenced:
            part = np.cumsum(np.cumsum(part, axis=-1, dtype=np.uint8), axis=-2, dtype=np.uint8)
            part = np.stack([part[:, 1] + part[:, 0], part[:, 0], part[:, 2] + part[:, 0]], axis=1)
        if self._order == "nhw":
            return part[..., None]
        return part.transpose(0, 2, 3, 1) if self._order == "nchw" else part

    def _floats(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            part = np.ascontiguousarray(self._x[_as_slice(positions)], dtype=np.float32)
        broken = first_not_finite(part)
        if broken is not None:
            raise DataError(
                f"{self.source}: sample {int(positions[broken])} holds NaN or infinite values. Remove it or repair "
                "how x was made."
            )
        return part

    def batches(
        self, batch_size: int, preprocessing: Preprocessing | None, indices: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Streams samples; see `Dataset.batches`.

        Raises:
            DataError: If a float sample is not finite, or an image does not fit the preprocessing.
        """
        size = checked_batch_size(batch_size)
        positions = checked_indices(indices, len(self))
        applied = preprocessing or Preprocessing.identity(self._natural_channels())
        for start in range(0, len(positions), size):
            part = positions[start : start + size]
            inputs = self._floats(part) if self._order == "float" else self._apply(applied, part)
            yield Batch(inputs, None if self.labels is None else self.labels[part])

    def _apply(self, preprocessing: Preprocessing, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        try:
            return preprocessing.apply(self._pixels(positions))
        except DataError as error:
            raise DataError(f"{self.source}: {error}") from error

    def _natural_channels(self) -> str:
        if self._order == "nhw" or 1 in (self._x.shape[3 if self._order == "nhwc" else 1],):
            return "gray"
        return "rgb"

    def images(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """The samples as pictures; float ones show 1 or 3 channels, each stretched to 0..255."""
        positions = checked_indices(indices, len(self))
        if self._order != "float":
            return list(self._pixels(positions))
        return [_stretched(sample) for sample in self._floats(positions)]

    def digest(self) -> str:
        """SHA-256 of types, shapes and bytes of x and y."""
        state = hashlib.sha256()
        for array in (self._x, self.labels):
            if array is None:
                continue
            state.update(f"{array.dtype.str}{array.shape}".encode())
            for start in range(0, len(array), 1024):
                state.update(np.ascontiguousarray(array[start : start + 1024]).tobytes())
        return state.hexdigest()


def _as_slice(positions: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """A slice where positions are consecutive, so that mapped files are read in one piece."""
    if (
        positions.size
        and int(positions[-1] - positions[0]) == positions.size - 1
        and bool((np.diff(positions) == 1).all())
    ):
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def _stretched(sample: NDArray[np.float32]) -> NDArray[np.uint8]:
    planes = sample if sample.ndim == 3 else sample.reshape(1, 1, -1)
    planes = planes[:3] if planes.shape[0] >= 3 else planes[:1]
    low, high = float(planes.min()), float(planes.max())
    scaled = (planes.astype(np.float64) - low) * (255.0 / (high - low) if high > low else 0.0)
    pixels: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return np.moveaxis(pixels, 0, 2)
