"""edgeq: quantize, ship and prove edge models."""
