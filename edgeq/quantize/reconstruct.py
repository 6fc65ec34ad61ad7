"""AdaRound and block reconstruction: rounding, biases and 4-bit steps optimised by gradients, block after block.

`edgeq.quantize.block_training` says what is optimised and after which papers. This module walks through the network,
decides what a block may change, judges each block on samples that it has not learned from, and writes integers.
"""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeq.errors import BackendError, DataError, GraphError, QuantizationError
from edgeq.ir import BATCH, Graph, Node, QuantParams, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops import check_graph, get
from edgeq.ops.base import dequantize
from edgeq.ops.base import quantize as quantize_array
from edgeq.outputs import whole_file
from edgeq.quantize import qparams
from edgeq.quantize.blocks import Block, find_blocks
from edgeq.quantize.calibrate import activation_elements
from edgeq.quantize.checkpoints import checkpoint_folder, run_key
from edgeq.quantize.layers import BIAS, WEIGHTS, X, bias_name, is_layer
from edgeq.quantize.sharing import shared_sets
from edgeq.quantize.training_options import STEP_ELEMENTS, ReconstructionOptions
from edgeq.quantize.weights import bias_tensor, per_channel

if TYPE_CHECKING:
    import torch

    from edgeq.quantize.block_training import BlockRunner, BlockState, Trainer

STEP_WORK = 3.5
"""Work of a step of the optimiser beside that of a run on as much data."""

PROGRESS = 1000
"""Work is told in thousandths."""

ELEMENT_WORK = 24
"""Multiply-accumulates that cost as much time as one element of an activation: rounding, masks and clamps."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a block.

    Attributes:
        before: Mean squared error of its outputs on held-out samples, divided by the mean square of the float outputs.
        after: The same with the best that was found.
        kept: Whether that was better; the block stays as it was otherwise.
        changed: How many weight codes are others than before.
        steps: Steps of the optimiser; 0 where nothing could be learned.
        seconds: How long the optimiser took.
    """

    before: float
    after: float
    kept: bool
    changed: int
    steps: int
    seconds: float


def reconstruct(
    quantized: Graph,
    reference: Graph,
    samples: Mapping[str, Array],
    options: ReconstructionOptions,
    threads: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[Block, Outcome], None] | None = None,
) -> Graph:
    """Optimises a quantized graph block by block in execution order.

    The same seed, samples, options (without `minutes`) and number of threads give the same graph, also when the work
    was interrupted and resumed.

    Args:
        quantized: A quantized NCHW graph.
        reference: The float graph with the same nodes (by name) and tensor names.
        samples: float32 inputs by name, the same number of each; at least 2.
        options: How.
        threads: For torch.
        seed: Draws batches, pieces, masks and the held-out samples.
        progress: Called with (work done, work in all); work grows in proportion to time.
        checkpoint: A folder that finished blocks are kept in; made if it is not there. A run with the same model,
            samples, options and seed takes them from there.
            The caller deletes it when all is done.
        report: Called after each block with what became of it.

    Returns:
        The same graph with other codes, biases and 4-bit steps.

    Raises:
        BackendError: If torch is not installed.
        QuantizationError: If an input has no batch axis or there are fewer than two samples.
        UsageError: If the folder cannot be made.
        DataError: If a file in it is damaged.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError("Reconstruction optimises blocks in torch: pip install edgeq[torch].") from error
    if any(quantized.tensor(name).shape[:1] != (BATCH,) for name in quantized.inputs):
        raise QuantizationError(f"graph {quantized.name}: reconstruction needs a batch axis on every input")
    count = min(len(value) for value in samples.values())
    if count < 2:
        raise QuantizationError(f"{count} samples are too few: some to learn from and some to judge by are needed")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _Reconstruction(quantized, reference, samples, options, seed, progress, checkpoint, report).run()
    finally:
        torch.set_num_threads(before)


class _Reconstruction:
    """The walk through the network; arguments as for `reconstruct`."""

    def __init__(
        self,
        quantized: Graph,
        reference: Graph,
        samples: Mapping[str, Array],
        options: ReconstructionOptions,
        seed: int,
        progress: Callable[[int, int], None] | None,
        checkpoint: Path | None,
        report: Callable[[Block, Outcome], None] | None,
    ) -> None:
        import torch

        from edgeq.quantize.block_training import Boundary

        self._graph = _with_biases(quantized)
        self._reference, self._options, self._seed = reference, options, seed
        self._progress, self._report = progress, report
        self._blocks = find_blocks(self._graph, options.unit)
        self._sets = shared_sets(reference)
        self._originals = {node.name: node for node in reference.nodes}
        self._count = min(len(value) for value in samples.values())
        self._boundary = Boundary()
        for name in self._graph.inputs:
            value, quant = np.ascontiguousarray(samples[name][: self._count]), self._graph.quant(name)
            self._boundary.put(name, torch.from_numpy(value), torch.from_numpy(quantize_array(value, quant)), quant)
        held = min(max(1, round(options.held_out * self._count)), self._count - 1)
        self._taught, self._held = torch.arange(self._count - held), torch.arange(self._count - held, self._count)
        # Real biases, so that they are rounded once, whatever becomes of the scales.
        layers = [node for node in self._graph.nodes if is_layer(node)]
        self._biases = {node.name: dequantize(*_constant(self._graph, node.inputs[BIAS])) for node in layers}
        key = run_key(quantized, reference, samples, options, seed)
        self._store = None if checkpoint is None else BlockStore(checkpoint, key)
        self._work = [self._work_of(block) for block in self._blocks]
        self._began = time.monotonic()

    def run(self) -> Graph:
        """Goes through all blocks and returns the changed graph."""
        last_use: dict[str, int] = {}
        for index, block in enumerate(self._blocks):
            last_use.update(dict.fromkeys((*block.inputs, *block.outputs), index))
        for index, block in enumerate(self._blocks):
            self._run_block(index, block)
            self._boundary.release([name for name, last in last_use.items() if last == index])
        check_graph(self._graph)
        return self._graph

    def _run_block(self, index: int, block: Block) -> None:
        from edgeq.quantize.block_training import BlockRunner, float_outputs, output_codes

        runner = BlockRunner(block, self._graph, self._reference)
        targets = [
            self._bounded(name, target)
            for name, target in zip(block.outputs, float_outputs(runner, self._boundary, self._count), strict=True)
        ]
        start = self._state(block)
        stored = None if self._store is None else self._store.load(index, start)
        if stored is None:
            stored = self._improve(index, runner, start, targets)
            if self._store is not None:
                self._store.save(index, *stored)
        state, outcome = stored
        self._write(block, state)
        if index + 1 < len(self._blocks):
            codes = output_codes(runner, self._boundary, self._count, state)
            for name, target, code in zip(block.outputs, targets, codes, strict=True):
                self._boundary.put(name, target, code, self._graph.quant(name))
        self._advance(index + 1, 0.0)
        if self._report is not None:
            self._report(block, outcome)

    def _bounded(self, name: str, target: torch.Tensor) -> torch.Tensor:
        """A target within what 8-bit codes hold if that is wanted."""
        quant = self._graph.quant(name)
        if quant.bits < 8 or not self._options.bounded:
            return target
        return target.clamp(*qparams.representable(quant))

    def _improve(
        self, index: int, runner: BlockRunner, start: BlockState, targets: Sequence[torch.Tensor]
    ) -> tuple[BlockState, Outcome]:
        """Optimises a block and judges what was found on held-out samples."""
        import torch

        from edgeq.quantize.block_training import Trainer, fit_steps

        began, options = time.monotonic(), self._options
        powers = [max(float(target[self._held].square().mean()), 1e-30) for target in targets]
        errors = runner.errors(self._boundary, self._held, targets, start)
        before = _mean_ratio(errors, powers)
        learned = self._learned(runner.block)
        if not (start.layers or learned) or before == 0.0:
            return start, Outcome(before, before, False, 0, 0, time.monotonic() - began)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        weights = {name: torch.from_numpy(self._float_weights(name)) for name in start.layers}
        single = [names[0] for names in learned if len(names) == 1]
        best, least, lowest = start, errors, math.inf
        first = fit_steps(runner, self._boundary, self._taught[:16], start, single) if single else start
        steps = 0
        # Rounding is left for last: a scale that fits moves all weights of a channel for the price of one number.
        phases = [replace(options, rounding_rate=0.0), options] if options.rounding_rate else [options]
        for phase, settings in enumerate(phases):
            trainer = Trainer(
                runner, self._boundary, self._taught, targets, first, learned, weights, settings, generator
            )
            count = self._steps(index, trainer, phase, len(phases))
            trainer.begin(count)
            for step in range(count):
                trainer.step(step)
                self._advance(index, (phase + (step + 1) / count) / len(phases))
            steps += count
            found = trainer.state()
            after = runner.errors(self._boundary, self._held, targets, found)
            lowest = min(lowest, _mean_ratio(after, powers))
            if _mean_ratio(after, least) < 1 and self._fits(runner.block, found):
                best, least, first = found, after, found
        changed = sum(int((best.layers[name].codes != layer.codes).sum()) for name, layer in start.layers.items())
        kept = best is not start
        return best, Outcome(before, lowest, kept, changed, steps, time.monotonic() - began)

    def _learned(self, block: Block) -> list[tuple[str, ...]]:
        """The shared sets whose step the block may learn: 4 bits, computed by the block alone, nothing fixed."""
        if not self._options.learn_steps:
            return []
        inside = {name for node in block.nodes for name in node.outputs}
        return [
            shared.members
            for shared in self._sets
            if inside.issuperset(shared.members)
            and shared.fixed is None
            and not shared.constants
            and self._graph.quant(shared.name).bits == 4
        ]

    def _steps(self, index: int, trainer: Trainer, phase: int, phases: int) -> int:
        """How many steps a phase of a block gets: its part of all, or of the block's share of the time that is left."""
        options = self._options
        wanted = max(1, options.steps // phases)
        if options.minutes is None:
            return wanted
        left = options.minutes * 60 - (time.monotonic() - self._began)
        here = self._work[index] * (phases - phase) / phases
        share = self._work[index] / phases / (here + sum(self._work[index + 1 :]))
        return int(max(1, min(wanted, left * share / trainer.seconds_per_step())))

    def _work_of(self, block: Block) -> float:
        """Multiply-accumulates, and elements counted as such, of all steps on a block and all runs of it."""
        elements = sum(activation_elements(self._graph, node.outputs) for node in block.nodes)
        macs = sum(get(node.op).macs(node, self._graph) for node in block.nodes)
        once = macs + ELEMENT_WORK * elements
        largest = max(activation_elements(self._graph, node.outputs) for node in block.nodes)
        share = min(1.0, STEP_ELEMENTS / (self._options.batch * largest))
        trained = self._options.steps * self._options.batch * share * STEP_WORK
        return once * (trained + 2.4 * self._count)

    def _advance(self, index: int, share: float) -> None:
        """Tells how far the work is: all blocks before `index`, and a share of that block."""
        if self._progress is not None:
            total = sum(self._work)
            done = sum(self._work[:index]) + share * (self._work[index] if index < len(self._work) else 0.0)
            self._progress(round(PROGRESS * done / total), PROGRESS)

    def _state(self, block: Block) -> BlockState:
        """The block as it is in the graph."""
        import torch

        from edgeq.quantize.block_training import BlockState, LayerState

        layers = {}
        for node in filter(is_layer, block.nodes):
            codes, quant = _constant(self._graph, node.inputs[WEIGHTS])
            scales = np.broadcast_to(quant.scale, (len(codes),)).copy()
            layers[node.name] = LayerState(
                torch.from_numpy(codes.astype(np.float32)),
                torch.from_numpy(scales),
                torch.from_numpy(self._biases[node.name].copy()),
                quant.bits,
            )
        return BlockState(layers, {name: self._graph.quant(name) for node in block.nodes for name in node.outputs})

    def _float_weights(self, name: str) -> Array:
        value = self._reference.constant(self._originals[name].inputs[WEIGHTS])
        if value is None:
            raise QuantizationError(f"{name}: its weights must be constant in the float graph")
        return np.array(value)

    def _write(self, block: Block, state: BlockState) -> None:
        """Puts a state into the graph as integers, and rounds biases anew wherever their scale has moved."""
        graph = self._graph
        for name, quant in state.steps.items():
            graph.add_tensor(graph.tensor(name).with_(quant=quant))
        for node in filter(is_layer, block.nodes):
            layer, tensor = state.layers[node.name], graph.tensor(node.inputs[WEIGHTS])
            quant = per_channel(layer.scales.numpy(), layer.bits)
            graph.add_tensor(tensor.with_(data=layer.codes.numpy().astype(np.int8), quant=quant))
            self._biases[node.name] = layer.bias.numpy()
        computed = {name for node in block.nodes for name in node.outputs}
        names = {node.name for node in block.nodes}
        for node in filter(is_layer, graph.nodes):
            if node.name in names or node.inputs[X] in computed:
                graph.add_tensor(_bias_of(graph, node, node.inputs[BIAS], self._biases[node.name]))

    def _fits(self, block: Block, state: BlockState) -> bool:
        """Whether the weight scales keep the floors that leave every integer within 32 bits."""
        for node in filter(is_layer, block.nodes):
            layer = state.layers[node.name]
            x, y = (state.steps.get(name) or self._graph.quant(name) for name in (node.inputs[X], node.outputs[0]))
            scales, bias = layer.scales.numpy(), layer.bias.numpy()
            ranges = scales.astype(np.float64) * qparams.weight_limit(layer.bits)
            least = qparams.weight_scales(ranges, layer.bits, float(x.scale), float(y.scale), bias)
            if not (np.isfinite(bias).all() and (least <= scales * np.float32(1 + 1e-6)).all()):
                return False
        return True


class BlockStore:
    """Finished blocks in a folder, a file each, written whole.

    Args:
        folder: Made if it is not there.
        key: Of model, samples, options and seed: files of other runs are not looked at.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = checkpoint_folder(folder), key

    def save(self, index: int, state: BlockState, outcome: Outcome) -> None:
        """Writes a block."""
        arrays: dict[str, Array] = {"outcome": np.array(list(asdict(outcome).values()), np.float64)}
        for position, layer in enumerate(state.layers.values()):
            arrays[f"codes{position}"] = layer.codes.numpy().astype(np.int8)
            arrays[f"scales{position}"] = layer.scales.numpy()
            arrays[f"bias{position}"] = layer.bias.numpy()
        quants = state.steps.values()
        arrays["step"] = np.array([quant.scale for quant in quants], np.float32)
        arrays["zero_point"] = np.array([quant.zero_point for quant in quants], np.int32)
        with whole_file(self._path(index)) as scratch, scratch.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def load(self, index: int, start: BlockState) -> tuple[BlockState, Outcome] | None:
        """Reads a block; None where it is not finished.

        Args:
            index: Of the block.
            start: The block as it was before: says what the file must hold.

        Raises:
            DataError: If the file is damaged.
        """
        import torch

        from edgeq.quantize.block_training import BlockState, LayerState

        path = self._path(index)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                layers = {
                    name: LayerState(
                        torch.from_numpy(found[f"codes{position}"].astype(np.float32)).reshape(layer.codes.shape),
                        torch.from_numpy(found[f"scales{position}"]).reshape(layer.scales.shape),
                        torch.from_numpy(found[f"bias{position}"]).reshape(layer.bias.shape),
                        layer.bits,
                    )
                    for position, (name, layer) in enumerate(start.layers.items())
                }
                pairs = zip(start.steps.items(), found["step"], found["zero_point"], strict=True)
                steps = {
                    name: QuantParams.per_tensor(float(step), int(zero), quant.bits)
                    for (name, quant), step, zero in pairs
                }
                before, after, kept, changed, count, seconds = found["outcome"].tolist()
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, GraphError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: is damaged ({error}); delete it, and the block is made again") from None
        return BlockState(layers, steps), Outcome(before, after, bool(kept), int(changed), int(count), seconds)

    def _path(self, index: int) -> Path:
        return self._folder / f"block-{self._key}-{index:03d}.npz"


def _with_biases(graph: Graph) -> Graph:
    """A copy in which every layer has a bias."""
    graph = graph.copy()
    for index, node in enumerate(graph.nodes):
        if is_layer(node) and not bias_name(node):
            name = graph.fresh_name(f"{node.name}.bias")
            outputs = len(_constant(graph, node.inputs[WEIGHTS])[0])
            graph.add_tensor(_bias_of(graph, node, name, np.zeros(outputs, np.float32)))
            graph.nodes[index] = node.with_(inputs=(*node.inputs[:BIAS], name))
    return graph


def _bias_of(graph: Graph, node: Node, name: str, bias: Array) -> Tensor:
    """A real bias as the layer's integers, with the scales that the graph has now."""
    return bias_tensor(name, bias, graph.quant(node.inputs[X]), graph.quant(node.inputs[WEIGHTS]).scale)


def _constant(graph: Graph, name: str) -> tuple[Array, QuantParams]:
    value = graph.constant(name)
    assert value is not None
    return value, graph.quant(name)


def _mean_ratio(errors: Sequence[float], units: Sequence[float]) -> float:
    """The mean of errors in units; errors without a unit (it is 0) count as they are."""
    return sum(error / (unit or 1.0) for error, unit in zip(errors, units, strict=True)) / len(errors)
