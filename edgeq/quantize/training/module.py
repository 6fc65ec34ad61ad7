"""The module that trains: edgeq's float graph with every weight, bias and activation rounded as it will be shipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from edgeq.errors import QuantizationError, UsageError
from edgeq.ir import Graph, Node, Tensor
from edgeq.ops import check_graph, get
from edgeq.ops.base import NO_CLAMP, Clamp, TorchTensor, dequantize, quantize, torch_clamp
from edgeq.ops.elementwise import Elementwise
from edgeq.ops.resize import ResizeAttrs, ResizeMode
from edgeq.quantize import qparams
from edgeq.quantize.layers import BIAS, WEIGHTS, X, bias_name, is_layer
from edgeq.quantize.sharing import shared_sets
from edgeq.quantize.training.layers import FoldedLayer
from edgeq.quantize.training.scales import ActivationQuantizer
from edgeq.quantize.training.start import PLAY, latent_weights
from edgeq.quantize.weights import quantize_layer
from edgeq.torch_executor import constant_tensors, run_nodes

Network = TypeVar("Network", bound="RoundedNetwork")

RELU: Clamp = (0.0, math.inf)

MOVES = frozenset({"channel_shuffle", "concat", "max_pool", "reshape", "slice", "transpose"})
"""Operators whose outputs are codes that were there before: nothing is left to round."""

AVERAGES = frozenset({"avg_pool", "resize"})
"""Operators that average codes of the quantization that their output has too (resize: where it is bilinear)."""


class RoundedNetwork(nn.Module):
    """A float graph that rounds as the integers do that `quantized_graph` returns.

    It trains like any module. Parameters: `layers.NAME.weight`, `.bias` and `.scale.ratio`, and
    `activations.NAME.scale.ratio`; names have "-" where the graph has ".".

    Attributes:
        graph: The float graph (NCHW, after the float passes) that training started from.
        layers: Weights and biases by layer.
        activations: Quantizers by shared set.

    Args:
        graph: As the attribute.
        weight_bits: Of every layer, by name; `start_from` takes the quantized graph's.
        activation_bits: By name of the shared set; the same holds.
        make_layer: Makes a layer from its node and bits; weights and bias alone without it.
    """

    def __init__(
        self,
        graph: Graph,
        weight_bits: Mapping[str, int],
        activation_bits: Mapping[str, int],
        make_layer: Callable[[Node, int], FoldedLayer] | None = None,
    ) -> None:
        super().__init__()
        self.graph = graph
        self._sets = tuple(shared_sets(graph))
        self._set_of = {member: shared.name for shared in self._sets for member in shared.members}
        self._keys = _keys([shared.name for shared in self._sets])
        self._layer_keys = _keys([node.name for node in graph.nodes if is_layer(node)])
        self.activations = nn.ModuleDict()
        for shared in self._sets:
            bits = activation_bits[shared.name]
            fixed = None if shared.fixed is None else qparams.fixed_params(*shared.fixed, bits)
            self.activations[self._keys[shared.name]] = ActivationQuantizer(bits, fixed)
        self.layers = nn.ModuleDict()
        for node in graph.nodes:
            if is_layer(node):
                bits = weight_bits[node.name]
                made = folded_layer(node, graph, bits) if make_layer is None else make_layer(node, bits)
                self.layers[self._layer_keys[node.name]] = made
        self._operands = _quantized_operands(graph)
        self._nodes = [_named(node, self._operands) for node in graph.nodes]
        self._clamps = {node.name: getattr(node.attrs, "clamp", NO_CLAMP) for node in graph.nodes}
        self._buffer_names = self._register_constants()
        self.register_buffer("is_calibrated", torch.tensor(False))

    @staticmethod
    def of(graph: Graph, quantized: Graph, play: float = PLAY) -> RoundedNetwork:
        """Makes a module of a float graph that starts from a quantized one, as `start_from` says."""
        layers = filter(is_layer, quantized.nodes)
        weight_bits = {node.name: quantized.quant(node.inputs[WEIGHTS]).bits for node in layers}
        activation_bits = {shared.name: quantized.quant(shared.name).bits for shared in shared_sets(graph)}
        return RoundedNetwork(graph, weight_bits, activation_bits).start_from(quantized, play)

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

    def start_from(self: Network, quantized: Graph, play: float = PLAY) -> Network:
        """Starts from a post-training quantized graph of this model: its ranges, its biases and its very codes.

        A weight takes the place nearest to its float value that rounds to the quantized graph's code, so that methods
        that round otherwise than to the nearest keep what they gained. Bits become the quantized graph's too.

        Args:
            quantized: With the layers and activations of `graph`, by name.
            play: How far from the code a weight may start, in steps; below 0.5.

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
            latent = latent_weights(float_weight, weights.data, scale, quant.bits, play)
            layer.restart(*(torch.from_numpy(np.array(v)).to(device) for v in (latent, bias, scale)), quant.bits)
        self.is_calibrated.fill_(True)
        return self

    def layer(self, name: str) -> FoldedLayer:
        """The weights and bias of a layer, by the name of its node."""
        found: FoldedLayer = self.layers[self._layer_keys[name]]
        return found

    def quantizer(self, name: str) -> ActivationQuantizer:
        """What rounds an activation, by its name."""
        found: ActivationQuantizer = self.activations[self._keys[self._set_of[name]]]
        return found

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
            self._begin_pass()
        scales = {name: self.activations[key].scale() for name, key in self._keys.items()}
        constants, nodes = self._constants(scales)

        def rounded(name: str, value: TorchTensor, clamp: Clamp = NO_CLAMP) -> TorchTensor:
            found = self._set_of.get(name)
            return value if found is None else self.activations[self._keys[found]](value, scales[found], clamp)

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
            clamp = self._clamp_of(node)
            return [rounded(name, value, clamp) for name, value in zip(node.outputs, outputs, strict=True)]

        values = {
            name: rounded(name, value.to(torch.float32)) for name, value in zip(self.graph.inputs, inputs, strict=True)
        }
        run_nodes(nodes, values, self.graph, constants, finish, self.graph.outputs)
        found = tuple(values[name] for name in self.graph.outputs)
        return found[0] if len(found) == 1 else found

    def _begin_pass(self) -> None:
        """Called at the beginning of every pass in training."""

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
            if self._clips(node):
                node = node.with_(attrs=replace(node.attrs, clamp=NO_CLAMP))  # type: ignore[call-arg]
            nodes.append(node)
        return constants, nodes

    def _clips(self, node: Node) -> bool:
        """Whether the rounding of a node's output takes up its fused activation, which saves passes over memory."""
        key = self._layer_keys.get(node.name)
        rounds = node.outputs[0] in self._set_of and not _moves(node) and node.op not in AVERAGES
        return rounds and self._clamps[node.name] != NO_CLAMP and (key is None or not self.layers[key].normalises())

    def _clamp_of(self, node: Node) -> Clamp:
        """The fused activation that is left to the rounding of a node's output; none where its codes end there too."""
        clamp = self._clamps[node.name]
        if not self._clips(node):
            return NO_CLAMP
        negative = self.activations[self._keys[self._set_of[node.outputs[0]]]].has_negative_codes()
        return clamp if negative or clamp != RELU else NO_CLAMP

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


def folded_layer(node: Node, graph: Graph, bits: int) -> FoldedLayer:
    """Makes the layer of a node of a float graph.

    Raises:
        QuantizationError: If its weights are not constant.
    """
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
