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

from edgeq.errors import BackendError, QuantizationError, UsageError
from edgeq.ir import BATCH, Graph
from edgeq.ir.tensor import Array
from edgeq.ops import check_graph
from edgeq.quantize.checkpoints import checkpoint_folder, run_key


@dataclass(frozen=True, slots=True)
class DistillationOptions:
    """How the whole network is trained.

    Rates are the largest ones of Adam: they rise over the first steps and fall to zero along a cosine. Each is a share
    of what a number may be, so that they fit every network.

    Attributes:
        steps: Steps of the optimiser.
        minutes: At most so long: the rates then fall faster. What comes out depends on how fast the machine is. None
            for no limit.
        batch: Samples of a step; fewer where their activations would take more than 2 GiB.
        side: Images are trained on at this share of the network's width and height, which costs the square of it; they
            are judged in full. A network that takes no other size trains in full too. What is learned at one size is
            lost at another: of MobileNetV2 at w4a4, what lowered the divergence at 224 raised it at 160.
        crop: Smallest share of an image's area that a random crop keeps; 1 for no crops.
        mixed: Share of a batch's images that are mixed with another one or have a piece of another one; none, as
            what is learned from mixtures helps little on images (MobileNetV2 w4a4, 128 of them: the divergence on
            held-out ones fell from 1.94 to 1.90 in 25 steps with half of the batch mixed, to 1.51 in 32 with none).
        contrast: Images are multiplied by up to 1 plus or minus this.
        weight_rate: Of the weights, in sevenths of a channel's range: steps of 4-bit weights.
        bias_rate: Of the biases, in 32nds of the range of the layer's output.
        scale_rate: Of weight scales, as a share of them.
        step_rate: Of the steps of 4-bit activations, as a share of them.
        checks: How often the network is judged on held-out samples; the best of these states is what is taken.
        held_out: Share of the samples, the last ones, on which it is judged: keep them away from whatever comes before.
    """

    steps: int = 400
    minutes: float | None = None
    batch: int = 16
    side: float = 1.0
    crop: float = 0.5
    mixed: float = 0.0
    contrast: float = 0.2
    weight_rate: float = 0.004
    bias_rate: float = 0.004
    scale_rate: float = 0.001
    step_rate: float = 0.001
    checks: int = 8
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.checks < 1:
            raise UsageError(
                f"{self.steps} steps of {self.batch} samples, judged {self.checks} times, are none; each must be at "
                "least 1"
            )
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"{self.minutes} minutes are no time; give more, or None for no limit")
        for name in ("side", "crop"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"{name} ({getattr(self, name)}) must lie in (0, 1]")
        for name in ("mixed", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} ({getattr(self, name)}) must lie in [0, 1]")
        for name in ("weight_rate", "bias_rate", "scale_rate", "step_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} ({getattr(self, name)}) must lie in [0, 1)")
        if not 0 < self.held_out < 1:
            raise UsageError(f"held_out ({self.held_out}) must lie in (0, 1)")


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
