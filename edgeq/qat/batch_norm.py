"""Which batch norm stands behind which layer of a torch model.

Models arrive with batch norms folded (torch's exporter does it), which loses their statistics. They are found again by
watching the modules run; the layer of the graph is the one that has the very weights that folding gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgeq.ir import Graph, Node
from edgeq.ops.base import TorchTensor
from edgeq.qat.layers import Norm

TOLERANCE = 1e-4
"""Of the largest weight: how far folded weights may be from the graph's, which were folded in another order."""

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def find_norms(
    model: Any, examples: tuple[TorchTensor, ...], graph: Graph, layers: list[Node]
) -> dict[str, tuple[TorchTensor, Norm]]:
    """Returns, by name of a graph's layer, its weights before folding and the batch norm that follows it.

    Args:
        model: The module; it is run once, in evaluation mode.
        examples: Its inputs.
        graph: Imported from it, after the float passes.
        layers: The graph's layers with weights.
    """
    found: dict[str, tuple[TorchTensor, Norm]] = {}
    for layer, norm in _neighbours(model, examples):
        if norm.running_mean is None or norm.running_var is None:
            continue
        values = _norm_of(layer, norm)
        weight = layer.weight.detach().clone()
        if isinstance(layer, nn.Conv1d):
            weight = weight.unsqueeze(2)  # The graph's layers are 2-D, over a height of 1.
        folded = weight * values.factor().reshape(-1, *[1] * (weight.ndim - 1))
        bias = values.beta - values.mean * values.factor()
        for node in layers:
            if (
                node.name not in found
                and len(node.inputs) > 2
                and _same(folded, graph, node.inputs[1])
                and _same(bias, graph, node.inputs[2])
            ):
                found[node.name] = (weight, values)
                break
    return found


def _neighbours(model: Any, examples: tuple[TorchTensor, ...]) -> list[tuple[Any, Any]]:
    """Returns the layers whose output a batch norm reads, with it, in the order in which they run."""
    outputs: dict[int, tuple[Any, TorchTensor]] = {}
    pairs: list[tuple[Any, Any]] = []

    def after_layer(module: Any, _: Any, output: TorchTensor) -> None:
        # The output is kept, so that no other tensor can take its identity.
        outputs[id(output)] = (module, output)

    def before_norm(module: Any, inputs: tuple[Any, ...]) -> None:
        if inputs and id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], module))

    handles = []
    for module in model.modules():
        if isinstance(module, _LAYERS):
            handles.append(module.register_forward_hook(after_layer))
        elif isinstance(module, _NORMS):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad():
            model.eval()(*examples)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def _norm_of(layer: Any, norm: Any) -> Norm:
    mean = norm.running_mean.detach().clone()
    if layer.bias is not None:
        mean = mean - layer.bias.detach()
    one = torch.ones_like(mean)
    return Norm(
        gamma=one if norm.weight is None else norm.weight.detach().clone(),
        beta=torch.zeros_like(mean) if norm.bias is None else norm.bias.detach().clone(),
        mean=mean,
        variance=norm.running_var.detach().clone(),
        eps=norm.eps,
        momentum=0.1 if norm.momentum is None else norm.momentum,
    )


def _same(value: TorchTensor, graph: Graph, name: str) -> bool:
    stored = graph.constant(name)
    if stored is None or tuple(stored.shape) != tuple(value.shape):
        return False
    wanted = torch.from_numpy(stored.copy())
    return bool((value - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
