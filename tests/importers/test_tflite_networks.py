"""The TFLite networks of MLPerf Tiny, beside LiteRT; needs the data sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")

from importers.tflite_models import run_litert

import edgeq
from edgeq.exporters.edgeq_file import encode
from edgeq.importers.from_tflite import read
from edgeq.ops.base import dequantize
from edgeq.passes import channels_last, float_pipeline, lower
from edgeq.simulate import run_float_graph, simulate_codes

pytestmark = pytest.mark.shared_data

INTEGER = ("kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")
FLOAT = ("ad01_fp32", "pretrainedResnet", "vww_96_float")
SAMPLES = 40


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("EDGEQ_DATA")
    if not folder:
        pytest.skip("EDGEQ_DATA does not name the folder of the data sets")
    return Path(folder)


def images(data: Path) -> np.ndarray:
    """Images of CIFAR-10: uint8 [n, 32, 32, 3]."""
    encoded = np.load(data / "cifar10" / "test.npz")["x_enc"][:SAMPLES]
    planes = np.cumsum(np.cumsum(encoded, axis=-1, dtype=np.uint8), axis=-2, dtype=np.uint8)
    rgb = [planes[:, 1] + planes[:, 0], planes[:, 0], planes[:, 2] + planes[:, 0]]
    return np.stack(rgb, axis=3)


def samples(name: str, data: Path, rng: np.random.Generator) -> np.ndarray:
    """Inputs like those that a network was made for, as codes."""
    if name.startswith("pretrained"):
        return (images(data).astype(np.int16) - 128).astype(np.int8)
    if name.startswith("vww"):
        return (images(data).repeat(3, axis=1).repeat(3, axis=2).astype(np.int16) - 128).astype(np.int8)
    drift = rng.normal(0, 8, (SAMPLES, 49, 10, 1)).cumsum(axis=1)
    return np.clip(drift + rng.normal(60, 20, drift.shape), -128, 127).astype(np.int8)


@pytest.mark.parametrize("name", INTEGER)
def test_integer_networks_equal_litert(name: str, data: Path, rng: np.random.Generator) -> None:
    content = (data / "weights" / f"mlperf_tiny_{name}.tflite").read_bytes()
    graph, codes = read(content).graph, samples(name, data, rng)
    (expected,) = run_litert(content, [codes])
    (found,) = simulate_codes(graph, codes)
    probabilities = np.clip(np.rint(found * 256) - 128, -128, 127)
    np.testing.assert_array_equal(probabilities, expected)
    session = edgeq.Session(encode(lower(channels_last(graph))))
    assert session.inputs[0].shape == (None, *codes.shape[1:])
    np.testing.assert_array_equal(session.run(codes), found)
    np.testing.assert_array_equal(session.run(dequantize(codes, graph.quant(graph.inputs[0]))), found)


@pytest.mark.parametrize("name", FLOAT)
def test_float_networks_equal_litert(name: str, data: Path, rng: np.random.Generator) -> None:
    content = (data / "weights" / f"mlperf_tiny_{name}.tflite").read_bytes()
    graph = float_pipeline(read(content).graph)
    shape = graph.tensor(graph.inputs[0]).shape[1:]
    x = rng.normal(0, 1, (8, *shape)) if len(shape) == 1 else samples(name, data, rng)[:8] + 128.0
    x = (x / 255 if name.startswith("vww") else x).astype(np.float32)
    (expected,), (found,) = run_litert(content, [x]), run_float_graph(graph, x)
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


def test_the_hybrid_network_becomes_a_float_one(data: Path, rng: np.random.Generator) -> None:
    """Its runtime rounds the inputs of five layers to 8 bits at each run, so the two differ."""
    content = (data / "weights" / "mlperf_tiny_kws_ref_model_float32.tflite").read_bytes()
    model = read(content)
    assert not model.quantized
    assert len(model.notes) == 5
    x = samples("kws", data, rng).astype(np.float32)
    (expected,), (found,) = run_litert(content, [x]), run_float_graph(float_pipeline(model.graph), x)
    assert (expected.argmax(axis=1) == found.argmax(axis=1)).mean() >= 0.95
