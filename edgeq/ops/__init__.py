"""The operators, one file each; importing this package registers all of them."""

from __future__ import annotations

import importlib
import pkgutil

from edgeq.ops.base import Operator, QuantRule, all_operators, get
from edgeq.ops.check import check_graph
from edgeq.ops.unary import unary_table

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Operator", "QuantRule", "all_operators", "check_graph", "get", "unary_table"]
