"""Random weights under which a network behaves like a trained one.

Every layer's output keeps its scale, batch norm is not the identity, nothing explodes or dies through depth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

_STATISTICS_IMAGES = 4
# Below this share of its layer's mean variance a channel's running variance is raised: the division must not
# blow a nearly constant channel up.
_VARIANCE_FLOOR = 0.05


def with_random_weights(
    build: Callable[[], Network], input_shape: tuple[int, int, int], seed: int | None
) -> Network:
    """Builds a network and fills it with random weights and batch-norm statistics.

    Convolutions and linear layers are drawn after He et al. 2015 (arXiv 1502.01852), biases small and not
    zero; batch norm gets a scale in [0.6, 1.4], a shift, and the mean and variance that image-like noise has
    there, each off by a random factor, so that folding is tested in earnest.

    Args:
        build: Makes a network that takes one image batch.
        input_shape: Channels, height and width of the noise images; may be smaller than the network's own.
        seed: The same seed gives the same weights on one machine; None keeps torch's own initial values. The
            global random state is neither read nor changed.

    Returns:
        The network, in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        network = build()
    if seed is None:
        network.eval()
        return network
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                _draw_weights(module, generator)
        for norm in norms:
            norm.weight.copy_(_uniform(norm.weight, 0.6, 1.4, generator))
            norm.bias.copy_(_normal(norm.bias, 0.2, generator))
        if norms:
            _measure_statistics(network, norms, _noise_images(input_shape, generator))
        for norm in norms:
            _disturb_statistics(norm, generator)
    network.eval()
    return network


def _draw_weights(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    fan_in = layer.weight[0].numel()
    # ReLU halves the second moment of what a convolution reads; a linear layer need not make up for it.
    gain = 2.0 if isinstance(layer, nn.Conv2d) else 1.0
    layer.weight.copy_(_normal(layer.weight, (gain / fan_in) ** 0.5, generator))
    if layer.bias is not None:
        layer.bias.copy_(_normal(layer.bias, 0.1, generator))


def _noise_images(input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Half with the spectrum of photographs (coarse structure stronger than fine), half white noise.

    All of unit variance.
    White noise has to be among them: a filter that hardly answers to smooth images would be scaled up until
    noise explodes.
    """
    channels, height, width = input_shape
    total = torch.zeros(_STATISTICS_IMAGES, channels, height, width)
    for octave in (4, 8, 16, 32):
        size = (min(octave, height), min(octave, width))
        coarse = torch.randn(_STATISTICS_IMAGES, channels, *size, generator=generator)
        smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
        total += smooth * (4 / octave)
    total = (total - total.mean()) / total.std()
    white = _STATISTICS_IMAGES // 2
    total[:white] = torch.randn(white, channels, height, width, generator=generator)
    return total


def _measure_statistics(network: nn.Module, norms: list[nn.BatchNorm2d], images: Tensor) -> None:
    """Sets each running mean and variance to those of the images."""
    momenta = [norm.momentum for norm in norms]
    network.eval()  # Dropout stays off.
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _disturb_statistics(norm: nn.BatchNorm2d, generator: torch.Generator) -> None:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        return
    variance.clamp_(min=_VARIANCE_FLOOR * float(variance.mean()) + 1e-6)
    mean.add_(_normal(mean, 0.2, generator) * variance.sqrt())
    variance.mul_(_uniform(variance, 0.75, 1.5, generator))


def _normal(like: Tensor, std: float, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator) * std


def _uniform(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator) * (high - low) + low
