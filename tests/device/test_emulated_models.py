"""Whole models on emulated Arm cores, 32 and 64 bits: the bytes of the numpy statements and of this machine's engine.

An emulated core stops a program at any instruction that it lacks, so a run to the end shows that there was none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import edgeq
from edgeq import Session
from edgeq.backends.simulate import SimulateBackend
from edgeq.device.backend import DeviceBackend
from edgeq.device.device import open_device

CORES = {
    "cortex-a7": "neon",
    "cortex-a15": "neon",
    "cortex-a53": "neon",
    "cortex-a72": "neon",
    "cortex-a76": "neondot",
    "max": "neoni8mm",
}
"""Emulated cores, and the highest of edgeq's levels that each has."""

SCHEMES = ("w8a8", "w4a8")

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module", params=SCHEMES)
def demo_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    edgeq.export(bits=request.param, calibration="digits", out=folder, to="edgeq")
    return folder / "model.edgeq"


@pytest.fixture(scope="module", params=SCHEMES)
def mobilenet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 with random weights: which values it computes decides nothing here."""
    pytest.importorskip("torch", reason="needs the extra edgeq[torch]")
    from edgeq import zoo

    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    folder = tmp_path_factory.mktemp("mobilenet_v2") / "out"
    edgeq.export(
        zoo.mobilenet_v2(seed=0),
        bits=request.param,
        effort="fast",
        bias_correction=False,
        calibration=images,
        example_input=images[:1],
        out=folder,
        to="edgeq",
    )
    return folder / "model.edgeq"


def check_cores(model: Path, x: Array, runner_for: Callable[[str], Path]) -> None:
    """Runs `x` on every core and compares bytes."""
    session = Session(model)
    here = session.run(x)
    np.testing.assert_array_equal(here.view(np.uint32), SimulateBackend(model).run(x).view(np.uint32))
    for core, isa in CORES.items():
        with open_device(f"qemu://{core}", runner=runner_for(core)) as device:
            backend = DeviceBackend(device, model)
            assert backend.isa == isa, core
            np.testing.assert_array_equal(backend.run(x).view(np.uint32), here.view(np.uint32), err_msg=core)


def test_the_demo_on_every_core(
    demo_model: Path, emulated_runner: Callable[[str], Path], rng: np.random.Generator
) -> None:
    x = rng.standard_normal((3, *Session(demo_model).inputs[0].shape[1:])).astype(np.float32)
    check_cores(demo_model, x, emulated_runner)


@pytest.mark.slow
@pytest.mark.needs_torch
def test_mobilenet_v2_on_every_core(
    mobilenet: Path, emulated_runner: Callable[[str], Path], rng: np.random.Generator
) -> None:
    check_cores(mobilenet, rng.standard_normal((1, 3, 224, 224)).astype(np.float32), emulated_runner)
