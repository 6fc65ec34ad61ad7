"""Runs an int8 model so many times in a runtime, one thread. It runs in the arm64 Python, with edgeq's own backends.

python3.11 peer.py BACKEND MODEL IN.npy TIMES OUT.npy
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from edgeq.backends.registry import backend_kind


def main(arguments: Sequence[str]) -> None:
    """Runs the model, and writes the logits of the last run."""
    backend, model, given, times, out = arguments
    bound = backend_kind(backend).open(model, 1).bind(np.load(given))
    for _ in range(int(times)):
        result = bound.run()
    np.save(out, bound.logits(result))


if __name__ == "__main__":
    main(sys.argv[1:])
