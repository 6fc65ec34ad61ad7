"""Where training starts: the codes of a post-training quantized graph, and the samples that calibrate one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from edgeq.errors import DataError
from edgeq.ir.tensor import Array
from edgeq.quantize import qparams


def latent_weights(weight: Array, codes: Array, scale: Array, bits: int) -> Array:
    """Float weights that round to `codes`, as near as may be to `weight`; the codes' own values where that is far."""
    step = scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    # Just inside the outermost codes: beyond them a weight has no gradient and would stay where it is.
    limit = qparams.weight_limit(bits) * (1 - 2.0**-20)
    ratio, centre = np.clip(weight / step, -limit, limit), codes.astype(np.float64)
    near = np.clip(ratio, centre - 0.49, centre + 0.49)
    return np.asarray(np.clip(np.where(np.abs(ratio - centre) < 1.0, near, centre), -limit, limit) * step, np.float32)


def limited_batches(batches: Any, samples: int) -> Iterator[Any]:
    """Yields float32 batches with no more than `samples` samples together."""
    if isinstance(batches, (np.ndarray, torch.Tensor)):
        batches = [batches[i : i + 32] for i in range(0, len(batches), 32)]
    taken = 0
    for batch in batches:
        value = batch[0] if isinstance(batch, (tuple, list)) else batch
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if not isinstance(value, np.ndarray) or value.ndim < 1:
            raise DataError(f"a calibration batch must be an array or a tensor, not {type(value).__name__}")
        yield value[: samples - taken].astype(np.float32, copy=False)
        taken += len(value)
        if taken >= samples:
            return
