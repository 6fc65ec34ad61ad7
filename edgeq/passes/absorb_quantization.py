"""From a float graph with `fake_quant` nodes, as a quantized model imports, to the quantized graph of its integers.

Every scale, zero point and code stays what the model says. A tensor takes the parameters of the rounding behind it;
where a model rounds twice with different parameters (concatenations, pools), a `clip` without bounds changes them: a
table. What lies in float between two roundings becomes one table where it is a function of one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgeq.errors import GraphError, ImportModelError
from edgeq.ir import Attrs, Graph, Node, QuantParams, Tensor
from edgeq.ir.names import take_name
from edgeq.ir.tensor import Array
from edgeq.ops import QuantRule, check_graph, get, unary_table
from edgeq.ops.avg_pool import AvgPoolAttrs
from edgeq.ops.base import NO_CLAMP, attrs_of, clamp_codes, dequantize, quantize
from edgeq.ops.channel_shuffle import ChannelShuffleAttrs
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.ops.conv_transpose import ConvTransposeAttrs
from edgeq.ops.elementwise import Elementwise, ElementwiseAttrs
from edgeq.ops.fake_quant import FakeQuantAttrs
from edgeq.ops.pad import PadAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.resize import ResizeAttrs, ResizeMode
from edgeq.ops.unary import Unary
from edgeq.passes.editing import NodeList, with_inputs_renamed
from edgeq.passes.fold_pad import fold_pad
from edgeq.passes.fuse_activation import fuse_activation, interval
from edgeq.passes.lift_signals import lift
from edgeq.passes.recognise_activations import recognise_activations
from edgeq.passes.recognise_shuffle import recognise_shuffle
from edgeq.passes.remove_identities import remove_identities
from edgeq.quantize.qparams import activation_params
from edgeq.simulate.executor import execute

_AVERAGES = ("avg_pool", "mean")
_WEIGHTED = ("conv", "conv_transpose", "linear")
_LIMIT = {4: 7, 8: 127}


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedConstant:
    """The integers behind a constant of the float graph.

    Attributes:
        steps: Codes less their zero point, int32, in the constant's own shape: real = steps * scale.
        scale: float32; shape () for all, or (n,) along axis 0.
        zero_point: Of operands (scale of shape ()): what the codes are relative to, as a signed code.
        bits: 4, 8 or 32, as stored.
    """

    steps: Array
    scale: Array
    zero_point: int
    bits: int


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A quantized graph and where it does not do literally what its source does.

    Attributes:
        graph: Quantized, NCHW.
        notes: (node, sentence) pairs.
    """

    graph: Graph
    notes: tuple[tuple[str, str], ...]


def absorb_quantization(
    graph: Graph, constants: Mapping[str, QuantizedConstant], samples: Mapping[str, Array] | None = None
) -> Absorbed:
    """Turns a float NCHW graph with `fake_quant` nodes into the quantized graph.

    Args:
        graph: Its constants are the real values of quantized ones.
        constants: The integers of weights, biases and operands by name of the constant.
        samples: float32 inputs by name, one batch. Only for tensors that the model leaves in float and edgeq does not:
            their range over the samples becomes their scale.

    Raises:
        ImportModelError: If a node's numbers cannot be expressed, naming it, the reason and the cure.
    """
    integers = dict(constants)
    graph = _with_signals_lifted(graph, integers)
    graph = _with_biases(_without_idle_rounding(graph), integers)
    for transform in (remove_identities, recognise_shuffle, fold_pad, recognise_activations, fuse_activation):
        graph = transform(graph)
    graph = _without_idle_rounding(graph)
    build = _Build(_tables_for_cones(graph, integers), integers, blind=samples is None)
    result = build.run()
    if build.missing and samples is not None:
        graph = _without_idle_rounding(_with_ranges(graph, build.missing, samples))
        found = [(name, "the model leaves it in float: its scale was found from the samples") for name in build.missing]
        build = _Build(_tables_for_cones(graph, integers), integers)
        result = build.run()
        build.notes += found
    if build.missing:
        names = ", ".join(build.missing[:3]) + (", ..." if len(build.missing) > 3 else "")
        raise ImportModelError(
            f"the model leaves {len(build.missing)} tensors in float ({names}) that edgeq computes in integers. Give "
            "some of the model's inputs, from which their scales are found (all others stay the model's own); or "
            "quantize them in the model: QuantizeLinear and DequantizeLinear behind them, also at the model's output"
        )
    result = remove_identities(fuse_activation(result))
    check_graph(result)
    return Absorbed(result, tuple(build.notes))


def _with_signals_lifted(graph: Graph, integers: dict[str, QuantizedConstant]) -> Graph:
    """The graph as `lift_signals` leaves it; the integers of reshaped operands are added."""
    lifted = lift(graph)
    for name, source in lifted.constants.items():
        if source in integers:
            steps = integers[source].steps.reshape(lifted.graph.tensor(name).shape)
            integers[name] = replace(integers[source], steps=steps)
    return remove_identities(lifted.graph) if lifted.graph is not graph else graph


def _with_ranges(graph: Graph, names: Sequence[str], samples: Mapping[str, Array]) -> Graph:
    """Rounds tensors that are not rounded, to 8 bits over the range that they have on the samples."""
    try:
        values = execute(graph, samples, names)
    except GraphError as error:
        raise ImportModelError(f"the model cannot be run on the samples: {error}") from None
    result = graph.copy()
    result.nodes = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        result.nodes.append(with_inputs_renamed(node, renamed))
        for name in node.outputs:
            if name not in values:
                continue
            quant = activation_params(float(values[name].min()), float(values[name].max()), 8)
            rounded = name if name in graph.outputs else result.fresh_name(f"{name}.rounded")
            raw = result.fresh_name(f"{name}.real") if name in graph.outputs else name
            tensor = graph.tensor(name)
            result.add_tensor(tensor.with_(name=raw))
            result.add_tensor(tensor.with_(name=rounded))
            outputs = tuple(raw if other == name else other for other in node.outputs)
            result.nodes[-1] = result.nodes[-1].with_(outputs=outputs)
            rounding = result.fresh_name(f"{name}.round")
            result.nodes.append(Node("fake_quant", rounding, (raw,), (rounded,), FakeQuantAttrs(quant)))
            renamed[name] = rounded
    return result


# --- which values a tensor can take ---


def _rounding(node: Node) -> QuantParams | None:
    return node.attrs.quant if isinstance(node.attrs, FakeQuantAttrs) else None


def _same(a: QuantParams | None, b: QuantParams | None) -> bool:
    return a is not None and a.same_as(b)


def _holds(wide: QuantParams, narrow: QuantParams) -> bool:
    """Whether rounding to `wide` leaves every value of `narrow` as it is."""
    return replace(narrow, bits=wide.bits).same_as(wide) and wide.bits >= narrow.bits


def _moves_values(node: Node, graph: Graph) -> bool:
    """Whether every output value is an input value (or a border that has a code)."""
    if isinstance(node.attrs, ResizeAttrs):
        return node.attrs.mode is ResizeMode.NEAREST
    return get(node.op).quant_rule is QuantRule.SAME and node.op != "avg_pool"


def _grids(graph: Graph) -> dict[str, QuantParams]:
    """The parameters whose values a tensor can only take, where that is known."""
    found: dict[str, QuantParams] = {}
    for node in graph.nodes:
        quant = _rounding(node)
        if quant is None and _moves_values(node, graph):
            quants = [found.get(name) for name in node.inputs]
            first = quants[0]
            if first is not None and all(_same(first, other) for other in quants) and _border_fits(node, first):
                quant = first
        grid = found.get(node.inputs[0])
        if quant is None and grid is not None and _is_idle(node, grid):
            quant = grid
        if quant is not None:
            found[node.outputs[0]] = quant
    return found


def _border_fits(node: Node, quant: QuantParams) -> bool:
    if not isinstance(node.attrs, PadAttrs):
        return True
    steps = node.attrs.value / float(quant.scale)
    return steps == np.rint(steps) and quant.qmin <= steps + int(quant.zero_point) <= quant.qmax


def _without_idle_rounding(graph: Graph) -> Graph:
    """Drops roundings and clips that change no value that their input can take; the shorter of the two names stays."""
    grids = _grids(graph)
    ends = {*graph.inputs, *graph.outputs}
    kept: list[Node] = []
    names: dict[str, str] = {}
    for node in graph.nodes:
        source, out = node.inputs[0], node.outputs[0]
        grid = grids.get(source)
        if grid is None or not _is_idle(node, grid) or out in ends:
            kept.append(node)
            continue
        first = names.get(source, source)
        names[out] = first
        if len(out) < len(first) and first not in ends:
            names = {name: out if target == first else target for name, target in names.items()} | {first: out}
            names.pop(out)
    result = graph.copy()
    result.nodes = [
        with_inputs_renamed(node, names).with_(outputs=tuple(names.get(name, name) for name in node.outputs))
        for node in kept
    ]
    return result.prune()


def _is_idle(node: Node, grid: QuantParams) -> bool:
    quant, bounds = _rounding(node), interval(node)
    if bounds is not None:
        return clamp_codes(bounds, grid) == (grid.qmin, grid.qmax)
    return quant is not None and _holds(quant, grid)


def _with_biases(graph: Graph, integers: dict[str, QuantizedConstant]) -> Graph:
    """Makes a constant that is added to a layer's output, with no rounding between, the layer's bias."""
    edit = NodeList.of(graph)
    for node in graph.nodes:
        constants = [graph.constant(name) for name in node.inputs[:2]] if node.op == "add" else []
        if sum(value is None for value in constants) != 1 or node.attrs != ElementwiseAttrs():
            edit.append(node)
            continue
        which = 0 if constants[0] is not None else 1
        layer = edit.sole_producer(node.inputs[1 - which])
        name = _as_bias(node.inputs[which], layer, node, edit.graph, integers)
        if layer is None or not name:
            edit.append(node)
        else:
            edit.replace(layer, layer.with_(inputs=(*layer.inputs[:2], name), outputs=node.outputs))
    return edit.finish()


def _as_bias(
    constant: str, layer: Node | None, node: Node, graph: Graph, integers: dict[str, QuantizedConstant]
) -> str:
    """Adds the bias that a constant is to a layer's output, and returns its name; "" when it is none."""
    value = graph.constant(constant)
    assert value is not None
    if layer is None or layer.op not in _WEIGHTED or any(layer.inputs[2:]):
        return ""
    if getattr(layer.attrs, "clamp", None) != NO_CLAMP:
        return ""
    shape = graph.tensor(node.outputs[0]).shape
    if shape != graph.tensor(layer.outputs[0]).shape:
        return ""
    axis = len(shape) - 1 if layer.op == "linear" else 1
    full = (1,) * (len(shape) - value.ndim) + value.shape
    if value.size > 1 and full != tuple(size if i == axis else 1 for i, size in enumerate(shape)):
        return ""
    channels = shape[axis]
    name = graph.fresh_name(f"{layer.name}.bias")
    graph.add_tensor(Tensor.constant(name, np.broadcast_to(value.reshape(-1), (channels,)).astype(np.float32)))
    known = integers.get(constant)
    if known is not None:
        steps = np.broadcast_to(known.steps.reshape(-1), (channels,))
        integers[name] = replace(known, steps=steps, zero_point=0)
    return name


# --- functions of one tensor ---


def _tables_for_cones(graph: Graph, integers: Mapping[str, QuantizedConstant]) -> Graph:
    """Makes one `lut` of the pointwise nodes between a rounded tensor and the next rounding."""
    producers, grids = graph.producers(), _grids(graph)
    result = graph.copy()
    replaced: dict[str, Node] = {}
    for node in graph.nodes:
        quant = _rounding(node)
        if quant is None:
            continue
        found = _cone(node.inputs[0], graph, producers, grids)
        if found is None:
            continue
        nodes, source = found
        if len(nodes) == 1 and _has_integer_form(nodes[0], graph, integers):
            continue
        table = _table(nodes, source, node.inputs[0], graph, grids[source], quant)
        if table is None:
            continue
        name = result.add_tensor(Tensor.constant(result.fresh_name(f"{nodes[-1].name}.table"), table))
        # The rounding stays behind it, and gives the table's output its parameters.
        out = result.add_tensor(Tensor(result.fresh_name(f"{node.inputs[0]}.looked_up"), graph.tensor(source).shape))
        replaced[node.name] = Node("lut", result.fresh_name(f"{nodes[-1].name}.lut"), (source, name), (out,), Attrs())
    if not replaced:
        return graph
    nodes_out: list[Node] = []
    for node in graph.nodes:
        if node.name in replaced:
            nodes_out += [replaced[node.name], node.with_(inputs=replaced[node.name].outputs)]
        else:
            nodes_out.append(node)
    result.nodes = nodes_out
    return result.prune()


def _cone(
    target: str, graph: Graph, producers: Mapping[str, Node], grids: Mapping[str, QuantParams]
) -> tuple[list[Node], str] | None:
    """The pointwise nodes between `target` and the one rounded tensor that it is a function of, in order."""
    found: dict[str, Node] = {}
    sources: set[str] = set()
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name in grids:
            sources.add(name)
            continue
        node = producers.get(name)
        if node is None or not _is_pointwise(node, graph):
            return None
        if node.name not in found:
            found[node.name] = node
            waiting += [x for x in node.inputs if not graph.tensor(x).is_constant]
    if len(sources) != 1 or not found:
        return None
    return [node for node in graph.nodes if node.name in found], sources.pop()


def _is_pointwise(node: Node, graph: Graph) -> bool:
    return isinstance(get(node.op), (Unary, Elementwise)) or node.op == "batch_norm"


def _has_integer_form(node: Node, graph: Graph, integers: Mapping[str, QuantizedConstant]) -> bool:
    """Whether a pointwise node needs no table of its own: its constants, if any, are codes."""
    if isinstance(get(node.op), Elementwise):
        return all(not graph.tensor(name).is_constant or _is_operand(integers.get(name)) for name in node.inputs)
    return node.op != "batch_norm"


def _is_operand(constant: QuantizedConstant | None) -> bool:
    return constant is not None and np.ndim(constant.scale) == 0 and constant.bits < 32


def _table(
    nodes: list[Node], source: str, target: str, graph: Graph, quant_in: QuantParams, quant_out: QuantParams
) -> Array | None:
    """The table of a cone: [256], or [channels, 256]; None when a constant is neither one value nor one a channel."""
    shape = graph.tensor(source).shape
    channels = shape[1] if len(shape) >= 2 else 1
    if any(graph.tensor(name).shape != shape for node in nodes for name in node.outputs):
        return None

    def constant(name: str) -> Array | None:
        value = graph.constant(name)
        assert value is not None
        wide = value.astype(np.float64)
        if value.size == 1:
            return wide.reshape(())
        full = (1,) * (len(shape) - value.ndim) + value.shape
        by_channel = value.size == channels and (len(full) > len(shape) or full[1:2] == (channels,) or value.ndim == 1)
        return wide.reshape(-1, 1) if by_channel else None

    def evaluate(x: Array) -> Array:
        values: dict[str, Array] = {source: x}
        for node in nodes:
            operator = get(node.op)
            operands = [values[name] if name in values else constant(name) for name in node.inputs]
            if any(operand is None for operand in operands):
                raise _NotPointwise
            known = [operand for operand in operands if operand is not None]
            if isinstance(operator, Elementwise):
                y = np.clip(operator.function(known[0], known[1]), *node.attrs.clamp)  # type: ignore[attr-defined]
            elif node.op == "batch_norm":
                y = known[0] * known[1] + known[2]
            elif node.op == "prelu":
                y = np.where(known[0] >= 0, known[0], known[0] * known[1])
            elif isinstance(operator, Unary):
                y = operator.function(known[0], node)
            values[node.outputs[0]] = y
        return values[target]

    try:
        table: Array = unary_table(evaluate, quant_in, quant_out)
    except _NotPointwise:
        return None
    return table


class _NotPointwise(Exception):
    """A constant differs from pixel to pixel."""


# --- the quantized graph ---


@dataclass(frozen=True, slots=True)
class _Codes:
    """A tensor of the quantized graph."""

    name: str
    quant: QuantParams


@dataclass(slots=True)
class _Build:
    """Builds the quantized graph beside the float one.

    Attributes:
        source: The float graph.
        constants: The integers behind its constants.
        result: What is being built.
        places: For each float tensor that is rounded, the tensor of its codes.
        duplicates: The same by the parameters too, for tensors that are rounded in several ways.
        demands: The parameters that a tensor's readers round it to.
        consumers: The nodes that read each float tensor.
        taken: Names that new tensors and nodes may not have.
        changed: Tensors made of others' codes, by name and what was done.
        notes: As `Absorbed.notes`.
        blind: Whether there are no samples from which a scale could be found.
        missing: Tensors without a scale; the result is of no use then.
    """

    source: Graph
    constants: Mapping[str, QuantizedConstant]
    result: Graph = field(default_factory=lambda: Graph(""))
    places: dict[str, _Codes] = field(default_factory=dict)
    duplicates: dict[tuple[str, str], _Codes] = field(default_factory=dict)
    demands: dict[str, list[QuantParams] | None] = field(default_factory=dict)
    changed: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)
    consumers: dict[str, list[Node]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    blind: bool = False
    missing: list[str] = field(default_factory=list)

    def run(self) -> Graph:
        self.result = Graph(self.source.name, list(self.source.inputs), list(self.source.outputs))
        self.consumers = self.source.consumers()
        self.taken = self.source.tensors.keys() | {node.name for node in self.source.nodes}
        self.find_demands()
        for name in self.source.inputs:
            self.define_input(name)
        for node in self.source.nodes:
            self.node(node)
        for name in self.source.outputs:
            if name not in self.result.tensors:
                self.name_output(name)
        return self.result.prune()

    def find_demands(self) -> None:
        """Works out, last nodes first, what each tensor is rounded to; None where something reads it as it is."""
        for name in self.source.outputs:
            self.demands[name] = None
        order = [name for node in reversed(self.source.nodes) for name in node.outputs] + list(self.source.inputs)
        for name in order:
            found: list[QuantParams] | None = [] if name not in self.demands else None
            for node in self.consumers.get(name, []):
                quant = _rounding(node)
                more = [quant] if quant is not None else None
                if quant is None and _moves_values(node, self.source):
                    more = self.demands[node.outputs[0]]
                found = None if found is None or more is None else _union(found, more)
            self.demands[name] = found

    # --- names ---

    def name_for(self, name: str, quant: QuantParams) -> str:
        """The best name for the codes of a float tensor: an output's, else the shortest of it and its roundings."""
        found = [name] + [node.outputs[0] for node in self.consumers.get(name, []) if _same(_rounding(node), quant)]
        found = [candidate for candidate in found if candidate not in self.result.tensors]
        for candidate in found:
            if candidate in self.source.outputs:
                return candidate
        return min(found, key=len) if found else self.fresh(name)

    def fresh(self, stem: str) -> str:
        return take_name(stem, self.taken, self.result.tensors)

    def define(self, name: str, quant: QuantParams, shape: tuple[int, ...]) -> str:
        """Adds the codes of a float tensor; its roundings to the same parameters are these codes too."""
        held = self.name_for(name, quant)
        self.result.add_tensor(Tensor(held, shape, "int8", quant))
        self.places[name] = _Codes(held, quant)
        return held

    def emit(self, op: str, name: str, inputs: Sequence[str], out: str, attrs: Attrs | None = None) -> None:
        self.result.nodes.append(Node(op, name, tuple(inputs), (out,), attrs or Attrs()))

    # --- nodes ---

    def define_input(self, name: str) -> None:
        demands = self.demands[name]
        if not demands or len(demands) > 1:
            why = "read in float" if demands is None else f"rounded in {len(demands)} different ways"
            raise ImportModelError(
                f"input {name!r} is {why}; edgeq rounds an input once, where it enters. Quantize the model's input "
                "(QuantizeLinear directly behind it), and normalise before the model"
            )
        self.result.add_tensor(Tensor(name, self.source.tensor(name).shape, "int8", demands[0]))
        self.places[name] = _Codes(name, demands[0])

    def node(self, node: Node) -> None:
        quant = _rounding(node)
        if quant is not None:
            self.round(node, quant)
        elif get(node.op).quant_rule is QuantRule.FLOAT:
            self.float_output(node)
        elif _moves_values(node, self.source) or node.op == "resize":
            self.move(node)
        else:
            self.compute(node)

    def round(self, node: Node, quant: QuantParams) -> None:
        out = node.outputs[0]
        if out in self.result.tensors and out not in self.places and self.result.tensor(out).quant is None:
            return  # What softmax gives, which stays float.
        place = self.duplicates.get((node.inputs[0], _key(quant))) or self.places[node.inputs[0]]
        if not _holds(quant, place.quant):
            place = _Codes(self.with_quant(place, quant, node.name), quant)
        self.places[out] = place

    def with_quant(self, place: _Codes, quant: QuantParams, name: str) -> str:
        """Returns codes in other parameters: a `clip` without bounds, or a table of what float32 makes of them."""
        if place.quant.same_as(quant):
            return place.name
        key = (place.name, _key(quant))
        if key not in self.changed:
            out = self.name_for(name, quant) if name in self.source.tensors else self.fresh(f"{place.name}.requantized")
            self.result.add_tensor(self.result.tensor(place.name).with_(name=out, quant=quant))
            node, table = self.fresh(f"{out}.requantize"), _requantizing_table(place.quant, quant)
            if np.array_equal(table, unary_table(lambda x: x, place.quant, quant)):
                self.emit("clip", node, [place.name], out, ClipAttrs())
            else:
                constant = self.result.add_tensor(Tensor.constant(self.fresh(f"{node}.table"), table))
                self.emit("lut", node, [place.name, constant], out)
            self.changed[key] = out
        return self.changed[key]

    def float_output(self, node: Node) -> None:
        """Softmax: its probabilities stay float, and only outputs of the model may be."""
        out = node.outputs[0]
        readers = self.consumers.get(out, [])
        rounded = [reader for reader in readers if _rounding(reader) is not None]
        outputs = [reader.outputs[0] for reader in rounded if reader.outputs[0] in self.source.outputs]
        if len(readers) != len(outputs) or any(self.consumers.get(name) for name in outputs):
            raise ImportModelError(
                f"{node.name}: edgeq has {node.op} only at the end of a network; its output is read by "
                f"{readers[0].name if readers else 'nothing'}. Export the part of the model before it"
            )
        if outputs:
            self.notes.append((node.name, "its probabilities stay float32: their rounding at the end is left out"))
        name = outputs[0] if outputs else out
        self.result.add_tensor(Tensor(name, self.source.tensor(out).shape))
        self.emit(node.op, node.name, [self.place(node, node.inputs[0]).name], name, node.attrs)

    def place(self, node: Node, name: str) -> _Codes:
        """The codes of a node's input; raises ImportModelError when it is float."""
        found = self.places.get(name)
        if found is None:
            raise ImportModelError(
                f"{node.name} ({node.op}) reads {name!r}, which the model leaves in float. edgeq computes in integers "
                "throughout: quantize it there too (a QuantizeLinear and DequantizeLinear pair behind it)"
            )
        return found

    def move(self, node: Node) -> None:
        """Operators that copy codes: all inputs and the output have the same parameters."""
        out = node.outputs[0]
        places = [self.place(node, name) for name in node.inputs]
        quant, demands = places[0].quant, self.demands[out]
        if not all(place.quant.same_as(quant) for place in places):
            quant = demands[0] if demands else self.unscaled(out)
        inputs = [self.with_quant(place, quant, name) for place, name in zip(places, node.inputs, strict=True)]
        held = self.define(out, quant, self.source.tensor(out).shape)
        self.emit(node.op, node.name, inputs, held, node.attrs)

    def compute(self, node: Node) -> None:
        """Operators with parameters of their own at the output, once for each way in which it is rounded."""
        out = node.outputs[0]
        demands = self.demands[out]
        if not demands and node.op in _AVERAGES and self.blind:
            # Averages lie within the range of what they average.
            demands = [self.place(node, node.inputs[0]).quant]
            self.notes.append((node.name, "the model leaves its output in float: it got its input's scale"))
        if not demands:
            demands = [self.unscaled(out)]
        for index, quant in enumerate(demands):
            name = node.name if index == 0 else self.fresh(f"{node.name}.again")
            held = self.define(out, quant, self.source.tensor(out).shape)
            self.duplicates[out, _key(quant)] = self.places[out]
            if node.op in _WEIGHTED:
                self.weighted(node, name, held)
            else:
                inputs = [self.operand(node, operand) for operand in node.inputs]
                self.emit(node.op, name, inputs, held, node.attrs)

    def unscaled(self, name: str) -> QuantParams:
        """Notes a tensor that nothing rounds, and lets the walk go on to find the others."""
        self.missing.append(name)
        return QuantParams.per_tensor(1.0, 0)

    def operand(self, node: Node, name: str) -> str:
        """An activation's codes, or a constant: as the model quantized it, or quantized here."""
        value = self.source.constant(name)
        if value is None:
            return self.place(node, name).name
        if name in self.result.tensors:
            return name
        if not isinstance(get(node.op), Elementwise):
            return self.result.add_tensor(self.source.tensor(name))
        known = self.constants.get(name)
        if known is not None and _is_operand(known):
            quant = QuantParams.per_tensor(float(known.scale), known.zero_point, known.bits)
            codes = (known.steps + known.zero_point).astype(np.int8)
        else:
            quant = _range_params(value)
            codes = quantize(value, quant)
            self.notes.append((node.name, "its constant operand, one value a pixel, was rounded to 8 bits"))
        return self.result.add_tensor(Tensor.constant(name, codes, quant))

    # --- layers with weights ---

    def weighted(self, node: Node, name: str, held: str) -> None:
        """Emits a layer; weights that are beyond the codes of a scheme are split over copies of the input."""
        x = self.place(node, node.inputs[0])
        known = self.constants.get(node.inputs[1])
        if known is None:
            raise ImportModelError(
                f"{node.name} ({node.op}): its weights are float, while its input is quantized; quantize both"
            )
        if _is_average(node, known, x.quant, self.result.quant(held)):
            window = attrs_of(node, ConvAttrs).window
            self.emit("avg_pool", name, [x.name], held, AvgPoolAttrs(window, any(window.pads)))
            return
        steps, scale, bias = self.within_32_bits(node, known, x.quant)
        largest = int(np.abs(steps).max(initial=0))
        bits = 4 if known.bits == 4 and largest <= _LIMIT[4] else 8
        copies = max(1, -(-largest // _LIMIT[8]))
        zeros = np.zeros(scale.shape, np.int32)
        axis = 0 if scale.ndim else None
        source, weights = x.name, steps
        if copies > 1:
            source, weights = self.copies_of(x, node, copies), _split(steps, copies, _grouped(node))
            self.notes.append(
                (
                    node.name,
                    f"weights reach {largest} steps from their zero point, beyond {_LIMIT[8]}: they are split over "
                    f"{copies} copies of the input, which is exact and takes {copies} times the work",
                )
            )
        quant = QuantParams(scale, zeros, bits, axis)
        inputs = [source, self.fresh_constant(node.inputs[1], weights.astype(np.int8), quant)]
        if bias is not None:
            product = (np.float32(x.quant.scale) * scale).astype(np.float32)
            codes = np.rint(bias).astype(np.int32)
            inputs.append(self.fresh_constant(node.inputs[2], codes, QuantParams(product, zeros, 32, axis)))
        self.emit(node.op, name, inputs, held, node.attrs)

    def within_32_bits(
        self, node: Node, weights: QuantizedConstant, x: QuantParams
    ) -> tuple[Array, Array, Array | None]:
        """The steps and scales of a layer's weights and its bias in steps of s_x * s_w, so that no sum leaves 32 bits.

        A channel whose bias is near the limit (quantizers give weights that hardly matter tiny scales) gets twice the
        scale, which costs its weights half a step and moves the output by far less than one.
        """
        steps, scale = weights.steps, weights.scale.astype(np.float32)
        bias = self.bias(node, x, scale) if len(node.inputs) > 2 and node.inputs[2] else None
        largest = max(x.qmax - int(x.zero_point), int(x.zero_point) - x.qmin)
        changed = False
        while True:
            bound = largest * np.abs(steps.reshape(len(steps), -1).astype(np.int64)).sum(axis=1).astype(np.float64)
            if bias is not None:
                bound += np.abs(bias) + 1
            over = bound >= 1 << 31
            if not over.any():
                break
            changed = True
            scale = np.broadcast_to(scale, (len(steps),)).copy()
            scale[over] *= np.float32(2)
            steps = np.where(over.reshape(-1, *[1] * (steps.ndim - 1)), np.rint(steps / 2), steps).astype(np.int32)
            bias = None if bias is None else np.where(over, bias / 2, bias)
            if not np.all(np.isfinite(scale)):
                raise ImportModelError(f"{node.name}: its bias does not fit 32 bits; the file is damaged")
        if changed:
            self.notes.append(
                (node.name, "channels whose sums could leave 32 bits got twice the weight scale, and rounded weights")
            )
        return steps, scale, bias

    def fresh_constant(self, name: str, value: Array, quant: QuantParams) -> str:
        """Adds a constant under its own name; a layer that shares it but reads another input gets its own."""
        before = self.result.tensors.get(name)
        if before is not None:
            if before.quant is not None and before.quant.same_as(quant) and np.array_equal(before.data, value):  # type: ignore[arg-type]
                return name
            name = self.fresh(name)
        return self.result.add_tensor(Tensor.constant(name, value, quant))

    def bias(self, node: Node, x: QuantParams, weight_scale: Array) -> Array:
        """The bias in steps of s_x * s_w as float64; whole numbers where the model has it in these steps."""
        name = node.inputs[2]
        real = self.source.constant(name)
        assert real is not None
        scale = np.broadcast_to((np.float32(x.scale) * weight_scale).astype(np.float32), real.shape)
        if np.any(scale == 0):
            raise ImportModelError(f"{node.name}: the product of its input's and weights' scales is zero in float32")
        known = self.constants.get(name)
        if known is not None and np.array_equal(np.broadcast_to(known.scale, real.shape), scale):
            return known.steps.astype(np.float64)
        self.notes.append((node.name, "its bias was rounded to steps of its input's and weights' scales"))
        wide = real.astype(np.float64) if known is None else known.steps * known.scale.astype(np.float64)
        return np.asarray(wide / scale.astype(np.float64))

    def copies_of(self, x: _Codes, node: Node, count: int) -> str:
        """The input several times: [x0, x0, x1, x1, ...] along the channels with groups, else one after another."""
        tensor = self.result.tensor(x.name)
        axis = len(tensor.shape) - 1 if node.op == "linear" else 1
        shape = tuple(size * count if i == axis else size for i, size in enumerate(tensor.shape))
        key = (x.name, f"{count} copies, {_grouped(node)}")
        if key in self.changed:
            return self.changed[key]
        out = self.fresh(f"{x.name}.copies")
        self.result.add_tensor(tensor.with_(name=out, shape=shape))
        self.emit("concat", self.fresh(f"{node.name}.copies"), [x.name] * count, out, ConcatAttrs(axis))
        if _grouped(node):
            mixed = self.fresh(f"{x.name}.mixed")
            self.result.add_tensor(tensor.with_(name=mixed, shape=shape))
            self.emit("channel_shuffle", self.fresh(f"{node.name}.mix"), [out], mixed, ChannelShuffleAttrs(count))
            out = mixed
        self.changed[key] = out
        return out

    def name_output(self, name: str) -> None:
        """Gives an output that shares its codes with another tensor a name of its own."""
        place = self.places[name]
        tensor = self.result.tensor(place.name)
        self.result.add_tensor(tensor.with_(name=name))
        self.emit("reshape", self.fresh(f"{name}.identity"), [place.name], name, ReshapeAttrs(tensor.shape))


def _requantizing_table(source: QuantParams, target: QuantParams) -> Array:
    """What dequantizing and quantizing does to each code, in float32 as ONNX has it.

    It differs from the exact table only where a value lies halfway between two codes of the target.
    """
    wide = replace(source, bits=8)
    table: Array = quantize(dequantize(np.arange(-128, 128, dtype=np.int16), wide), target)
    return table


def _key(quant: QuantParams) -> str:
    return f"{quant.bits} {float(quant.scale).hex()} {int(quant.zero_point)}"


def _union(first: list[QuantParams], second: list[QuantParams]) -> list[QuantParams]:
    return first + [quant for quant in second if not any(quant.same_as(other) for other in first)]


def _grouped(node: Node) -> bool:
    return isinstance(node.attrs, (ConvAttrs, ConvTransposeAttrs)) and node.attrs.groups > 1


def _is_average(node: Node, weights: QuantizedConstant, x: QuantParams, y: QuantParams) -> bool:
    """Whether a layer is an average over windows, to the bit: a depthwise convolution with weights of one."""
    attrs, steps = node.attrs, weights.steps
    if not isinstance(attrs, ConvAttrs) or attrs.clamp != NO_CLAMP or attrs.window.dilations != (1, 1):
        return False
    if any(node.inputs[2:]) or attrs.groups != steps.shape[0] or steps.shape[1] != 1 or np.ndim(weights.scale):
        return False
    count = np.float32(attrs.window.kernel[0] * attrs.window.kernel[1])
    product = np.float32(np.float32(x.scale) * weights.scale) / np.float32(y.scale)
    averaging = (np.float32(x.scale) / np.float32(y.scale)) / count
    return count > 1 and bool(np.all(steps == 1)) and bool(product == averaging)


def _split(steps: Array, copies: int, interleaved: bool) -> Array:
    """Weights for an input that is there several times: parts within the codes that sum to `steps`, along axis 1."""
    parts, rest = [], steps.astype(np.int32)
    for _ in range(copies):
        parts.append(np.clip(rest, -_LIMIT[8], _LIMIT[8]))
        rest = rest - parts[-1]
    if not interleaved:
        return np.concatenate(parts, axis=1)
    return np.stack(parts, axis=2).reshape(steps.shape[0], steps.shape[1] * copies, *steps.shape[2:])


def _range_params(value: Array) -> QuantParams:
    low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
    scale = (high - low) / 255 or 1.0
    return QuantParams.per_tensor(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))
