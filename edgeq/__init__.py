"""edgeq: quantize, ship and prove edge models.

`edgeq.export` makes a folder from a float model, `edgeq.Session` runs a .edgeq file, `edgeq.verify` compares it with
the float model. `edgeq.prepare_qat` makes a torch module that trains with quantization and exports as the rest does.
All raise `edgeq.EdgeqError` for what the user can mend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.deployment.export import export
    from edgeq.errors import EdgeqError
    from edgeq.qat.prepare import prepare_qat
    from edgeq.session import Session
    from edgeq.verification.guard import guard
    from edgeq.verification.verify import verify

__version__ = "0.1.0"

__all__ = ["EdgeqError", "Session", "__version__", "export", "guard", "prepare_qat", "verify"]

_HOMES = {
    "EdgeqError": "edgeq.errors",
    "Session": "edgeq.session",
    "export": "edgeq.deployment",
    "guard": "edgeq.verification.guard",
    "prepare_qat": "edgeq.qat",
    "verify": "edgeq.verification",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import edgeq` needs numpy alone."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
