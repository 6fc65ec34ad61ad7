"""The main job: from a float model to a folder that can be shipped and verified."""

from __future__ import annotations

from edgeq.deployment.export import ExportResult, export

__all__ = ["ExportResult", "export"]
