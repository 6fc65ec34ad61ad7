"""Optimises the rounding of one block in torch: soft rounding, learned biases and activation steps, random dropping.

- Soft rounding (AdaRound, Nagel et al. 2020, arXiv 2004.10568): a weight is s * (floor + h(V)), where
  h(V) = clamp(1.2 sigmoid(V) - 0.1, 0, 1) moves from its start to 0 or 1 under a regulariser
  1 - |2 h - 1|^beta whose beta falls.
- Targets are the float network's outputs of the whole block (BRECQ, Li et al. 2021, arXiv 2102.05426), inputs come
  from the quantized part of the network.
- At every step a random share of the inputs and of the activations inside the block is left unquantized (QDrop, Wei
  et al. 2022, arXiv 2203.05740): what is found holds for more than the calibration samples.
- Steps of 4-bit activations are learned (LSQ, Esser et al. 2019, arXiv 1902.08153).

This module needs torch when it is imported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgeq.ir import Graph, Node, QuantParams
from edgeq.ir.tensor import Array
from edgeq.ops.base import TorchTensor, dequantize
from edgeq.quantize import qparams
from edgeq.quantize.blocks import Block
from edgeq.quantize.layers import BIAS, WEIGHTS, is_layer
from edgeq.quantize.training_options import STEP_ELEMENTS, ReconstructionOptions
from edgeq.torch_executor import run_nodes
from edgeq.torch_executor.fake_quant import fake_quantize

ZETA, GAMMA = 1.1, -0.1
"""h(V) stretches a sigmoid to [GAMMA, ZETA] before it is clamped, so that 0 and 1 are reached (AdaRound, eq. 23)."""

BETAS = (20.0, 2.0)
"""Exponent of the regulariser, from first to last: flat first, so that weights may still cross."""

HARD = 0.6
"""Share of the steps after which weights are rounded on the way forward, and have the gradients of soft ones: the last
steps see what will be shipped."""

WARM_UP = 0.2
"""Share of the steps before the regulariser begins."""

PLAY = 0.05
"""How far the soft rounding starts from the codes that it is given, at most, towards the float weight."""

EDGE = 0.01
"""h(V) starts at least so far from 0 and 1, where it has a gradient."""

FITTED_SHARES = tuple(float(x) for x in np.geomspace(0.05, 1.5, 48))
"""Widths of the range that are tried for a 4-bit activation, as shares of what is seen."""

FITTED_ELEMENTS = 1 << 18
"""So many values of an activation are looked at."""

JUDGED = 32
"""Samples whose error at the start is the unit of the loss."""

RUN_ELEMENTS = 1 << 21
"""The same for runs without gradients."""

SMALLEST_PIECE = 4
"""Pieces cut out of maps have at least so many output pixels a side, if the map does."""


@dataclass(slots=True)
class LayerState:
    """A layer's weights and bias.

    Attributes:
        codes: float32 integers, shape of the weights.
        scales: float32, shape (O,).
        bias: Real values, float32, shape (O,).
        bits: 4 or 8.
    """

    codes: TorchTensor
    scales: TorchTensor
    bias: TorchTensor
    bits: int


@dataclass(slots=True)
class BlockState:
    """Everything about a block that reconstruction may change.

    Attributes:
        layers: By node name.
        steps: Quantization of activations that the block computes, by tensor name.
    """

    layers: dict[str, LayerState]
    steps: dict[str, QuantParams]


class Boundary:
    """Activations between blocks of all samples, of both networks."""

    def __init__(self) -> None:
        self.floats: dict[str, TorchTensor] = {}
        self.codes: dict[str, TorchTensor] = {}
        self.quants: dict[str, QuantParams] = {}

    def put(self, name: str, floats: TorchTensor, codes: TorchTensor, quant: QuantParams) -> None:
        """Adds an activation: float32 values of the float network, int8 codes of the quantized one."""
        self.floats[name], self.codes[name], self.quants[name] = floats, codes, quant

    def release(self, names: Iterable[str]) -> None:
        """Frees activations that nothing reads any more."""
        for name in names:
            self.floats.pop(name, None)
            self.codes.pop(name, None)

    def quantized(self, name: str, picks: Any) -> TorchTensor:
        """Real values of the quantized network's activation at some samples."""
        quant = self.quants[name]
        return (self.codes[name][picks].float() - float(quant.zero_point)) * float(quant.scale)


class Dropping:
    """Cheap random masks: slices of one long random array."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        self._generator = generator
        self._pool = torch.rand(1 << 22, generator=generator) < share

    def mix(self, kept: TorchTensor, dropped: TorchTensor) -> TorchTensor:
        """Elements of `dropped` with the given probability, else of `kept`."""
        count = kept.numel()
        begin = int(torch.randint(0, max(1, len(self._pool) - count), (1,), generator=self._generator))
        if count > len(self._pool):
            mask = self._pool.repeat(-(-count // len(self._pool)))[:count]
        else:
            mask = self._pool[begin : begin + count]
        return torch.where(mask.reshape(kept.shape), dropped, kept)


class BlockRunner:
    """Runs a block of the float and of the quantized network on parts of the samples.

    Args:
        block: Nodes as in the quantized graph.
        graph: The quantized graph.
        reference: The float graph.
    """

    def __init__(self, block: Block, graph: Graph, reference: Graph) -> None:
        self.block = block
        self._graph, self._reference = graph, reference
        originals = {node.name: node for node in reference.nodes}
        self._originals = [originals[node.name] for node in block.nodes]
        self._float_constants = _constants(self._originals, reference)
        self._constants = _constants([node for node in block.nodes if not is_layer(node)], graph)
        shapes = [graph.tensor(name).shape for name in {*block.inputs, *(o for n in block.nodes for o in n.outputs)}]
        self.widest = max(math.prod(shape[1:]) for shape in shapes)

    def run_float(self, inputs: Mapping[str, TorchTensor]) -> list[TorchTensor]:
        """The float network's outputs of the block."""
        values = dict(inputs)
        run_nodes(self._originals, values, self._reference, self._float_constants, keep=self.block.outputs)
        return [values[name] for name in self.block.outputs]

    def run(
        self,
        inputs: Mapping[str, TorchTensor],
        weights: Mapping[str, tuple[TorchTensor, TorchTensor]],
        rounded: Callable[[str, TorchTensor], TorchTensor],
    ) -> list[TorchTensor]:
        """The quantized network's outputs of the block.

        Args:
            inputs: Real values of codes.
            weights: Real weights and bias by layer.
            rounded: Gives what becomes of an activation, by name.
        """
        values, constants = dict(inputs), dict(self._constants)
        for node in self.block.nodes:
            if node.name in weights:
                constants[node.inputs[WEIGHTS]], constants[node.inputs[BIAS]] = weights[node.name]

        def hook(node: Node, outputs: list[TorchTensor]) -> list[TorchTensor]:
            return [rounded(name, y) for name, y in zip(node.outputs, outputs, strict=True)]

        run_nodes(self.block.nodes, values, self._graph, constants, hook, keep=self.block.outputs)
        return [values[name] for name in self.block.outputs]

    def run_rounded(self, inputs: Mapping[str, TorchTensor], state: BlockState) -> list[TorchTensor]:
        """As `run`, with the integers of a state."""
        weights = {
            name: (layer.codes * _over_channels(layer.scales, layer.codes), layer.bias)
            for name, layer in state.layers.items()
        }
        with torch.no_grad():
            return self.run(inputs, weights, lambda name, x: _rounded(x, state.steps[name]))

    def parts(self, samples: TorchTensor) -> list[TorchTensor]:
        """Samples in parts that are run at once."""
        return list(samples.split(max(1, RUN_ELEMENTS // self.widest)))

    def errors(
        self, boundary: Boundary, samples: TorchTensor, targets: Sequence[TorchTensor], state: BlockState
    ) -> list[float]:
        """Mean squared error of each output on some samples."""
        sums, sizes = [0.0] * len(targets), [len(samples) * math.prod(target.shape[1:]) for target in targets]
        for part in self.parts(samples):
            found = self.run_rounded({name: boundary.quantized(name, part) for name in self.block.inputs}, state)
            for index, (y, target) in enumerate(zip(found, targets, strict=True)):
                sums[index] += float((y - target[part]).square_().sum(dtype=torch.float64))
        return [total / size for total, size in zip(sums, sizes, strict=True)]


def float_outputs(runner: BlockRunner, boundary: Boundary, count: int) -> list[TorchTensor]:
    """The float network's outputs of a block on all samples."""
    found: list[TorchTensor] | None = None
    with torch.no_grad():
        for part in runner.parts(torch.arange(count)):
            outputs = runner.run_float({name: boundary.floats[name][part] for name in runner.block.inputs})
            found = found or [torch.empty((count, *y.shape[1:])) for y in outputs]
            for whole, y in zip(found, outputs, strict=True):
                whole[part] = y
    assert found is not None
    return found


def output_codes(runner: BlockRunner, boundary: Boundary, count: int, state: BlockState) -> list[TorchTensor]:
    """The quantized network's outputs of a block on all samples, as int8 codes."""
    found: list[TorchTensor] | None = None
    for part in runner.parts(torch.arange(count)):
        outputs = runner.run_rounded({name: boundary.quantized(name, part) for name in runner.block.inputs}, state)
        found = found or [torch.empty((count, *y.shape[1:]), dtype=torch.int8) for y in outputs]
        for name, whole, y in zip(runner.block.outputs, found, outputs, strict=True):
            quant = state.steps[name]
            whole[part] = ((y / float(quant.scale)).round_() + float(quant.zero_point)).to(torch.int8)
    assert found is not None
    return found


class Trainer:
    """Optimises a block.

    Args:
        runner: The block.
        boundary: Its inputs.
        samples: Which samples it may learn from.
        targets: The float network's outputs on all samples.
        start: Where to start.
        learned: Sets of activations whose step is learned, by the names of their members.
        weights: The float network's, by layer.
        options: Rates and shares.
        generator: Draws samples, pieces and what is dropped.
    """

    def __init__(
        self,
        runner: BlockRunner,
        boundary: Boundary,
        samples: TorchTensor,
        targets: Sequence[TorchTensor],
        start: BlockState,
        learned: Sequence[tuple[str, ...]],
        weights: Mapping[str, TorchTensor],
        options: ReconstructionOptions,
        generator: torch.Generator,
    ) -> None:
        self._runner, self._targets, self._start, self._options = runner, targets, start, options
        self._learned, self._generator = learned, generator
        outputs = {node.name: start.steps[node.outputs[0]] for node in runner.block.nodes}
        self._layers = {
            name: _SoftLayer(layer, weights[name], outputs[name], options) for name, layer in start.layers.items()
        }
        self._soft = [layer for layer in self._layers.values() if layer.v is not None]
        self._weights = sum(layer.start.codes.numel() for layer in self._soft)
        self._ratios = [torch.zeros((), requires_grad=True) for _ in learned]
        self._ratio_of = {name: ratio for names, ratio in zip(learned, self._ratios, strict=True) for name in names}
        self._dropping = Dropping(options.drop, generator) if options.drop else None
        self._units = [max(error, 1e-30) for error in runner.errors(boundary, samples[:JUDGED], targets, start)]
        self._pieces = _Pieces(runner, boundary, options.batch)
        self._batches = _Batches(samples, self._pieces.batch, generator)
        self._steps = 0

    def begin(self, steps: int) -> None:
        """Sets the number of steps."""
        groups = [group for layer in self._layers.values() for group in layer.groups(self._options)]
        if self._ratios:
            groups.append({"params": self._ratios, "lr": self._options.step_rate})
        self._steps = steps
        self._optimizer = torch.optim.Adam(groups)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, steps)

    def seconds_per_step(self) -> float:
        """Measures how long a step takes; nothing moves, and what is drawn later does not change."""
        state, batches = self._generator.get_state(), self._batches
        self._batches = batches.copy()
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            self._loss(0.5).backward()
            seconds.append(time.monotonic() - began)
        self._generator.set_state(state)
        self._batches = batches
        return min(seconds)

    def step(self, step: int) -> None:
        """Moves all parameters once; steps count from 0."""
        self._optimizer.zero_grad()
        self._loss(step / self._steps).backward()
        self._optimizer.step()
        self._schedule.step()

    def _loss(self, done: float) -> TorchTensor:
        """The error of some samples in units of its start, and the regulariser; `done` is the share of the steps."""
        with torch.no_grad():
            inputs, exact, wanted = self._pieces.piece(self._batches.next(), self._targets, self._generator)
            if self._dropping is not None:
                inputs = {name: self._dropping.mix(x, exact[name]) for name, x in inputs.items()}
        weights = {name: layer.weights(done >= HARD) for name, layer in self._layers.items()}
        found = self._runner.run(inputs, weights, self._rounded)
        errors = [(y - target).square().mean() for y, target in zip(found, wanted, strict=True)]
        loss = sum(error / unit for error, unit in zip(errors, self._units, strict=True)) / len(errors)
        annealed = (done - WARM_UP) / (1 - WARM_UP)
        if annealed > 0 and self._soft and self._options.regularisation:
            beta = BETAS[0] + (BETAS[1] - BETAS[0]) * annealed
            rough = sum(layer.roughness(beta) for layer in self._soft) / self._weights
            loss = loss + self._options.regularisation * rough
        return loss

    def _rounded(self, name: str, x: TorchTensor) -> TorchTensor:
        quant, ratio = self._start.steps[name], self._ratio_of.get(name)
        if ratio is None:
            y = _rounded(x, quant)
        else:
            scale = float(quant.scale) * ratio.exp()
            y = fake_quantize(x, scale, int(quant.zero_point), quant.qmin, quant.qmax, elements=1)
        # The block's outputs are what is compared.
        return y if self._dropping is None or name in self._runner.block.outputs else self._dropping.mix(y, x)

    def state(self) -> BlockState:
        """What was found, rounded; it may be worse than the start."""
        state = BlockState({name: layer.state() for name, layer in self._layers.items()}, dict(self._start.steps))
        for names, ratio in zip(self._learned, self._ratios, strict=True):
            for name in names:
                quant = self._start.steps[name]
                scale = float(quant.scale) * math.exp(float(ratio.detach()))
                state.steps[name] = QuantParams.per_tensor(scale, int(quant.zero_point), quant.bits)
        return state


class _SoftLayer:
    """The parameters of one layer."""

    def __init__(
        self, layer: LayerState, floats: TorchTensor, output: QuantParams, options: ReconstructionOptions
    ) -> None:
        self.start = layer
        # Biases move in units of an 8-bit step of the output.
        self._unit = float(output.scale) * 2.0 ** (output.bits - 8)
        self.v: TorchTensor | None = None
        self._log_scale: TorchTensor | None = None
        if layer.bits == 4 or options.eight_bit_weights:
            if options.rounding_rate:
                self._floor, self.v = _soften(layer, floats)
            if options.scale_rate:
                self._log_scale = torch.zeros_like(layer.scales, requires_grad=True)
        self._shift = torch.zeros_like(layer.bias, requires_grad=True)

    def groups(self, options: ReconstructionOptions) -> list[dict[str, Any]]:
        """Parameters with their rates."""
        found: list[dict[str, Any]] = [{"params": [self._shift], "lr": options.bias_rate}]
        if self.v is not None:
            found.append({"params": [self.v], "lr": options.rounding_rate})
        if self._log_scale is not None:
            found.append({"params": [self._log_scale], "lr": options.scale_rate})
        return found

    def _scales(self) -> TorchTensor:
        return self.start.scales if self._log_scale is None else self.start.scales * self._log_scale.exp()

    def _up(self) -> TorchTensor:
        return (torch.sigmoid(self.v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def weights(self, hard: bool) -> tuple[TorchTensor, TorchTensor]:
        """Real weights and bias, with gradients; `hard` weights are rounded, with the gradients of soft ones."""
        codes = self.start.codes
        if self.v is not None:
            up = self._up()
            codes = self._floor + (up + ((up >= 0.5).float() - up).detach() if hard else up)
        return codes * _over_channels(self._scales(), codes), self.start.bias + self._shift * self._unit

    def roughness(self, beta: float) -> TorchTensor:
        """The sum of 1 - |2 h - 1|^beta."""
        assert self.v is not None
        return (1 - (2 * self._up() - 1).abs().pow(beta)).sum()

    def state(self) -> LayerState:
        """What was found, rounded."""
        with torch.no_grad():
            codes = self.start.codes if self.v is None else self._floor + (self._up() >= 0.5)
            bias = self.start.bias + self._shift * self._unit
            return LayerState(codes, self._scales().clone(), bias, self.start.bits)


def _soften(layer: LayerState, floats: TorchTensor) -> tuple[TorchTensor, TorchTensor]:
    """Returns the lower of the two codes that a weight may take, and V of the code that it has.

    The other code is the one on the side of the float weight: rounding with second moments has moved some weights by
    more than a step, and those may come back.
    """
    limit = qparams.weight_limit(layer.bits)
    ratio = floats / _over_channels(layer.scales, floats)
    floor = torch.where(ratio > layer.codes, layer.codes, layer.codes - 1).clamp_(-limit, limit - 1)
    given = layer.codes - floor
    h = given + ((ratio - floor).clamp(0, 1) - given).clamp(-PLAY, PLAY)
    share = (h.clamp(EDGE, 1 - EDGE) - GAMMA) / (ZETA - GAMMA)
    return floor, torch.log(share / (1 - share)).requires_grad_()


class _Batches:
    """Samples in random order, each as often as any other."""

    def __init__(self, samples: TorchTensor, size: int, generator: torch.Generator) -> None:
        self._samples, self._size, self._generator = samples, min(size, len(samples)), generator
        self._waiting = samples[:0]

    def copy(self) -> _Batches:
        """Goes on from here without changing this one."""
        other = _Batches(self._samples, self._size, self._generator)
        other._waiting = self._waiting
        return other

    def next(self) -> TorchTensor:
        """The samples of a step."""
        if len(self._waiting) < self._size:
            self._waiting = self._samples[torch.randperm(len(self._samples), generator=self._generator)]
        picks, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
        return picks


class _Pieces:
    """Cuts random pieces out of a block's inputs where the maps are large and all nodes are local.

    A piece is a smaller image to both networks, so that the target is computed for it.
    """

    def __init__(self, runner: BlockRunner, boundary: Boundary, batch: int) -> None:
        self._runner, self._boundary = runner, boundary
        block = runner.block
        self._size: tuple[int, int] | None = None
        widest = runner.widest
        if block.stride is not None:
            height, width = boundary.floats[block.inputs[0]].shape[2:]
            share = min(1.0, STEP_ELEMENTS / (widest * batch))
            sides = [
                min(size, max(SMALLEST_PIECE * block.stride, _up_to(size * math.sqrt(share), block.stride)))
                for size in (height, width)
            ]
            if sides != [height, width]:
                self._size = (sides[0], sides[1])
                widest = int(widest * sides[0] * sides[1] / (height * width))
        self.batch = max(1, min(batch, STEP_ELEMENTS // max(widest, 1)))

    def piece(
        self, sample: TorchTensor, targets: Sequence[TorchTensor], generator: torch.Generator
    ) -> tuple[dict[str, TorchTensor], dict[str, TorchTensor], list[TorchTensor]]:
        """Returns quantized inputs, float inputs and targets."""
        boundary, block = self._boundary, self._runner.block
        if self._size is None:
            quantized = {name: boundary.quantized(name, sample) for name in block.inputs}
            exact = {name: boundary.floats[name][sample] for name in block.inputs}
            return quantized, exact, [target[sample] for target in targets]
        assert block.stride is not None
        place = [slice(None), slice(None)]
        for size, whole in zip(self._size, boundary.floats[block.inputs[0]].shape[2:], strict=True):
            begin = block.stride * int(torch.randint(0, (whole - size) // block.stride + 1, (1,), generator=generator))
            place.append(slice(begin, begin + size))
        exact, quantized = {}, {}
        for name in block.inputs:
            exact[name] = torch.stack([boundary.floats[name][i][tuple(place[1:])] for i in sample.tolist()])
            quant = boundary.quants[name]
            codes = torch.stack([boundary.codes[name][i][tuple(place[1:])] for i in sample.tolist()]).float()
            quantized[name] = (codes - float(quant.zero_point)) * float(quant.scale)
        return quantized, exact, self._runner.run_float(exact)


def _up_to(size: float, stride: int) -> int:
    return math.ceil(size / stride) * stride


def _rounded(x: TorchTensor, quant: QuantParams) -> TorchTensor:
    scale = torch.tensor(float(quant.scale))
    return fake_quantize(x, scale, int(quant.zero_point), quant.qmin, quant.qmax)


def _over_channels(scales: TorchTensor, weights: TorchTensor) -> TorchTensor:
    return scales.reshape(-1, *[1] * (weights.ndim - 1))


def _constants(nodes: Sequence[Node], graph: Graph) -> dict[str, TorchTensor]:
    """The constants that nodes read, as real values."""
    found: dict[str, Array] = {}
    for name in {name for node in nodes for name in node.inputs if name}:
        tensor = graph.tensor(name)
        if tensor.data is not None:
            found[name] = tensor.data if tensor.quant is None else dequantize(tensor.data, tensor.quant)
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


def fit_steps(
    runner: BlockRunner, boundary: Boundary, samples: TorchTensor, state: BlockState, names: Sequence[str]
) -> BlockState:
    """Gives 4-bit activations the range with the least squared error on some samples, one after the other.

    Args:
        runner: The block.
        boundary: Its inputs.
        samples: Few, run at once.
        state: Where to start.
        names: Activations whose quantization may change.
    """
    steps = dict(state.steps)

    def rounded(name: str, x: TorchTensor) -> TorchTensor:
        if name in names:
            flat = x.reshape(-1)
            steps[name] = _least_squares(flat[:: max(1, flat.numel() // FITTED_ELEMENTS)], steps[name])
        return _rounded(x, steps[name])

    weights = {
        name: (layer.codes * _over_channels(layer.scales, layer.codes), layer.bias)
        for name, layer in state.layers.items()
    }
    with torch.no_grad():
        runner.run({name: boundary.quantized(name, samples) for name in runner.block.inputs}, weights, rounded)
    return BlockState(state.layers, steps)


def _least_squares(x: TorchTensor, quant: QuantParams) -> QuantParams:
    low, high = float(x.min()), float(x.max())
    best, least = quant, float((_rounded(x, quant) - x).square().mean())
    for share in FITTED_SHARES:
        tried = qparams.activation_params(low * share, high * share, quant.bits)
        error = float((_rounded(x, tried) - x).square().mean())
        if error < least:
            best, least = tried, error
    return best
