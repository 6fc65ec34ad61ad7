"""Graph to graph, one pass a file."""

from __future__ import annotations

from edgeq.passes.channels_last import channels_last
from edgeq.passes.lower import lower

__all__ = ["channels_last", "lower"]
