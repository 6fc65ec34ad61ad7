"""What `--bits` and `--budget` ask for: a scheme, bits to be chosen, or a plan to be replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.errors import DataError, UsageError
from edgeq.quantize import SCHEMES, Scheme
from edgeq.quantize.mixed import BUDGETS, DISAGREEMENT, parse_budget
from edgeq.quantize.plan_file import PlanFile, load

AUTO = "auto"

PLAN_SUFFIX = ".toml"

HELD_BACK = 4
"""One in so many of the chosen samples is held back where the disagreement is measured."""

MOST_HELD_BACK = 256


@dataclass(frozen=True, slots=True)
class BitRequest:
    """What was asked for.

    Attributes:
        scheme: Of the whole network; w4a8 for mixed precision, whose layers may have 4 bits.
        auto: Whether bits are to be chosen.
        budget: For choosing them.
        plan: The plan to replay.
        plan_text: Its file's content.
    """

    scheme: Scheme
    auto: bool = False
    budget: dict[str, float] = field(default_factory=dict)
    plan: PlanFile | None = None
    plan_text: str = ""

    @property
    def mixed(self) -> bool:
        """Whether each layer has its own bits."""
        return self.auto or self.plan is not None

    def held_back(self, samples: int) -> int:
        """How many of the chosen calibration samples are held back.

        Raises:
            DataError: If too few samples would be left.
        """
        if self.plan is not None:
            count = self.plan.held_back
        elif DISAGREEMENT in self.budget:
            count = min(max(1, samples // HELD_BACK), MOST_HELD_BACK)
        else:
            count = 0
        if count >= samples:
            raise DataError(
                f"{count} of {samples} calibration samples would be held back to measure the disagreement, and none "
                "would be left to calibrate; give more of them"
            )
        return count


def read_request(bits: str | Path | None, budget: Mapping[str, float] | Sequence[str] | None) -> BitRequest:
    """Reads what `edgeq.export` was given.

    Raises:
        UsageError: If a budget is given for something else than "auto" or lacks there, or the plan cannot be read.
        QuantizationError: If there is no such scheme.
    """
    budgets = parse_budget(budget or {})
    if str(bits).strip().lower() == AUTO:
        if not budgets:
            meanings = "; ".join(f"{name}: {meaning}" for name, meaning in BUDGETS.items())
            raise UsageError(f"--bits auto needs a budget that it chooses bits for (--budget). {meanings}.")
        return BitRequest(Scheme(4, 8), auto=True, budget=budgets)
    if budgets:
        raise UsageError("--budget goes with --bits auto; schemes and plans have their bits already")
    if bits is not None and Path(bits).suffix.lower() == PLAN_SUFFIX:
        return BitRequest(Scheme(4, 8), plan=load(bits), plan_text=Path(bits).read_text(encoding="utf-8"))
    if bits is not None and (isinstance(bits, Path) or "/" in bits):
        raise UsageError(f"--bits takes {', '.join(SCHEMES)}, auto or a plan ({PLAN_SUFFIX} file), not {str(bits)!r}")
    return BitRequest(Scheme.parse(bits or "w8a8"))


def split_samples(chosen: npt.NDArray[np.int64], held_back: int, seed: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Returns the samples that calibrate and those that are held back, both ascending."""
    order = np.random.default_rng([seed, 1]).permutation(len(chosen))
    return np.sort(chosen[order[held_back:]]), np.sort(chosen[order[:held_back]])
