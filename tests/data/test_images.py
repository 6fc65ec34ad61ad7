from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeq.data import Preprocessing, images, open_dataset, pillow
from edgeq.errors import DataError

Image = pytest.importorskip("PIL.Image")


def png(value: int = 0, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, value if mode != "RGB" else (value, 2, 3)).save(stream, "PNG")
    return stream.getvalue()


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def write_zip(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


CSV = "file,class_id,wnid,class_name,split\na.png,4,n1,cat,eval\nb.png,2,n2,dog,calib\nc.png,4,n1,cat,eval\n"
FILES: dict[str, bytes | str] = {"a.png": png(10), "b.png": png(20), "c.png": png(30)}


def first_pixels(data: object) -> list[float]:
    return [float(batch.inputs[0, 0, 0, 0]) for batch in data.batches(1, None)]  # type: ignore[attr-defined]


def test_folder_of_classes(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "zebra/1.png": png(1),
            "ant/2.png": png(2),
            "ant/deep/3.PNG": png(3),
            "ant/.hidden.png": b"x",
            "n.txt": "x",
        },
    )
    data = open_dataset(tmp_path)
    assert data.class_names == ("ant", "zebra")
    assert data.labels.tolist() == [0, 0, 1]
    assert first_pixels(data) == [2, 3, 1]
    assert data.images([2])[0].shape == (6, 8, 3)


def test_folder_without_labels(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path, dict(FILES)))
    assert data.labels is None
    assert first_pixels(data) == [10, 20, 30]


def test_folder_by_split(tmp_path: Path) -> None:
    write(tmp_path, {"train/a/1.png": png(1), "test/a/1.png": png(2)})
    assert first_pixels(open_dataset(f"{tmp_path}:test")) == [2]
    with pytest.raises(DataError, match="no folder 'val'"):
        open_dataset(f"{tmp_path}:val")


@pytest.mark.parametrize("place", ["inside", "beside", "folder", "files"])
def test_labels_csv(tmp_path: Path, place: str) -> None:
    if place == "inside":
        target = write_zip(tmp_path / "images.zip", {**FILES, "labels.csv": CSV})
    elif place == "files":
        target = write(tmp_path, {**FILES, "labels.csv": CSV})
    else:
        target = write_zip(tmp_path / "images_224.zip", dict(FILES))
        write(tmp_path, {"labels.csv": CSV})
        target = tmp_path if place == "folder" else target
    data = open_dataset(target)
    assert data.labels.tolist() == [4, 2, 4]
    assert data.class_names == ("0", "1", "dog", "3", "cat")
    part = open_dataset(f"{target}:eval")
    assert part.labels.tolist() == [4, 4]
    assert first_pixels(part) == [10, 30]
    assert part.digest() != data.digest()
    with pytest.raises(DataError, match="Splits there: calib, eval"):
        open_dataset(f"{target}:test")


def test_zip_of_class_folders(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "a.zip", {"set/b/1.png": png(1), "set/a/2.png": png(2), "__MACOSX/set/a/2.png": b"x"}
    )
    data = open_dataset(path)
    assert data.class_names == ("a", "b")
    assert first_pixels(data) == [2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column file"),
        ("file,label\na.png,1\n", "no column class_id"),
        ("file,class_id\n", "no samples"),
        ("file,class_id\na.png\n", "line 2: 1 values"),
        ("file,class_id\na.png,-1\n", "line 2: class_id '-1'"),
        ("file,class_id\na.png,x\n", "class_id 'x'"),
        ("file,class_id\na.png,1e9\n", "class_id"),
        ("file,class_id\na.png,99999999999999999999\n", "class_id"),
        ("file,class_id\na.png,²\n", "class_id"),
        ("file,class_id\nz.png,1\ny.png,1\n", "z.png and 1 more"),
        ("file,class_id\n../a.png,1\n", "not an image"),
        ('file,class_id\n"a.png,1\n', "cannot be read as CSV"),
    ],
)
def test_malformed_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(write(tmp_path, {**FILES, "labels.csv": text}))


def test_table_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8"):
        open_dataset(write(tmp_path, {**FILES, "labels.csv": b"\xff\xfe\x00"}))


def test_split_needs_its_column(tmp_path: Path) -> None:
    write(tmp_path, {**FILES, "labels.csv": "file,class_id\na.png,1\n"})
    with pytest.raises(DataError, match="no column split"):
        open_dataset(f"{tmp_path}:eval")


def test_images_beside_class_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="also images beside them"):
        open_dataset(write(tmp_path, {"a/1.png": png(), "2.png": png()}))


def test_empty_class_folder_is_refused(tmp_path: Path) -> None:
    # Without it, every class behind the empty folder would get another number than the model gives it.
    write(tmp_path, {"bee/1.png": png(), "cat/2.png": png(), ".cache/n.txt": "x", "__MACOSX/n.txt": "x"})
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataError, match="sub-folder ant holds no image"):
        open_dataset(tmp_path)
    (tmp_path / "ant").rmdir()
    assert open_dataset(tmp_path).class_names == ("bee", "cat")


def test_empty_folder_and_zip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(write_zip(tmp_path / "a.zip", {}))


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", png()[:40], png()[:-30], b"\x89PNG\r\n\x1a\n" + bytes(50)],
    ids=["empty", "text", "header", "truncated", "zeros"],
)
def test_broken_images(tmp_path: Path, content: bytes) -> None:
    data = open_dataset(write(tmp_path, {"a.png": png(), "b.png": content}))
    with pytest.raises(DataError, match=r"b\.png: cannot be decoded") as caught:
        list(data.batches(8, None))
    assert "\n" not in str(caught.value)


def test_images_of_different_sizes(tmp_path: Path) -> None:
    data = open_dataset(write(tmp_path, {"a.png": png(), "b.png": png(size=(9, 9))}))
    with pytest.raises(DataError, match=r"different sizes.*b\.png.*--resize"):
        list(data.batches(8, None))
    (batch,) = data.batches(8, Preprocessing(resize=6, crop=6))
    assert batch.inputs.shape == (2, 3, 6, 6)
    with pytest.raises(DataError, match=r"a\.png: .*smaller than the crop"):
        list(data.batches(8, Preprocessing(crop=7)))


def test_deep_and_large_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = open_dataset(write(tmp_path, {"a.png": png(mode="I;16")}))
    with pytest.raises(DataError, match="more than 8 bits"):
        list(deep.batches(1, None))
    monkeypatch.setattr(pillow, "MAX_PIXELS", 47)
    large = open_dataset(write(tmp_path / "large", {"a.png": png()}))
    with pytest.raises(DataError, match="8x6 pixels"):
        list(large.batches(1, None))


def test_a_png_bomb_is_refused(tmp_path: Path) -> None:
    """A header that claims 60,000 x 60,000 pixels ends in a sentence before anything is allocated."""
    content = bytearray(png())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    data = open_dataset(write(tmp_path, {"a.png": bytes(content)}))
    with pytest.raises(DataError, match=r"a\.png"):
        list(data.batches(1, None))


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(100_000))
    data = open_dataset(tmp_path / "a.zip")
    with pytest.raises(DataError, match="would unpack to 100000 bytes"):
        list(data.batches(1, None))


def test_a_damaged_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", dict(FILES))
    content = bytearray(path.read_bytes())
    (tmp_path / "short.zip").write_bytes(content[:-30])
    with pytest.raises(DataError, match="cannot be read as a zip"):
        open_dataset(tmp_path / "short.zip")
    content[60] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png cannot be unpacked"):
        list(open_dataset(path).batches(4, None))


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGBA", 3), ("P", 3), ("CMYK", 3)]
)
def test_every_mode_becomes_grey_or_rgb(mode: str, channels: int) -> None:
    stream = io.BytesIO()
    Image.new(mode, (4, 5)).save(stream, "TIFF")
    pixels = pillow.decode_image(stream.getvalue(), "x")
    assert pixels.shape == (5, 4, channels)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP"])
def test_mutated_images_end_in_pixels_or_a_clear_error(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(stream, kind)
    original = stream.getvalue()
    for _ in range(150):
        content = bytearray(original)
        at = int(rng.integers(min(len(content), 200) if rng.random() < 0.7 else len(content)))
        length = int(rng.integers(1, 5))
        content[at : at + length] = rng.bytes(length)
        if rng.random() < 0.2:
            content = content[: int(rng.integers(len(content)))]
        started = time.perf_counter()
        try:
            pixels = pillow.decode_image(bytes(content), "it")
        except DataError as error:
            message = str(error)
        else:
            message = "it: fine"
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] in (1, 3)
        assert message.startswith("it: ")
        assert "\n" not in message
        assert time.perf_counter() - started < 1.0


def test_mutated_archives_and_tables_end_in_data_or_a_clear_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    original = write_zip(tmp_path / "good.zip", {**FILES, "labels.csv": CSV}).read_bytes()
    path = tmp_path / "mutated.zip"
    messages = []
    for _ in range(400):
        content = bytearray(original)
        at, length = int(rng.integers(len(content))), int(rng.integers(1, 9))
        content[at : at + length] = rng.bytes(length)
        if rng.random() < 0.2:
            content = content[: int(rng.integers(len(content)))]
        path.write_bytes(content)
        try:
            for batch in open_dataset(path).batches(2, None):
                assert batch.inputs.dtype == np.float32
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all("\n" not in message for message in messages)
