"""The networks of the papers, and the demo model.

`edgeq.zoo.<name>(num_classes=..., seed=...)` builds a network as a plain torch module with random weights;
`edgeq.zoo.load_pretrained(name)` fills it with trained ones; `ARCHITECTURES` lists the names with input shape
and preprocessing. torch is imported when a factory is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeq.zoo.demo import demo_path as demo_path
from edgeq.zoo.registry import ARCHITECTURES as ARCHITECTURES
from edgeq.zoo.registry import Architecture as Architecture
from edgeq.zoo.registry import architecture as architecture

if TYPE_CHECKING:
    from edgeq.zoo.architectures.densenet import densenet121 as densenet121
    from edgeq.zoo.architectures.efficientnet_lite import efficientnet_lite0 as efficientnet_lite0
    from edgeq.zoo.architectures.ghostnet import ghostnet_1_0 as ghostnet_1_0
    from edgeq.zoo.architectures.lenet import lenet5 as lenet5
    from edgeq.zoo.architectures.mobilenet_v2 import mobilenet_v2 as mobilenet_v2
    from edgeq.zoo.architectures.mobilenet_v3 import mobilenet_v3_small as mobilenet_v3_small
    from edgeq.zoo.architectures.mobileone import mobileone_s0 as mobileone_s0
    from edgeq.zoo.architectures.network_in_network import network_in_network as network_in_network
    from edgeq.zoo.architectures.resnet import resnet18 as resnet18
    from edgeq.zoo.architectures.resnet import resnet50 as resnet50
    from edgeq.zoo.architectures.resnet_cifar import resnet20_cifar10 as resnet20_cifar10
    from edgeq.zoo.architectures.resnet_cifar import resnet20_cifar100 as resnet20_cifar100
    from edgeq.zoo.architectures.resnet_cifar import resnet32_cifar10 as resnet32_cifar10
    from edgeq.zoo.architectures.resnet_cifar import resnet56_cifar10 as resnet56_cifar10
    from edgeq.zoo.architectures.resnet_cifar import resnet56_cifar100 as resnet56_cifar100
    from edgeq.zoo.architectures.shufflenet_v2 import shufflenet_v2_x1_0 as shufflenet_v2_x1_0
    from edgeq.zoo.architectures.squeezenet import squeezenet1_1 as squeezenet1_1
    from edgeq.zoo.loading import load_pretrained as load_pretrained


def __getattr__(name: str) -> Any:
    if name == "load_pretrained":
        return importlib.import_module("edgeq.zoo.loading").load_pretrained
    for row in ARCHITECTURES:
        if row.name == name:
            return getattr(importlib.import_module(f"edgeq.zoo.architectures.{row.module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
