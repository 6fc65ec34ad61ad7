"""Equalises the channels of a float network's activations, so that a tensor's few codes serve all of its channels.

Cross-layer equalisation and high-bias absorption (Nagel et al. 2019, arXiv 1906.04721, sections 4.1 and 4.1.3), for a
quantizer with a weight scale for every output channel and one activation scale for the whole tensor. There a scaled
row of weights costs nothing, so the balance is between an activation's channels and the columns of the layers that
read it: a channel that grows by s gets s times finer codes and leaves its reader a column that is s times smaller,
which a row's common scale rounds the more coarsely. A depthwise reader has a scale for that very channel, so that
nothing stands against equal channels there.

What may be scaled together is a set: tensors that operators join which commute with a positive factor a channel
(additions, ReLU, pooling, averages). The rows of every layer that writes to the set are multiplied, the columns of
every layer that reads it divided. What commutes for every input is exact for every input: no clamp, ReLU, leaky ReLU.
A bound that is neither zero nor infinite (the 6 of ReLU6) does not scale with the channel. A channel whose values on
the samples reach it, or come within `margin` of it, keeps its scale; any other one may shrink, and grow until it is
within the margin. For those the function is the same as long as no value lies outside of `margin` times the range
that the samples showed; beyond, the bound takes hold earlier or later than it did.

Shifts: a channel may be moved by a constant c that the readers' biases take up, so that the tensor's range becomes
narrower. Where nothing clips, c is the channel's mean, exact for every input. Behind a ReLU c is max(0, mean - 3
standard deviations), as in the paper, and no more than the smallest value that the samples showed: exact where the
ReLU does not clip, which on the samples is everywhere. A border of zeros would have to be moved too, so that readers
with padding rule a shift out.

The rows' own scales drop out of every rule here, so sets do not influence each other: after one pass over them
another one finds every scale to be 1 but for the coarseness of the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import QuantizationError
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.ir import BATCH, Graph, Node, Tensor
from edgeq.ops.base import NO_CLAMP, Clamp
from edgeq.ops.clip import ClipAttrs
from edgeq.ops.conv import ConvAttrs
from edgeq.quantize.calibrate import FloatSession, activation_elements, slice_feeds
from edgeq.quantize.layers import BIAS, WEIGHTS, X, bias_name
from edgeq.quantize.observers import MseObserver
from edgeq.quantize.qparams import activation_params, weight_limit
from edgeq.simulate.executor import Feeds, checked_feeds

MARGIN = 1.1
"""A channel is scaled only where this times its largest value on the samples stays below the clamp's bound."""

CHUNK_ELEMENTS = 1 << 25
"""Samples run together while their observed activations stay below this many elements."""

ROWS = 1024
"""Positions of each activation that are kept for the estimate of the rounding error."""

ROUNDING_GAIN = 0.25
"""Error of weights chosen with second moments, as a share of that of plain rounding. Only the choice of the scales
depends on it."""

GROWTH = 2.0**6
"""A channel's scale lies within 1 / GROWTH and GROWTH: beyond, a channel is all but dead on the samples."""

CANDIDATES = ((0.0, 0.5), (0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.5, 1.0))
"""(b, a): scales proportional to column^b / magnitude^a that are compared, besides leaving the set as it is."""

LEVELS = (1.0, 0.7, 0.5, 0.35)
"""Where a bound fixes some channels: the width that the others are given, as a share of the widest one's."""

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Where a channel could be clipped, as a share of its largest value."""

Floats = npt.NDArray[np.float64]

_PASSING = ("mean", "avg_pool", "max_pool")
_HOMOGENEOUS = ("relu", "clip", "leaky_relu", *_PASSING)
_SUMS = ("add", "sub")


@dataclass(frozen=True, slots=True)
class ChannelSet:
    """Activations whose channels can only be scaled together.

    Attributes:
        name: The first member in execution order.
        members: In execution order; all have the same number of channels, on axis 1.
        writers: Layers whose output is a member.
        readers: Layers whose input is a member.
    """

    name: str
    members: tuple[str, ...]
    writers: tuple[Node, ...]
    readers: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """What an activation showed on the samples, channel by channel.

    Attributes:
        low: Smallest values, shape (C,).
        high: Largest values, shape (C,).
        mean: Shape (C,).
        variance: Shape (C,).
        rows: Values at some positions, float32 of shape (n, C).
    """

    low: Floats
    high: Floats
    mean: Floats
    variance: Floats
    rows: npt.NDArray[np.float32]

    def shifted(self, shift: Floats) -> ChannelStatistics:
        """Returns those of the values less `shift`."""
        rows = self.rows - shift.astype(np.float32)
        return ChannelStatistics(self.low - shift, self.high - shift, self.mean - shift, self.variance, rows)


@dataclass(frozen=True, slots=True)
class Equalized:
    """An equalised graph and what was done.

    Attributes:
        graph: Float, with the same nodes and tensor names (and a bias where a layer had none and now needs one).
        scales: By name of the set: the factors of its channels.
        shifts: By activation: what was taken off its channels, before they were scaled.
    """

    graph: Graph
    scales: dict[str, Floats]
    shifts: dict[str, Floats]


def channel_sets(graph: Graph) -> list[ChannelSet]:
    """Finds the activations whose channels can be scaled: layers alone write and read each set.

    A set is left out when the caller gives or gets a member, when an operator that does not commute with a factor a
    channel touches one, or when a layer around it shares its weights or bias with another layer.
    """
    parent: dict[str, str] = {}
    blocked: set[str] = set(graph.inputs) | set(graph.outputs)
    uses = {name: len(nodes) for name, nodes in graph.consumers().items()}
    order = [tensor.name for tensor in graph.activations()]

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for node in graph.nodes:
        activations = [name for name in node.inputs if name and not graph.tensor(name).is_constant]
        touched = [*activations, *node.outputs]
        if node.op in ("conv", "linear"):
            constants = [name for name in node.inputs[WEIGHTS:] if name]
            plain = len(activations) == 1 and all(graph.tensor(name).is_constant for name in constants)
            if not plain or any(uses[name] > 1 for name in constants) or not _channels_second(graph, touched):
                blocked.update(touched)
        elif _joins(node, graph, activations):
            for name in touched[1:]:
                # The earlier root stays, so that a set is named by its first member.
                first, second = sorted((root(touched[0]), root(name)), key=order.index)
                parent[second] = first
        else:
            blocked.update(touched)
    groups: dict[str, list[str]] = {}
    for name in order:
        groups.setdefault(root(name), []).append(name)
    found = []
    for name, members in groups.items():
        inside = set(members)
        if inside & blocked:
            continue
        layers = [node for node in graph.nodes if node.op in ("conv", "linear")]
        writers = tuple(node for node in layers if node.outputs[0] in inside)
        readers = tuple(node for node in layers if node.inputs[X] in inside)
        if writers and readers:
            found.append(ChannelSet(name, tuple(members), writers, readers))
    return found


def _channels_second(graph: Graph, names: Sequence[str]) -> bool:
    return all(len(graph.tensor(name).shape) in (2, 4) for name in names)


def _joins(node: Node, graph: Graph, activations: Sequence[str]) -> bool:
    """Whether scaling a channel of all of a node's activations by a positive factor leaves the function as it is."""
    if not _channels_second(graph, [*activations, *node.outputs]):
        return False
    shapes = [graph.tensor(name).shape for name in (*activations, *node.outputs)]
    if node.op in _SUMS:
        return len(activations) == 2 and all(shape == shapes[0] for shape in shapes)
    if node.op == "reshape":
        # [N, C, 1, 1] and [N, C]: the channels stay where they are.
        return len(activations) == 1 and all(shape[:2] == shapes[0][:2] and set(shape[2:]) <= {1} for shape in shapes)
    return node.op in _HOMOGENEOUS and len(activations) == 1


def observe_channels(
    graph: Graph, samples: Feeds, names: Sequence[str], threads: int, seed: int = 0
) -> dict[str, ChannelStatistics]:
    """Runs the float graph on samples and gathers the statistics of activations with channels on axis 1.

    Raises:
        DataError: If there are no samples or one does not fit the graph.
        QuantizationError: If a value is not finite.
    """
    feeds = checked_feeds(graph, samples, np.float32)
    count = max((feeds[name].shape[0] for name in graph.inputs if graph.tensor(name).shape[:1] == (BATCH,)), default=1)
    model = FloatSession(to_float_onnx(graph, list(names)), threads)
    chunk = int(np.clip(CHUNK_ELEMENTS // max(activation_elements(graph, names), 1), 1, 32))
    generator = np.random.default_rng(seed)
    sums = {name: _Sums(graph.tensor(name).shape[1]) for name in names}
    kept = -(-ROWS // count)
    for begin in range(0, count, chunk):
        for name, value in zip(names, model.run(slice_feeds(graph, feeds, begin, begin + chunk)), strict=False):
            # [n, C, ...] -> [n, C, positions]
            flat = value.reshape(*value.shape[:2], -1)
            if not np.isfinite(flat).all():
                raise QuantizationError(f"Tensor {name!r} is NaN or infinite on the samples.")
            sums[name].add(flat, generator.permutation(flat.shape[2])[:kept])
    return {name: found.statistics() for name, found in sums.items()}


class _Sums:
    def __init__(self, channels: int) -> None:
        self.low, self.high = np.full(channels, math.inf), np.full(channels, -math.inf)
        self.first, self.second = np.zeros(channels), np.zeros(channels)
        self.count = 0
        self.rows: list[npt.NDArray[np.float32]] = []

    def add(self, x: npt.NDArray[np.float32], picks: npt.NDArray[np.int64]) -> None:
        """Takes values of shape (n, C, positions)."""
        self.low = np.minimum(self.low, x.min(axis=(0, 2)))
        self.high = np.maximum(self.high, x.max(axis=(0, 2)))
        self.first += x.sum(axis=(0, 2), dtype=np.float64)
        self.second += np.einsum("ncp,ncp->nc", x, x).sum(axis=0, dtype=np.float64)
        self.count += x.shape[0] * x.shape[2]
        self.rows.append(x[:, :, picks].transpose(0, 2, 1).reshape(-1, x.shape[1]))

    def statistics(self) -> ChannelStatistics:
        mean = self.first / self.count
        variance = np.maximum(self.second / self.count - mean**2, 0.0)
        return ChannelStatistics(self.low, self.high, mean, variance, np.concatenate(self.rows))


def equalize(
    graph: Graph,
    samples: Feeds,
    *,
    weight_bits: int = 4,
    activation_bits: int = 8,
    strength: float | None = None,
    absorb: bool = True,
    margin: float = MARGIN,
    threads: int = 1,
) -> Equalized:
    """Scales, and shifts, the channels of a float NCHW graph between its layers; the module says what that preserves.

    Args:
        graph: Float, NCHW, after the float passes.
        samples: Inputs by name (or as an array, or in order): what calibration sees. A hundred images or more; the
            largest value of each channel on them decides what may be scaled behind a ReLU6.
        weight_bits: What the weights will have; for the choice of the scales.
        activation_bits: What the activations will have; for the choice of the scales.
        strength: Scales are column^(1 - strength) / magnitude^strength: 0.5 is the paper's balance, with activations
            in the place of the first layer's weights; 1 makes all channels' largest values equal. None chooses for
            each set, among CANDIDATES, by an estimate of the rounding errors of the layers that read it.
        absorb: Whether channels are shifted first.
        margin: By how much a value may exceed the samples' before a bound that is neither zero nor infinite acts
            otherwise than it did; at least 1.
        threads: For ONNX Runtime.

    Raises:
        DataError: If there are no samples, or they do not fit the graph.
        QuantizationError: If an activation is not finite, or an argument is out of its range.
    """
    if strength is not None and not 0 <= strength <= 1:
        raise QuantizationError(f"the strength of equalisation lies between 0 and 1, not at {strength}")
    if margin < 1:
        raise QuantizationError(f"the margin of equalisation is at least 1, not {margin}")
    sets = channel_sets(graph)
    if not sets:
        return Equalized(graph, {}, {})
    statistics = observe_channels(graph, samples, [name for found in sets for name in found.members], threads)
    result = graph.copy()
    shifts: dict[str, Floats] = {}
    scales: dict[str, Floats] = {}
    for found in sets:
        # The nodes are those of the changed graph: a shift may have given one a bias.
        if absorb:
            for name, shift in _shifts_of(found, result, statistics, margin).items():
                statistics[name] = statistics[name].shifted(shift)
                shifts[name] = shift
            _move(found, result, shifts)
        seen = {name: statistics[name] for name in found.members}
        limits = _largest_scales(found, result, seen, margin)
        readers = [_Reader.of(node, result, seen[node.inputs[X]], weight_bits) for node in found.readers]
        factor = _chosen_scales(readers, limits, activation_bits, strength)
        if (factor != 1).any():
            _scale(found, result, factor)
            scales[found.name] = factor
    return Equalized(result, scales, shifts)


# --- shifts ---


def _clamp_of(node: Node) -> Clamp:
    if isinstance(node.attrs, ClipAttrs):
        return node.attrs.low, node.attrs.high
    if node.op == "relu":
        return 0.0, math.inf
    found: Clamp = getattr(node.attrs, "clamp", NO_CLAMP)
    return found


def _shifts_of(
    found: ChannelSet, graph: Graph, statistics: Mapping[str, ChannelStatistics], margin: float
) -> dict[str, Floats]:
    """What each member can be moved by, {} for none: layers' outputs freely, what follows them as they are."""
    if any(not _has_no_border(node) for node in found.readers):
        return {}
    inside = set(found.members)
    shifts: dict[str, Floats] = {}
    for node in graph.nodes:
        name = node.outputs[0]
        if name not in inside:
            continue
        if node.op in ("conv", "linear"):
            shifts[name] = _own_shift(_clamp_of(node), statistics[name], margin)
        elif node.op in _SUMS and _clamp_of(node) == NO_CLAMP:
            a, b = shifts[node.inputs[0]], shifts[node.inputs[1]]
            shifts[name] = a + b if node.op == "add" else a - b
        elif node.op in (*_PASSING, "reshape") and not getattr(node.attrs, "count_include_pad", False):
            shifts[name] = shifts[node.inputs[0]]
        else:
            return {}
    return shifts if any(shift.any() for shift in shifts.values()) else {}


def _has_no_border(node: Node) -> bool:
    return not isinstance(node.attrs, ConvAttrs) or not any(node.attrs.window.pads)


def _own_shift(clamp: Clamp, seen: ChannelStatistics, margin: float) -> Floats:
    if clamp == NO_CLAMP:
        return seen.mean
    low, high = clamp
    if low != 0.0:
        return np.zeros(seen.mean.size)
    shift = np.clip(seen.mean - 3 * np.sqrt(seen.variance), 0.0, np.maximum(seen.low, 0.0))
    result: Floats = np.where(seen.high * margin < high, shift, 0.0)
    return result


def _move(found: ChannelSet, graph: Graph, shifts: Mapping[str, Floats]) -> None:
    """Takes the shifts off the writers' biases and lets the readers' biases make up for them."""
    for node in found.writers:
        if node.outputs[0] in shifts:
            _add_to_bias(node, graph, -shifts[node.outputs[0]])
    for node in found.readers:
        if node.inputs[X] in shifts:
            weights = _weights(node, graph)
            columns = _input_channels(node, weights)
            _add_to_bias(node, graph, np.einsum("ock,oc->o", weights, shifts[node.inputs[X]][columns]))


def _add_to_bias(node: Node, graph: Graph, change: Floats) -> None:
    current = next(other for other in graph.nodes if other.name == node.name)
    name = bias_name(current)
    bias = graph.constant(name)
    if bias is None:
        name = graph.fresh_name(f"{node.name}.bias")
        bias = np.zeros(change.size, dtype=np.float32)
        inputs = (*current.inputs[:BIAS], name)
        graph.nodes[graph.nodes.index(current)] = current.with_(inputs=inputs)
    graph.add_tensor(Tensor.constant(name, (bias.astype(np.float64) + change).astype(np.float32)))


# --- scales ---


def _weights(node: Node, graph: Graph) -> Floats:
    """Weights as (O, inputs of a row, taps)."""
    value = graph.constant(node.inputs[WEIGHTS])
    assert value is not None
    return value.astype(np.float64).reshape(value.shape[0], value.shape[1], -1)


def _input_channels(node: Node, weights: Floats) -> npt.NDArray[np.int64]:
    """Which input channel each weight of a row meets, shape (O, inputs of a row)."""
    groups = node.attrs.groups if isinstance(node.attrs, ConvAttrs) else 1
    outputs, inputs, _ = weights.shape
    group = np.arange(outputs) // (outputs // groups)
    result: npt.NDArray[np.int64] = group[:, None] * inputs + np.arange(inputs)[None, :]
    return result


def _largest_scales(
    found: ChannelSet, graph: Graph, seen: Mapping[str, ChannelStatistics], margin: float
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """How much each channel may grow, and which channels may not be scaled at all."""
    channels = seen[found.name].low.size
    largest, fixed = np.full(channels, GROWTH), np.zeros(channels, dtype=np.bool_)
    for node in graph.nodes:
        if node.outputs[0] not in seen:
            continue
        low, high = _clamp_of(node)
        values = seen[node.outputs[0]]
        for bound, extreme in ((high, values.high), (-low, -values.low)):
            if bound < 0:
                fixed[:] = True
            elif bound > 0 and not math.isinf(bound):
                reach = np.maximum(extreme, 0.0) * margin
                fixed |= reach >= bound
                largest = np.minimum(largest, bound / np.maximum(reach, bound / GROWTH))
    return largest, fixed


@dataclass(frozen=True, slots=True)
class _Reader:
    """A layer that reads a set: how much rounding its input and its weights costs it.

    Attributes:
        rows: Input values, (n, C).
        variance: Of the input channels, (C,).
        importance: (C,): relative squared output error, averaged over outputs, that one unit of squared error of an
            input channel causes.
        weights: Largest magnitude a row and input, (O, inputs of a row).
        columns: Which channel each of those meets, (O, inputs of a row).
        share: Relative squared output error that one unit of (a row's step)^2 x variance causes, (O,).
        bits: Of the weights.
    """

    rows: npt.NDArray[np.float32]
    variance: Floats
    importance: Floats
    weights: Floats
    columns: npt.NDArray[np.int64]
    share: Floats
    bits: int

    @classmethod
    def of(cls, node: Node, graph: Graph, seen: ChannelStatistics, bits: int) -> _Reader:
        """Reads them from a graph that is not scaled yet."""
        weights = _weights(node, graph)
        columns = _input_channels(node, weights)
        energy = (weights**2).sum(axis=2)
        # Channels are taken as independent: what counts is how the candidates compare.
        power = (energy * seen.variance[columns]).sum(axis=1)
        share = np.divide(1.0, power * len(weights), out=np.zeros_like(power), where=power > 0)
        importance = np.zeros(seen.mean.size)
        np.add.at(importance, columns, energy * share[:, None])
        largest = np.abs(weights).max(axis=2)
        return cls(seen.rows, seen.variance, importance, largest, columns, share * weights.shape[2], bits)

    def error(self, factor: Floats, activation_bits: int) -> float:
        """The relative squared error of the outputs when the channels are scaled by `factor`."""
        scaled = self.rows * factor.astype(np.float32)
        observer = MseObserver(512)
        observer.observe(scaled)
        quant = activation_params(*observer.range(activation_bits), activation_bits)
        step, zero = np.float32(quant.scale), np.float32(quant.zero_point)
        codes = np.clip(np.rint(scaled / step), quant.qmin - zero, quant.qmax - zero)
        codes *= step
        codes -= scaled
        # What is constant in the error goes into the readers' biases.
        lost = codes.var(axis=0, dtype=np.float64) / factor**2
        steps = (self.weights / factor[self.columns]).max(axis=1) / weight_limit(self.bits)
        spread = (self.variance * factor**2)[self.columns].sum(axis=1)
        of_weights = float((self.share * steps**2 * spread).sum()) / 12 * ROUNDING_GAIN
        return float((lost * self.importance).sum()) + of_weights


def _chosen_scales(
    readers: Sequence[_Reader],
    limits: tuple[Floats, npt.NDArray[np.bool_]],
    activation_bits: int,
    strength: float | None,
) -> Floats:
    column = np.sqrt(np.sum([reader.importance for reader in readers], axis=0))
    if strength is not None:
        widths = np.max([np.abs(reader.rows).max(axis=0) for reader in readers], axis=0)
        return _candidate(widths, column, limits, 1 - strength, strength, 1.0)
    bounds = np.max([_clipping_bounds(reader.rows, activation_bits) for reader in readers], axis=0)
    largest, fixed = limits
    capped = bool(fixed.any() or (largest < GROWTH).any())
    candidates = [np.ones_like(bounds)]
    for by_column, by_magnitude in CANDIDATES:
        for level in LEVELS if capped else LEVELS[:1]:
            candidates.append(_candidate(bounds, column, limits, by_column, by_magnitude, level))
    errors = [sum(reader.error(factor, activation_bits) for reader in readers) for factor in candidates]
    best: Floats = candidates[int(np.argmin(errors))]
    return best


def _clipping_bounds(rows: npt.NDArray[np.float32], bits: int) -> Floats:
    """The magnitude at which each channel would be clipped if it had codes of its own: of least squared error."""
    largest = np.abs(rows).max(axis=0)
    levels = (1 << bits) - 1 if rows.min() >= 0 else (1 << (bits - 1)) - 1
    best: Floats = largest.astype(np.float64)
    least = np.full(largest.size, math.inf)
    for share in SHARES:
        step = np.maximum(largest * np.float32(share / levels), np.float32(1e-30))
        codes = np.clip(np.rint(rows / step), -levels, levels)
        codes *= step
        codes -= rows
        error = np.einsum("nc,nc->c", codes, codes)
        better = error < least
        best[better], least[better] = (largest * share)[better], error[better]
    return best


def _candidate(
    magnitude: npt.NDArray[np.floating[Any]],
    column: Floats,
    limits: tuple[Floats, npt.NDArray[np.bool_]],
    by_column: float,
    by_magnitude: float,
    level: float,
) -> Floats:
    """Scales like column^b / magnitude^a within the limits; the widest channel keeps `level` of its width."""
    largest, fixed = limits
    wide = magnitude.astype(np.float64)
    live = (wide > 0) & (column > 0)
    factor = np.ones(wide.size)
    if live.any():
        factor[live] = column[live] ** by_column / wide[live] ** by_magnitude
        factor *= level * wide[live].max() / (factor * wide)[live].max()
    return np.where(fixed | ~live, 1.0, np.clip(factor, 1 / GROWTH, largest))


def _scale(found: ChannelSet, graph: Graph, factor: Floats) -> None:
    """Multiplies the writers' rows and biases and divides the readers' columns."""
    for node in found.writers:
        for name in node.inputs[WEIGHTS:]:
            _multiply(graph, name, factor)
        name = bias_name(next(other for other in graph.nodes if other.name == node.name))
        if name and name not in node.inputs:
            _multiply(graph, name, factor)
    for node in found.readers:
        value = graph.constant(node.inputs[WEIGHTS])
        assert value is not None
        columns = _input_channels(node, _weights(node, graph))
        by_weight = factor[columns].reshape(*columns.shape, *[1] * (value.ndim - 2))
        graph.add_tensor(
            Tensor.constant(node.inputs[WEIGHTS], (value.astype(np.float64) / by_weight).astype(np.float32))
        )


def _multiply(graph: Graph, name: str, factor: Floats) -> None:
    value = graph.constant(name)
    if value is not None:
        wide = factor.reshape(-1, *[1] * (value.ndim - 1))
        graph.add_tensor(Tensor.constant(name, (value.astype(np.float64) * wide).astype(np.float32)))
