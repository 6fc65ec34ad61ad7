"""Every network of the import list: exported at w8a8 and w4a8, the native engine equals `simulate` bit for bit.

At its own size (224x224 for most) with `pytest -m slow`; otherwise at no more than 64x64. Weights are random:
what is compared is the arithmetic. Torch's export takes most of the time, so ONNX files are kept in pytest's cache.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from edgeq import zoo
from edgeq.errors import EdgeqError
from edgeq.exporters.edgeq_file import encode
from edgeq.importers import from_onnx
from edgeq.importers.from_edgeq import decode
from edgeq.ir import Graph
from edgeq.passes import channels_last, float_pipeline, lower
from edgeq.quantize import Calibration, QuantizeOptions, Recipe, Scheme, calibrate, quantize
from edgeq.session import Session, native_module
from edgeq.simulate import simulate

torch = pytest.importorskip("torch", reason="the networks need the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

NETWORKS = (
    "mobilenet_v2", "mobilenet_v3_small", "efficientnet_lite0", "shufflenet_v2_x1_0", "ghostnet_1_0", "mobileone_s0",
    "resnet18", "resnet50", "densenet121", "squeezenet1_1", "lenet5", "resnet20_cifar10", "network_in_network",
)  # fmt: skip
SMALL = 64


def own_shape(name: str) -> tuple[int, int, int]:
    return next(row.input_shape for row in zoo.ARCHITECTURES if row.name == name)


def small_shape(name: str) -> tuple[int, int, int]:
    channels, height, width = own_shape(name)
    return (channels, min(height, SMALL), min(width, SMALL))


def onnx_file(name: str, shape: tuple[int, int, int], cache: Path) -> bytes:
    """The network as ONNX, from pytest's cache when neither its source nor torch has changed."""
    from edgeq.importers import from_torch

    network = getattr(zoo, name)
    module = inspect.getmodule(inspect.unwrap(network))
    sources = [Path(inspect.getfile(item)) for item in (module, from_torch) if item is not None]
    folder = Path(inspect.getfile(zoo)).parent / "architectures"
    sources += sorted(folder.glob("*.py"))
    digest = hashlib.sha256(torch.__version__.encode())
    for source in sources:
        digest.update(source.read_bytes())
    path = cache / f"{name}_{'x'.join(map(str, shape))}_{digest.hexdigest()[:16]}.onnx"
    if not path.exists():
        content = from_torch.export_onnx(network(), torch.zeros(2, *shape))
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    return path.read_bytes()


@lru_cache(maxsize=1)
def calibrated(name: str, shape: tuple[int, int, int], cache: Path) -> tuple[Graph, Calibration]:
    graph = float_pipeline(from_onnx.load(onnx_file(name, shape, cache), name))
    rng = np.random.default_rng(len(name))
    return graph, calibrate(graph, [rng.normal(0, 1, (4, *shape)).astype(np.float32)])


def check_network(name: str, scheme: str, shape: tuple[int, int, int], cache: Path) -> None:
    graph, calibration = calibrated(name, shape, cache)
    quantized = quantize(graph, Scheme.parse(scheme), calibration, QuantizeOptions(Recipe(bias_correction=False))).graph
    lowered = lower(channels_last(quantized))
    assert [node.name for node in lowered.nodes if node.op == "transpose"] == []
    content = encode(lowered)
    rng = np.random.default_rng(shape[1])
    x = rng.normal(0, 1, (3, *shape)).astype(np.float32)
    # One image alone and the same as the first of three give the same result, so `simulate` runs once.
    wanted = simulate(decode(content)[0], x)
    for expected, in_nchw in zip(wanted, simulate(quantized, x[:1]), strict=True):
        np.testing.assert_array_equal(expected[:1], in_nchw)
    assert np.unique(wanted[0]).size > 4, "the network says the same of everything"
    for isa in native_module().cpu_info()["available"]:
        for threads in (1, 2):
            session = Session(content, threads, max_isa=isa)
            for batch in (1, 3):
                found = session.run(x[:batch])
                for got, expected in zip(found if isinstance(found, list) else [found], wanted, strict=True):
                    where = f"{name} {scheme}, {isa}, {threads} threads, batch {batch}"
                    np.testing.assert_array_equal(got, expected[:batch], err_msg=where)


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    if pytestconfig.cache is None:
        pytest.skip("needs pytest's cache folder (run without -p no:cacheprovider)")
    return Path(pytestconfig.cache.mkdir("networks"))


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_small(name: str, scheme: str, cache: Path) -> None:
    check_network(name, scheme, small_shape(name), cache)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if own_shape(name) != small_shape(name)])
def test_own_size(name: str, scheme: str, cache: Path) -> None:
    check_network(name, scheme, own_shape(name), cache)


def test_w4_file_is_little_more_than_half(cache: Path) -> None:
    graph, calibration = calibrated("mobilenet_v2", small_shape("mobilenet_v2"), cache)
    sizes = []
    for scheme in ("w4a8", "w8a8"):
        options = QuantizeOptions(Recipe(bias_correction=False))
        lowered = lower(channels_last(quantize(graph, Scheme.parse(scheme), calibration, options).graph))
        content = encode(lowered)
        sizes.append((len(content), Session(content).weight_bytes))
    (file4, memory4), (file8, memory8) = sizes
    assert file4 <= 0.56 * file8
    assert memory4 <= 0.56 * memory8


def test_session_refuses_another_size(cache: Path) -> None:
    graph, calibration = calibrated("lenet5", own_shape("lenet5"), cache)
    content = encode(lower(channels_last(quantize(graph, Scheme.parse("w8a8"), calibration).graph)))
    with pytest.raises(EdgeqError, match="28"):
        Session(content).run(np.zeros((1, 1, 27, 28), np.float32))
