"""Holds signals [N, C, L] between 1-D operators as images [N, C, 1, L] of height 1.

The importer writes a 1-D convolution or pool as a 2-D one between two reshapes. Here whatever lies between such
operators becomes an operator on images too, so that the reshapes meet, `remove_identities` takes them away, and the
other passes see neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgeq.ir import Attrs, Graph, Node, Tensor
from edgeq.ir.names import take_name
from edgeq.ops import get
from edgeq.ops.concat import ConcatAttrs
from edgeq.ops.elementwise import Elementwise
from edgeq.ops.pad import PadAttrs
from edgeq.ops.reshape import ReshapeAttrs
from edgeq.ops.slice import SliceAttrs
from edgeq.ops.unary import Unary

_IMAGE_OPS = ("avg_pool", "conv", "conv_transpose", "max_pool", "mean", "prelu", "resize")
"""What only images have: where a signal meets one of these it is worth lifting."""
_POINTWISE = ("batch_norm", "fake_quant", "lut")
"""Beside `Unary`: one activation, and constants that do not depend on its rank."""
_AXIS = (0, 1, 3)
"""Where axis i of [N, C, L] is in [N, C, 1, L]."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lifted:
    """A graph and what became of its constants.

    Attributes:
        graph: The graph.
        constants: Names of reshaped constants, and the constants whose values they hold.
    """

    graph: Graph
    constants: dict[str, str]


def lift_signals(graph: Graph) -> Graph:
    """Returns the NCHW graph with the signals around 1-D operators held as images; ends keep their shapes."""
    return lift(graph).graph


def lift(graph: Graph) -> Lifted:
    """Does what `lift_signals` does, and says which constants it reshaped."""
    wanted = _wanted(graph)
    return _Rewrite(graph, wanted).run() if wanted else Lifted(graph, {})


def image_shape(signal: Shape, height: int = 1) -> Shape:
    """The shape of the image that holds a signal of shape [N, C, L]; other numbers, one an axis, become so too."""
    return (*signal[:2], height, signal[2])


def _raises(node: Node, graph: Graph) -> bool:
    """Whether a node makes a signal an image."""
    x, y = graph.tensor(node.inputs[0]).shape, graph.tensor(node.outputs[0]).shape
    return node.op == "reshape" and len(x) == 3 and y == image_shape(x)


def _lowers(node: Node, graph: Graph) -> bool:
    """Whether a node makes an image a signal."""
    x, y = graph.tensor(node.inputs[0]).shape, graph.tensor(node.outputs[0]).shape
    return node.op == "reshape" and len(y) == 3 and x == image_shape(y)


def _activations(node: Node, graph: Graph) -> list[str]:
    return [name for name in node.inputs if name and not graph.tensor(name).is_constant]


def _liftable(node: Node, graph: Graph) -> bool:
    """Whether a node means the same on images of height 1, with the axes in its attributes moved."""
    names = [*_activations(node, graph), *node.outputs]
    if any(len(graph.tensor(name).shape) != 3 for name in names):
        return False
    operator = get(node.op)
    if isinstance(operator, Elementwise):
        return all(len(graph.tensor(name).shape) <= 3 for name in node.inputs)
    return isinstance(operator, Unary) or node.op in _POINTWISE or node.op in ("concat", "pad", "slice")


def _wanted(graph: Graph) -> set[str]:
    """The signals that are worth holding as images: those at 1-D operators, and what liftable nodes join with them."""
    producers, consumers = graph.producers(), graph.consumers()
    found: set[str] = set()
    for node in graph.nodes:
        if node.op != "reshape":
            continue
        before = producers.get(node.inputs[0])
        after = consumers.get(node.outputs[0], [])
        if _lowers(node, graph) and before is not None and before.op in _IMAGE_OPS:
            found.add(node.outputs[0])
        if _raises(node, graph) and any(reader.op in _IMAGE_OPS for reader in after):
            found.add(node.inputs[0])
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        around = [*consumers.get(name, []), *([producers[name]] if name in producers else [])]
        for node in around:
            if _liftable(node, graph):
                joined = {*_activations(node, graph), *node.outputs} - found
                found |= joined
                waiting.extend(joined)
    return found


@dataclass(slots=True)
class _Rewrite:
    """The graph under reconstruction.

    Attributes:
        source: The graph as it was.
        wanted: The signals to hold as images.
        raisers: The first node of the source that makes a wanted signal an image: its output names that image.
        images: The image that holds a signal, where there is one by now.
        constants: As `Lifted.constants`.
    """

    source: Graph
    wanted: set[str]
    result: Graph = field(init=False)
    taken: set[str] = field(init=False)
    raisers: dict[str, Node] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.result = self.source.copy()
        self.result.nodes = []
        self.taken = {node.name for node in self.source.nodes} | self.source.tensors.keys()
        for node in self.source.nodes:
            if _raises(node, self.source) and node.inputs[0] in self.wanted:
                self.raisers.setdefault(node.inputs[0], node)

    def run(self) -> Lifted:
        for node in self.source.nodes:
            if node.outputs[0] in self.wanted and _liftable(node, self.source):
                self.lift(node)
            else:
                self.keep(node)
        return Lifted(self.result.prune(), self.constants)

    def keep(self, node: Node) -> None:
        """Appends a node that stays what it is."""
        if _lowers(node, self.source):
            self.images.setdefault(node.outputs[0], node.inputs[0])
        elif _raises(node, self.source) and node.inputs[0] in self.wanted:
            image = self.image(node.inputs[0])
            if image == node.outputs[0]:
                return
            # A reshape from an image to an image: an identity, which keeps the name.
            node = node.with_(inputs=(image,))
        self.result.nodes.append(node)

    def lift(self, node: Node) -> None:
        """Appends a node that works on images, and the signals that other nodes may want of it."""
        operand = self.operand if isinstance(get(node.op), Elementwise) else self.either
        inputs = [operand(name) for name in node.inputs]
        outputs = [self.image_name(name) for name in node.outputs]
        for name, out in zip(node.outputs, outputs, strict=True):
            tensor = self.source.tensor(name)
            self.result.add_tensor(tensor.with_(name=out, shape=image_shape(tensor.shape)))
        self.result.nodes.append(node.with_(inputs=tuple(inputs), outputs=tuple(outputs), attrs=_moved(node.attrs)))
        for name, out in zip(node.outputs, outputs, strict=True):
            self.images[name] = out
            attrs = ReshapeAttrs(self.source.tensor(name).shape)
            self.result.nodes.append(Node("reshape", self.fresh(f"{name}.signal"), (out,), (name,), attrs))

    def image(self, name: str) -> str:
        """Returns the image that holds a signal; makes it where there is none."""
        if name not in self.images:
            tensor, out = self.source.tensor(name), self.image_name(name)
            shape = image_shape(tensor.shape)
            self.result.add_tensor(tensor.with_(name=out, shape=shape))
            made = Node("reshape", out, (name,), (out,), ReshapeAttrs(shape))
            self.result.nodes.append(self.raisers.get(name, made))
            self.images[name] = out
        return self.images[name]

    def image_name(self, name: str) -> str:
        return self.raisers[name].outputs[0] if name in self.raisers else self.fresh(f"{name}.lifted")

    def either(self, name: str) -> str:
        """The image of an activation; a constant as it is."""
        return self.image(name) if name and not self.source.tensor(name).is_constant else name

    def operand(self, name: str) -> str:
        """The same for what broadcasts: a constant that meets images as `name` meets signals."""
        value = self.source.constant(name)
        if value is None or value.size == 1:
            return self.either(name)
        out = self.fresh(f"{name}.lifted")
        shape = (1,) * (3 - value.ndim) + value.shape
        self.result.add_tensor(Tensor.constant(out, value.reshape(image_shape(shape))))
        self.constants[out] = name
        return out

    def fresh(self, stem: str) -> str:
        return take_name(stem, self.taken)


def _moved(attrs: Attrs) -> Attrs:
    """The attributes of a node on signals for images."""
    match attrs:
        case ConcatAttrs(axis):
            return ConcatAttrs(_AXIS[axis])
        case PadAttrs(before, after):
            return replace(attrs, before=image_shape(before, 0), after=image_shape(after, 0))
        case SliceAttrs(begin, stride, size):
            return SliceAttrs(image_shape(begin, 0), image_shape(stride), image_shape(size))
    return attrs
