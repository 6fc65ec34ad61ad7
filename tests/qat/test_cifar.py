"""ResNet-20 on real CIFAR-10 images: a few steps of training at W4A4, then module against native engine."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.data import open_dataset
from edgeq.session import native_module
from edgeq.zoo.registry import architecture

torch = pytest.importorskip("torch", reason="training needs the extra edgeq[torch]")
pytestmark = [pytest.mark.needs_torch, pytest.mark.shared_data, pytest.mark.slow]

NAME = "resnet20_cifar10"


def images(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    folder = os.environ.get("EDGEQ_DATA")
    if not folder:
        pytest.skip("EDGEQ_DATA does not name the folder of the data sets")
    dataset = open_dataset(Path(folder) / "cifar10" / f"{split}.npz")
    batches = list(dataset.batches(100, architecture(NAME).preprocessing, range(count)))
    return np.concatenate([batch.inputs for batch in batches]), dataset.labels[:count]


@pytest.mark.parametrize("batch_norm", ["fold", "train"])
def test_what_trained_is_what_the_engine_computes(batch_norm: str, tmp_path: Path) -> None:
    from edgeq import zoo

    native_module()
    x, labels = images("train", 512)
    test, truth = images("test", 1000)
    network = zoo.load_pretrained(NAME, Path(os.environ["EDGEQ_DATA"]) / "weights" / f"{NAME}.npz")
    module = edgeq.prepare_qat(network, x[:1], "w4a4", calibration=x[:256], batch_norm=batch_norm)
    assert sum(name.endswith(".gamma") for name, _ in module.named_parameters()) == (19 if batch_norm == "train" else 0)
    first = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.Adam(module.parameter_groups(lr=1e-4))
    for begin in range(0, 512, 64):
        part = slice(begin, begin + 64)
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(x[part])), torch.from_numpy(labels[part]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert any((value != first[name]).any() for name, value in module.state_dict().items())
    module.eval()
    with torch.no_grad():
        found = torch.cat([module(torch.from_numpy(test[i : i + 100])) for i in range(0, 1000, 100)]).numpy()
    edgeq.export(module, out=tmp_path / "out", to="edgeq")
    native = edgeq.Session(tmp_path / "out" / "model.edgeq").run(test)
    assert (native.argmax(1) == found.argmax(1)).mean() >= 0.995
    assert (native == found).all(axis=1).mean() >= 0.9
    assert (native.argmax(1) == truth).mean() > 0.8
