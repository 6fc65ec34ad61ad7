"""Fake quantization: its values are those of the codes, its gradients those of the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeq.ir import QuantParams
from edgeq.ops.base import NO_CLAMP, dequantize, quantize

torch = pytest.importorskip("torch", reason="fake quantization trains in torch")
pytestmark = pytest.mark.needs_torch

CODES = {"a8": (-128, 127), "a4": (-8, 7), "w8": (-127, 127), "w4": (-7, 7)}


def hard_values(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Values inside and outside of every range, a tenth of them exactly half-way between two codes."""
    values = rng.normal(0, 60 * scale, shape).astype(np.float32)
    flat = values.reshape(-1)
    flat[::10] = (np.floor(flat[::10] / scale) + np.float32(0.5)) * np.float32(scale)
    return values


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_point", [-8, 0, 3, 7])
def test_values_of_activations_are_those_of_their_codes(bits: int, zero_point: int, rng: np.random.Generator) -> None:
    from edgeq.torch_executor.fake_quant import fake_quantize

    for scale in (0.5, 0.0371):
        quant = QuantParams.per_tensor(scale, zero_point, bits)
        x = hard_values(rng, (50, 40), float(quant.scale))
        found = fake_quantize(torch.from_numpy(x), torch.tensor(quant.scale.item()), zero_point, quant.qmin, quant.qmax)
        np.testing.assert_array_equal(found.numpy(), dequantize(quantize(x, quant), quant))


@pytest.mark.parametrize("axis", [0, 1])
def test_values_of_weights_are_those_of_their_codes(axis: int, rng: np.random.Generator) -> None:
    from edgeq.torch_executor.fake_quant import fake_quantize

    w = rng.normal(0, 1, (6, 6, 3)).astype(np.float32)
    scale = rng.uniform(0.05, 0.5, 6).astype(np.float32)
    found = fake_quantize(torch.from_numpy(w), torch.from_numpy(scale), 0, -7, 7, axis=axis).numpy()
    shaped = scale.reshape([-1 if i == axis else 1 for i in range(3)])
    np.testing.assert_array_equal(found, np.clip(np.rint(w / shaped), -7, 7) * shaped)


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_are_those_of_the_definition(name: str, per_channel: bool, rng: np.random.Generator) -> None:
    """LSQ, equations 3 and 5, in float64 and in numpy."""
    from edgeq.torch_executor.fake_quant import fake_quantize

    (qmin, qmax), zero = CODES[name], 0 if name[0] == "w" else -5
    axis = 1 if per_channel else None
    scale = rng.uniform(0.1, 0.4, 3 if per_channel else ())
    value = rng.normal(0, 20 if name[1] == "8" else 2, (4, 3, 5))
    weight = rng.normal(0, 1, value.shape)
    x, s = torch.tensor(value, requires_grad=True), torch.tensor(scale, requires_grad=True)
    (fake_quantize(x, s, zero, qmin, qmax, axis=axis) * torch.tensor(weight)).sum().backward()

    shaped = scale.reshape(1, 3, 1) if per_channel else scale
    v, low, high = value / shaped, qmin - zero, qmax - zero
    inside = (v >= low) & (v <= high)
    assert 0 < inside.mean() < 1
    slope = np.where(inside, np.rint(v) - v, np.clip(v, low, high))
    count = 4 * 5 if per_channel else 3 * 5
    factor = 1 / math.sqrt(count * max(-low, high))
    of_scale = (weight * slope).sum(axis=(0, 2) if per_channel else None) * factor
    np.testing.assert_allclose(x.grad.numpy(), weight * inside, rtol=1e-12)
    np.testing.assert_allclose(s.grad.numpy(), of_scale, rtol=1e-9)


@pytest.mark.parametrize("clamp", [(0.0, 6.0), (0.0, math.inf), (-1.0, 1.0)])
@pytest.mark.parametrize("largest", [4.0, 6.0, 9.0])
def test_an_activation_function_can_be_a_part_of_it(
    clamp: tuple[float, float], largest: float, rng: np.random.Generator
) -> None:
    """Values and gradients are those of the function followed by the rounding."""
    from edgeq.ops.base import torch_clamp
    from edgeq.torch_executor.fake_quant import fake_quantize

    value, weight = rng.normal(2, 4, (6, 3, 5, 4)), torch.tensor(rng.normal(0, 1, (6, 3, 5, 4)))
    found = []
    for fused in (True, False):
        # Channels last, as in training, and in the usual order.
        x = torch.tensor(value).contiguous(memory_format=torch.channels_last if fused else torch.contiguous_format)
        x.requires_grad_()
        scale = torch.tensor(largest / 15, dtype=torch.float64, requires_grad=True)
        y = fake_quantize(x if fused else torch_clamp(x, clamp), scale, -8, -8, 7, clamp=clamp if fused else NO_CLAMP)
        (y * weight).sum().backward()
        found.append((y, x.grad, scale.grad))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_scale_finds_the_step_of_least_error(rng: np.random.Generator) -> None:
    from edgeq.torch_executor.fake_quant import fake_quantize

    x = torch.from_numpy(rng.normal(0, 1, 20000).astype(np.float32))

    def error(scale: torch.Tensor) -> torch.Tensor:
        return (fake_quantize(x, scale, 0, -8, 7) - x).square().mean()

    scale = torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.Adam([scale], lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        error(scale).backward()
        optimizer.step()
    candidates = torch.linspace(0.2, 0.6, 81)
    best = candidates[int(torch.stack([error(candidate) for candidate in candidates]).argmin())]
    # Max (1960): the best uniform step of 16 levels for a unit normal is 0.335.
    assert abs(float(best) - 0.335) < 0.01
    assert abs(scale.item() - float(best)) < 0.02


def test_the_gradient_can_be_scaled_as_for_another_count() -> None:
    from edgeq.torch_executor.fake_quant import fake_quantize

    gradients = []
    for elements in (None, 48):
        scale = torch.tensor(0.3, requires_grad=True)
        fake_quantize(torch.full((5, 3), 100.0), scale, 0, -8, 7, elements=elements).sum().backward()
        gradients.append(float(scale.grad))
    assert gradients[0] == pytest.approx(15 * 7 / math.sqrt(3 * 8), rel=1e-6)
    assert gradients[1] == pytest.approx(gradients[0] * math.sqrt(3 / 48), rel=1e-6)


def test_rounding_passes_gradients_straight_through() -> None:
    from edgeq.torch_executor.fake_quant import straight_through_round

    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5, 0.2], requires_grad=True)
    y = straight_through_round(x)
    assert y.tolist() == [-2.0, 0.0, 0.0, 2.0, 2.0, 0.0]
    (y * torch.arange(6.0)).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
