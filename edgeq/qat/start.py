"""The samples that calibrate the start of a training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from edgeq.errors import DataError


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
