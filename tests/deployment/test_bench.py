"""`edgeq.deployment.bench`: a model beside the runtimes that its folder has files for."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgeq
from edgeq.deployment.bench import PEERS, bench_model
from edgeq.errors import UsageError

MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs the extra edgeq[export]")
    pytest.importorskip("ai_edge_litert", reason="needs the extra edgeq[tflite]")
    out = tmp_path_factory.mktemp("bench_model") / "out"
    edgeq.export(bits="w8a8", out=out)
    return out


@pytest.mark.parametrize("peer", PEERS)
def test_beside_a_peer(peer: str, folder: Path) -> None:
    pytest.importorskip(MODULES[peer], reason=f"needs {peer}: the extra edgeq[peers]")
    result = bench_model(folder, seconds=0.05, beside=peer, rounds=2)
    forms = {name.rpartition(" ")[2] if "own" not in name else "own int8" for name in result["peers"]}
    wanted = {"onnxruntime": {"exported", "own int8", "fp32"}, "openvino": {"exported", "fp32"}, "litert": {"exported"}}
    assert forms == wanted[peer]
    for found in result["peers"].values():
        assert 0 < found["ratio_min"] <= found["ratio"] <= found["ratio_max"]


def test_a_file_alone_has_no_peer(folder: Path) -> None:
    with pytest.raises(UsageError, match="folder of an export"):
        bench_model(folder / "model.edgeq", seconds=0.05, beside="onnxruntime", rounds=2)
