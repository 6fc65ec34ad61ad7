"""The module that trains in the user's own loop, batch norms included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from edgeq.ir import Graph, Node
from edgeq.ir.tensor import Array
from edgeq.ops.base import TorchTensor
from edgeq.qat.layers import Norm, NormalisedLayer
from edgeq.qat.start import limited_batches
from edgeq.quantize import DEFAULT_SAMPLES, Change, QuantizeOptions, Scheme, calibrate
from edgeq.quantize import quantize as quantize_graph
from edgeq.quantize.layers import WEIGHTS, X, is_layer
from edgeq.quantize.policy import make_plan
from edgeq.quantize.sharing import shared_sets
from edgeq.quantize.training.layers import FoldedLayer
from edgeq.quantize.training.module import RoundedNetwork, folded_layer


class QatModule(RoundedNetwork):
    """A float graph that rounds as the exported integers do; made by `edgeq.prepare_qat`.

    It trains like any module. Parameters: `layers.NAME.weight`, `.bias` (with batch norm: `.gamma` too) and
    `.scale.ratio`, and `activations.NAME.scale.ratio`; names have "-" where the graph has ".".

    Attributes:
        graph: The float graph (NCHW, after the float passes) that training started from.
        scheme: Bits of weights and activations that were asked for.
        changes: Where the policy differs from the scheme.
        name: The model's name, for files.
        source: The float model as an ONNX file.
        layers: Weights and biases by layer.
        activations: Quantizers by shared set.
    """

    def __init__(
        self,
        graph: Graph,
        scheme: Scheme,
        source: bytes,
        *,
        keep_8bit: frozenset[str] | None = None,
        norms: Mapping[str, tuple[TorchTensor, Norm]] | None = None,
        freeze_batch_norm_after: int | None = None,
    ) -> None:
        plan = make_plan(graph, scheme, shared_sets(graph), keep_8bit)
        known = norms or {}

        def make_layer(node: Node, bits: int) -> FoldedLayer:
            if node.name in known:
                weight, norm = known[node.name]
                return NormalisedLayer(weight, bits, norm)
            return folded_layer(node, graph, bits)

        super().__init__(graph, plan.weight_bits, plan.activation_bits, make_layer)
        self.scheme, self.source, self.name = scheme, source, graph.name
        self._keep = keep_8bit
        self.changes: tuple[Change, ...] = plan.changes
        self._freeze_after = freeze_batch_norm_after
        self.register_buffer("batch_norm_frozen", torch.tensor(False))
        self.register_buffer("steps", torch.tensor(0))
        self._examples: Array | None = None

    # --- where training starts ---

    def calibrate(
        self,
        batches: Any,
        *,
        samples: int = DEFAULT_SAMPLES,
        observer: str | None = None,
        options: QuantizeOptions | None = None,
    ) -> QatModule:
        """Quantizes the float graph post training, and starts from the result.

        Args:
            batches: float32 inputs as the model takes them: one array or tensor, or an iterable of batches, each an
                array, a tensor or a pair (inputs, labels), such as a torch DataLoader gives.
            samples: At most this many are used.
            observer: How an activation's range is chosen; "mse" without it.
            options: Of the post-training quantization; without it the defaults of `QuantizeOptions`, whose weight
                ranges clip nothing: a clipped weight has no gradient.

        Returns:
            This module.

        Raises:
            DataError: If there are no samples, or they do not fit the model.
            QuantizationError: If the float model is not finite on them, or an option is unknown.
        """
        found = calibrate(self.graph, limited_batches(batches, samples), observer=observer or "mse")
        options = options or QuantizeOptions()
        if options.keep_8bit is None:
            options = replace(options, keep_8bit=self._keep)
        started = quantize_graph(self.graph, self.scheme, found, options)
        self.start_from(started.graph)
        self.changes = started.changes
        self._examples = next(iter(found.samples.values()))[:8]
        return self

    # --- batch norm ---

    def freeze_batch_norm(self, frozen: bool = True) -> QatModule:
        """Keeps the running statistics as they are from now on (or lets them move again); returns this module."""
        self.batch_norm_frozen.fill_(frozen)
        self._tell_layers()
        return self

    def train(self, mode: bool = True) -> QatModule:
        """Switches training on or off, as in every module; frozen batch norms stay frozen."""
        super().train(mode)
        self._tell_layers()
        return self

    def _tell_layers(self) -> None:
        for layer in self.layers.values():
            if isinstance(layer, NormalisedLayer):
                layer.frozen = bool(self.batch_norm_frozen)

    def _begin_pass(self) -> None:
        self.steps += 1
        if self._freeze_after is not None and int(self.steps) == self._freeze_after + 1:
            self.freeze_batch_norm()

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._tell_layers()

    # --- optimizers ---

    def parameter_groups(
        self, lr: float, *, weight_decay: float = 0.0, scale_lr: float | None = None
    ) -> list[dict[str, Any]]:
        """Returns groups for an optimizer: weights, then biases and batch norms, then scales.

        Args:
            lr: Learning rate of weights and biases.
            weight_decay: Of the weights alone; decay would pull biases and scales away for nothing.
            scale_lr: Learning rate of the scales, which are learned as ratios; `lr` without it.
        """
        groups: dict[str, list[TorchTensor]] = {"weights": [], "others": [], "scales": []}
        for name, parameter in self.named_parameters():
            ends = {"weight": "weights", "ratio": "scales"}
            groups[ends.get(name.rpartition(".")[2], "others")].append(parameter)
        return [
            {"params": groups["weights"], "lr": lr, "weight_decay": weight_decay},
            {"params": groups["others"], "lr": lr, "weight_decay": 0.0},
            {"params": groups["scales"], "lr": lr if scale_lr is None else scale_lr, "weight_decay": 0.0},
        ]

    # --- export ---

    def statistics(self) -> list[dict[str, Any]]:
        """Returns a dictionary of plain values for each layer, for the manifest of an export."""
        graph = self.quantized_graph()
        return [_facts(node, graph) for node in graph.nodes if is_layer(node)]

    def examples(self) -> Array | None:
        """Returns up to 8 calibration inputs, float32; None when this module was not calibrated here."""
        return self._examples


def _facts(node: Node, graph: Graph) -> dict[str, Any]:
    weights = graph.tensor(node.inputs[WEIGHTS])
    assert weights.data is not None
    return {
        "name": node.name,
        "op": node.op,
        "weight_bits": graph.quant(weights.name).bits,
        "input_bits": graph.quant(node.inputs[X]).bits,
        "output_bits": graph.quant(node.outputs[0]).bits,
        "weight_shape": list(weights.shape),
        "dead_channels": int((~weights.data.reshape(weights.shape[0], -1).any(axis=1)).sum()),
    }
