"""Factories of networks with their trained weights, in the form `package.module:factory`."""

from __future__ import annotations

from typing import Any

from edgeq.zoo import load_pretrained


def efficientnet_lite0() -> Any:
    """EfficientNet-Lite0 with its ImageNet weights."""
    return load_pretrained("efficientnet_lite0")


def mobilenet_v2() -> Any:
    """MobileNetV2 with torchvision's ImageNet weights."""
    return load_pretrained("mobilenet_v2")
