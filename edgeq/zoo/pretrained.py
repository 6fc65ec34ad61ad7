"""Factories without arguments of the networks with trained weights.

For the command line: `edgeq.zoo.pretrained:mobilenet_v2`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from edgeq.zoo.registry import ARCHITECTURES

if TYPE_CHECKING:
    from torch import nn


def __getattr__(name: str) -> Callable[[], nn.Module]:
    from edgeq.zoo.loading import load_pretrained

    for row in ARCHITECTURES:
        if row.name == name and row.weights is not None:
            return partial(load_pretrained, name)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}: no trained weights are known for it"
    )
