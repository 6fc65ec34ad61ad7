"""The module that trains: edgeq's float graph with every weight, bias and activation rounded as it will be shipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeq.errors import QuantizationError, UsageError
from edgeq.ir import Graph, Node, Tensor
from edgeq.ir.tensor import Array
from edgeq.ops import check_graph, get
from edgeq.ops.base import NO_CLAMP, Clamp, TorchTensor, dequantize, quantize, torch_clamp
from edgeq.ops.elementwise import Elementwise
from edgeq.ops.resize import ResizeAttrs, ResizeMode
from edgeq.qat.layers import FoldedLayer, Norm, NormalisedLayer
from edgeq.qat.scales import ActivationQuantizer
from edgeq.qat.start import latent_weights, limited_batches
from edgeq.quantize import DEFAULT_SAMPLES, Change, QuantizeOptions, Scheme, calibrate, qparams
from edgeq.quantize import quantize as quantize_graph
from edgeq.quantize.layers import BIAS, WEIGHTS, X, bias_name, is_layer
from edgeq.quantize.policy import make_plan
from edgeq.quantize.sharing import shared_sets
from edgeq.quantize.weights import quantize_layer
from edgeq.torch_executor import constant_tensors, run_nodes

RELU: Clamp = (0.0, math.inf)

MOVES = frozenset({"channel_shuffle", "concat", "max_pool", "reshape", "slice", "transpose"})
"""Operators whose outputs are codes that were there before: nothing is left to round."""

AVERAGES = frozenset({"avg_pool", "resize"})
"""Operators that average codes of the quantization that their output has too (resize: where it is bilinear)."""


class QatModule(nn.Module):
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
        super().__init__()
        self.graph, self.scheme, self.source, self.name = graph, scheme, source, graph.name
        self._keep = keep_8bit
        self._sets = tuple(shared_sets(graph))
        plan = make_plan(graph, scheme, self._sets, keep_8bit)
        self.changes: tuple[Change, ...] = plan.changes
        self._set_of = {member: shared.name for shared in self._sets for member in shared.members}
        self._keys = _keys([shared.name for shared in self._sets])
        self._layer_keys = _keys([node.name for node in graph.nodes if is_layer(node)])
        self.activations = nn.ModuleDict()
        for shared in self._sets:
            bits = plan.activation_bits[shared.name]
            fixed = None if shared.fixed is None else qparams.fixed_params(*shared.fixed, bits)
            self.activations[self._keys[shared.name]] = ActivationQuantizer(bits, fixed)
        self.layers = nn.ModuleDict()
        for node in graph.nodes:
            if is_layer(node):
                made = _layer(node, graph, plan.weight_bits[node.name], (norms or {}).get(node.name))
                self.layers[self._layer_keys[node.name]] = made
        self._operands = _quantized_operands(graph)
        self._nodes = [_named(node, self._operands) for node in graph.nodes]
        self._clamps = {node.name: getattr(node.attrs, "clamp", NO_CLAMP) for node in graph.nodes}
        self._buffer_names = self._register_constants()
        self._freeze_after = freeze_batch_norm_after
        self.register_buffer("is_calibrated", torch.tensor(False))
        self.register_buffer("batch_norm_frozen", torch.tensor(False))
        self.register_buffer("steps", torch.tensor(0))
        self._examples: Array | None = None

    def _register_constants(self) -> dict[str, str]:
        """Makes every constant that is no weight a buffer, so that it moves with the module; returns their names."""
        others = {name for node in self.graph.nodes if not is_layer(node) for name in node.inputs}
        values = constant_tensors(self.graph, [name for name in self.graph.tensors if name in others - {""}])
        for (node, index), tensor in self._operands.items():
            assert tensor.data is not None
            assert tensor.quant is not None
            real = dequantize(tensor.data, tensor.quant)
            values[_operand_name(node, index)] = torch.from_numpy(np.array(real))
        names = {}
        for position, (name, value) in enumerate(values.items()):
            names[name] = f"_constant{position}"
            self.register_buffer(names[name], value, persistent=False)
        return names

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

    def start_from(self, quantized: Graph) -> QatModule:
        """Starts from a post-training quantized graph of this model: its ranges, its biases and its very codes.

        A weight takes the place nearest to its float value that rounds to the quantized graph's code, so that methods
        that round otherwise than to the nearest keep what they gained. Bits become the quantized graph's too.

        Args:
            quantized: With the layers and activations of `graph`, by name.

        Raises:
            QuantizationError: If a layer or an activation of this model is not in it.
        """
        nodes = {node.name: node for node in quantized.nodes}
        for shared in self._sets:
            quant = quantized.tensors[shared.name].quant if shared.name in quantized.tensors else None
            if quant is None:
                raise QuantizationError(f"the quantized graph has no activation {shared.name!r}; it is another model's")
            self.activations[self._keys[shared.name]].restart(quant)
        for name, key in self._layer_keys.items():
            node = nodes.get(name)
            if node is None or not is_layer(node):
                raise QuantizationError(f"the quantized graph has no layer {name!r}; it is another model's")
            weights, quant = quantized.tensor(node.inputs[WEIGHTS]), quantized.quant(node.inputs[WEIGHTS])
            layer = self.layers[key]
            if weights.data is None or tuple(weights.shape) != tuple(layer.weight.shape):
                raise QuantizationError(f"{name}: its weights have another shape in the quantized graph")
            bias = np.zeros(weights.shape[0], np.float32)
            if bias_name(node):
                stored = quantized.tensor(node.inputs[BIAS])
                assert stored.data is not None
                bias = dequantize(stored.data, quantized.quant(stored.name))
            scale = np.broadcast_to(quant.scale, weights.shape[:1])
            device = layer.weight.device
            float_weight = layer.folded()[0].detach().cpu().numpy()
            latent = latent_weights(float_weight, weights.data, scale, quant.bits)
            layer.restart(*(torch.from_numpy(np.array(v)).to(device) for v in (latent, bias, scale)), quant.bits)
        self.is_calibrated.fill_(True)
        return self

    # --- running ---

    def forward(self, *inputs: TorchTensor) -> Any:
        """Returns what the exported integers stand for: a tensor, or a tuple where the graph has several outputs.

        Raises:
            UsageError: If ranges have not been initialised, or the number of inputs is wrong.
        """
        if not self.is_calibrated:
            raise UsageError(
                "this module has no ranges yet: give prepare_qat calibration data, call calibrate(batches), or load a "
                "state dict"
            )
        if len(inputs) != len(self.graph.inputs):
            raise UsageError(f"the model takes {len(self.graph.inputs)} inputs, not {len(inputs)}")
        if self.training:
            self._count_step()
        scales = {name: self.activations[key].scale() for name, key in self._keys.items()}
        constants, nodes = self._constants(scales)

        def rounded(name: str, value: TorchTensor) -> TorchTensor:
            found = self._set_of.get(name)
            return value if found is None else self.activations[self._keys[found]](value, scales[found])

        def finish(node: Node, outputs: list[TorchTensor]) -> list[TorchTensor]:
            key = self._layer_keys.get(node.name)
            if key is not None and self.layers[key].normalises():
                outputs = [torch_clamp(self.layers[key].finish(outputs[0]), self._clamps[node.name])]
            if _moves(node):
                return outputs
            if node.op in AVERAGES:
                found = self._set_of[node.outputs[0]]
                quantizer = self.activations[self._keys[found]]
                return [quantizer.average(outputs[0], scales[found], half_up=node.op == "resize")]
            return [rounded(name, value) for name, value in zip(node.outputs, outputs, strict=True)]

        values = {
            name: rounded(name, value.to(torch.float32)) for name, value in zip(self.graph.inputs, inputs, strict=True)
        }
        run_nodes(nodes, values, self.graph, constants, finish, self.graph.outputs)
        found = tuple(values[name] for name in self.graph.outputs)
        return found[0] if len(found) == 1 else found

    def _constants(self, scales: Mapping[str, TorchTensor]) -> tuple[dict[str, TorchTensor], list[Node]]:
        """Returns the constants of a pass, rounded, and the nodes that read them."""
        constants = {name: getattr(self, buffer) for name, buffer in self._buffer_names.items()}
        for shared in self._sets:
            for name in shared.constants:
                constants[name] = self.activations[self._keys[shared.name]](constants[name], scales[shared.name])
        nodes = []
        for node in self._nodes:
            if node.name in self._layer_keys:
                layer = self.layers[self._layer_keys[node.name]]
                ends = (scales[self._set_of[name]] for name in (node.inputs[X], node.outputs[0]))
                weight, bias = layer(*ends)
                constants[node.inputs[WEIGHTS]] = weight
                if layer.normalises():
                    # The bias and the fused activation follow the normalisation.
                    attrs = replace(node.attrs, clamp=NO_CLAMP)  # type: ignore[call-arg]
                    node = node.with_(inputs=node.inputs[:2], attrs=attrs)
                else:
                    constants[node.inputs[BIAS]] = bias
            if self._clamps[node.name] == RELU and self._rounds_at_zero(node):
                node = node.with_(attrs=replace(node.attrs, clamp=NO_CLAMP))  # type: ignore[call-arg]
            nodes.append(node)
        return constants, nodes

    def _rounds_at_zero(self, node: Node) -> bool:
        """Whether rounding the output clips it at zero anyway, as where it follows a ReLU."""
        found = self._set_of.get(node.outputs[0])
        return found is not None and not self.activations[self._keys[found]].has_negative_codes()

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

    def _count_step(self) -> None:
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

    def quantized_graph(self) -> Graph:
        """Returns the integers that this module computes with now, as a checked quantized graph (NCHW).

        Raises:
            UsageError: If ranges have not been initialised.
            QuantizationError: If training has left a weight, bias or scale that is not finite.
        """
        if not self.is_calibrated:
            raise UsageError("this module has no ranges yet, so there is nothing to quantize: call calibrate(batches)")
        self._check_finite()
        result = self.graph.copy()
        for shared in self._sets:
            quant = self.activations[self._keys[shared.name]].params()
            for name in shared.members:
                result.add_tensor(result.tensor(name).with_(dtype="int8", quant=quant))
            for name in shared.constants:
                value = self.graph.constant(name)
                if value is not None:
                    result.add_tensor(Tensor.constant(name, quantize(value, quant), quant))
        for tensor in self._operands.values():
            result.add_tensor(tensor)
        for position, node in enumerate(self._nodes):
            if node.name in self._layer_keys:
                result.nodes[position] = self._quantized_layer(node, result)
            else:
                result.nodes[position] = node
        result = result.prune()
        check_graph(result)
        return result

    def _quantized_layer(self, node: Node, result: Graph) -> Node:
        layer = self.layers[self._layer_keys[node.name]]
        x, y = result.quant(node.inputs[X]), result.quant(node.outputs[0])
        with torch.no_grad():
            bias = layer.folded()[1]
            ends = [torch.tensor(float(quant.scale), device=bias.device) for quant in (x, y)]
            scale = layer.effective_scale(bias, *ends)
            # What rounds in a pass is rounded here too: from these values every code comes back, tie or not.
            weight = layer(*ends)[0]
        ranges = scale.cpu().numpy().astype(np.float64) * qparams.weight_limit(layer.bits)
        names = (node.inputs[WEIGHTS], node.inputs[BIAS])
        made = quantize_layer(weight.cpu().numpy(), bias.detach().cpu().numpy(), layer.bits, ranges, x, y, names)
        for tensor in made:
            if tensor is not None:
                result.add_tensor(tensor)
        return node

    def _check_finite(self) -> None:
        for name, value in (*self.named_parameters(), *self.named_buffers()):
            if not bool(torch.isfinite(value).all()):
                raise QuantizationError(
                    f"{name} is not finite: training has diverged; begin anew with a smaller learning rate"
                )

    def statistics(self) -> list[dict[str, Any]]:
        """Returns a dictionary of plain values for each layer, for the manifest of an export."""
        graph = self.quantized_graph()
        return [_facts(node, graph) for node in graph.nodes if is_layer(node)]

    def examples(self) -> Array | None:
        """Returns up to 8 calibration inputs, float32; None when this module was not calibrated here."""
        return self._examples


def _keys(names: Iterable[str]) -> dict[str, str]:
    """Names that a module dictionary takes, unique."""
    found: dict[str, str] = {}
    plain = nn.ModuleDict()
    for name in names:
        key = name.replace(".", "-")
        while key in found.values() or hasattr(plain, key):
            key += "-"
        found[name] = key
    return found


def _layer(node: Node, graph: Graph, bits: int, norm: tuple[TorchTensor, Norm] | None) -> FoldedLayer:
    if norm is not None:
        return NormalisedLayer(norm[0], bits, norm[1])
    weight, bias = graph.constant(node.inputs[WEIGHTS]), graph.constant(bias_name(node))
    if weight is None:
        raise QuantizationError(f"{node.name}: its weights must be constant to be trained")
    start = np.zeros(weight.shape[0], np.float32) if bias is None else bias
    return FoldedLayer(torch.from_numpy(np.array(weight)), torch.from_numpy(np.array(start)), bits)


def _operand_name(node: str, index: int) -> str:
    return f"{node}:operand{index}"


def _quantized_operands(graph: Graph) -> dict[tuple[str, int], Tensor]:
    """The constant operands of add, sub and mul, by node and position: per tensor, 8 bits, as `quantize` makes them."""
    found = {}
    for node in graph.nodes:
        if not isinstance(get(node.op), Elementwise):
            continue
        for index, name in enumerate(node.inputs):
            value = graph.constant(name)
            if value is not None:
                quant = qparams.activation_params(float(value.min()), float(value.max()), 8)
                found[node.name, index] = Tensor.constant(
                    _operand_name(node.name, index), quantize(value, quant), quant
                )
    return found


def _named(node: Node, operands: Mapping[tuple[str, int], Tensor]) -> Node:
    """The node with constants of its own: others may share the graph's and round them otherwise."""
    if is_layer(node):
        return node.with_(inputs=(node.inputs[X], f"{node.name}:weight", f"{node.name}:bias"))
    inputs = [_operand_name(node.name, i) if (node.name, i) in operands else name for i, name in enumerate(node.inputs)]
    return node.with_(inputs=tuple(inputs))


def _moves(node: Node) -> bool:
    if node.op == "pad":
        return getattr(node.attrs, "value", 0.0) == 0.0
    if isinstance(node.attrs, ResizeAttrs):
        return node.attrs.mode is ResizeMode.NEAREST
    return node.op in MOVES


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
