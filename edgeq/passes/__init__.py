"""Graph to graph, one pass a file."""

from __future__ import annotations

from edgeq.passes.channels_last import channels_last
from edgeq.passes.float_pipeline import float_pipeline
from edgeq.passes.fold_affine import fold_affine
from edgeq.passes.fold_batchnorm import fold_batchnorm
from edgeq.passes.fold_pad import fold_pad
from edgeq.passes.fuse_activation import fuse_activation
from edgeq.passes.lift_signals import lift_signals
from edgeq.passes.lower import lower
from edgeq.passes.recognise_activations import recognise_activations
from edgeq.passes.recognise_shuffle import recognise_shuffle
from edgeq.passes.remove_identities import remove_identities

__all__ = [
    "channels_last",
    "float_pipeline",
    "fold_affine",
    "fold_batchnorm",
    "fold_pad",
    "fuse_activation",
    "lift_signals",
    "lower",
    "recognise_activations",
    "recognise_shuffle",
    "remove_identities",
]
