"""The integer-exact numpy executor: what every backend and kernel is compared with."""

from __future__ import annotations

from edgeq.simulate.executor import execute, run_float_graph, simulate, simulate_codes

__all__ = ["execute", "run_float_graph", "simulate", "simulate_codes"]
