"""Every network that edgeq promises imports through torch and agrees with ONNX Runtime, before and after the passes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from importers.onnx_models import assert_imports

from edgeq import zoo
from edgeq.importers.from_torch import export_onnx

pytestmark = pytest.mark.needs_torch
pytest.importorskip("torch", reason="needs the extra edgeq[torch]")

SMALL = ("lenet5", "resnet20_cifar10", "network_in_network", "squeezenet1_1", "mobilenet_v2")
LARGE = (
    "mobilenet_v3_small", "efficientnet_lite0", "shufflenet_v2_x1_0", "ghostnet_1_0", "mobileone_s0", "resnet18",
    "resnet50", "densenet121",
)  # fmt: skip
CASES = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


@pytest.mark.parametrize("name", CASES)
def test_network_agrees_with_onnxruntime(name: str, rng: np.random.Generator) -> None:
    module = getattr(zoo, name)(seed=1)
    data = export_onnx(module, np.zeros((1, *zoo.architecture(name).input_shape), np.float32))
    graph = assert_imports(onnx.load_model_from_string(data), rng)
    left = {node.op for node in graph.nodes}
    assert not left & {"batch_norm", "relu", "clip", "transpose"}, left
    assert ("channel_shuffle" in left) == name.startswith("shufflenet")


def test_demo(rng: np.random.Generator) -> None:
    graph = assert_imports(onnx.load(zoo.demo_path()), rng)
    assert {node.op for node in graph.nodes} == {"conv", "add", "mean", "linear"}
