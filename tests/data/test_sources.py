from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.data import ArrayDataset, open_dataset
from edgeq.errors import DataError

FACTORIES = """
import numpy as np
PIXELS = np.zeros((3, 4, 4, 3), np.uint8)
def images():
    return PIXELS, [0, 1, 2]
class Holder:
    @staticmethod
    def only_x():
        return PIXELS
def broken():
    raise RuntimeError("no disk")
def nothing():
    return None
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"factories_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_factories(factories: str) -> None:
    assert open_dataset(f"{factories}:images").labels.tolist() == [0, 1, 2]
    assert len(open_dataset(f"{factories}:Holder.only_x")) == 3


@pytest.mark.parametrize(
    ("attribute", "message"),
    [("broken", "RuntimeError: no disk"), ("nothing", "no data set"), ("absent", "AttributeError")],
)
def test_failing_factories(factories: str, attribute: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(f"{factories}:{attribute}")


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(DataError, match="ModuleNotFoundError"):
        open_dataset("no_such_module_here:make")


@pytest.mark.parametrize(
    "name", ["", "nowhere", "no/where.npz", "no/where.npz:eval", "a\0b", "x" * 5000, ":", "a:"]
)
def test_names_of_nothing(name: str) -> None:
    with pytest.raises(DataError, match="No data at"):
        open_dataset(name)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"type \.txt is no data set"):
        open_dataset(tmp_path / "a.txt")


def test_npz_has_no_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(DataError, match="has no splits"):
        open_dataset(f"{tmp_path / 'a.npz'}:test")


def test_digits() -> None:
    pytest.importorskip("sklearn")
    test, calibration = open_dataset("digits"), open_dataset("digits", digits_split="calib")
    assert (test.source, calibration.source) == ("digits:test", "digits:calib")
    assert isinstance(test, ArrayDataset)
    assert test.class_names == tuple("0123456789")
    assert len(open_dataset("digits:train")) > len(test) > len(calibration)
    with pytest.raises(DataError, match="no split"):
        open_dataset("digits:eval")
