"""What a scheme may change where, and why: the only place that turns a request into bits for each layer and tensor."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from edgeq.errors import QuantizationError
from edgeq.ir import Graph
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
    graph: Graph,
    scheme: Scheme,
    sets: Collection[SharedSet],
    keep_8bit: Collection[str] | None = None,
    layer_bits: Mapping[str, int] | None = None,
) -> Plan:
    """Decides the bits of every layer's weights and of every shared set of activations.

    Rules, beyond the scheme's own numbers:

    - what a caller gives or gets (graph inputs and outputs, the logits before a softmax, and what shares their
      quantization) has 8 bits: it costs nothing inside the network and everything at its ends;
    - an activation that no layer with weights reads has 8 bits: 4-bit activations mean that every product of inputs
      and weights is one of 4-bit numbers, and what additions, averages or tables alone read takes part in none. Codes
      are held one to a byte, so that the finer ones cost neither memory nor time, while the linear outputs that a
      residual addition reads are what suffers most from 16 levels;
    - a layer in `keep_8bit` keeps its weights and its input activation at 8 bits. `first` and `last` are the first and
      last layers with weights in execution order; other names are layers' own;
    - `layer_bits` takes the place of the scheme's weight bits, layer by layer. It is a decision already, so that
      nothing but `keep_8bit` by name overrides it.

    Args:
        graph: The float graph.
        scheme: The request.
        sets: `shared_sets(graph)`.
        keep_8bit: Names; None for `default_keep(scheme)`, or for none where `layer_bits` is given.
        layer_bits: Weight bits of every layer with weights; None for the scheme's.

    Raises:
        QuantizationError: If a name in `keep_8bit` is no layer with weights, the graph has none at all, or
            `layer_bits` names other layers than the graph's or other bits than 4 and 8.
    """
    layers = [node for node in graph.nodes if is_layer(node)]
    if not layers:
        raise QuantizationError(
            f"graph {graph.name} has no layer with weights (convolution or linear), so there is nothing to quantize."
        )
    requested = dict.fromkeys([node.name for node in layers], scheme.weight_bits)
    if layer_bits is not None:
        check_layer_bits(layer_bits, requested)
        requested = {name: layer_bits[name] for name in requested}
        keep_8bit = keep_8bit or ()
    kept = kept_layers(graph, default_keep(scheme) if keep_8bit is None else keep_8bit)
    changes: list[Change] = []
    weight_bits = {}
    for name, bits in requested.items():
        weight_bits[name] = bits
        if name in kept and bits != 8:
            weight_bits[name] = 8
            changes.append(Change(name, f"w{bits}", "w8", kept[name]))
    activation_bits = {}
    set_of = {member: shared for shared in sets for member in shared.members}
    kept_inputs = {set_of[node.inputs[0]].name: node.name for node in layers if node.name in kept}
    multiplied = {set_of[node.inputs[0]].name for node in layers if node.inputs[0] in set_of}
    for shared in sets:
        activation_bits[shared.name] = scheme.activation_bits
        if scheme.activation_bits == 8:
            continue
        why = shared.forced
        if why is None and shared.name in kept_inputs:
            why = f"{kept_inputs[shared.name]}, which is kept at 8 bits, reads it"
        if why is None and shared.name not in multiplied:
            why = "no layer with weights reads it, and codes are held one to a byte"
        if why is not None:
            activation_bits[shared.name] = 8
            changes.append(Change(shared.name, f"a{scheme.activation_bits}", "a8", why))
    return Plan(weight_bits, activation_bits, tuple(changes))


def check_layer_bits(layer_bits: Mapping[str, int], layers: Collection[str]) -> None:
    """Checks that bits are given for these layers and no others.

    Raises:
        QuantizationError: Naming the layer that is unknown (and those with a similar name), lacks its bits, or has
            other bits than 4 and 8.
    """
    for name, bits in layer_bits.items():
        if name not in layers:
            raise QuantizationError(
                f"the plan names {name!r}, which is no layer with weights of this model.{similar_names(name, layers)}"
            )
        if bits not in (4, 8):
            raise QuantizationError(f"the plan gives {name} {bits} bits; weights have 4 or 8.")
    missing = [name for name in layers if name not in layer_bits]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise QuantizationError(
            f"the plan says nothing about {', '.join(missing[:3])}{more}; it must give every layer with weights 4 or "
            "8 bits."
        )


def similar_names(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean A or B?" for the names most like this one, "" where none is."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def kept_layers(graph: Graph, names: Collection[str]) -> dict[str, str]:
    """Maps the layers that `keep_8bit` names to the reason.

    Raises:
        QuantizationError: If a name is neither `first`, `last` nor a layer with weights.
    """
    layers = [node.name for node in graph.nodes if is_layer(node)]
    kept: dict[str, str] = {}
    for name in sorted(names):
        if name in ENDS:
            kept[layers[0] if name == "first" else layers[-1]] = (
                f"the {name} layer is kept at 8 bits (keep_8bit={name})"
            )
        elif name in layers:
            kept[name] = f"it is kept at 8 bits by name (keep_8bit={name})"
        else:
            raise QuantizationError(
                f"keep_8bit names {name!r}, which is neither first, last nor a layer with weights."
                f"{similar_names(name, layers)}"
            )
    return kept
