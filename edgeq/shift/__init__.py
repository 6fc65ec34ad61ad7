"""Shifted inputs: the corruptions of ImageNet-C, CIFAR-10-C and MNIST-C, deterministic and drawn with numpy, scipy and
Pillow."""

from __future__ import annotations

from edgeq.shift.apply import apply
from edgeq.shift.suites import GROUPS, SUITES, Cell, Suite, parse

__all__ = ["GROUPS", "SUITES", "Cell", "Suite", "apply", "parse"]
