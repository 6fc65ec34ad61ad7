"""Where training starts: the codes of a post-training quantized graph."""

from __future__ import annotations

import numpy as np

from edgeq.ir.tensor import Array
from edgeq.quantize import qparams

PLAY = 0.49
"""How far from its code a weight may start, in steps."""


def latent_weights(weight: Array, codes: Array, scale: Array, bits: int, play: float = PLAY) -> Array:
    """Float weights that round to `codes`, as near as may be to `weight`; the codes' own values where that is far."""
    step = scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    # Just inside the outermost codes: beyond them a weight has no gradient and would stay where it is.
    limit = qparams.weight_limit(bits) * (1 - 2.0**-20)
    ratio, centre = np.clip(weight / step, -limit, limit), codes.astype(np.float64)
    near = np.clip(ratio, centre - play, centre + play)
    return np.asarray(np.clip(np.where(np.abs(ratio - centre) < 1.0, near, centre), -limit, limit) * step, np.float32)
