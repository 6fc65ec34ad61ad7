"""The networks that are timed: their float models, samples and exports, prepared once and kept."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

import edgeq
from bench import store
from edgeq.exporters.folder import REFERENCE_FILE
from edgeq.zoo.registry import architecture

NETWORKS = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_lite0",
    "shufflenet_v2_x1_0",
    "ghostnet_1_0",
    "mobileone_s0",
    "resnet18",
    "resnet50",
)
"""The networks on which edgeq is compared."""

QUICK = ("mobilenet_v3_small", "shufflenet_v2_x1_0", "mobilenet_v2")
"""What --quick takes, the fastest to prepare first."""

SCHEMES = ("w8a8", "w4a8", "w4a4")

CALIBRATION_SAMPLES = 8

_SOURCE = Path(edgeq.__file__).parent
_ROOMS = ("data", "deployment", "exporters", "importers", "ir", "ops", "passes", "quantize")
"""What an export depends on, beside the float model."""

Array = npt.NDArray[np.float32]


def samples(network: str, count: int, seed: int) -> list[Array]:
    """Returns random inputs of one sample each, normally distributed, as images are after preprocessing.

    How long a network takes depends neither on its inputs nor on its weights; whether its output is right is checked
    on these inputs too.
    """
    rng = np.random.default_rng(seed)
    shape = (1, *architecture(network).input_shape)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def calibration(network: str) -> list[Array]:
    """The samples that every tool calibrates with."""
    return samples(network, CALIBRATION_SAMPLES, seed=0)


def sample(network: str) -> Array:
    """The input that is timed, and on which outputs are compared."""
    return samples(network, 1, seed=1)[0]


@functools.cache
def reference(network: str) -> Path:
    """Returns the float model as ONNX: trained weights where a package has them, else random ones, seeded."""
    trained = weights_of(network) == "trained"
    torch_version = importlib.metadata.version("torch")
    key = store.digest(network, str(trained), torch_version, _SOURCE / "zoo", _SOURCE / "importers")

    def make(folder: Path) -> None:
        from edgeq import zoo
        from edgeq.importers import from_torch

        model = zoo.load_pretrained(network) if trained else getattr(zoo, network)(seed=0)
        _, content = from_torch.load(model, sample(network))
        (folder / REFERENCE_FILE).write_bytes(content)

    return store.entry(f"{network}.float", key, make) / REFERENCE_FILE


def weights_of(network: str) -> str:
    """Returns "trained" where the package with a network's weights is installed, else "random"."""
    source = architecture(network).weights
    found = source is not None and source.package is not None and importlib.util.find_spec(source.package) is not None
    return "trained" if found else "random"


@functools.cache
def exported(network: str, scheme: str) -> Path:
    """Returns the folder of an export: model.edgeq, and at w8a8 also model.onnx and model.tflite."""
    source = reference(network)
    formats = "edgeq,onnx,tflite" if scheme == "w8a8" else "edgeq"
    rooms = [_SOURCE / room for room in _ROOMS]
    key = store.digest(scheme, formats, str(CALIBRATION_SAMPLES), source, *rooms)

    def make(folder: Path) -> None:
        inputs = np.concatenate(calibration(network))
        with contextlib.redirect_stdout(io.StringIO()):
            edgeq.export(
                source, bits=scheme, calibration=inputs, out=folder / "out", to=formats, bias_correction=False
            )

    return store.entry(f"{network}.{scheme}", key, make) / "out"
