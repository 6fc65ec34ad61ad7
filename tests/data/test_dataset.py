from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeq.data import ArrayDataset, Dataset, Preprocessing, as_dataset, finite_batches
from edgeq.errors import DataError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3


def all_inputs(data: Dataset, size: int = 4, preprocessing: Preprocessing | None = None) -> np.ndarray:
    return np.concatenate([batch.inputs for batch in data.batches(size, preprocessing)])


@pytest.mark.parametrize("x", [PIXELS, PIXELS.transpose(0, 3, 1, 2)], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_images_of_either_order(x: np.ndarray, size: int) -> None:
    data = ArrayDataset(x, LABELS)
    assert isinstance(data, Dataset)
    np.testing.assert_array_equal(all_inputs(data, size), PIXELS.transpose(0, 3, 1, 2))
    assert next(data.batches(size, None)).labels.tolist() == LABELS[:size].tolist()


def test_channels_last_wins_where_both_fit() -> None:
    x = np.zeros((2, 3, 4, 3), np.uint8)
    assert all_inputs(ArrayDataset(x)).shape == (2, 3, 3, 4)


def test_grey_images() -> None:
    data = ArrayDataset(PIXELS[..., 0])
    assert all_inputs(data).shape == (10, 1, 6, 5)
    assert all_inputs(data, preprocessing=Preprocessing()).shape == (10, 3, 6, 5)
    assert data.images([3])[0].shape == (6, 5, 1)


def test_differenced_planes() -> None:
    rgb = PIXELS.transpose(0, 3, 1, 2)
    planes = np.stack([rgb[:, 1], rgb[:, 0] - rgb[:, 1], rgb[:, 2] - rgb[:, 1]], axis=1)
    rows = np.diff(planes, axis=-2, prepend=np.uint8(0)).astype(np.uint8)
    encoded = np.diff(rows, axis=-1, prepend=np.uint8(0)).astype(np.uint8)
    np.testing.assert_array_equal(all_inputs(ArrayDataset(encoded, differenced=True)), rgb)


def test_floats_are_inputs_already() -> None:
    x = np.random.default_rng(1).normal(size=(5, 2, 3, 4)).astype(np.float64)
    data = ArrayDataset(x)
    assert data.preprocessed
    np.testing.assert_array_equal(all_inputs(data, preprocessing=Preprocessing(mean=9)), x.astype(np.float32))
    assert data.images([0])[0].dtype == np.uint8


def test_indices_choose_and_order() -> None:
    data = ArrayDataset(PIXELS, LABELS)
    (batch,) = data.batches(5, None, [7, 2, 2])
    np.testing.assert_array_equal(batch.inputs, PIXELS[[7, 2, 2]].transpose(0, 3, 1, 2))
    assert batch.labels.tolist() == LABELS[[7, 2, 2]].tolist()
    assert list(data.batches(5, None, [])) == []


@pytest.mark.parametrize("indices", [[10], [-1]])
def test_indices_outside(indices: list[int]) -> None:
    with pytest.raises(UsageError, match="Sample positions"):
        next(ArrayDataset(PIXELS).batches(2, None, indices))


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(UsageError, match="batch size"):
        next(ArrayDataset(PIXELS).batches(0, None))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(bad: float) -> None:
    x = np.zeros((6, 1, 2, 2), np.float32)
    x[4, 0, 1, 1] = bad
    data = ArrayDataset(x)
    next(data.batches(2, None))
    with pytest.raises(DataError, match="sample 4 holds NaN or infinite"):
        list(data.batches(3, None))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_any_data_set_is_looked_at(bad: float) -> None:
    """A data set of one's own, which nothing has looked at before."""

    class Own(ArrayDataset):
        def _floats(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
            return np.asarray(self._x[positions], np.float32)

    x = np.zeros((9, 1, 2, 2), np.float32)
    x[4, 0, 1, 1] = bad
    data = Own(x, source="own")
    list(data.batches(3, None))
    with pytest.raises(DataError, match=r"own: sample 4 holds NaN or infinite values.*Remove it"):
        list(finite_batches(data, 3, None))
    with pytest.raises(DataError, match="own: sample 4 "):
        list(finite_batches(data, 2, None, [8, 7, 6, 4, 1]))
    found = list(finite_batches(data, 2, None, np.array([8, 7, 6])))
    assert [len(batch.inputs) for batch in found] == [2, 1]


def test_float64_beyond_float32() -> None:
    with pytest.raises(DataError, match="infinite"):
        list(ArrayDataset(np.full((1, 1, 1, 1), 1e300)).batches(1, None))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, 3, 4, 4), np.float32), None, "no samples"),
        (np.zeros((3, 0, 4, 3), np.uint8), None, "no samples"),
        (np.zeros(4, np.float32), None, "must have shape"),
        (np.zeros((3, 4, 4, 2), np.uint8), None, "uint8 x must have shape"),
        (np.zeros((3, 4, 4, 3), np.int64), None, "must be float32"),
        (np.zeros((3, 4, 4, 3), complex), None, "must be float32"),
        (np.array(["a", "b"]), None, "must be float32"),
        (PIXELS, LABELS[:9], "one index a sample"),
        (PIXELS, np.eye(10, dtype=int), "one-hot"),
        (PIXELS, LABELS.astype(float), "integer class indices"),
        (PIXELS, LABELS - 1, "not a class index"),
        (PIXELS, np.full(10, 2**63, np.uint64), "not a class index"),
    ],
)
def test_malformed_arrays(x: np.ndarray, y: np.ndarray | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ArrayDataset(x, y)


def test_class_names_must_cover_the_labels() -> None:
    assert ArrayDataset(PIXELS, LABELS, ["a", "b", "c"]).class_names == ("a", "b", "c")
    assert ArrayDataset(PIXELS, LABELS, ["a", "b"]).class_names is None


def test_digest_depends_on_every_part() -> None:
    digests = {
        ArrayDataset(PIXELS, LABELS).digest(),
        ArrayDataset(PIXELS).digest(),
        ArrayDataset(PIXELS[::-1], LABELS).digest(),
        ArrayDataset(PIXELS, LABELS + 1).digest(),
        ArrayDataset(PIXELS.reshape(10, 5, 6, 3), LABELS).digest(),
    }
    assert len(digests) == 5
    assert ArrayDataset(PIXELS.copy(), LABELS).digest() == ArrayDataset(PIXELS, LABELS).digest()


def test_as_dataset_takes_what_people_have() -> None:
    for value in (PIXELS, (PIXELS, LABELS), {"x": PIXELS, "y": LABELS}, ArrayDataset(PIXELS)):
        assert len(as_dataset(value)) == 10
    with pytest.raises(DataError, match="is no data set"):
        as_dataset(3)
