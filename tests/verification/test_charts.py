from __future__ import annotations

import io

import numpy as np
import pytest

from edgeq.verification.charts import (
    SMALL,
    Series,
    chart,
    nice_step,
    pareto_front,
    percent_ticks,
    round_range,
    round_ticks,
)
from edgeq.verification.pictures import data_uri, png, shrink


def test_pareto_front() -> None:
    assert pareto_front([(4, 0.9), (1, 0.8), (2, 0.7), (2, 0.9)]) == (1, 3)
    assert pareto_front([(1, 0.5), (1, 0.5)]) == (0, 1)
    assert pareto_front([(3, 0.1)]) == (0,)


@pytest.mark.parametrize("values", [[0.0], [0.3, 0.31], [0.2, 0.999], [-5.0, 12000.0], [1.0]])
def test_ranges_hold_their_values_and_ticks_lie_in_them(values: list[float]) -> None:
    low, high = round_range(values, 0.05)
    assert low <= min(values)
    assert max(values) <= high
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert low - 1e-9 <= min(ticks)
    assert max(ticks) <= high + 1e-9
    assert len({text for _, text in percent_ticks(low, high)}) == len(ticks)


def test_steps_are_one_two_or_five() -> None:
    assert [nice_step(span, 4) for span in (1.0, 4.0, 7.0, 100.0, 0.05)] == pytest.approx([0.5, 1.0, 2.0, 50.0, 0.02])


def test_points_lie_where_the_axes_say() -> None:
    drawn = chart(SMALL, "t", "d", [Series("fp32", "a", ((0, 0), (1, 1)))], ((0, 1), (0, 1)), ([(0, "0")], [(1, "1")]))
    first, last = drawn.lines[0].dots
    assert (first.x, first.y) == (SMALL.left, SMALL.bottom)
    assert (last.x, last.y) == (SMALL.right, SMALL.top)
    assert drawn.ticks_x[0].at == SMALL.left
    assert drawn.ticks_y[0].at == SMALL.top


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 300, 3), (224, 224, 3), (1, 1, 3)])
def test_png_decodes_to_the_picture(shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = rng.integers(0, 256, shape, dtype=np.uint8)
    read = np.asarray(image.open(io.BytesIO(png(picture)))).reshape(shape)
    np.testing.assert_array_equal(read, picture)


def test_thumbnails_are_bounded_means() -> None:
    large = np.zeros((400, 800, 3), np.uint8)
    large[:, 400:] = 200
    small = shrink(large, 160)
    assert small.shape == (80, 160, 3)
    assert (small[:, :80] == 0).all()
    assert (small[:, 80:] == 200).all()
    assert shrink(np.full((7, 1000, 1), 9, np.uint8), 100).shape == (1, 100, 1)
    assert data_uri(large).startswith("data:image/png;base64,")


def test_pictures_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="a picture is"):
        png(np.zeros((4, 4, 2), np.uint8))
