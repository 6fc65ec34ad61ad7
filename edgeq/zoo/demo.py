"""The embedded demo model: a float ONNX file in the package, read without torch.

`python -m edgeq.zoo.train_demo` makes the file.
"""

from __future__ import annotations

from pathlib import Path

from edgeq.data import digits
from edgeq.data.preprocessing import Preprocessing

DEMO_NAME = "demo"
DEMO_LABELS = digits.CLASS_NAMES
DEMO_INPUT_SHAPE = digits.IMAGE_SHAPE
"""Channels, height, width."""
DEMO_PREPROCESSING = Preprocessing(mean=digits.MEAN, std=digits.STD, channels="gray")
"""How the bytes of `edgeq.data.digits.load_digits_uint8` become the model's float input."""
DEMO_DATA = "digits"
"""The data set, as the command line names it."""


def demo_path() -> Path:
    """The path of the float ONNX model (input `image`, (batch, 1, 8, 8); output `logits`, (batch, 10))."""
    return Path(__file__).with_name("demo.onnx")
