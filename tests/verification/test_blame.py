from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeq import export
from edgeq.errors import UsageError
from edgeq.importers import from_edgeq
from edgeq.quantize.layers import WEIGHTS, is_layer
from edgeq.verification.blame import blame


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blame") / "w4a8"
    export(None, bits="w4a8", effort="fast", calibration="digits", out=folder, to="edgeq")
    return folder


def test_the_emulation_is_the_integers_and_sparing_wins(exported: Path) -> None:
    found = blame(exported, data="digits:test", samples=60)
    assert found.samples == 60
    assert found.agreement == 1.0
    assert [one.weight_bits for one in found.layers][:2] == [8, 4]
    for one in found.layers:
        # A layer in a quantized network cannot be much nearer to its float self than alone.
        assert one.gathered_sqnr_db < one.alone_sqnr_db + 3
        assert one.alone_sqnr_db > 8
        assert 0.5 < one.gathered_cosine <= 1
        assert (one.win_8bit_db is None) == (one.weight_bits == 8)
    assert sum(one.macs_share for one in found.layers) == pytest.approx(1)
    ranked = found.ranked()
    best = ranked[0]
    assert best.win_8bit_db is not None
    assert best.win_8bit_db > 0.2
    # What 8 bits win, float weights win as well, but for a decibel of chance.
    assert best.win_float_db > best.win_8bit_db - 1
    json.dumps(found.to_json(), allow_nan=False)


def test_the_copies_of_a_stream_are_emulated_too(tmp_path: Path) -> None:
    export(None, bits="w4a4", effort="fast", observer="mse", calibration="digits", out=tmp_path / "w4a4", to="edgeq")
    graph, _ = from_edgeq.load(tmp_path / "w4a4" / "model.edgeq")
    assert any(name.endswith(".product") for name in graph.tensors), "the demo has a residual block no more"
    assert blame(tmp_path / "w4a4", data="digits:test", samples=60).agreement == 1.0


def test_sparing_the_worst_is_what_blame_says(exported: Path, tmp_path: Path) -> None:
    before = blame(exported, data="digits:test", samples=60)
    worst = before.ranked()[0]
    assert worst.win_8bit_db is not None
    export(
        None, bits="w4a8", effort="fast", calibration="digits", out=tmp_path / "spared", to="edgeq",
        keep_8bit=f"first,{worst.layer}",
    )
    after = blame(tmp_path / "spared", data="digits:test", samples=60)
    assert after.sqnr_db - before.sqnr_db == pytest.approx(worst.win_8bit_db, abs=1.0)


def test_matched_confidence_is_no_error(tmp_path: Path) -> None:
    found = []
    for match in ("true", "false"):
        recipe = tmp_path / f"{match}.toml"
        recipe.write_text(f'weight_observer = "mse"\nmatch_confidence = {match}\n')
        out = tmp_path / match
        factor = export(None, bits="w4a4", recipe=recipe, calibration="digits", out=out, to="edgeq").manifest
        assert ("confidence" in factor) == (match == "true")
        assert match == "false" or abs(factor["confidence"]["factor"] - 1.0) > 0.003
        found.append(blame(out, data="digits:test", samples=100))
    one, other = found
    assert one.sqnr_db == pytest.approx(other.sqnr_db, abs=1e-3)
    for layer, wanted in zip(one.layers, other.layers, strict=True):
        assert layer.alone_sqnr_db == pytest.approx(wanted.alone_sqnr_db, abs=1e-3)
        assert layer.gathered_sqnr_db == pytest.approx(wanted.gathered_sqnr_db, abs=1e-3)


def test_keep_auto_spares_so_many_layers(tmp_path: Path) -> None:
    export(
        None, bits="w4a8", effort="fast", calibration="digits", out=tmp_path / "kept", to="edgeq", keep_8bit="auto:3"
    )
    graph, _ = from_edgeq.load(tmp_path / "kept" / "model.edgeq")
    bits = [graph.quant(node.inputs[WEIGHTS]).bits for node in graph.nodes if is_layer(node)]
    assert bits.count(8) == 4
    assert bits[0] == 8


@pytest.mark.parametrize("keep", ["auto:0", "auto:x", "auto:1,auto:2"])
def test_senseless_numbers_of_layers(tmp_path: Path, keep: str) -> None:
    with pytest.raises(UsageError, match="auto:N"):
        export(None, bits="w4a8", calibration="digits", out=tmp_path / "out", keep_8bit=keep)
    assert not (tmp_path / "out").exists()


def test_auto_needs_four_bits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="4-bit weights"):
        export(None, bits="w8a8", calibration="digits", out=tmp_path / "out", keep_8bit="auto:1")


def test_what_cannot_be_blamed_says_why(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"reference\.onnx"):
        blame(tmp_path, data="digits:test")
    with pytest.raises(UsageError, match="at least 1"):
        blame(exported, data="digits:test", samples=0)
    recipe = tmp_path / "equal.toml"
    recipe.write_text("equalize = true\n")
    export(None, bits="w4a8", recipe=recipe, calibration="digits", out=tmp_path / "equal", to="edgeq")
    with pytest.raises(UsageError, match="equalize = false"):
        blame(tmp_path / "equal", data="digits:test")


def test_fake_quantization_in_onnx_is_the_statement() -> None:
    from edgeq.exporters.onnx_float import to_float_onnx
    from edgeq.ir import BATCH, Graph, Node, QuantParams, Tensor
    from edgeq.ops.fake_quant import FakeQuantAttrs
    from edgeq.quantize.calibrate import FloatSession
    from edgeq.simulate.executor import run_float_graph

    for bits, zero in ((8, -7), (4, 3)):
        quant = QuantParams(np.float32(0.1), np.int32(zero), bits, None)
        graph = Graph("g", inputs=["x"], outputs=["y"])
        graph.add_tensor(Tensor("x", (BATCH, 5), "float32"))
        graph.add_tensor(Tensor("y", (BATCH, 5), "float32"))
        graph.nodes.append(Node("fake_quant", "round", ("x",), ("y",), FakeQuantAttrs(quant)))
        values = np.concatenate([np.linspace(-20, 20, 995), [0.05, 0.15, -0.25, 1e9, -1e9]])
        x = values.astype(np.float32).reshape(-1, 5)
        [found] = FloatSession(to_float_onnx(graph), 1).run({"x": x})
        np.testing.assert_array_equal(found, run_float_graph(graph, x)[0])
