"""Phones behind a stand-in for adb, which plays its words; no phone was at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeq import Session
from edgeq.device.adb import adb_devices
from edgeq.device.device import open_device
from edgeq.errors import DeviceError

PHONE = "adb://phone1?emulator=qemu-aarch64 -cpu cortex-a76"


def edgeq(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "edgeq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def folder(phone: Path) -> Path:
    return phone / "data" / "local" / "tmp" / "edgeq"


def calls(phone: Path) -> list[str]:
    found = (phone / "calls").read_text().split()
    (phone / "calls").unlink()
    return found


def test_phones_are_listed(phone: Path) -> None:
    assert adb_devices() == [("phone1", "device", "Pixel_4a"), ("phone2", "unauthorized", "")]
    done = edgeq("devices")
    assert "adb://phone1" in done.stdout
    assert "Pixel 4a" in done.stdout
    assert "unauthorized" in done.stdout


def test_facts(phone: Path, aarch64_runner: Path) -> None:
    with open_device("adb://phone1") as device:
        facts = device.facts
        with pytest.raises(DeviceError, match="edgeq cross --target android-arm64 -o runners"):
            _ = device.runner
    assert (facts.abi, facts.board, facts.machine) == ("aarch64", "Pixel 4a", "aarch64")
    assert facts.folder.endswith("/data/local/tmp/edgeq")
    assert facts.free_bytes is not None
    assert facts.free_bytes > 0


def test_verify(phone: Path, demo: Path, aarch64_runner: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = edgeq(
        "verify", demo, "--data", "digits", "--samples", 100, "--device", PHONE, "--runner", aarch64_runner,
        "--json", figures,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())["device"]
    assert (found["exact"], found["isa"]) == (True, "neondot")
    assert [path.name for path in folder(phone).iterdir()] == ["files"]


def test_files_are_pushed_only_when_they_change(
    phone: Path, demo: Path, aarch64_runner: Path, rng: np.random.Generator
) -> None:
    session = Session(demo / "model.edgeq")
    x = rng.standard_normal((2, *session.inputs[0].shape[1:])).astype(np.float32)
    pushes = []
    for _ in range(2):
        with open_device(PHONE, runner=aarch64_runner) as device:
            (found,) = device.outputs(demo / "model.edgeq", x)
        np.testing.assert_array_equal(found, session.run(x))
        pushes.append(calls(phone).count("push"))
    # The inputs, the model and the runner; then the inputs alone.
    assert pushes == [3, 1]


def test_a_phone_that_is_unplugged(phone: Path, demo: Path, aarch64_runner: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgeq.device.device.PAUSES", (0.1, 0.1))
    said: list[str] = []
    with open_device(PHONE, runner=aarch64_runner, say=said.append) as device:
        device.info()
        (phone / "gone").write_text("")
        with pytest.raises(DeviceError, match=r"it is offline; unplug it and plug it in again.*It broke 3 times"):
            device.json(["info", "{0}"], files=[demo / "model.edgeq"])
    assert len(said) == 2
    assert [path.name for path in folder(phone).iterdir()] == ["files"]


def test_a_phone_that_comes_back(phone: Path, demo: Path, aarch64_runner: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgeq.device.device.PAUSES", (0.1, 0.1))

    def plug_in(sentence: str) -> None:
        (phone / "gone").unlink(missing_ok=True)

    with open_device(PHONE, runner=aarch64_runner, say=plug_in) as device:
        (phone / "gone").write_text("")
        assert device.json(["info", "{0}"], files=[demo / "model.edgeq"])["architecture"] == "aarch64"


@pytest.mark.parametrize(
    "address, words",
    [
        ("adb://phone2", "unlock its screen and allow USB debugging"),
        ("adb://phone3", "there is no such device; adb devices lists those that are there"),
    ],
)
def test_a_phone_that_cannot_be_used(phone: Path, address: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words), open_device(address):
        pass


def test_without_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert adb_devices() == []
    with (
        pytest.raises(DeviceError, match=r"needs the program adb, which is not installed"),
        open_device("adb://phone1"),
    ):
        pass


def test_streams_of_old_phones(phone: Path) -> None:
    from edgeq.device.adb import AdbTransport
    from edgeq.device.address import parse_address
    from edgeq.device.transport import ConnectionLost

    transport = AdbTransport(parse_address("adb://phone1"))
    done = transport._done(b"edgeq-begin\r\none\r\ntwo\r\ncat: no such file\r\nedgeq-end 3\r\n", "")
    assert (done.status, done.text) == (3, "one\ntwo\ncat: no such file\n")
    with pytest.raises(ConnectionLost):
        transport._done(b"edgeq-begin\r\none\r\n", "")
