from __future__ import annotations

import pytest

from edgeq.errors import UsageError
from edgeq.shift import SUITES, Cell, parse
from edgeq.shift.apply import CORRUPTIONS


def test_a_suite_alone_is_all_of_its_main_types() -> None:
    assert len(parse("imagenet-c")) == len(parse("cifar10-c")) == 15 * 5
    assert len(parse("mnist-c")) == 15
    assert {cell.severity for cell in parse("mnist-c")} == {1}
    assert "spatter" not in {cell.kind for cell in parse("imagenet-c")}


def test_types_groups_and_severities() -> None:
    assert parse("imagenet-c:fog:3") == (Cell("imagenet-c", "fog", 3),)
    assert [cell.kind for cell in parse("imagenet-c:noise,fog:1")] == [
        "gaussian_noise", "shot_noise", "impulse_noise", "fog",
    ]
    assert [cell.severity for cell in parse("cifar10-c:fog:1,3-5")] == [1, 3, 4, 5]
    assert len(parse("imagenet-c::1,3,5")) == 45
    assert len(parse("imagenet-c:extra")) == 20
    assert str(parse("imagenet-c:fog:3")[0]) == "imagenet-c:fog:3"


@pytest.mark.parametrize(
    "text, message",
    [
        ("imagenet", "no shift suite 'imagenet'.*imagenet-c"),
        ("", "no shift suite"),
        ("imagenet-c:rain", "no corruption 'rain'.*gaussian_noise.*groups"),
        ("mnist-c:weather:2", "severities 1 to 1"),
        ("mnist-c:extra:1,2", "severities 1 to 1"),
        ("imagenet-c:fog:6", "1 to 5"),
        ("imagenet-c:fog:0", "1 to 5"),
        ("imagenet-c:fog:3-1", "ascend"),
        ("imagenet-c:fog:x", "numbers and ranges"),
        ("imagenet-c:fog:1-", "numbers and ranges"),
    ],
)
def test_what_is_not_there_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_every_type_has_a_function_and_the_published_number_of_severities() -> None:
    for suite in SUITES.values():
        assert set(suite.parameters) <= set(CORRUPTIONS)
        assert set(suite.main) <= set(suite.parameters)
        assert {len(levels) for levels in suite.parameters.values()} == {1 if suite.name == "mnist-c" else 5}
    assert set().union(*(suite.parameters for suite in SUITES.values())) == set(CORRUPTIONS)
