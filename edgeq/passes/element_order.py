"""In which order the elements of an activation stand in memory, apart from its shape.

A tensor of logical shape [N, C, H, W] that is held as [N, H, W, C] and one of shape [N, C * H * W] that was flattened
from it hold the same elements in the same places; only their logical shapes differ. Tracking the order rather than
shapes makes reshapes and transposes free until an operator needs one particular arrangement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ElementOrder:
    """The elements of one sample: logical row-major factors, and where they went in memory.

    Attributes:
        factors: Sizes, each above 1, whose product is the number of elements; row-major logical order.
        order: Memory axis i is `factors[order[i]]`. Kept canonical: no two neighbours could be one factor.
    """

    factors: Shape
    order: tuple[int, ...]

    @staticmethod
    def of(shape: Sequence[int], permutation: Sequence[int] | None = None) -> ElementOrder:
        """Returns the order of a logical shape (batch axis included) held with its axes permuted.

        Args:
            shape: Logical shape; axis 0 is the batch.
            permutation: Memory axis i is logical axis permutation[i]; permutation[0] is 0. None keeps the axes.
        """
        axes = range(1, len(shape)) if permutation is None else permutation[1:]
        kept = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
        place = {axis: index for index, axis in enumerate(kept)}
        return _canonical(tuple(shape[axis] for axis in kept), tuple(place[a] for a in axes if a in place))

    @property
    def is_plain(self) -> bool:
        """Whether memory order is logical row-major order."""
        return len(self.factors) <= 1

    @property
    def memory_shape(self) -> Shape:
        """The factors in memory order."""
        return tuple(self.factors[index] for index in self.order)

    def refined(self, strides: Sequence[int]) -> tuple[Shape, tuple[int, ...]] | None:
        """Returns factors and order (not canonical) with a boundary at each stride, or None where none fits.

        Args:
            strides: Logical positions, in elements, at which a factor must end: products of trailing sizes.
        """
        factors: list[int] = []
        parts: list[list[int]] = []
        stride = math.prod(self.factors)
        for factor in self.factors:
            outer, stride = stride, stride // factor
            cuts = [outer, *sorted({s for s in strides if stride < s < outer}, reverse=True), stride]
            if any(high % low for high, low in pairwise(cuts)):
                return None
            parts.append(list(range(len(factors), len(factors) + len(cuts) - 1)))
            factors += [high // low for high, low in pairwise(cuts)]
        return tuple(factors), tuple(part for index in self.order for part in parts[index])

    @property
    def strides(self) -> list[int]:
        """The logical positions at which a factor ends."""
        return _strides(self.factors)

    def axes(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """Returns the logical axes of `shape` above size 1, in memory order; None where an axis is torn apart."""
        refined = self.refined(_strides(shape[1:]))
        if refined is None:
            return None
        factors, order = refined
        owner = _owners(factors, shape)
        axes: list[int] = []
        previous = -1
        for index in order:
            if axes and axes[-1] == owner[index]:
                if index != previous + 1:
                    return None
            elif owner[index] in axes or (index > 0 and owner[index - 1] == owner[index]):
                return None
            else:
                axes.append(owner[index])
            previous = index
        return tuple(axes)

    def transposed(self, shape: Sequence[int], permutation: Sequence[int]) -> ElementOrder | None:
        """Returns the order of the logically transposed tensor whose elements stay where they are.

        Args:
            shape: Logical shape before; axis 0 is the batch.
            permutation: New logical axis i is old axis permutation[i]; permutation[0] is 0.

        Returns:
            None when the axes of `shape` do not fit the factors, as after reshaping [4, 15] to [6, 10].
        """
        refined = self.refined(_strides(shape[1:]))
        if refined is None:
            return None
        factors, order = refined
        owner = _owners(factors, shape)
        arranged = [index for axis in permutation for index in range(len(factors)) if owner[index] == axis]
        place = {index: new for new, index in enumerate(arranged)}
        return _canonical(tuple(factors[index] for index in arranged), tuple(place[index] for index in order))

    def permutation_to(self, other: ElementOrder) -> tuple[Shape, tuple[int, ...]] | None:
        """Returns (memory shape, permutation) that bring this order to `other` by one transpose; None if none does."""
        mine, theirs = self.refined(other.strides), other.refined(self.strides)
        if mine is None or theirs is None or mine[0] != theirs[0]:
            return None
        factors, order = mine
        place = {index: position for position, index in enumerate(order)}
        # Factors that stay neighbours in both orders become one axis.
        moved = [place[index] for index in theirs[1]]
        axes = _canonical(tuple(factors[index] for index in order), tuple(moved))
        return axes.factors, axes.order

    def positions(self) -> npt.NDArray[np.int64]:
        """Returns, for each memory position of one sample, the logical position of the element there."""
        logical = np.arange(math.prod(self.factors), dtype=np.int64).reshape(self.factors)
        positions: npt.NDArray[np.int64] = logical.transpose(self.order).reshape(-1)
        return positions


def _strides(sizes: Sequence[int]) -> list[int]:
    strides, stride = [], 1
    for size in reversed(sizes):
        strides.append(stride)
        stride *= size
    return strides


def _owners(factors: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Maps each refined factor to the logical axis it belongs to."""
    axis, room, owners = len(shape) - 1, shape[-1] if len(shape) > 1 else 1, []
    for factor in reversed(factors):
        while room == 1:
            axis -= 1
            room = shape[axis]
        owners.append(axis)
        room //= factor
    return owners[::-1]


def _canonical(factors: Shape, order: tuple[int, ...]) -> ElementOrder:
    """Merges factors that follow each other both logically and in memory."""
    runs: list[list[int]] = []
    for index in order:
        if runs and runs[-1][-1] + 1 == index:
            runs[-1].append(index)
        else:
            runs.append([index])
    ranked = sorted(runs)
    return ElementOrder(
        tuple(math.prod(factors[index] for index in run) for run in ranked),
        tuple(ranked.index(run) for run in runs),
    )
