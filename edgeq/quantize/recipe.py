"""Recipes: which methods quantize a model, with their settings; levels of effort and recipe files."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.quantize.observers import OBSERVERS
from edgeq.quantize.rounding import SecondOrder
from edgeq.quantize.scheme import Scheme
from edgeq.quantize.training_options import DistillationOptions, ReconstructionOptions
from edgeq.quantize.weights import WEIGHT_OBSERVERS

EFFORTS = ("fast", "good", "best")
"""Levels of effort: seconds, a minute or two, tens of minutes for a MobileNet."""

ROUNDINGS = ("nearest", "second-order")
"""How weights become codes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Methods in the order in which they run; the order is fixed, a recipe says which of them do.

    Attributes:
        equalize: Whether channels are scaled before calibration, so that a tensor's codes serve all of them:
            `edgeq.quantize.equalize`.
        absorb_biases: Whether equalisation also moves channels by constants that the next layers' biases take up.
        observer: How an activation's range is chosen: a name in `edgeq.quantize.observers.OBSERVERS`.
        weight_observer: How a weight channel's range is chosen when weights are rounded to the nearest code: a name in
            `edgeq.quantize.weights.WEIGHT_OBSERVERS`. Second-order rounding chooses scales by the output error instead.
        rounding: "nearest" or "second-order".
        bias_correction: Whether biases keep each layer's mean output; second-order rounding always does.
        reconstruct: Whether rounding, biases and 4-bit steps are then optimised block by block (needs torch).
        distil: Whether the whole network is then trained to answer as the float one does (needs torch).
        match_confidence: Whether a classifier's scores are at last multiplied by one factor that makes its confidences
            the float network's: `edgeq.quantize.confidence`.
        second_order: Settings of second-order rounding.
        reconstruction: Settings of the optimisation: AdaRound with `unit = "layer"`, BRECQ with "block".
    """

    equalize: bool = False
    absorb_biases: bool = False
    observer: str = "histogram"
    weight_observer: str = "moving-average"
    rounding: str = "nearest"
    bias_correction: bool = True
    reconstruct: bool = False
    distil: bool = False
    match_confidence: bool = False
    second_order: SecondOrder = field(default_factory=SecondOrder)
    reconstruction: ReconstructionOptions = field(default_factory=ReconstructionOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)

    def __post_init__(self) -> None:
        _choice("observer", self.observer.partition("=")[0], OBSERVERS)
        _choice("weight_observer", self.weight_observer, WEIGHT_OBSERVERS)
        _choice("rounding", self.rounding, ROUNDINGS)
        if self.absorb_biases and not self.equalize:
            raise UsageError("absorb_biases is a part of equalisation; say equalize = true too")

    def with_(self, **changes: Any) -> Recipe:
        """Returns a copy with some fields replaced."""
        return replace(self, **changes)

    def held_out(self) -> float:
        """The share of the samples, the last ones, on which a later method is judged: earlier ones must not see it."""
        shares = [self.reconstruction.held_out] * self.reconstruct + [self.distillation.held_out] * self.distil
        return max(shares, default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, as a recipe file and the manifest have them."""
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any], where: str = "the recipe") -> Recipe:
        """Reads plain values; what is left out keeps its default.

        Raises:
            UsageError: If a key is unknown or a value has the wrong type.
        """
        found: Recipe = _read(Recipe, content, where)
        return found

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Reads a recipe file (TOML).

        Raises:
            UsageError: If the file cannot be read or says something that a recipe cannot.
        """
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"the recipe {path} cannot be read ({error})") from error
        return Recipe.from_dict(content, str(path))


def default_effort(scheme: Scheme) -> str:
    """The level for a scheme unless the user says otherwise.

    Rounding to the nearest of 15 codes ruins depthwise networks; with 8 bits there is little to win.
    """
    return "good" if scheme.weight_bits == 4 else "fast"


def recipe_for(effort: str, scheme: Scheme) -> Recipe:
    """Returns the recipe of a level of effort.

    Args:
        effort: "fast": the nearest code (from the range with the least squared error where weights have 4 bits) and
            bias correction. "good": second-order rounding, of equalised channels where activations have 4 bits.
            "best": then block reconstruction. With 4 bits all of them match the confidences in the end.
        scheme: What is asked for.

    Raises:
        UsageError: If there is no such level.
    """
    if effort not in EFFORTS:
        raise UsageError(f"--effort takes {', '.join(EFFORTS)}, not {effort!r}")
    # With 8 bits scores keep their distances: there is nothing to match but chance.
    narrow = 4 in (scheme.weight_bits, scheme.activation_bits)
    if effort == "fast":
        return Recipe(weight_observer="mse" if scheme.weight_bits == 4 else "moving-average", match_confidence=narrow)
    # Sixteen codes serve channels of different size badly; with 256 of them equalisation gains nothing measurable.
    few = scheme.activation_bits == 4
    return Recipe(
        equalize=few,
        absorb_biases=few,
        observer="mse" if few else "histogram",
        weight_observer="mse",
        rounding="second-order",
        reconstruct=effort == "best",
        match_confidence=narrow,
        second_order=SecondOrder(bounded=not few),
        reconstruction=ReconstructionOptions(steps=150, batch=8, bounded=not few),
    )


def _choice(key: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise UsageError(f"{key} takes one of {', '.join(sorted(allowed))}, not {value!r}")


def _read(kind: Any, content: Mapping[str, Any], where: str) -> Any:
    """Fills a dataclass of plain values and of such dataclasses."""
    known = {entry.name: entry for entry in fields(kind)}
    default = kind()
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it may say {', '.join(known)}"
            raise UsageError(f"{where} says {key!r}, which no recipe has{hint}")
        before = getattr(default, key)
        if hasattr(before, "__dataclass_fields__"):
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}: {key} is a table of settings, not {value!r}")
            values[key] = _read(type(before), value, f"{where}, [{key}]")
            continue
        if value is None and before is None:
            continue
        example: Any = 1.0 if before is None else before
        if isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(example):
            raise UsageError(f"{where}: {key} takes a {type(example).__name__}, for example {example!r}, not {value!r}")
        values[key] = value
    return kind(**values)
