"""The integer-exact numpy executor: what every backend and kernel is compared with."""

from __future__ import annotations

from edgeq.simulate.executor import execute, run_float_graph, simulate, simulate_codes
from edgeq.simulate.prediction import Prediction, predict

__all__ = ["Prediction", "execute", "predict", "run_float_graph", "simulate", "simulate_codes"]
