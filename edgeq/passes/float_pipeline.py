"""The passes that every float graph goes through before calibration, in order."""

from __future__ import annotations

from collections.abc import Callable

from edgeq.ir import Graph
from edgeq.ops import check_graph
from edgeq.passes.fold_affine import fold_affine
from edgeq.passes.fold_batchnorm import fold_batchnorm
from edgeq.passes.fold_pad import fold_pad
from edgeq.passes.fuse_activation import fuse_activation
from edgeq.passes.lift_signals import lift_signals
from edgeq.passes.recognise_activations import recognise_activations
from edgeq.passes.recognise_shuffle import recognise_shuffle
from edgeq.passes.remove_identities import remove_identities

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    remove_identities,
    lift_signals,
    remove_identities,  # Neighbours become neighbours.
    recognise_shuffle,
    recognise_activations,  # Before the constants inside the patterns are folded away.
    fold_pad,
    fold_affine,
    fold_batchnorm,
    fuse_activation,  # After the normalisation that stood between.
    remove_identities,
)


def float_pipeline(graph: Graph) -> Graph:
    """Returns a float NCHW graph, ready for calibration: folded, fused, checked; its outputs mean the same.

    Raises:
        GraphError: If the graph breaks a rule of the operators.
    """
    for transform in PASSES:
        graph = transform(graph)
    check_graph(graph)
    return graph
