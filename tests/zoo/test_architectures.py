"""The networks: names as published, sane random weights, ONNX export with a free batch axis."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest

from edgeq import zoo
from edgeq.errors import UsageError

torch = pytest.importorskip("torch", reason="the networks need the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

NAMES = [row.name for row in zoo.ARCHITECTURES]

# Parameters, and the start of the SHA-256 of the state dict's names and shapes, both torchvision's.
TORCHVISION = {
    "mobilenet_v2": (3_504_872, "5c45000c8dea04db"),
    "mobilenet_v3_small": (2_542_856, "a29acf552527e7ab"),
    "shufflenet_v2_x1_0": (2_278_604, "3c60236e3c59729d"),
    "resnet18": (11_689_512, "761022b221a39ceb"),
    "resnet50": (25_557_032, "3fa57287149b51c4"),
    "densenet121": (7_978_856, "d52aa585c6714985"),
    "squeezenet1_1": (1_235_496, "9879b1f214fa0244"),
}
# As published: EfficientNet-Lite0 4.7 M, GhostNet 5.2 M, MobileOne-S0 2.1 M, ResNet-20 0.27 M, and so on.
PARAMETERS = {
    "efficientnet_lite0": 4_652_008,
    "ghostnet_1_0": 5_182_508,
    "mobileone_s0": 2_078_504,
    "lenet5": 61_706,
    "resnet20_cifar10": 269_722,
    "resnet32_cifar10": 464_154,
    "resnet56_cifar10": 853_018,
    "resnet20_cifar100": 278_324,
    "resnet56_cifar100": 861_620,
    "network_in_network": 966_986,
}
# Exported within seconds; the others need up to a quarter of a minute each.
QUICK_EXPORTS = {
    "lenet5",
    "mobileone_s0",
    "network_in_network",
    "resnet20_cifar10",
    "resnet20_cifar100",
    "squeezenet1_1",
}


def parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def noise(row, n: int, seed: int = 7):
    return torch.randn((n, *row.input_shape), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_equal_torchvisions(name):
    network = getattr(zoo, name)(seed=None)
    lines = "".join(f"{key} {tuple(value.shape)}\n" for key, value in network.state_dict().items())
    digest = hashlib.sha256(lines.encode()).hexdigest()[:16]
    assert (parameters(network), digest) == TORCHVISION[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    assert parameters(getattr(zoo, name)(seed=None)) == PARAMETERS[name]


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_keep_every_layers_scale(name):
    row = zoo.architecture(name)
    network = getattr(zoo, name)()
    spreads: list[float] = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, output: spreads.append(float(output.std())))
    with torch.inference_mode():
        logits = network(noise(row, 2))
    assert logits.shape == (2, row.num_classes)
    assert min(spreads) > 0.05
    assert max(spreads) < 20
    assert not torch.equal(logits[0], logits[1])
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        assert float(norm.running_mean.std()) > 0.01
        assert float((norm.running_var - 1).abs().max()) > 0.01
        assert float(norm.weight.detach().std()) > 0.05


def test_seed_decides_the_weights_and_global_state_is_untouched():
    before = torch.random.get_rng_state()
    first, again, other = (zoo.resnet20_cifar10(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_classes_can_be_chosen(name):
    row = zoo.architecture(name)
    with torch.inference_mode():
        assert getattr(zoo, name)(num_classes=7, seed=None)(noise(row, 1)).shape == (1, 7)


def test_mobileone_forms_compute_the_same():
    branches = zoo.mobileone_s0(train_form=True, seed=1)
    single = zoo.mobileone_s0(seed=1)
    assert parameters(branches) > 2 * parameters(single)
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in single.modules()) == 0
    x = noise(zoo.architecture("mobileone_s0"), 2)
    with torch.inference_mode():
        expected, folded = branches(x), single(x)
    assert float((expected - folded).abs().max()) < 1e-4 * float(expected.abs().max())
    state = single.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in single.reparameterize().state_dict().items())


def test_option_a_shortcut_has_no_weights_and_pads_both_sides():
    from edgeq.zoo.architectures.resnet_cifar import PaddedShortcut

    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = PaddedShortcut(2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert float(y[:, [0, 3]].abs().max()) == 0


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 5, 1), (7, 1, 1)]
)
def test_same_padding_puts_the_odd_row_at_the_end(size, kernel, stride):
    from edgeq.zoo.architectures.efficientnet_lite import SamePaddingConv2d

    conv = SamePaddingConv2d(1, 1, kernel, stride)
    x = torch.randn((1, 1, size, size), generator=torch.Generator().manual_seed(0))
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    padded = torch.nn.functional.pad(x, (before, after, before, after))
    with torch.inference_mode():
        torch.testing.assert_close(conv(x), torch.nn.functional.conv2d(padded, conv.weight, stride=stride))
        assert conv(x).shape[2:] == (out, out)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK_EXPORTS else pytest.mark.slow) for name in NAMES]
)
def test_onnx_export_with_free_batch_axis_equals_torch(name):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra edgeq[export]")
    row = zoo.architecture(name)
    network = getattr(zoo, name)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter warns about its own deprecations.
        program = torch.onnx.export(
            network,
            (noise(row, 2),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    assert isinstance(given.shape[0], str)
    assert given.shape[1:] == list(row.input_shape)
    for n in (1, 3):
        x = noise(row, n, seed=n)
        with torch.inference_mode():
            expected = network(x).numpy()
        (actual,) = session.run(None, {given.name: x.numpy()})
        assert actual.shape == (n, row.num_classes)
        assert np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max()


def test_unknown_network_names_the_known_ones():
    with pytest.raises(UsageError, match="mobilenet_v2"):
        zoo.architecture("mobilenet_v9")
    with pytest.raises(AttributeError):
        zoo.mobilenet_v9  # noqa: B018
