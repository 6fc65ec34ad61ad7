"""Writes bench/shapes: the layers of the zoo's networks, a file a network.

    python -m bench.studies.shapes [--networks mobilenet_v2 ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import bench.networks
from bench.layers import Layer, write
from edgeq import zoo
from edgeq.importers import from_onnx, from_torch
from edgeq.ir import Graph, Node
from edgeq.passes import float_pipeline
from edgeq.zoo.registry import architecture

NETWORKS = (
    *bench.networks.NETWORKS,
    "densenet121",
    "squeezenet1_1",
    "resnet20_cifar10",
    "network_in_network",
    "lenet5",
)
"""The zoo's networks; deeper ones of the same family have the same layers."""

FULLY_CONNECTED = (Layer("linear", 1, 1, 1024, 1024), Layer("linear", 1, 1, 4096, 4096))
"""Layers whose weights lie in the L2 and in the L3 cache: how fast weights come in."""

_TABLES = (
    "hard_swish", "hard_sigmoid", "sigmoid", "silu", "tanh", "gelu", "elu", "selu", "celu", "softplus", "mish",
    "softsign",
)  # fmt: skip
_WINDOWED = ("conv", "max_pool", "avg_pool")


def layers_of(graph: Graph) -> list[Layer]:
    """The layers of a float graph that cost time, equal ones once, in the order of their first."""
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    consumers, producers = graph.consumers(), graph.producers()
    fused: set[str] = set()
    found: dict[Layer, int] = {}
    for node in graph.nodes:
        if node.name in fused:
            continue
        layer = _layer(graph, node)
        if layer is None:
            continue
        readers = consumers.get(node.outputs[0], [])
        if node.op in ("conv", "linear") and len(readers) == 1:
            reader = readers[0]
            if reader.op in _TABLES:
                layer = replace(layer, after="table")
                fused.add(reader.name)
            elif node.op == "conv" and reader.op == "add" and _is_last(node, reader, producers, order):
                layer = replace(layer, after="residual")
                fused.add(reader.name)
        found[layer] = found.get(layer, 0) + 1
    return [replace(layer, times=times) for layer, times in found.items()]


def _is_last(node: Node, addition: Node, producers: dict[str, Node], order: dict[str, int]) -> bool:
    """Whether the node computes the operand of an addition that is there last."""
    indices = [order[producers[name].name] for name in addition.inputs if name in producers]
    return order[node.name] == max(indices)


def _layer(graph: Graph, node: Node) -> Layer | None:
    attrs: Any = node.attrs
    op = "table" if node.op in _TABLES else node.op
    if op not in (*_WINDOWED, "linear", "add", "mul", "mean", "table"):
        return None
    shapes = [graph.tensor(name).shape for name in node.inputs if graph.constant(name) is None]
    shape = max(shapes, key=lambda one: int(np.prod(one[1:])))  # of a factor a channel and an image, the image
    out = graph.tensor(node.outputs[0]).shape[1]
    if len(shape) == 2:
        return Layer(op, 1, 1, shape[1], out)
    layer = Layer(op, shape[2], shape[3], shape[1], out)
    if op in _WINDOWED:
        window = attrs.window
        layer = replace(layer, kernel=window.kernel, stride=window.strides, pad=window.pads)
    return replace(layer, groups=attrs.groups) if op == "conv" else layer


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    options = parser.parse_args(arguments)
    for network in options.networks:
        x = np.zeros((1, *architecture(network).input_shape), np.float32)
        _, content = from_torch.load(getattr(zoo, network)(seed=0), x)
        found = layers_of(float_pipeline(from_onnx.load(content)))
        print(f"{write(network, found)}: {len(found)} different layers")
    print(write("fully_connected", FULLY_CONNECTED))


if __name__ == "__main__":
    main()
