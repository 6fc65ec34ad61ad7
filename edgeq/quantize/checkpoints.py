"""What interrupted work is resumed by: a folder of files that name the run to which they belong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeq import __version__
from edgeq.errors import UsageError
from edgeq.ir import Graph
from edgeq.ir.tensor import Array


def checkpoint_folder(folder: Path) -> Path:
    """Makes the folder if it is not there and returns it; raises UsageError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: the folder for checkpoints cannot be made ({error.strerror})") from None
    return folder


def run_key(quantized: Graph, reference: Graph, samples: Mapping[str, Array], options: Any, seed: int) -> str:
    """A hash of everything that decides what comes out.

    Args:
        quantized: The graph that the work starts from.
        reference: The float graph.
        samples: Inputs by name.
        options: A dataclass of plain values.
        seed: Of everything random.
    """
    found = hashlib.sha256(repr((__version__, asdict(options), seed)).encode())
    for graph in (quantized, reference):
        found.update(repr(graph.nodes).encode())
        for name, tensor in sorted(graph.tensors.items()):
            quant = tensor.quant
            found.update(repr((name, tensor.shape, tensor.dtype, None if quant is None else quant.bits)).encode())
            for value in (tensor.data, *(() if quant is None else (quant.scale, quant.zero_point))):
                if value is not None:
                    found.update(np.ascontiguousarray(value).tobytes())
    for name, value in sorted(samples.items()):
        found.update(repr((name, value.shape)).encode() + np.ascontiguousarray(value).tobytes())
    return found.hexdigest()[:16]
