"""Inputs of products apart from what else reads them, so that 4-bit activations cost only the products 16 levels.

In a residual network one tensor, the stream, is read by the next layer and by the next addition. The layer multiplies:
at 4-bit activations it must read 4-bit codes. The addition does not, and what it rounds to 16 levels every later block
carries on. A node that changes nothing between the stream and the layers that read it makes two tensors of one: the
stream keeps 8 bits, its rounded copy has 4. In a .edgeq file the copy is a table of 256 codes, in ONNX a second
QuantizeLinear.
"""

from __future__ import annotations

from edgeq.ir import Graph, Node, Tensor
from edgeq.ops import QuantRule, get
from edgeq.ops.clip import ClipAttrs
from edgeq.quantize.layers import X, is_layer
from edgeq.quantize.sharing import quantized_inputs, shared_sets


def separate_product_inputs(graph: Graph) -> Graph:
    """Returns a float graph in which no tensor that a layer multiplies is also added, averaged, or looked up.

    A `clip` without bounds is put between such a tensor and all layers that read it. Tensors that have 8 bits anyway
    (the network's inputs and outputs, `SharedSet.forced`) stay as they are, and so do node and tensor names.

    Args:
        graph: Float, after the float passes.
    """
    apart: set[str] = set()
    for shared in shared_sets(graph):
        if shared.forced is not None:
            continue
        readers = [node for node in graph.nodes if not set(shared.members).isdisjoint(quantized_inputs(node, graph))]
        if any(get(node.op).quant_rule is not QuantRule.SAME and not is_layer(node) for node in readers):
            apart.update(node.inputs[X] for node in readers if is_layer(node))
    result = graph.copy()
    result.nodes = []
    copies: dict[str, str] = {}
    for node in graph.nodes:
        if is_layer(node) and node.inputs[X] in apart:
            name = node.inputs[X]
            if name not in copies:
                tensor = graph.tensor(name)
                copies[name] = result.add_tensor(Tensor(graph.fresh_name(f"{name}.product"), tensor.shape))
                result.nodes.append(Node("clip", copies[name], (name,), (copies[name],), ClipAttrs()))
            node = node.with_(inputs=(copies[name], *node.inputs[X + 1 :]))
        result.nodes.append(node)
    return result
