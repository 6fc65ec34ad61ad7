"""Data sets of image files: folders, and zip archives that are read in place and never extracted."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.data.dataset import Batch, Labels, checked_batch_size, checked_class_names, checked_indices
from edgeq.data.files import MAX_TEXT_BYTES, decode_text, read_class_names, read_text
from edgeq.data.pillow import IMAGE_SUFFIXES, MAX_FILE_BYTES, decode_image
from edgeq.data.preprocessing import Preprocessing
from edgeq.errors import DataError

_MAX_FILES = 5_000_000


class ImageStore(Protocol):
    """Where image files lie: names relative to the root, with forward slashes."""

    path: Path

    def names(self) -> list[str]:
        """All image files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        ...


class FolderStore:
    """Image files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """All image files under the folder, hidden ones excepted, sorted."""
        found = []
        for folder, subfolders, files in os.walk(self.path):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            relative = Path(folder).relative_to(self.path)
            found += [(relative / name).as_posix() for name in files if is_image_name(name)]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            DataError: If it cannot be read or is too large.
        """
        path = self.path / name
        try:
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise DataError(f"{path}: {size} bytes; an image file may have {MAX_FILE_BYTES >> 20} MiB.")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


class ZipStore:
    """Image files inside a zip archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
            infos = self._archive.infolist()
        except Exception as error:  # zipfile raises many types on damaged bytes
            raise DataError(f"{path}: cannot be read as a zip archive ({error}). Make it again.") from error
        if len(infos) > _MAX_FILES:
            raise DataError(f"{path}: lists {len(infos)} files; at most {_MAX_FILES} are read.")
        self._infos = {info.filename: info for info in infos if not info.is_dir()}

    def names(self) -> list[str]:
        """All image files in the archive, without hidden ones and macOS resource forks, sorted."""
        return sorted(
            name for name in self._infos if is_image_name(name) and not name.startswith("__MACOSX/")
        )

    def text(self, name: str) -> str | None:
        """A text file inside the archive, or None if there is none.

        Raises:
            DataError: If it is too large, damaged, or not UTF-8.
        """
        if name not in self._infos:
            return None
        return decode_text(self._read(name, MAX_TEXT_BYTES), f"{self.path}:{name}")

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            DataError: If it is damaged, encrypted or too large.
        """
        return self._read(name, MAX_FILE_BYTES)

    def _read(self, name: str, limit: int) -> bytes:
        info = self._infos[name]
        what = f"{self.path}:{name}"
        if info.file_size > limit:
            raise DataError(
                f"{what} would unpack to {info.file_size} bytes; at most {limit >> 20} MiB are read."
            )
        try:
            with self._archive.open(info) as stream:
                return stream.read()
        except Exception as error:  # zipfile and its decompressors raise many types on damaged bytes
            raise DataError(f"{what} cannot be unpacked ({error}). Make the archive again.") from error


class ImageDataset:
    """Image files with or without labels, decoded as they are needed.

    Args:
        store: Where the files lie.
        names: The files, in order.
        labels: Class indices, shape (n,), or None.
        class_names: The name of each class, or None.
        source: What messages call the data.

    Raises:
        DataError: If there are no files.
    """

    def __init__(
        self,
        store: ImageStore,
        names: Sequence[str],
        labels: Labels | None,
        class_names: Sequence[str] | None,
        source: str,
    ) -> None:
        if not names:
            raise DataError(
                f"{source}: holds no images. Read are {', '.join(IMAGE_SUFFIXES)}; check the path and the "
                "split."
            )
        self.source = source
        self.names = tuple(names)
        self.labels = labels
        self.class_names = checked_class_names(class_names, labels)
        self._store = store

    def __len__(self) -> int:
        return len(self.names)

    def _image(self, position: int) -> NDArray[np.uint8]:
        name = self.names[position]
        return decode_image(self._store.read(name), f"{self._store.path}:{name}")

    def batches(
        self, batch_size: int, preprocessing: Preprocessing | None, indices: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Streams samples; see `Dataset.batches`.

        Raises:
            DataError: If a file is broken, or an image does not fit the preprocessing.
        """
        size = checked_batch_size(batch_size)
        positions = checked_indices(indices, len(self))
        applied = preprocessing or Preprocessing.identity()
        for start in range(0, len(positions), size):
            part = positions[start : start + size]
            inputs = [self._input(applied, int(position)) for position in part]
            self._check_sizes(inputs, part)
            yield Batch(np.concatenate(inputs), None if self.labels is None else self.labels[part])

    def _input(self, preprocessing: Preprocessing, position: int) -> NDArray[np.float32]:
        try:
            return preprocessing.apply(self._image(position))
        except DataError as error:
            name = f"{self._store.path}:{self.names[position]}"
            raise error if str(error).startswith(name) else DataError(f"{name}: {error}") from error

    def _check_sizes(self, inputs: list[NDArray[np.float32]], positions: NDArray[np.int64]) -> None:
        for position, one in zip(positions, inputs, strict=True):
            if one.shape != inputs[0].shape:
                first, other = inputs[0].shape[2:], one.shape[2:]
                raise DataError(
                    f"{self.source}: the images have different sizes after preprocessing "
                    f"({first[0]}x{first[1]} and, in {self.names[position]}, {other[0]}x{other[1]}), and a "
                    "network takes one size: give a resize and a crop (--resize 256 --crop 224)."
                )

    def images(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """The samples as pictures: uint8, shape (h, w, 1 or 3), of any sizes."""
        return [self._image(int(position)) for position in checked_indices(indices, len(self))]

    def digest(self) -> str:
        """SHA-256 of names, labels and file contents."""
        state = hashlib.sha256()
        for position, name in enumerate(self.names):
            label = "" if self.labels is None else str(self.labels[position])
            state.update(f"{name}\0{label}\0".encode())
            state.update(hashlib.sha256(self._store.read(name)).digest())
        return state.hexdigest()


def is_image_name(name: str) -> bool:
    """Whether a file name has an image's suffix and is not hidden."""
    base = name.rsplit("/", 1)[-1]
    return base.lower().endswith(IMAGE_SUFFIXES) and not base.startswith(".")


def from_labels(store: ImageStore, text: str, csv_name: str, split: str | None, source: str) -> ImageDataset:
    """The images that a table lists.

    Args:
        store: Where the files lie.
        text: The table as CSV with a header; columns file and class_id, and where wanted split and
            class_name.
        csv_name: What messages call the table.
        split: Take only rows whose column split has this value; None takes all.
        source: What messages call the data.

    Raises:
        DataError: If a column is missing, a row is malformed, a file is not in the store, or nothing is left.
    """
    rows = _csv_rows(text, csv_name)
    header = rows[0][1] if rows else []
    missing = [column for column in ("file", "class_id") if column not in header]
    if missing:
        raise DataError(
            f"{csv_name}: has no column {' and no column '.join(missing)}. The first line must name the "
            "columns: file, class_id, and where wanted split and class_name."
        )
    if split is not None and "split" not in header:
        raise DataError(
            f"{csv_name}: has no column split, so {split!r} cannot be chosen. Leave out ':{split}'."
        )
    column = {name: header.index(name) for name in header}
    names: list[str] = []
    ids: list[int] = []
    class_names: dict[int, str] = {}
    splits: set[str] = set()
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(f"{csv_name}, line {line}: {len(row)} values, but the header has {len(header)}.")
        class_id = _class_id(row[column["class_id"]], csv_name, line)
        if "class_name" in column and row[column["class_name"]]:
            class_names[class_id] = row[column["class_name"]]
        if split is not None:
            splits.add(row[column["split"]])
            if row[column["split"]] != split:
                continue
        names.append(row[column["file"]])
        ids.append(class_id)
    if not names:
        found = f" Splits there: {', '.join(sorted(splits)[:8])}." if splits else ""
        raise DataError(f"{source}: no row of {csv_name} is chosen, so there are no samples.{found}")
    _check_present(store, names, csv_name)
    return ImageDataset(store, names, np.array(ids, np.int64), _dense_names(class_names), source)


def _csv_rows(text: str, csv_name: str) -> list[tuple[int, list[str]]]:
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{csv_name}: cannot be read as CSV ({error}).") from error


def _class_id(value: str, csv_name: str, line: int) -> int:
    if not value.strip().isascii() or not value.strip().isdigit() or len(value) > 8:
        raise DataError(
            f"{csv_name}, line {line}: class_id {value[:40]!r} is not a class index (0, 1, 2, ...)."
        )
    return int(value)


def _dense_names(names: dict[int, str]) -> tuple[str, ...] | None:
    """Names by index; classes that the table does not name are called by their number."""
    if not names or max(names) > 1_000_000:
        return None
    return tuple(names.get(index, str(index)) for index in range(max(names) + 1))


def _check_present(store: ImageStore, names: list[str], csv_name: str) -> None:
    present = set(store.names())
    absent = [name for name in names if name not in present]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(
            f"{csv_name}: lists {absent[0]}{more}, not an image in {store.path}. Check the column file."
        )


def from_folders(store: ImageStore, source: str) -> ImageDataset:
    """One sub-folder a class, classes numbered in sorted order; without sub-folders, images without labels.

    Raises:
        DataError: If there are no images, some lie in a class folder and some beside it, or a class folder is empty,
            which would number the classes behind it otherwise than the model does.
    """
    names = store.names()
    tops = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if classes == [""]:
        return ImageDataset(store, names, None, None, source)
    if "" in classes:
        stray = names[tops.index("")]
        raise DataError(
            f"{source}: has sub-folders, one a class, but also images beside them ({stray}). Move those into "
            "the folder of their class, or away."
        )
    folder = Path(store.path)
    if folder.is_dir():
        others = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))}
        empty = sorted(others - set(classes))
        if empty:
            raise DataError(
                f"{source}: its sub-folder {empty[0]} holds no image, and classes are numbered by sub-folder. Put "
                "images into it, or move it away if the model has no such class."
            )
    index = {name: position for position, name in enumerate(classes)}
    return ImageDataset(store, names, np.array([index[top] for top in tops], np.int64), classes, source)


def open_zip(path: Path, split: str | None, source: str) -> ImageDataset:
    """A zip of images, labelled by labels.csv inside or beside it, or else by its folders.

    Raises:
        DataError: If the archive or the table is malformed, or a split is asked for without a table.
    """
    store = ZipStore(path)
    inside = store.text("labels.csv")
    if inside is not None:
        return from_labels(store, inside, f"{path}:labels.csv", split, source)
    beside = path.parent / "labels.csv"
    if beside.is_file():
        return from_labels(store, read_text(beside), str(beside), split, source)
    if split is not None:
        raise DataError(
            f"{path}: has no labels.csv inside or beside it, so split {split!r} cannot be chosen."
        )
    return from_folders(_rooted(store), source)


class _SubfolderStore:
    """The part of a store below one folder."""

    def __init__(self, store: ImageStore, prefix: str) -> None:
        self.path = store.path
        self._store = store
        self._prefix = prefix

    def names(self) -> list[str]:
        return [name[len(self._prefix) :] for name in self._store.names()]

    def read(self, name: str) -> bytes:
        return self._store.read(self._prefix + name)


def _rooted(store: ZipStore) -> ImageStore:
    """The store without the one folder that archives of a folder of classes start with."""
    names = store.names()
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) == 1 and names and all(name.count("/") >= 2 for name in names):
        return _SubfolderStore(store, next(iter(tops)) + "/")
    return store


def open_folder(path: Path, split: str | None, source: str) -> ImageDataset:
    """A folder: labels.csv with one zip or with image files, or sub-folders of classes, or plain images.

    Raises:
        DataError: If it holds no images, or the split is not there.
    """
    table = path / "labels.csv"
    if table.is_file():
        archives = sorted(path.glob("*.zip"))
        if len(archives) > 1:
            raise DataError(
                f"{path}: holds {len(archives)} zip archives beside labels.csv. Name the one that is meant."
            )
        store: ImageStore = ZipStore(archives[0]) if archives else FolderStore(path)
        return from_labels(store, read_text(table), str(table), split, source)
    if split is not None:
        if not (path / split).is_dir():
            raise DataError(
                f"{path}: has no labels.csv and no folder {split!r}, so this split cannot be chosen."
            )
        return open_folder(path / split, None, source)
    data = from_folders(FolderStore(path), source)
    names = read_class_names(path / "classes.txt")
    if names is not None and data.labels is None:
        data.class_names = names
    return data
