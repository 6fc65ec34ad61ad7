"""NCHW graph to NHWC graph: the layout of .edgeq and TFLite.

Every activation keeps the elements it had; only the axes of the tensors that hold them change. Reshapes and transposes
of the source become a mere note of where elements stand (`ElementOrder`); an explicit reshape or transpose appears only
where an operator needs another arrangement than the one at hand. So a network's flatten before its classifier turns
into a permutation of the classifier's weight columns, and a pair of transposes around elementwise operators vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeq.errors import GraphError
from edgeq.ir import Graph, Node, Tensor
from edgeq.ir.names import take_name
from edgeq.ops import get
from edgeq.ops.base import attrs_of
from edgeq.ops.pad import PadAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.slice import SliceAttrs
from edgeq.ops.transpose import TransposeAttrs
from edgeq.ops.unary import Unary
from edgeq.passes.element_order import ElementOrder, Shape

Permutation = tuple[int, ...]

_TO_NCHW = (0, 3, 1, 2)


def channels_last(graph: Graph) -> Graph:
    """Returns the graph with rank-4 activations as [N, H, W, C] and convolution weights as [O, kh, kw, I/g].

    Graph inputs and outputs of rank 4 become NHWC too, and callers keep giving and getting NCHW (`Graph.is_turned`).
    Where the source model itself takes or gives NHWC, the end stays as it is (`Graph.plain_ends`): where the source
    graph says so, or turns it to NCHW first. Tensors of other ranks at the ends keep their axes. Works on float and on
    quantized graphs; values do not change by a bit.

    Raises:
        GraphError: If the graph is not NCHW, or a node moves the batch axis.
    """
    if graph.layout != "nchw":
        raise GraphError(f"graph {graph.name} is {graph.layout} already; channels_last takes an nchw graph")
    return _Rewrite(graph).run()


def preferred(shape: Sequence[int]) -> Permutation:
    """Returns how a tensor of that logical shape is held where nothing else is asked: NHWC for rank 4."""
    return (0, 2, 3, 1) if len(shape) == 4 else tuple(range(len(shape)))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a logical tensor's elements are: a tensor of the new graph and their order in it."""

    name: str
    order: ElementOrder


class _Rewrite:
    def __init__(self, source: Graph) -> None:
        self.source = source
        self.result = Graph(source.name, layout="nhwc")
        self.taken = {node.name for node in source.nodes} | source.tensors.keys()
        self.places: dict[str, _Place] = {}
        # One tensor may be held for two logical ones of different orders: a tensor and its transpose.
        self.converted: dict[tuple[_Place, ElementOrder, Shape], str] = {}
        self.plain_ends: set[str] = set()

    def run(self) -> Graph:
        for name in self.source.inputs:
            self.begin(name)
        for node in self.source.nodes:
            self.rewrite(node)
        for name in self.source.outputs:
            self.finish(name)
        self.result.plain_ends = frozenset(self.plain_ends)
        return self.result.prune()

    # --- tensors ---

    def shape(self, name: str) -> Shape:
        return self.source.tensor(name).shape

    def is_activation(self, name: str) -> bool:
        return bool(name) and not self.source.tensor(name).is_constant

    def fresh(self, stem: str) -> str:
        return take_name(stem, self.taken)

    def define(self, name: str, permutation: Permutation) -> None:
        """Adds the activation `name` with its axes permuted."""
        tensor = self.source.tensor(name)
        self.result.add_tensor(tensor.with_(shape=tuple(tensor.shape[axis] for axis in permutation)))
        self.places[name] = _Place(name, ElementOrder.of(tensor.shape, permutation))

    def define_like(self, name: str, place: _Place) -> None:
        """Adds the activation `name`, held as the elements of `place` are."""
        held = self.result.tensor(place.name)
        self.result.add_tensor(self.source.tensor(name).with_(shape=held.shape))
        self.places[name] = _Place(name, place.order)

    def permutation(self, name: str) -> Permutation:
        """Returns how the activation is held now, as a permutation of its axes; the preferred one when torn."""
        shape = self.shape(name)
        axes = self.places[name].order.axes(shape)
        default = preferred(shape)
        if axes is None or axes == tuple(axis for axis in default if axis and shape[axis] > 1):
            return default
        units = tuple(axis for axis in range(1, len(shape)) if shape[axis] == 1)
        return (0, *units, *axes)

    def aligned(self, name: str, permutation: Permutation) -> str:
        """Returns a tensor that holds the activation with its axes permuted so."""
        shape = self.shape(name)
        return self.arranged(name, ElementOrder.of(shape, permutation), tuple(shape[axis] for axis in permutation))

    def arranged(self, name: str, order: ElementOrder, shape: Shape) -> str:
        """Returns a tensor of that memory shape that holds the activation in that order; converts where it must."""
        place = self.places[name]
        held = self.result.tensor(place.name)
        if place.order == order and held.shape == shape:
            return place.name
        key = (place, order, shape)
        if key not in self.converted:
            self.converted[key] = self.convert(place, order, shape)
        return self.converted[key]

    def convert(self, place: _Place, order: ElementOrder, shape: Shape) -> str:
        name = place.name
        if place.order != order:
            move = place.order.permutation_to(order)
            if move is None:
                plain = ElementOrder.of((1, math.prod(order.factors)))
                middle = self.convert(place, plain, (self.result.tensor(name).shape[0], *plain.factors))
                return self.convert(_Place(middle, plain), order, shape)
            batch = self.result.tensor(name).shape[0]
            memory, permutation = move
            name = self.reshape(name, (batch, *memory))
            arranged = (batch, *(memory[axis] for axis in permutation))
            attrs = TransposeAttrs((0, *(axis + 1 for axis in permutation)))
            name = self.append("transpose", name, arranged, attrs)
        return self.reshape(name, shape)

    def reshape(self, name: str, shape: Shape) -> str:
        if self.result.tensor(name).shape == shape:
            return name
        return self.append("reshape", name, shape, ReshapeAttrs(shape))

    def append(self, op: str, x: str, shape: Shape, attrs: Any) -> str:
        """Appends a node that moves elements; returns its output."""
        out = self.fresh(f"{x}.{op}")
        self.result.add_tensor(self.result.tensor(x).with_(name=out, shape=shape))
        self.result.nodes.append(Node(op, out, (x,), (out,), attrs))
        return out

    def constant(self, name: str, change: Callable[[Any], Any], key: str) -> str:
        """Returns the name of the constant with its value changed; `key` tells changes of one constant apart."""
        tensor = self.source.tensor(name)
        assert tensor.data is not None
        value = change(tensor.data)
        if value is tensor.data:
            self.result.add_tensor(tensor)
            return name
        stem = f"{name}.{key}"
        for suffix in range(len(self.result.tensors) + 1):
            candidate = stem if not suffix else f"{stem}_{suffix}"
            known = self.result.tensors.get(candidate)
            if known is None and candidate not in self.taken:
                break
            if known is not None and known.data is not None and np.array_equal(known.data, value):
                return candidate
        self.taken.add(candidate)
        return self.result.add_tensor(Tensor.constant(candidate, value, tensor.quant))

    def keep(self, name: str) -> str:
        """Returns a constant (or "") that stays as it is."""
        return self.constant(name, lambda value: value, "") if name else ""

    # --- nodes ---

    def rewrite(self, node: Node) -> None:
        handler = _one_input if isinstance(get(node.op), Unary) else _HANDLERS.get(node.op)
        if handler is None:
            raise GraphError(f"{node.name}: channels_last does not know operator {node.op}")
        handler(self, node)

    def emit(self, node: Node, inputs: Sequence[str], attrs: Any, permutation: Permutation) -> None:
        """Appends the node with new inputs and attributes; its outputs are held with `permutation`."""
        for name in node.outputs:
            self.define(name, permutation)
        self.result.nodes.append(node.with_(inputs=tuple(inputs), attrs=attrs))

    def begin(self, name: str) -> None:
        """Adds a graph input: in its own order where it is a plain end or turned to NCHW first, else as preferred."""
        shape = self.shape(name)
        readers = [node for node in self.source.nodes if name in node.inputs]
        turned = [n for n in readers if n.op == "transpose" and attrs_of(n, TransposeAttrs).permutation == _TO_NCHW]
        found = len(shape) == 4 and readers and len(turned) == len(readers) and name not in self.source.outputs
        if found or name in self.source.plain_ends:
            self.plain_ends.add(name)
            self.define(name, (0, 1, 2, 3))
        else:
            self.define(name, preferred(shape))
        self.result.inputs.append(name)

    def finish(self, name: str) -> None:
        """Makes `name` a graph output: in its own order where it is held so already, else as preferred."""
        shape = self.shape(name)
        wanted = preferred(shape)
        order = self.places[name].order
        held_so = order != ElementOrder.of(shape, wanted) and order == ElementOrder.of(shape)
        if held_so or name in self.source.plain_ends:
            wanted = tuple(range(len(shape)))
            self.plain_ends.add(name)
        held = self.aligned(name, wanted)
        if held != name:
            if held in self.result.inputs or held in self.result.outputs:
                copy = self.fresh(f"{held}.copy")
                self.result.add_tensor(self.result.tensor(held).with_(name=copy))
                shape = self.result.tensor(held).shape
                self.result.nodes.append(Node("reshape", copy, (held,), (copy,), ReshapeAttrs(shape)))
                held = copy
            self.swap_names(held, name)
        self.result.outputs.append(name)

    def swap_names(self, held: str, name: str) -> None:
        """Renames tensor `held` to `name`, and what was `name` (if anything) to a fresh name."""
        change = {held: name}
        if name in self.result.tensors:
            change[name] = self.fresh(f"{name}.held")
        if name in self.result.inputs or name in self.result.outputs:
            raise GraphError(f"graph output {name!r} is an input or stands twice among the outputs")
        tensors = self.result.tensors
        self.result.tensors = {
            change.get(old, old): tensor.with_(name=change.get(old, old)) for old, tensor in tensors.items()
        }
        self.result.nodes = [
            node.with_(
                inputs=tuple(change.get(old, old) for old in node.inputs),
                outputs=tuple(change.get(old, old) for old in node.outputs),
            )
            for node in self.result.nodes
        ]
        self.places = {
            logical: _Place(change.get(place.name, place.name), place.order) for logical, place in self.places.items()
        }
        self.converted = {
            (_Place(change.get(place.name, place.name), place.order), order, shape): change.get(out, out)
            for (place, order, shape), out in self.converted.items()
        }


# --- how each operator is rewritten ---


def _weighted(rewrite: _Rewrite, node: Node) -> None:
    """Convolutions: image in NHWC, weights with their input channels last."""
    x, w, *rest = node.inputs
    weights = rewrite.constant(w, lambda value: np.moveaxis(value, 1, 3), "ohwi")
    inputs = [rewrite.aligned(x, preferred(rewrite.shape(x))), weights, *(rewrite.keep(name) for name in rest)]
    rewrite.emit(node, inputs, node.attrs, preferred(rewrite.shape(node.outputs[0])))


def _image(rewrite: _Rewrite, node: Node) -> None:
    """Operators that care where the channels are (pools, mean, resize, channel shuffle): channels last."""
    x, *rest = node.inputs
    permutation = _channels_last_permutation(rewrite.shape(x))
    inputs = [rewrite.aligned(x, permutation), *(rewrite.keep(name) for name in rest)]
    y = rewrite.shape(node.outputs[0])
    rewrite.emit(node, inputs, node.attrs, permutation if len(y) == len(permutation) else preferred(y))


def _channels_last_permutation(shape: Shape) -> Permutation:
    """Channels are axis 1 of the source's activations and become the last axis."""
    return (0, *range(2, len(shape)), 1) if len(shape) > 2 else tuple(range(len(shape)))


def _one_input(rewrite: _Rewrite, node: Node) -> None:
    """Elementwise functions of one tensor: the elements stay where they are, unless the channels matter."""
    x, *rest = node.inputs
    if any(_one_a_channel(rewrite, node.op, name) for name in rest):
        _image(rewrite, node)
        return
    rewrite.define_like(node.outputs[0], rewrite.places[x])
    inputs = [rewrite.places[x].name, *(rewrite.keep(name) for name in rest)]
    rewrite.result.nodes.append(node.with_(inputs=tuple(inputs)))


def _one_a_channel(rewrite: _Rewrite, op: str, constant: str) -> bool:
    """Whether a constant input of a one-input function has an entry a channel."""
    shape = rewrite.shape(constant)
    return len(shape) == 2 if op == "lut" else math.prod(shape) > 1


def _broadcast(rewrite: _Rewrite, node: Node) -> None:
    """Elementwise functions of two tensors that broadcast."""
    y = node.outputs[0]
    shape = rewrite.shape(y)
    activations = [name for name in node.inputs if rewrite.is_activation(name)]
    whole = [name for name in activations if rewrite.shape(name) == shape]
    if whole and all(_follows(rewrite, name, whole[0]) for name in node.inputs):
        place = rewrite.places[whole[0]]
        rewrite.define_like(y, place)
        inputs = [
            rewrite.places[name].name if rewrite.is_activation(name) else _spread(rewrite, name, place)
            for name in node.inputs
        ]
        rewrite.result.nodes.append(node.with_(inputs=tuple(inputs)))
        return
    choices = [rewrite.permutation(name) for name in whole]
    permutation = choices[0] if choices and all(c == choices[0] for c in choices) else preferred(shape)
    inputs = []
    for name in node.inputs:
        if not rewrite.is_activation(name):
            inputs.append(_spread_aligned(rewrite, name, permutation))
        elif len(rewrite.shape(name)) == len(shape):
            inputs.append(rewrite.aligned(name, permutation))
        else:
            raise GraphError(
                f"{node.name}: activations of shapes {list(rewrite.shape(name))} and {list(shape)} differ in rank"
            )
    rewrite.emit(node, inputs, node.attrs, permutation)


def _follows(rewrite: _Rewrite, name: str, leader: str) -> bool:
    """Whether the operand needs no conversion to meet `leader` as it is held."""
    if not rewrite.is_activation(name):
        size = math.prod(rewrite.shape(name))
        return size == 1 or size == math.prod(rewrite.shape(leader)[1:])
    mine, theirs = rewrite.places[name], rewrite.places[leader]
    same_shape = rewrite.result.tensor(mine.name).shape == rewrite.result.tensor(theirs.name).shape
    return mine.order == theirs.order and same_shape and rewrite.shape(name) == rewrite.shape(leader)


def _spread(rewrite: _Rewrite, name: str, place: _Place) -> str:
    """A constant of one element, or of one for each element of a sample, beside a tensor held as `place`."""
    held = rewrite.result.tensor(place.name).shape

    def change(value: Any) -> Any:
        if value.size == 1:
            return value.reshape(1)
        return value.reshape(-1)[place.order.positions()].reshape(held[1:])

    return rewrite.constant(name, change, "held")


def _spread_aligned(rewrite: _Rewrite, name: str, permutation: Permutation) -> str:
    """A constant operand with its axes permuted as its partner's, without leading axes of size 1."""

    def change(value: Any) -> Any:
        full = value.reshape((1,) * (len(permutation) - value.ndim) + value.shape).transpose(permutation)
        while full.ndim > 1 and full.shape[0] == 1:
            full = full[0]
        return full

    return rewrite.constant(name, change, "nhwc")


def _linear(rewrite: _Rewrite, node: Node) -> None:
    """Linear: over the last axis; for [N, K] the order of x moves into the weight columns."""
    x, w, *rest = node.inputs
    shape, place = rewrite.shape(x), rewrite.places[x]
    others = [rewrite.keep(name) for name in rest]
    if len(shape) == 2:
        held = rewrite.arranged(x, place.order, shape)
        columns = place.order.positions()
        weights = (
            rewrite.keep(w)
            if place.order.is_plain
            else rewrite.constant(w, lambda value: np.ascontiguousarray(value[:, columns]), "columns")
        )
        rewrite.emit(node, [held, weights, *others], node.attrs, (0, 1))
        return
    permutation = rewrite.permutation(x)
    if permutation[-1] != len(shape) - 1:
        permutation = tuple(range(len(shape)))
    rewrite.emit(node, [rewrite.aligned(x, permutation), rewrite.keep(w), *others], node.attrs, permutation)


def _reshape(rewrite: _Rewrite, node: Node) -> None:
    """Only the logical shape changes."""
    rewrite.places[node.outputs[0]] = rewrite.places[_same_quant(rewrite, node)]


def _transpose(rewrite: _Rewrite, node: Node) -> None:
    """Only the logical order changes; an axis torn by an earlier reshape is put together first."""
    x = _same_quant(rewrite, node)
    attrs = attrs_of(node, TransposeAttrs)
    if attrs.permutation[0] != 0:
        raise GraphError(f"{node.name}: transposing the batch axis is not supported")
    place = rewrite.places[x]
    order = place.order.transposed(rewrite.shape(x), attrs.permutation)
    if order is None:
        plain = tuple(range(len(rewrite.shape(x))))
        place = _Place(rewrite.aligned(x, plain), ElementOrder.of(rewrite.shape(x)))
        order = place.order.transposed(rewrite.shape(x), attrs.permutation)
        assert order is not None
    rewrite.places[node.outputs[0]] = _Place(place.name, order)


def _same_quant(rewrite: _Rewrite, node: Node) -> str:
    x, y = rewrite.source.tensor(node.inputs[0]), rewrite.source.tensor(node.outputs[0])
    if (x.quant is None) != (y.quant is None) or (x.quant is not None and not x.quant.same_as(y.quant)):
        raise GraphError(f"{node.name}: {node.op} must keep the quantization of {x.name!r}")
    return x.name


def _axis(rewrite: _Rewrite, node: Node) -> None:
    """Operators with one axis (concat, softmax): any arrangement that the activations share."""
    activations = [name for name in node.inputs if rewrite.is_activation(name)]
    choices = {rewrite.permutation(name) for name in activations}
    default = preferred(rewrite.shape(activations[0]))
    permutation = choices.pop() if len(choices) == 1 else default
    # The float32 output of softmax can only be a graph output, so nothing may come between.
    if node.op == "softmax" and permutation != tuple(range(len(default))):
        permutation = default
    attrs: Any = node.attrs
    axis = attrs.axis % len(permutation)
    inputs = [
        rewrite.aligned(name, permutation)
        if rewrite.is_activation(name)
        else rewrite.constant(name, lambda value: value.transpose(permutation), "nhwc")
        if len(rewrite.shape(name)) == len(permutation)
        else rewrite.keep(name)
        for name in node.inputs
    ]
    rewrite.emit(node, inputs, replace(attrs, axis=permutation.index(axis)), permutation)


def _slice(rewrite: _Rewrite, node: Node) -> None:
    x, attrs = node.inputs[0], attrs_of(node, SliceAttrs)
    permutation = rewrite.permutation(x)
    begin, stride, size = (tuple(values[a] for a in permutation) for values in (attrs.begin, attrs.stride, attrs.size))
    rewrite.emit(node, [rewrite.aligned(x, permutation)], SliceAttrs(begin, stride, size), permutation)


def _pad(rewrite: _Rewrite, node: Node) -> None:
    x, attrs = node.inputs[0], attrs_of(node, PadAttrs)
    permutation = rewrite.permutation(x)
    before, after = (tuple(values[a] for a in permutation) for values in (attrs.before, attrs.after))
    rewrite.emit(node, [rewrite.aligned(x, permutation)], replace(attrs, before=before, after=after), permutation)


_HANDLERS: dict[str, Callable[[_Rewrite, Node], None]] = {
    "add": _broadcast,
    "avg_pool": _image,
    "batch_norm": _image,
    "channel_shuffle": _image,
    "concat": _axis,
    "conv": _weighted,
    "conv_transpose": _weighted,
    "linear": _linear,
    "lut": _one_input,
    "max_pool": _image,
    "mean": _image,
    "mul": _broadcast,
    "pad": _pad,
    "reshape": _reshape,
    "resize": _image,
    "slice": _slice,
    "softmax": _axis,
    "sub": _broadcast,
    "transpose": _transpose,
}
"""How each operator is rewritten; one-input functions (`Unary`) need no line."""
