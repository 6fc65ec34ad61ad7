"""The choice of bits under budgets, against trying every choice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgeq.errors import QuantizationError, UsageError
from edgeq.quantize import mixed
from edgeq.quantize.mixed import Choice, by_gain, least, parse_budget, solve, total_cost

pytest.importorskip("scipy", reason="needs the extra edgeq[export]")


def random_choices(rng: np.random.Generator, count: int, fixed: int = 0) -> list[Choice]:
    """Layers whose time may grow at 4 bits, as it does on some CPUs."""
    choices = []
    for index in range(count):
        wide = int(rng.integers(1, 10_000))
        ms = float(rng.uniform(0.01, 1.0))
        costs = {"size": (wide / 2, float(wide)), "latency": (ms * float(rng.uniform(0.5, 1.2)), ms)}
        choices.append(Choice(f"layer{index}", float(rng.exponential()) ** 3, costs, index < fixed))
    return choices


def every_choice(choices: list[Choice]) -> list[tuple[bool, ...]]:
    """Which layers have 8 bits, for all choices that keep the fixed ones."""
    return [
        eight
        for eight in itertools.product((False, True), repeat=len(choices))
        if all(wide or not choice.fixed for wide, choice in zip(eight, choices, strict=True))
    ]


def harm(choices: list[Choice], eight: tuple[bool, ...]) -> float:
    return math.fsum(choice.sensitivity for choice, wide in zip(choices, eight, strict=True) if not wide)


@pytest.mark.parametrize("names", [("size",), ("latency",), ("size", "latency")], ids="+".join)
@pytest.mark.parametrize("seed", range(12))
def test_the_solver_equals_trying_every_choice(names: tuple[str, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    choices = random_choices(rng, 9, fixed=seed % 3)
    limits = {}
    for name in names:
        costs = [total_cost(choices, name, eight) for eight in every_choice(choices)]
        limits[name] = min(costs) + float(rng.uniform(0.0, 1.0)) * (max(costs) - min(costs))
    possible = [
        eight
        for eight in every_choice(choices)
        if all(total_cost(choices, name, eight) <= limit * (1 + 1e-9) for name, limit in limits.items())
    ]
    if not possible:
        with pytest.raises(QuantizationError, match="within the budgets"):
            solve(choices, limits)
        return
    best = min(harm(choices, eight) for eight in possible)
    found = solve(choices, limits)
    eight = tuple(found.bits[choice.layer] == 8 for choice in choices)
    assert eight in possible
    assert found.objective == pytest.approx(best, rel=1e-6, abs=1e-12)
    assert found.objective == pytest.approx(harm(choices, eight))
    assert found.bound <= best * (1 + 1e-6)
    assert found.gap <= 1e-5
    for name in names:
        others = {other: limit for other, limit in limits.items() if other != name}
        smallest = min(
            total_cost(choices, name, eight)
            for eight in every_choice(choices)
            if all(total_cost(choices, other, eight) <= limit * (1 + 1e-9) for other, limit in others.items())
        )
        assert least(choices, name, limits) == pytest.approx(smallest)


def test_a_choice_that_is_cut_short_says_how_far_from_optimal_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import optimize

    choices = [Choice("large", 1.0, {"size": (10.0, 20.0)})]
    choices += [Choice(name, 0.9, {"size": (5.0, 10.0)}) for name in ("one", "two")]
    best = solve(choices, {"size": 30.0})
    assert best.bits == {"large": 4, "one": 8, "two": 8}
    assert (best.objective, best.gap) == (1.0, 0.0)
    real = optimize.milp

    def poor(*arguments, **options):
        """All at 4 bits, with the bound of the best choice."""
        result = real(*arguments, **options)
        result.x = np.zeros_like(result.x)
        return result

    monkeypatch.setattr(optimize, "milp", poor)
    found = solve(choices, {"size": 30.0})
    assert found.bits == {"large": 8, "one": 4, "two": 4}
    assert found.objective == pytest.approx(1.8)
    assert found.bound == pytest.approx(1.0)
    assert found.gap == pytest.approx(0.8 / 1.8)


def test_loose_budgets_give_8_bits_even_where_4_cost_nothing() -> None:
    choices = [Choice("a", 0.0, {"size": (1.0, 2.0)}), Choice("b", 1.0, {"size": (1.0, 2.0)})]
    assert solve(choices, {"size": 4.0}).bits == {"a": 8, "b": 8}
    assert solve(choices, {"size": 3.0}).bits == {"a": 4, "b": 8}
    assert solve([Choice("a", 0.0, {"size": (1.0, 2.0)})], {"size": 2.0}).bits == {"a": 8}


def test_limits_that_are_met_exactly_are_met() -> None:
    """Sums of these floats are off by rounding."""
    choices = [Choice(str(index), 1.0, {"latency": (0.1, 0.3)}) for index in range(10)]
    assert list(solve(choices, {"latency": 3.0}).bits.values()).count(8) == 10
    assert list(solve(choices, {"latency": 1.0}).bits.values()).count(8) == 0


def test_the_worst_layers_for_their_bytes_come_first() -> None:
    choices = [
        Choice("large", 1.0, {"size": (500.0, 1000.0)}),
        Choice("small", 0.5, {"size": (5.0, 10.0)}),
        Choice("kept", 9.0, {"size": (5.0, 10.0)}, fixed=True),
        Choice("harmless", 0.0, {"size": (1.0, 2.0)}),
    ]
    assert by_gain(choices, "size") == ["small", "large", "harmless"]


def test_budgets_are_read() -> None:
    assert parse_budget({"size": 0.55}) == {"size": 0.55}
    assert parse_budget(["size=0.55", "latency = 1.05", "DISAGREEMENT=0"]) == {
        "size": 0.55,
        "latency": 1.05,
        "disagreement": 0.0,
    }
    assert parse_budget("size=1") == {"size": 1.0}
    assert parse_budget([]) == {}


@pytest.mark.parametrize(
    "given, message",
    [
        (["size"], "NAME=NUMBER"),
        (["bytes=0.5"], "no budget 'bytes'.*size: bytes of model.edgeq"),
        (["size=half"], "takes a number, not 'half'"),
        ({"size": None}, "takes a number"),
        (["size=0.5", "size=0.6"], "given twice"),
        (["size=0"], "above 0"),
        (["size=55"], "1 at most, not 55"),
        (["size=nan"], "above 0"),
        (["latency=inf"], "positive share"),
        (["latency=-1"], "positive share"),
        (["disagreement=2"], "0.02 means 2 %"),
        (["disagreement=-0.1"], "from 0"),
    ],
)
def test_impossible_budgets_are_refused(given, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_budget(given)


def test_every_budget_says_what_it_means() -> None:
    assert set(mixed.BUDGETS) == {mixed.SIZE, mixed.LATENCY, mixed.DISAGREEMENT}
