"""Distillation: a quantized network is trained as a whole to answer as the float network does, without labels.

Rounding and block reconstruction look at one part of a network after the other; what they cannot see is that later
parts may take up what earlier ones lose. `edgeq.quantize.training.distillation` moves all codes, biases, weight scales
and steps of 4-bit activations together. This module decides what starts, what is kept and what is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import BackendError, QuantizationError
from edgeq.ir import BATCH, Graph
from edgeq.ir.tensor import Array
from edgeq.ops import check_graph
from edgeq.quantize.checkpoints import checkpoint_folder, run_key
from edgeq.quantize.training_options import DistillationOptions


@dataclass(frozen=True, slots=True)
class Distillation:
    """What became of a network.

    Attributes:
        before: Divergence from the float network on held-out samples, as `sensitivity.divergence` measures it.
        after: The same of the best state that was found.
        kept: Whether that was better; the network stays as it was otherwise.
        steps: Steps of the optimiser.
        seconds: How long they took in this run.
    """

    before: float
    after: float
    kept: bool
    steps: int
    seconds: float


def distil(
    quantized: Graph,
    reference: Graph,
    samples: Mapping[str, Array],
    options: DistillationOptions,
    threads: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> tuple[Graph, Distillation]:
    """Trains a quantized graph against the float one.

    The same seed, samples, options (without `minutes`) and number of threads give the same graph, also when the work
    was interrupted and resumed.

    Args:
        quantized: A quantized NCHW graph.
        reference: The float graph with the same nodes (by name) and tensor names.
        samples: float32 inputs by name, the same number of each; at least 2.
        options: How.
        threads: For torch.
        seed: Draws batches, crops and mixtures.
        progress: Called with (steps done, steps).
        checkpoint: A folder in which the state is kept whenever the network is judged; made if it is not there. A run
            with the same model, samples, options and seed goes on from there. The caller deletes it when all is done.

    Returns:
        A graph with other codes, biases, weight scales and 4-bit steps (the same graph where it was not better), and
        what was reached.

    Raises:
        BackendError: If torch is not installed.
        QuantizationError: If an input has no batch axis or there are fewer than two samples.
        UsageError: If the folder cannot be made.
        DataError: If a file in it is damaged.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError("Distillation trains in torch: pip install edgeq[torch].") from error
    from edgeq.quantize.training.distillation import Distiller

    if any(quantized.tensor(name).shape[:1] != (BATCH,) for name in quantized.inputs):
        raise QuantizationError(f"graph {quantized.name}: distillation needs a batch axis on every input")
    count = min(len(value) for value in samples.values())
    if count < 2:
        raise QuantizationError(f"{count} samples are too few: some to learn from and some to judge by are needed")
    file = None
    if checkpoint is not None:
        key = run_key(quantized, reference, samples, options, seed)
        file = checkpoint_folder(checkpoint) / f"distillation-{key}.pt"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    began = time.monotonic()
    try:
        distiller = Distiller(quantized, reference, samples, options, seed, file)
        distiller.run(progress)
        kept = distiller.best < distiller.start
        result = distiller.graph() if kept else quantized
    finally:
        torch.set_num_threads(before)
    check_graph(result)
    done = Distillation(distiller.start, distiller.best, kept, distiller.steps, time.monotonic() - began)
    return result, done
