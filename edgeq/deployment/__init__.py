"""The main job: from a float model to a folder that can be shipped and verified."""

from __future__ import annotations

from edgeq.deployment.export import ExportResult, export
from edgeq.deployment.formats import FORMATS, Agreement, FormatOptions
from edgeq.deployment.trials import Trials, run_trials

__all__ = ["FORMATS", "Agreement", "ExportResult", "FormatOptions", "Trials", "export", "run_trials"]
