"""The intermediate representation: graphs of named tensors and nodes with typed attributes."""

from __future__ import annotations

from edgeq.ir.graph import Attrs, Graph, Node
from edgeq.ir.printer import format_graph
from edgeq.ir.tensor import BATCH, QuantParams, Tensor
from edgeq.ir.validate import validate

__all__ = ["BATCH", "Attrs", "Graph", "Node", "QuantParams", "Tensor", "format_graph", "validate"]
