"""What the methods that train a quantized network are told: block reconstruction and distillation."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.errors import UsageError
from edgeq.quantize.blocks import UNITS

STEP_ELEMENTS = 1 << 20
"""A step's widest activation has about so many elements at most: batches and pieces of maps are cut to that."""


@dataclass(frozen=True, slots=True)
class ReconstructionOptions:
    """How blocks are optimised.

    Attributes:
        unit: `layer` (AdaRound), `block` (BRECQ) or `network`.
        steps: Steps of the optimiser for each block.
        minutes: At most so long for all blocks: fewer steps where they would take longer. What comes out then depends
            on how fast the machine is. None for no limit.
        batch: Samples of a step.
        drop: Share of activations left unquantized at a step (QDrop); 0 for none.
        learn_steps: Whether the steps of 4-bit activations are learned.
        rounding_rate: Rate of V (Adam), falling to zero along a cosine like all rates; 0 leaves codes as they are.
        bias_rate: Of biases, in 8-bit steps of the output.
        step_rate: Of the logarithms of activation steps.
        scale_rate: Of the logarithms of weight scales; 0 leaves them as they are.
        regularisation: Weight of the regulariser beside the block's error, which starts at 1.
        eight_bit_weights: Whether 8-bit codes may change too; they are near enough without it.
        held_out: Share of the samples, the last ones, on which a block's result is judged. Where weights have been
            rounded with the help of the same samples, they look better on them than on others, and improvements are
            taken for losses: keep these samples away from whatever comes before.
        bounded: Whether targets are bounded to what the block's 8-bit outputs can hold: no weights make good what a
            range cuts off. The range of 4-bit outputs may be learned, so that it bounds nothing.
    """

    unit: str = "block"
    steps: int = 300
    minutes: float | None = None
    batch: int = 16
    drop: float = 0.2
    learn_steps: bool = True
    rounding_rate: float = 0.1
    bias_rate: float = 0.03
    step_rate: float = 0.01
    scale_rate: float = 0.001
    regularisation: float = 3.0
    eight_bit_weights: bool = False
    held_out: float = 0.2
    bounded: bool = True

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UsageError(f"blocks cannot be made by {self.unit!r}; choose one of {', '.join(UNITS)}")
        if self.steps < 1 or self.batch < 1:
            raise UsageError(f"{self.steps} steps of {self.batch} samples are none; both must be at least 1")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"{self.minutes} minutes are no time; give more, or None for no limit")
        if not (0 <= self.drop < 1 and 0 < self.held_out < 1):
            raise UsageError(f"drop ({self.drop}) must lie in [0, 1) and held_out ({self.held_out}) in (0, 1)")


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
