"""Single layers of real networks: read from bench/shapes, built with random numbers, timed alone.

A file of bench/shapes holds one network, a layer a line:

    op height width channels out kernel stride pad groups after times

The image is the layer's input; `out` is its channels after it. Kernel and stride are rows x columns, the pad is
top,left,bottom,right. `after` is what the engine computes with it: `table` for a function of one input, `residual` for
an addition, `-` for nothing. `times` says how often the network has the layer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SHAPES = Path(__file__).with_name("shapes")

HEADER = "op height width channels out kernel stride pad groups after times"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer by its sizes; see the module's text.

    Attributes:
        op: conv, linear, add, mul, mean, max_pool, avg_pool or table.
        height: Of the input image.
        width: Of the input image.
        channels: Of the input.
        out: Of the output.
        kernel: Rows, columns.
        stride: Rows, columns.
        pad: Top, left, bottom, right.
        groups: Of a convolution.
        after: What is fused behind it.
        times: How often its network has it.
    """

    op: str
    height: int
    width: int
    channels: int
    out: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    after: str = "-"
    times: int = 1

    def __str__(self) -> str:
        kernel, stride = ("x".join(map(str, pair)) for pair in (self.kernel, self.stride))
        pad = ",".join(map(str, self.pad))
        sizes = f"{self.height} {self.width} {self.channels} {self.out}"
        return f"{self.op} {sizes} {kernel} {stride} {pad} {self.groups} {self.after} {self.times}"

    @staticmethod
    def parse(line: str) -> Layer:
        """Reads a line; raises ValueError naming it when it is malformed."""
        words = line.split()
        if len(words) != len(HEADER.split()):
            raise ValueError(f"a layer has the fields {HEADER}; this line has others: {line!r}")
        try:
            height, width, channels, out = map(int, words[1:5])
            (rows, columns), (down, across) = (map(int, word.split("x")) for word in words[5:7])
            top, left, bottom, right = map(int, words[7].split(","))
            groups, times = int(words[8]), int(words[10])
        except ValueError:
            raise ValueError(f"a layer has the fields {HEADER}; this line cannot be read: {line!r}") from None
        pad = (top, left, bottom, right)
        sizes = (height, width, channels, out)
        return Layer(words[0], *sizes, (rows, columns), (down, across), pad, groups, words[9], times)

    @property
    def size_out(self) -> tuple[int, int]:
        """Height and width of the output image."""
        if self.op in ("mean", "linear"):
            return 1, 1
        (top, left, bottom, right), (rows, columns), (down, across) = self.pad, self.kernel, self.stride
        return (self.height + top + bottom - rows) // down + 1, (self.width + left + right - columns) // across + 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for what has no weights."""
        if self.op not in ("conv", "linear"):
            return 0
        height, width = self.size_out
        return height * width * self.out * (self.channels // self.groups) * self.kernel[0] * self.kernel[1]

    @property
    def elements(self) -> int:
        """Elements that a layer without weights reads: its work."""
        return self.height * self.width * self.channels

    @property
    def title(self) -> str:
        """A name for tables and for the tests' ids."""
        kernel = "x".join(map(str, self.kernel)) + (f"s{self.stride[0]}" if self.stride != (1, 1) else "")
        groups = ""
        if self.groups > 1:
            groups = " depthwise" if self.groups == self.channels else f" groups {self.groups}"
        sizes = f"{self.height}x{self.width} {self.channels}>{self.out}"
        words = {"conv": f"conv {kernel}{groups}", "max_pool": f"max_pool {kernel}", "avg_pool": f"avg_pool {kernel}"}
        after = "" if self.after == "-" else f" + {self.after}"
        return f"{words.get(self.op, self.op)} {sizes}{after}"

    @property
    def kind(self) -> str:
        """The class of layers that it belongs to in docs/performance.md."""
        if self.op != "conv":
            return self.op
        pixels = self.size_out[0] * self.size_out[1]
        size = f"{self.kernel[0]}x{self.kernel[1]}"
        if self.groups == self.channels > 1:
            return f"depthwise {size}, stride {self.stride[0]}"
        if self.groups > 1:
            return "grouped convolution"
        if pixels == 1:
            return "convolution of one pixel"
        if self.channels <= 4:
            return "first layer"
        wide = "64 channels and more" if min(self.channels, self.out) >= 64 else "fewer channels"
        return f"{size}, {wide}" if size in ("1x1", "3x3") else "other convolution"


def networks() -> list[str]:
    """The networks that bench/shapes has."""
    return sorted(path.stem for path in SHAPES.glob("*.txt"))


def read(network: str) -> list[Layer]:
    """Returns the layers of a network.

    Raises:
        ValueError: If a line is malformed.
    """
    lines = (SHAPES / f"{network}.txt").read_text(encoding="utf-8").splitlines()
    return [Layer.parse(line) for line in lines if line.strip() and not line.startswith("#")]


def merged(names: Iterable[str]) -> dict[Layer, list[str]]:
    """The different layers of several networks (each `times` 1), and which networks have them."""
    found: dict[Layer, list[str]] = {}
    for name in names:
        for layer in read(name):
            found.setdefault(replace(layer, times=1), []).append(name)
    return found


def write(network: str, layers: Sequence[Layer]) -> Path:
    """Writes the file of a network; returns its path."""
    from edgeq.outputs import write_text

    path = SHAPES / f"{network}.txt"
    SHAPES.mkdir(exist_ok=True)
    about = f"# {network}, written by `python -m bench.studies.shapes`; bench/layers.py says what the fields are.\n"
    write_text(path, about + f"# {HEADER}\n" + "".join(f"{layer}\n" for layer in layers))
    return path


def seed(layer: Layer) -> int:
    """The seed of a layer's random numbers."""
    return zlib.crc32(str(layer).encode())
