"""The embedded demo model and its training script."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from edgeq.data import digits
from edgeq.zoo import demo

onnx = pytest.importorskip("onnx", reason="needs the extra edgeq[export]")
pytest.importorskip("sklearn", reason="needs the extra edgeq[export]")


@pytest.fixture(scope="module")
def proto():
    return onnx.load(demo.demo_path())


def test_file_is_small_checked_and_anonymous(proto):
    onnx.checker.check_model(proto, full_check=True)
    assert demo.demo_path().stat().st_size < 200 * 1024
    assert {entry.version for entry in proto.opset_import if entry.domain == ""} == {18}
    kinds = [node.op_type for node in proto.graph.node]
    assert set(kinds) == {"Conv", "BatchNormalization", "Clip", "Add", "ReduceMean", "Gemm"}
    assert kinds.count("BatchNormalization") == kinds.count("Conv") == 14
    content = demo.demo_path().read_bytes()
    assert b".py" not in content  # The exporter's stack traces.


def test_shapes_and_metadata(proto):
    (given,), (made,) = proto.graph.input, proto.graph.output
    for value, sizes in ((given, [0, *demo.DEMO_INPUT_SHAPE]), (made, [0, 10])):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == sizes
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert tuple(json.loads(metadata["labels"])) == demo.DEMO_LABELS
    assert metadata["data"] == demo.DEMO_DATA
    preprocessing = json.loads(metadata["preprocessing"])
    assert tuple(preprocessing["mean"]) == demo.DEMO_PREPROCESSING.mean
    assert tuple(preprocessing["std"]) == demo.DEMO_PREPROCESSING.std
    assert preprocessing["channels"] == demo.DEMO_PREPROCESSING.channels


def test_accuracy_is_the_one_in_the_file(proto):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra edgeq[export]")
    session = onnxruntime.InferenceSession(demo.demo_path(), providers=["CPUExecutionProvider"])
    stated = json.loads({entry.key: entry.value for entry in proto.metadata_props}["accuracy"])
    for split in ("train", "calib", "test"):
        images, labels = digits.load_digits(split)
        (logits,) = session.run(None, {"image": images})
        # One image may flip between runtimes.
        assert abs(np.mean(logits.argmax(1) == labels) - stated[split]) < 1.5 / len(labels)
    assert stated["test"] >= 0.975


def test_demo_and_registry_need_no_torch():
    code = (
        "import sys, edgeq.zoo, edgeq.zoo.demo, edgeq.zoo.pretrained; edgeq.zoo.demo_path().read_bytes(); "
        "assert not {'torch', 'onnx', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.needs_torch
def test_training_script_writes_a_whole_model_and_repeats(tmp_path):
    pytest.importorskip("torch", reason="training needs the extra edgeq[torch]")
    pytest.importorskip("onnxscript", reason="training needs the extra edgeq[torch]")
    files = []
    for name in ("first.onnx", "second.onnx"):
        command = [
            sys.executable,
            "-m",
            "edgeq.zoo.train_demo",
            "--epochs",
            "1",
            "--out",
            str(tmp_path / name),
        ]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "28,586 parameters" in output
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    onnx.checker.check_model(onnx.load(tmp_path / "first.onnx"), full_check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.onnx", "second.onnx"]
