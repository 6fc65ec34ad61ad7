"""Data sets behind one protocol, and the preprocessing that makes network inputs of them."""

from __future__ import annotations

from edgeq.data.dataset import ArrayDataset, Batch, Dataset, finite_batches
from edgeq.data.preprocessing import Preprocessing
from edgeq.data.sources import as_dataset, open_dataset

__all__ = ["ArrayDataset", "Batch", "Dataset", "Preprocessing", "as_dataset", "finite_batches", "open_dataset"]
