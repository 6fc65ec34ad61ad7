from __future__ import annotations

import io
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeq.data import npz, open_dataset
from edgeq.errors import DataError, EdgeqError

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(50) % 3


def npy_bytes(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("in_memory", [64 << 20, 100])
@pytest.mark.parametrize("order", ["C", "F"])
def test_opens_every_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int, in_memory: int, order: str
) -> None:
    monkeypatch.setattr(npz, "_IN_MEMORY_BYTES", in_memory)
    x = np.asarray(PIXELS, order=order)
    path = write_zip(tmp_path / "a.npz", {"x.npy": npy_bytes(x), "y.npy": npy_bytes(LABELS)}, compression)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    data = open_dataset(path)
    inputs = np.concatenate([batch.inputs for batch in data.batches(7, None)])
    np.testing.assert_array_equal(inputs, PIXELS.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.class_names == ("a", "b", "c")
    (batch,) = data.batches(9, None, [49, 3])
    np.testing.assert_array_equal(batch.inputs, PIXELS[[49, 3]].transpose(0, 3, 1, 2))


def test_labels_may_be_absent(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=PIXELS)
    data = open_dataset(tmp_path / "a.npz")
    assert data.labels is None
    assert next(iter(data.batches(2, None))).labels is None


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_memory_does_not_grow_with_the_samples(tmp_path: Path, compression: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (30_000, 60, 60), dtype=np.uint8)  # 108 MB
    x[:, ::2] = 0
    path = write_zip(tmp_path / "a.npz", {"x.npy": npy_bytes(x)}, compression)
    del x
    tracemalloc.start()
    data = open_dataset(path)
    for batch in data.batches(64, None, range(0, 30_000, 10)):
        assert batch.inputs.shape[1:] == (1, 60, 60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "holds no array x"),
        ({"y.npy": npy_bytes(LABELS)}, "holds no array x"),
        ({"x.npy": npy_bytes(PIXELS), "x_enc.npy": npy_bytes(PIXELS)}, "both x and x_enc"),
        ({"x.npy": npy_bytes(np.array([{}, 1], object), True)}, "Python objects"),
        ({"x.npy": npy_bytes(PIXELS), "y.npy": npy_bytes(np.array(["a"], object), True)}, "Python objects"),
        ({"x.npy": b""}, "cannot be read"),
        ({"x.npy": b"not an array at all"}, "cannot be read"),
        ({"x.npy": npy_bytes(PIXELS)[:-1]}, "bytes follow"),
        ({"x.npy": npy_bytes(PIXELS) + b"1"}, "bytes follow"),
        ({"x.npy": header("(1000000000000, 3, 224, 224)")}, "bytes follow"),
        ({"x.npy": header("(99999999999999999999, 9999999999999999)")}, "bytes follow"),
        ({"x.npy": header("(-1, 3)") + b"123"}, "impossible shape"),
        ({"x.npy": header("(" + "1," * 40 + ")") + b"1"}, "impossible shape|cannot be read"),
        ({"x.npy": header("()") + b"1"}, "single number"),
        ({"x.npy": header("(2, 0, 3)")}, "no samples"),
        ({"x.npy": header("(5,)", "|V0")}, "cannot be read|must be float32"),
        ({"x.npy": npy_bytes(np.zeros((2, 3), dtype=[("a", "u1")]))}, "must be float32"),
    ],
)
def test_malformed_members(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    path = write_zip(tmp_path / "bad.npz", members)
    with pytest.raises(DataError, match=message):
        open_dataset(path)


def test_a_decompression_bomb_is_refused_quickly(tmp_path: Path) -> None:
    size = 300 << 20
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(header(f"({size >> 20}, 1024, 1024)"))
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
    started = time.perf_counter()
    with pytest.raises(DataError, match="bomb"):
        open_dataset(tmp_path / "bomb.npz")
    assert time.perf_counter() - started < 1.0


def test_a_lying_directory_allocates_nothing(tmp_path: Path) -> None:
    """The directory and the array header agree on 3 GB; the archive holds 200 bytes."""
    claimed = 3 << 30
    path = write_zip(
        tmp_path / "lie.npz", {"x.npy": header(f"({claimed - 128},)".replace("(", "(1, 1, ")) + b"1" * 72}
    )
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    for at in (central + 20, central + 24):
        content[at : at + 4] = claimed.to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError):
        open_dataset(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_mutations_end_in_data_or_a_clear_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    originals = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        members = {"x.npy": npy_bytes(PIXELS[:4]), "y.npy": npy_bytes(LABELS[:4])}
        originals.append(write_zip(tmp_path / "good.npz", members, compression).read_bytes())
    path = tmp_path / "mutated.npz"
    messages: list[str] = []
    for trial in range(900):
        content = bytearray(originals[trial % 3])
        kind = int(rng.integers(4))
        at = int(rng.integers(len(content)))
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            content[at : at + 4] = rng.bytes(4)
        else:
            content[at : at + 8] = (2**63 - 1).to_bytes(8, "little")
        path.write_bytes(content)
        try:
            data = open_dataset(path)
            for batch in data.batches(4, None):
                assert batch.inputs.dtype == np.float32
        except EdgeqError as error:
            messages.append(str(error))
    assert len(messages) > 300
    assert all(message and "\n" not in message for message in messages)
