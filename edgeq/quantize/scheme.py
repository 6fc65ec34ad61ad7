"""Quantization schemes: how many bits weights and activations get."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeq.errors import QuantizationError

SCHEMES = ("w8a8", "w4a8", "w4a4")
"""The schemes that the whole tool supports; support tables are generated from this."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """A request for weight and activation bits; `edgeq.quantize.policy` says what each tensor really gets.

    Attributes:
        weight_bits: 4 or 8.
        activation_bits: 4 or 8; not below what the weights have unless both are 4.
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        if str(self) not in SCHEMES:
            raise QuantizationError(
                f"{self} is not a scheme that edgeq has; choose one of {', '.join(SCHEMES)} "
                "(weight bits, then activation bits)."
            )

    @staticmethod
    def parse(text: str | Scheme) -> Scheme:
        """Reads e.g. "w4a8", in any case; raises QuantizationError naming the choices."""
        if isinstance(text, Scheme):
            return text
        match = re.fullmatch(r"w(\d+)a(\d+)", text.strip().lower())
        if match is None:
            raise QuantizationError(
                f"{text!r} is not a scheme; choose one of {', '.join(SCHEMES)} (weight bits, then activation bits)."
            )
        return Scheme(int(match.group(1)), int(match.group(2)))

    def __str__(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}"
