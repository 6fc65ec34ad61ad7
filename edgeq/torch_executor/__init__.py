"""Float graphs in torch, differentiable: what block reconstruction and quantization-aware training optimise.

`run_nodes` runs any part of a graph over named tensors; a hook may change what a node gives. `fake_quant` has the
straight-through rounding to put there (it needs torch when it is imported; this package does not).
"""

from __future__ import annotations

from edgeq.torch_executor.run import Hook, constant_tensors, run_graph, run_nodes

__all__ = ["Hook", "constant_tensors", "run_graph", "run_nodes"]
