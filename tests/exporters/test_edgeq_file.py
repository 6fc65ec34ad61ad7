"""The .edgeq writer and reader: every operator comes back, bytes are deterministic, writing is atomic."""

from __future__ import annotations

import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from quantized_graphs import CASES, SCHEMES, Case, build, random_codes

from edgeq.data.preprocessing import Preprocessing
from edgeq.errors import FormatError, UsageError
from edgeq.exporters.edgeq_file import encode, write
from edgeq.exporters.edgeq_format import Guard, ModelInfo
from edgeq.exporters.edgeq_operators import OPERATORS
from edgeq.importers.from_edgeq import decode, load
from edgeq.ir import format_graph
from edgeq.ops import check_graph
from edgeq.passes import channels_last, lower
from edgeq.simulate import simulate_codes

INFO = ModelInfo(
    Preprocessing(256, (224, 192), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "bgr", "bilinear"),
    ("cat", "dog", "", "Käse", "cat"),
    Guard(1.5, 0.25),
    {"producer": "a test", "scheme": "w4a8", "numbers": [1, 2.5, None, True], "nested": {"ä": "ß"}},
)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_comes_back(case: Case, scheme: str) -> None:
    graph = lower(channels_last(build(case, scheme, seed=3)))
    content = encode(graph)
    found, info = decode(content)
    check_graph(found)
    assert found.layout == "nhwc"
    assert (found.name, found.inputs, found.outputs) == (graph.name, graph.inputs, graph.outputs)
    assert [(n.op, n.name, n.inputs, n.outputs) for n in found.nodes] == [
        (n.op, n.name, n.inputs, n.outputs) for n in graph.nodes
    ]
    assert info == ModelInfo()
    codes = random_codes(build(case, scheme, seed=3), 2, seed=4)
    for got, wanted in zip(simulate_codes(found, codes), simulate_codes(graph, codes), strict=True):
        np.testing.assert_array_equal(got, wanted)
    # What was read writes the same file, and reads the same again.
    again = encode(found)
    assert again == content
    assert format_graph(decode(again)[0]) == format_graph(found)


def test_every_operator_of_the_format_is_covered() -> None:
    written = {node.op for case in CASES for node in lower(channels_last(build(case, "w8a8", 0))).nodes}
    assert written == set(OPERATORS)


def small() -> bytes:
    return encode(lower(channels_last(build(CASES[8], "w4a8", 0))), INFO)


def test_information_comes_back() -> None:
    _, info = decode(small())
    assert info.labels == INFO.labels
    assert info.guard == INFO.guard
    assert info.metadata == INFO.metadata
    assert info.preprocessing is not None
    assert INFO.preprocessing is not None
    for name in ("resize", "crop", "channels", "interpolation"):
        assert getattr(info.preprocessing, name) == getattr(INFO.preprocessing, name)
    for name in ("mean", "std"):
        wanted = np.float32(getattr(INFO.preprocessing, name))
        np.testing.assert_array_equal(np.float32(getattr(info.preprocessing, name)), wanted)


@pytest.mark.parametrize(
    "preprocessing", [Preprocessing(), Preprocessing(channels="gray", std=(16.0,)), Preprocessing(mean=(1, 2, 3))]
)
def test_preprocessing_comes_back(preprocessing: Preprocessing) -> None:
    graph = lower(channels_last(build(CASES[0], "w8a8", 0)))
    found = decode(encode(graph, ModelInfo(preprocessing)))[1].preprocessing
    assert found is not None
    count = max(len(preprocessing.mean), len(preprocessing.std))
    assert found.mean == tuple(np.broadcast_to(preprocessing.mean, count))
    assert found.std == tuple(np.broadcast_to(preprocessing.std, count))
    assert (found.resize, found.crop, found.channels) == (None, None, preprocessing.channels)


def test_same_bytes_whatever_the_order_of_the_tensors() -> None:
    graph = lower(channels_last(build(CASES[8], "w4a8", 0)))
    turned = graph.copy()
    turned.tensors = dict(reversed(turned.tensors.items()))
    assert encode(graph, INFO) == encode(turned, INFO) == encode(graph, INFO)


def test_write_is_whole_and_leaves_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = lower(channels_last(build(CASES[8], "w4a8", 0)))
    path = tmp_path / "model.edgeq"
    write(path, graph, INFO)
    assert path.read_bytes() == encode(graph, INFO)
    assert stat.S_IMODE(path.stat().st_mode) & 0o400
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(path, graph)
    assert [item.name for item in tmp_path.iterdir()] == ["model.edgeq"]
    assert path.read_bytes() == before


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.edgeq"
    path.write_bytes(small()[:-1])
    with pytest.raises(FormatError, match=r"model\.edgeq: .*truncated"):
        load(path)
    with pytest.raises(FormatError, match=r"absent\.edgeq: cannot be read"):
        load(tmp_path / "absent.edgeq")


def test_only_lowered_quantized_nhwc_graphs_are_written() -> None:
    graph = build(next(c for c in CASES if c.name == "sigmoid"), "w8a8", 0)
    with pytest.raises(FormatError, match="channels_last"):
        encode(graph)
    with pytest.raises(FormatError, match=r"no operator sigmoid.*lower"):
        encode(channels_last(graph))
    softmax = build(next(c for c in CASES if c.name == "softmax rows"), "w8a8", 0)
    with pytest.raises(FormatError, match="lower"):
        encode(channels_last(softmax))


def test_metadata_that_is_not_json_is_refused() -> None:
    graph = lower(channels_last(build(CASES[0], "w8a8", 0)))
    for metadata in ({"x": float("nan")}, {"x": object()}, {"x": "y" * (1 << 20)}):
        with pytest.raises(FormatError, match="metadata"):
            encode(graph, ModelInfo(metadata=metadata))


@pytest.mark.parametrize(("temperature", "margin"), [(0, 0), (-1, 0), (float("inf"), 0), (1, -0.1), (1, 1.1)])
def test_guard_bounds(temperature: float, margin: float) -> None:
    with pytest.raises(UsageError):
        Guard(temperature, margin)


@pytest.mark.parametrize("temperature", [0.0, float("nan"), float("inf"), -1.0])
def test_guard_bounds_in_a_file(temperature: float) -> None:
    from mutations import refreshed

    content = bytearray(small())
    position = content.index(struct.pack("<ff", 1.5, 0.25))
    content[position : position + 4] = struct.pack("<f", temperature)
    with pytest.raises(FormatError, match="GUARD"):
        decode(refreshed(bytes(content)))
