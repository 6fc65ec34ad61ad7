"""What a scheme may change where, and why: the only place that turns a request into bits for each layer and tensor."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from edgeq.errors import QuantizationError
from edgeq.ir import Graph, Node
from edgeq.quantize.layers import is_layer
from edgeq.quantize.scheme import Scheme
from edgeq.quantize.sharing import SharedSet

ENDS = ("first", "last")
"""Names in `keep_8bit` that stand for a layer by its place."""


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between what was asked for and what was done.

    Attributes:
        node: The layer or tensor.
        requested: What the scheme says, e.g. "w4".
        done: What it got, e.g. "w8".
        reason: One sentence for the summary and the manifest.
    """

    node: str
    requested: str
    done: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.requested} -> {self.done}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Bits of everything that is quantized.

    Attributes:
        weight_bits: By node name, for every layer with weights.
        activation_bits: By name of the shared set.
        changes: Where these differ from the scheme.
    """

    weight_bits: dict[str, int]
    activation_bits: dict[str, int]
    changes: tuple[Change, ...]


def default_keep(scheme: Scheme) -> frozenset[str]:
    """The layers kept at 8 bits unless the user says otherwise: the first one where weights have 4 bits.

    The first layer reads raw pixels through few taps, so that its rounding error is the largest of all and nothing
    after it averages it out, while it holds a fraction of a percent of the weights.
    """
    return frozenset({"first"}) if scheme.weight_bits == 4 else frozenset()


def make_plan(
    graph: Graph, scheme: Scheme, sets: Collection[SharedSet], keep_8bit: Collection[str] | None = None
) -> Plan:
    """Decides the bits of every layer's weights and of every shared set of activations.

    Rules, beyond the scheme's own numbers:

    - what a caller gives or gets (graph inputs and outputs, the logits before a softmax, and what shares their
      quantization) has 8 bits: it costs nothing inside the network and everything at its ends;
    - a layer in `keep_8bit` keeps its weights and its input activation at 8 bits. `first` and `last` are the first and
      last layers with weights in execution order; other names are layers' own.

    Args:
        graph: The float graph.
        scheme: The request.
        sets: `shared_sets(graph)`.
        keep_8bit: Names; None for `default_keep(scheme)`.

    Raises:
        QuantizationError: If a name in `keep_8bit` is no layer with weights, or the graph has none at all.
    """
    layers = [node for node in graph.nodes if is_layer(node)]
    if not layers:
        raise QuantizationError(
            f"graph {graph.name} has no layer with weights (convolution or linear), so there is nothing to quantize."
        )
    kept = _kept_layers(layers, default_keep(scheme) if keep_8bit is None else keep_8bit)
    changes: list[Change] = []
    weight_bits = {}
    for node in layers:
        weight_bits[node.name] = scheme.weight_bits
        if node.name in kept and scheme.weight_bits != 8:
            weight_bits[node.name] = 8
            changes.append(Change(node.name, f"w{scheme.weight_bits}", "w8", kept[node.name]))
    activation_bits = {}
    set_of = {member: shared for shared in sets for member in shared.members}
    kept_inputs = {set_of[node.inputs[0]].name: node.name for node in layers if node.name in kept}
    for shared in sets:
        activation_bits[shared.name] = scheme.activation_bits
        if scheme.activation_bits == 8:
            continue
        why = shared.forced
        if why is None and shared.name in kept_inputs:
            why = f"{kept_inputs[shared.name]}, which is kept at 8 bits, reads it"
        if why is not None:
            activation_bits[shared.name] = 8
            changes.append(Change(shared.name, f"a{scheme.activation_bits}", "a8", why))
    return Plan(weight_bits, activation_bits, tuple(changes))


def _kept_layers(layers: list[Node], names: Collection[str]) -> dict[str, str]:
    """Maps the kept layers' names to the reason."""
    by_name = {node.name for node in layers}
    kept: dict[str, str] = {}
    for name in sorted(names):
        if name in ENDS:
            layer = layers[0] if name == "first" else layers[-1]
            kept[layer.name] = f"the {name} layer is kept at 8 bits (keep_8bit={name})"
        elif name in by_name:
            kept[name] = f"it is kept at 8 bits by name (keep_8bit={name})"
        else:
            near = difflib.get_close_matches(name, sorted(by_name), n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise QuantizationError(
                f"keep_8bit names {name!r}, which is neither first, last nor a layer with weights.{hint}"
            )
    return kept
