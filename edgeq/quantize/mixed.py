"""Mixed precision: which layers' weights get 4 bits and which 8, under budgets, and how far from the best that is.

What 4 bits cost in one layer adds up over layers (`edgeq.quantize.sensitivity`), and so do bytes and milliseconds, so
that the choice is an integer program with a variable a layer:

    minimise    sum over l of sensitivity(l) * (1 - z(l)),                 z(l) = 1 where layer l has 8 bits
    subject to  sum over l of cost4(l) + (cost8(l) - cost4(l)) * z(l) <= limit,  for each budget

HiGHS (Huangfu and Hall 2018) solves it by branch and bound, which ends with a bound that no choice can be below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import QuantizationError, UsageError

SIZE, LATENCY, DISAGREEMENT = "size", "latency", "disagreement"

BUDGETS = {
    SIZE: "bytes of model.edgeq as a share of those of the w8a8 export, for example size=0.55",
    LATENCY: "time of one run as a share of w8a8's on this machine, for example latency=0.9",
    DISAGREEMENT: "share of held-back calibration samples answered differently, for example disagreement=0.02",
}
"""What `--budget` takes, and what each means."""

TIME_LIMIT = 60.0
"""Seconds after which the best choice so far is taken; the bound then says how far from optimal it may be."""

OBJECTIVE_SCALE = 1e4
"""The largest sensitivity as the solver sees it: its absolute tolerance of 1e-6 is then 1e-10 of it."""

ROUNDING = 1e-6
"""Relative; a bound this near to the objective is the objective, but for the solver's tolerances."""

TOLERANCE = 1e-9
"""Relative; a limit is met when the costs exceed it by no more than what adding floats up loses."""


def parse_budget(given: Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """Reads budgets: a mapping, or texts such as "size=0.55".

    Raises:
        UsageError: If a name is unknown or given twice, a number is none, or lies outside its range.
    """
    pairs: list[tuple[str, Any]] = []
    if isinstance(given, Mapping):
        pairs = [(str(name), value) for name, value in given.items()]
    else:
        for text in [given] if isinstance(given, str) else given:
            head, equals, tail = text.partition("=")
            if not equals:
                raise UsageError(f"--budget takes NAME=NUMBER, not {text!r}. {_choices()}")
            pairs.append((head.strip().lower(), tail))
    budget: dict[str, float] = {}
    for name, value in pairs:
        if name not in BUDGETS:
            raise UsageError(f"there is no budget {name!r}. {_choices()}")
        if name in budget:
            raise UsageError(f"the budget {name} is given twice")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UsageError(f"the budget {name} takes a number, not {value!r}. {_choices()}") from None
        if name == DISAGREEMENT and not 0.0 <= number < 1.0:
            raise UsageError(f"the budget disagreement is a share from 0 to below 1, not {number:g}; 0.02 means 2 %")
        if name == SIZE and not 0.0 < number <= 1.0:
            raise UsageError(f"the budget size is a share of the w8a8 file above 0, 1 at most, not {number:g}")
        if name == LATENCY and not (number > 0.0 and math.isfinite(number)):
            raise UsageError(f"the budget latency is a positive share of w8a8's time, not {number:g}")
        budget[name] = number
    return budget


def _choices() -> str:
    return "Budgets: " + "; ".join(f"{name}: {meaning}" for name, meaning in BUDGETS.items()) + "."


@dataclass(frozen=True, slots=True)
class Choice:
    """A layer and what its two widths cost.

    Attributes:
        layer: Its name.
        sensitivity: What 4 bits add to the objective; at least 0.
        costs: By name of the cost (at 4 bits, at 8 bits).
        fixed: Whether it must have 8 bits.
    """

    layer: str
    sensitivity: float
    costs: Mapping[str, tuple[float, float]]
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Solution:
    """Bits of every layer.

    Attributes:
        bits: 4 or 8 by layer.
        objective: Summed sensitivity of the layers at 4 bits.
        bound: No choice within the limits has less.
    """

    bits: dict[str, int]
    objective: float
    bound: float

    @property
    def gap(self) -> float:
        """By how much the objective may exceed the best one, as a share of the objective; 0 is optimal."""
        return 0.0 if self.objective <= 0.0 else max(0.0, (self.objective - self.bound) / self.objective)


def solve(choices: Sequence[Choice], limits: Mapping[str, float]) -> Solution:
    """Chooses the bits with the least summed sensitivity whose summed costs stay within every limit.

    Args:
        choices: The layers.
        limits: The most that the layers may cost together, by name of the cost.

    Raises:
        QuantizationError: If no choice stays within the limits (see `least` for what is possible), or scipy is not
            installed.
    """
    weights = np.array([choice.sensitivity for choice in choices])
    found, bound = _minimise(choices, -weights, limits)
    if found is None:
        raise QuantizationError("no choice of bits stays within the budgets")
    # The solver is indifferent to layers that lose nothing, and nearly so to what is beneath its tolerances.
    for index in np.argsort(-weights):
        wider = found.copy()
        wider[index] = True
        if all(_meets(total_cost(choices, name, wider), limit) for name, limit in limits.items()):
            found = wider
    bits = {choice.layer: 8 if eight else 4 for choice, eight in zip(choices, found, strict=True)}
    objective = math.fsum(weights[~found])
    # The program maximises what is spared; the objective is what is not.
    least_left = math.fsum([*weights, bound])
    if objective - least_left <= ROUNDING * objective:
        return Solution(bits, objective, objective)
    return Solution(bits, objective, max(0.0, least_left))


def _meets(cost: float, limit: float) -> bool:
    return cost <= limit + TOLERANCE * abs(limit)


def least(choices: Sequence[Choice], name: str, limits: Mapping[str, float]) -> float | None:
    """Returns the least that the layers can cost together within the other limits; None where these cannot be met."""
    gains = np.array([choice.costs[name][1] - choice.costs[name][0] for choice in choices])
    found, _ = _minimise(choices, gains, {other: limit for other, limit in limits.items() if other != name})
    return None if found is None else total_cost(choices, name, found)


def total_cost(choices: Sequence[Choice], name: str, eight: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    """Returns the summed cost of a choice.

    Args:
        choices: The layers.
        name: Of the cost.
        eight: Which of them have 8 bits.
    """
    return math.fsum(choice.costs[name][1 if wide else 0] for choice, wide in zip(choices, eight, strict=True))


def by_gain(choices: Sequence[Choice], name: str) -> list[str]:
    """Returns the layers that may have 4 bits in the order in which they should get 8: most sensitivity per cost first.

    The first k of them are the best choice for what they cost, up to one layer (Dantzig 1957's bound of the knapsack).

    Args:
        choices: The layers.
        name: Of the cost.
    """

    def rate(choice: Choice) -> float:
        narrow, wide = choice.costs[name]
        return choice.sensitivity / max(wide - narrow, 1e-12)

    free = [choice for choice in choices if not choice.fixed]
    return [choice.layer for choice in sorted(free, key=rate, reverse=True)]


def _minimise(
    choices: Sequence[Choice], objective: npt.NDArray[np.float64], limits: Mapping[str, float]
) -> tuple[npt.NDArray[np.bool_] | None, float]:
    """Minimises objective . z within the limits; returns which layers have 8 bits (None: impossible) and the bound."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        raise QuantizationError("choosing bits takes scipy: pip install edgeq[export].") from error
    narrow = np.array([[choice.costs[name][0] for choice in choices] for name in limits])
    wide = np.array([[choice.costs[name][1] for choice in choices] for name in limits])
    constraints = []
    for row, limit in enumerate(limits.values()):
        slack = (limit - math.fsum(narrow[row])) + TOLERANCE * abs(limit)
        unit = max(abs(slack), float(np.abs(wide[row] - narrow[row]).max(initial=0.0)), 1e-30)
        constraints.append(LinearConstraint((wide[row] - narrow[row])[None, :] / unit, -np.inf, slack / unit))
    unit = (float(np.abs(objective).max(initial=0.0)) or 1.0) / OBJECTIVE_SCALE
    lower = np.array([float(choice.fixed) for choice in choices])
    result = milp(
        objective / unit,
        integrality=np.ones(len(choices)),
        bounds=Bounds(lower, np.ones(len(choices))),
        constraints=constraints or None,
        options={"mip_rel_gap": 0.0, "time_limit": TIME_LIMIT},
    )
    if result.x is None:
        return None, math.inf
    return result.x > 0.5, float(result.mip_dual_bound) * unit
