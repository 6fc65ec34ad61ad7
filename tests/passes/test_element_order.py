"""Element orders against numpy's own reshapes and transposes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgeq.passes.element_order import ElementOrder

SHAPES = [
    (2, 6),
    (2, 4, 1),
    (2, 2, 3, 4),
    (2, 1, 6, 2),
    (2, 4, 1, 1),
    (2, 2, 2, 3, 2),
    (2, 1, 1, 1),
    (2, 2, 3, 2, 1, 2),
]


def permutations(rank: int) -> list[tuple[int, ...]]:
    return [(0, *rest) for rest in itertools.permutations(range(1, rank))]


def in_memory(x: np.ndarray, order: ElementOrder) -> np.ndarray:
    """What `order` says of where the elements of each sample of `x` stand."""
    return x.reshape(x.shape[0], -1)[:, order.positions()]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_of_is_a_transpose(shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    for permutation in permutations(len(shape)):
        order = ElementOrder.of(shape, permutation)
        np.testing.assert_array_equal(in_memory(x, order), x.transpose(permutation).reshape(shape[0], -1))
        axes = order.axes(shape)
        assert axes == tuple(axis for axis in permutation if axis and shape[axis] > 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orders_of_one_shape_are_equal_when_memory_is(shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    found: dict[bytes, ElementOrder] = {}
    for permutation in permutations(len(shape)):
        order = ElementOrder.of(shape, permutation)
        key = np.ascontiguousarray(x.transpose(permutation)).tobytes()
        assert found.setdefault(key, order) == order


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transposed_moves_nothing(shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    for held, moved in itertools.product(permutations(len(shape)), repeat=2):
        order = ElementOrder.of(shape, held)
        after = order.transposed(shape, moved)
        assert after is not None
        np.testing.assert_array_equal(in_memory(x.transpose(moved), after), in_memory(x, order))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_permutation_to(shape: tuple[int, ...]) -> None:
    x = np.arange(math.prod(shape)).reshape(shape)
    for p, q in itertools.product(permutations(len(shape)), repeat=2):
        source, target = ElementOrder.of(shape, p), ElementOrder.of(shape, q)
        move = source.permutation_to(target)
        assert move is not None
        memory, permutation = move
        held = in_memory(x, source).reshape(shape[0], *memory)
        moved = held.transpose(0, *(axis + 1 for axis in permutation))
        np.testing.assert_array_equal(moved.reshape(shape[0], -1), in_memory(x, target))
        assert (source == target) == (permutation == tuple(range(len(permutation))))


def test_flattened_then_split_differently() -> None:
    order = ElementOrder.of((2, 4, 3, 5), (0, 2, 3, 1))
    assert order.axes((2, 60)) is None
    assert order.axes((2, 4, 15)) == (2, 1)
    assert order.axes((2, 2, 2, 15)) == (3, 1, 2)
    assert order.axes((2, 20, 3)) is None
    assert order.transposed((2, 6, 10), (0, 2, 1)) is None
    assert order.permutation_to(ElementOrder.of((2, 6, 10), (0, 2, 1))) is None


def test_plain() -> None:
    assert ElementOrder.of((2, 3, 4)).is_plain
    assert ElementOrder.of((2, 1, 1)).is_plain
    assert ElementOrder.of((2, 1, 4, 4), (0, 2, 3, 1)).is_plain
    assert not ElementOrder.of((2, 2, 4), (0, 2, 1)).is_plain
