"""Trains a quantized network against the float one on augmented calibration samples.

- Weights start at the centres of their codes, not at their float values: what second-order rounding has decided is
  given up only where gradients keep asking for it. Rounding passes them straight through; steps of weights and of 4-bit
  activations are learned (LSQ, Esser et al. 2019, arXiv 1902.08153).
- The loss is the divergence of the outputs (Hinton et al. 2015, arXiv 1503.02531, with the float network as teacher):
  no labels. A few hundred samples serve, because the teacher answers for every crop and mixture of them (Beyer et al.
  2022, arXiv 2106.05237, section 3).
- Adam (Kingma and Ba 2015, arXiv 1412.6980) with a unit for each number: after equalisation channels differ in size by
  orders of magnitude, and one rate for all of them moves some by many codes and others by none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeq.errors import DataError
from edgeq.ir import Graph
from edgeq.ir.tensor import Array
from edgeq.ops.base import TorchTensor
from edgeq.outputs import whole_file
from edgeq.quantize import qparams
from edgeq.quantize.calibrate import activation_elements
from edgeq.quantize.layers import is_layer
from edgeq.quantize.sensitivity import LEAST_ENERGY, ends_in_softmax, is_scores
from edgeq.quantize.training.module import RoundedNetwork
from edgeq.quantize.training_options import DistillationOptions
from edgeq.simulate.prediction import LEAST_PROBABILITY
from edgeq.torch_executor import constant_tensors, run_graph

DECAYS = (0.9, 0.99)
"""Of Adam's moments; a few hundred steps are too few for the usual 0.999."""

WARM_UP = 0.03
"""Share of the steps in which rates rise."""

RUN_ELEMENTS = 1 << 24
"""Elements of one activation that a run without gradients makes at most."""

STEP_ELEMENTS = 1 << 28
"""Elements of all activations of a batch together, at most: training keeps two numbers of 4 bytes for each."""

SMALLEST_SIDE = 8
"""Maps that are narrower than this are no images."""

SIDES = 32
"""The sides of smaller images are multiples of this, as the strides of most networks multiply to it."""

PIECES = (0.2, 0.7)
"""Sides of the pieces of other images, as shares of the whole."""

STRETCH = 4 / 3
"""Crops are wider or higher than the image by at most this."""


@dataclass(slots=True)
class _Parameter:
    """A parameter with what Adam knows about it.

    Attributes:
        value: Learned.
        unit: What a rate is a share of; of a shape that broadcasts to the value's.
        rate: The largest one.
        mean: Of the gradients.
        square: Of their squares.
    """

    value: TorchTensor
    unit: TorchTensor
    rate: float
    mean: TorchTensor
    square: TorchTensor

    @staticmethod
    def of(value: TorchTensor, unit: TorchTensor | float, rate: float) -> _Parameter:
        """A parameter that has not been moved yet."""
        zero = torch.zeros_like(value, requires_grad=False)
        return _Parameter(value, torch.as_tensor(unit, dtype=torch.float32), rate, zero, zero.clone())

    def move(self, step: int, factor: float) -> None:
        """Adam's step; steps count from 1."""
        gradient, self.value.grad = self.value.grad, None
        if gradient is None:
            return
        self.mean.mul_(DECAYS[0]).add_(gradient, alpha=1 - DECAYS[0])
        self.square.mul_(DECAYS[1]).addcmul_(gradient, gradient, value=1 - DECAYS[1])
        # A gradient of nothing but zeros moves nothing.
        size = (self.square / (1 - DECAYS[1] ** step)).sqrt_().clamp_min_(torch.finfo(torch.float32).tiny)
        self.value -= self.mean / size * self.unit * (self.rate * factor / (1 - DECAYS[0] ** step))


class Distiller:
    """One run; arguments as for `edgeq.quantize.distil.distil`, `file` being where its state is kept.

    Attributes:
        start: Divergence on the held-out samples before training.
        best: The least divergence that was found.
        steps: Steps that were made.
    """

    def __init__(
        self,
        quantized: Graph,
        reference: Graph,
        samples: Mapping[str, Array],
        options: DistillationOptions,
        seed: int,
        file: Path | None,
    ) -> None:
        self._reference, self._options, self._file = reference, options, file
        self._network = RoundedNetwork.of(reference, quantized, play=0.0)
        self._constants = {name: _laid_out(value) for name, value in constant_tensors(reference).items()}
        self._probabilities = ends_in_softmax(reference)
        count = min(len(value) for value in samples.values())
        held = min(max(1, round(options.held_out * count)), count - 1)
        inputs = [torch.from_numpy(np.ascontiguousarray(samples[name][:count])) for name in reference.inputs]
        self._taught, self._held = [x[: count - held] for x in inputs], [x[count - held :] for x in inputs]
        self._generator = torch.Generator().manual_seed(seed)
        self._augmentation = Augmentation(options, self._sizes(), self._generator)
        self._parameters = list(self._learned())
        self._order = torch.empty(0, dtype=torch.int64)
        self.steps = 0
        self.best = self.start = self._judge()
        self._best_state = self._copy()

    def run(self, progress: Callable[[int, int], None] | None) -> None:
        """Trains, from where an earlier run was interrupted."""
        options = self._options
        self._resume()
        began, first = time.monotonic(), self.steps
        every = max(1, round(options.steps / options.checks))
        done = self.steps / options.steps
        while done < 1:
            self._step(done)
            self.steps += 1
            done = self.steps / options.steps
            if options.minutes is not None:
                # Steps before an interruption count as if they had taken as long as those after it.
                spent = (time.monotonic() - began) * self.steps / (self.steps - first)
                done = max(done, spent / (60 * options.minutes))
            if self.steps % every == 0 or done >= 1:
                self._check()
            if progress is not None:
                progress(min(round(done * options.steps), options.steps), options.steps)

    def graph(self) -> Graph:
        """The integers of the best state."""
        self._network.load_state_dict(self._best_state)
        return self._network.quantized_graph()

    def _step(self, done: float) -> None:
        """Moves everything once; `done` is the share of the way before the step."""
        inputs = self._augmentation(self._batch())
        self._network.train()
        loss = self._divergence(self._teacher(inputs), self._answers(inputs))
        loss.backward()
        # Never quite zero in the first step, when there is no warm-up to speak of.
        factor = min(1.0, (done + 1 / self._options.steps) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done))
        with torch.no_grad():
            for parameter in self._parameters:
                parameter.move(self.steps + 1, factor)

    def _batch(self) -> list[TorchTensor]:
        """Some of the samples; each is seen once before any is seen again."""
        count = len(self._taught[0])
        elements = activation_elements(self._reference, [t.name for t in self._reference.activations()])
        size = max(1, min(self._options.batch, count, STEP_ELEMENTS // elements))
        if len(self._order) < size:
            self._order = torch.cat([self._order, torch.randperm(count, generator=self._generator)])
        chosen, self._order = self._order[:size], self._order[size:]
        return [x[chosen] for x in self._taught]

    def _teacher(self, inputs: Sequence[TorchTensor]) -> list[TorchTensor]:
        """The float network's outputs."""
        with torch.no_grad():
            feeds = dict(zip(self._reference.inputs, inputs, strict=True))
            return run_graph(self._reference, feeds, self._constants)

    def _answers(self, inputs: Sequence[TorchTensor]) -> list[TorchTensor]:
        """The quantized network's outputs."""
        found = self._network(*inputs)
        return list(found) if isinstance(found, tuple) else [found]

    def _divergence(self, wanted: Sequence[TorchTensor], found: Sequence[TorchTensor]) -> TorchTensor:
        """The mean over samples of what `sensitivity.divergence` measures."""
        total = torch.zeros(())
        for exact, other in zip(wanted, found, strict=True):
            if is_scores(exact):
                log_p, log_q = (self._log_probabilities(rows.flatten(1)) for rows in (exact, other))
                total = total + nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
            else:
                total = total + (other - exact).square().mean() / exact.square().mean().clamp_min(LEAST_ENERGY)
        return total

    def _log_probabilities(self, rows: TorchTensor) -> TorchTensor:
        return rows.clamp_min(LEAST_PROBABILITY).log() if self._probabilities else rows.log_softmax(1)

    def _judge(self) -> float:
        """The divergence on the held-out samples, whole and as they are."""
        self._network.eval()
        widest = max(activation_elements(self._reference, node.outputs) for node in self._reference.nodes)
        part = max(1, RUN_ELEMENTS // widest)
        total, count = 0.0, len(self._held[0])
        with torch.no_grad():
            for begin in range(0, count, part):
                inputs = [_laid_out(x[begin : begin + part]) for x in self._held]
                loss = self._divergence(self._teacher(inputs), self._answers(inputs))
                total += float(loss) * len(inputs[0])
        return total / count if math.isfinite(total) else math.inf

    def _check(self) -> None:
        """Judges the network, remembers it where it is the best one, and keeps everything in the file."""
        found = self._judge()
        if found < self.best:
            self.best, self._best_state = found, self._copy()
        if self._file is None:
            return
        state = {
            "steps": self.steps,
            "best": self.best,
            "best_state": self._best_state,
            "state": self._copy(),
            "moments": [(parameter.mean, parameter.square) for parameter in self._parameters],
            "order": self._order,
            "generator": self._generator.get_state(),
        }
        with whole_file(self._file) as scratch:
            torch.save(state, scratch)

    def _resume(self) -> None:
        if self._file is None or not self._file.exists():
            return
        try:
            stored = torch.load(self._file, weights_only=True)
            self._network.load_state_dict(stored["state"])
            for parameter, (mean, square) in zip(self._parameters, stored["moments"], strict=True):
                parameter.mean.copy_(mean)
                parameter.square.copy_(square)
            self._generator.set_state(stored["generator"])
            self._order, self._best_state = stored["order"], stored["best_state"]
            self.steps, self.best = int(stored["steps"]), float(stored["best"])
        except Exception as error:  # torch.load has no type of its own for what it cannot read
            raise DataError(f"{self._file}: is damaged ({error}); delete it, and training begins anew") from None

    def _copy(self) -> dict[str, TorchTensor]:
        return {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    def _learned(self) -> Iterable[_Parameter]:
        """All numbers that are learned, with their units."""
        options, network = self._options, self._network
        for node in filter(is_layer, self._reference.nodes):
            layer, output = network.layer(node.name), network.quantizer(node.outputs[0])
            # The range of a channel is 127 or 7 steps; a seventh of it is one step of 4 bits.
            unit = layer.scale.start * (qparams.weight_limit(layer.bits) / qparams.weight_limit(4))
            shaped = unit.reshape(-1, *[1] * (layer.weight.ndim - 1))
            yield _Parameter.of(layer.weight, shaped, options.weight_rate)
            yield _Parameter.of(layer.bias, output.params().scale * 2.0**output.bits / 32, options.bias_rate)
            yield _Parameter.of(layer.scale.ratio, 1.0, options.scale_rate)
        for quantizer in network.activations.values():
            # With 256 codes there is little to win, and additions keep the scales on which all runtimes agree.
            if quantizer.bits == 4 and quantizer.is_learned():
                yield _Parameter.of(quantizer.scale.ratio, 1.0, options.step_rate)

    def _sizes(self) -> list[tuple[int, int] | None]:
        """Height and width to which each input is cut; None for what is no image."""
        sizes = [_image_size(x) for x in self._taught]
        smaller = [None if size is None else _smaller(size, self._options.side) for size in sizes]
        if smaller == sizes:
            return sizes
        pairs = zip(self._taught, smaller, strict=True)
        inputs = [x[:1] if size is None else _laid_out(x[:1, :, : size[0], : size[1]]) for x, size in pairs]
        try:
            found, whole = self._teacher(inputs), self._teacher([x[:1] for x in self._taught])
            if [y.shape for y in found] == [y.shape for y in whole]:
                return smaller
        except RuntimeError:
            # A linear layer or a reshape wants all pixels.
            pass
        return sizes


class Augmentation:
    """Random crops, mirroring, contrast and mixtures of images; other inputs are mixed only.

    Args:
        options: Says how much.
        sizes: Height and width that each input gets; None for what is no image.
        generator: Draws.
    """

    def __init__(
        self, options: DistillationOptions, sizes: Sequence[tuple[int, int] | None], generator: torch.Generator
    ) -> None:
        self._options, self._sizes, self._generator = options, sizes, generator

    def __call__(self, inputs: Sequence[TorchTensor]) -> list[TorchTensor]:
        """Returns other inputs of the same batch; all inputs are cut and mixed alike."""
        count = len(inputs[0])
        boxes = self._boxes(count)
        factors = 1 + self._options.contrast * (2 * self._uniform(count) - 1)
        found = []
        for x, size in zip(inputs, self._sizes, strict=True):
            if size is not None:
                grid = nn.functional.affine_grid(boxes, [count, x.shape[1], *size], align_corners=False)
                x = nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
                x = x * factors.reshape(-1, 1, 1, 1)
            found.append(x)
        return [_laid_out(x) for x in self._mixed(found)]

    def _boxes(self, count: int) -> TorchTensor:
        """Affine maps from the output to a random box of the input, half of them mirrored; shape (count, 2, 3)."""
        area = self._options.crop + (1 - self._options.crop) * self._uniform(count)
        stretch = STRETCH ** (2 * self._uniform(count) - 1) if self._options.crop < 1 else torch.ones(count)
        width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
        boxes = torch.zeros(count, 2, 3)
        boxes[:, 0, 0] = torch.where(self._uniform(count) < 0.5, -width, width)
        boxes[:, 1, 1] = height
        boxes[:, 0, 2] = (2 * self._uniform(count) - 1) * (1 - width)
        boxes[:, 1, 2] = (2 * self._uniform(count) - 1) * (1 - height)
        return boxes

    def _mixed(self, inputs: list[TorchTensor]) -> list[TorchTensor]:
        """Averages of two samples (mixup, Zhang et al. 2018) and pieces of one in another (CutMix, Yun et al. 2019)."""
        count = len(inputs[0])
        mixed = int(self._options.mixed * count)
        if not mixed or count < 2:
            return inputs
        others = torch.roll(torch.arange(count), 1)[:mixed]
        shares = self._uniform(mixed)
        corners = torch.rand(mixed, 3, generator=self._generator).tolist()
        found = []
        for x, size in zip(inputs, self._sizes, strict=True):
            # Every second mixture is an average; where there is no place for pieces, all are.
            averaged = torch.arange(0, mixed, 1 if size is None else 2)
            y = x.clone()
            share = shares[averaged].reshape(-1, *[1] * (x.ndim - 1))
            y[averaged] = share * x[averaged] + (1 - share) * x[others[averaged]]
            if size is not None:
                for index in range(1, mixed, 2):
                    down, right, length = corners[index]
                    length = PIECES[0] + (PIECES[1] - PIECES[0]) * length
                    rows, columns = _span(down, length, size[0]), _span(right, length, size[1])
                    y[index, :, rows, columns] = x[others[index], :, rows, columns]
            found.append(y)
        return found

    def _uniform(self, count: int) -> TorchTensor:
        return torch.rand(count, generator=self._generator)


def _span(place: float, length: float, whole: int) -> slice:
    """A piece of an axis; place and length are in [0, 1)."""
    size = max(1, int(length * whole))
    begin = int(place * (whole - size + 1))
    return slice(begin, begin + size)


def _image_size(x: TorchTensor) -> tuple[int, int] | None:
    """Height and width of images; None for what is none."""
    if x.ndim != 4 or x.shape[1] > 4 or min(x.shape[2:]) < SMALLEST_SIDE:
        return None
    return int(x.shape[2]), int(x.shape[3])


def _smaller(size: tuple[int, int], share: float) -> tuple[int, int]:
    """A share of a size in whole multiples of SIDES; the size itself where that leaves less than two of them."""
    height, width = (round(share * side / SIDES) * SIDES for side in size)
    return (height, width) if min(height, width) >= 2 * SIDES and share < 1 else size


def _laid_out(x: TorchTensor) -> TorchTensor:
    """Maps with their channels last: several times as fast in depthwise convolutions on a CPU."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
