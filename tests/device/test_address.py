"""Addresses of devices, and runners for them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from edgeq.device.address import DeviceAddress, parse_address
from edgeq.device.device import _abi
from edgeq.device.runners import find_runner, read_runner
from edgeq.errors import DeviceError, UsageError


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("local", DeviceAddress("local", "local")),
        ("ssh://pi@raspberrypi", DeviceAddress("ssh://pi@raspberrypi", "ssh", "pi@raspberrypi")),
        ("ssh://board:2222/", DeviceAddress("ssh://board:2222/", "ssh", "board", 2222)),
        ("ssh://pi@[fe80::1%25eth0]:22", DeviceAddress("ssh://pi@[fe80::1%25eth0]:22", "ssh", "pi@fe80::1%eth0", 22)),
        ("adb://0A1B2C", DeviceAddress("adb://0A1B2C", "adb", "0A1B2C")),
        ("adb://192.168.0.7:5555", DeviceAddress("adb://192.168.0.7:5555", "adb", "192.168.0.7:5555")),
        (
            "ssh://pi@board?folder=/mnt/ssd&emulator=qemu-arm -cpu cortex-a7",
            DeviceAddress("ssh://pi@board", "ssh", "pi@board", None, ("qemu-arm", "-cpu", "cortex-a7"), "/mnt/ssd"),
        ),
        ("ssh://b?emulator=qemu-arm%20%27a%20b%27", DeviceAddress("ssh://b", "ssh", "b", None, ("qemu-arm", "a b"))),
    ],
)
def test_addresses(text: str, wanted: DeviceAddress) -> None:
    assert parse_address(text) == wanted


@pytest.mark.parametrize(
    "cpu, program", [("cortex-a53", "qemu-aarch64"), ("a7", "qemu-arm"), ("max,sve=off", "qemu-aarch64")]
)
def test_emulated_cpus(cpu: str, program: str) -> None:
    found = parse_address(f"qemu://{cpu}").emulator
    assert found[0].removesuffix("-static") == program
    assert found[2] == {"a7": "cortex-a7"}.get(cpu, cpu)


@pytest.mark.parametrize(
    "text, words",
    [
        ("raspberrypi", "names no device; write local, ssh://"),
        ("ssh://", "names no device"),
        ("http://pi@board", "names no device"),
        ("ssh://-oProxyCommand=x", "names no device"),
        ("ssh://pi@-oProxyCommand=x", "names no device"),
        ("adb://-s", "names no device"),
        ("ssh://pi@board/home", "names no device"),
        ("ssh://board:99999", "a port is a number from 1 to 65535"),
        ("qemu://pentium", "emulated CPUs are cortex-a53"),
        ("ssh://board?dir=/tmp", "after \\? stand emulator=COMMAND and folder=PATH, not 'dir'"),
        ("ssh://board?folder=models", "must begin with /"),
        ("qemu://max?emulator=qemu-arm", "is an emulator itself"),
    ],
)
def test_wrong_addresses(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_address(text)


@pytest.mark.parametrize(
    "machine, bits, abis, wanted",
    [
        ("aarch64", "64", "", "aarch64"),
        ("aarch64", "32", "", "armv7"),
        ("aarch64", "", "arm64-v8a,armeabi-v7a", "aarch64"),
        ("aarch64", "", "armeabi-v7a,armeabi", "armv7"),
        ("aarch64", "", "", "aarch64"),
        ("armv8l", "32", "", "armv7"),
        ("armv7l", "32", "", "armv7"),
        ("x86_64", "64", "", "x86_64"),
        ("x86_64", "32", "", "i686"),
        ("i686", "32", "", "i686"),
    ],
)
def test_what_programs_must_be_built_for(machine: str, bits: str, abis: str, wanted: str) -> None:
    found = {"system": "Linux 6.1", "machine": machine, "bits": bits, "abis": abis}
    assert _abi(parse_address("ssh://board"), found) == wanted


@pytest.mark.parametrize(
    "found, words",
    [
        ({"system": "Linux 6.1", "machine": "armv6l", "bits": "32"}, "is armv6l; edgeq-runner needs ARMv7 with NEON"),
        ({"system": "Darwin 23", "machine": "arm64", "bits": "64"}, "runs Darwin 23; edgeq-runner is for Linux"),
    ],
)
def test_devices_that_cannot_run_it(found: dict[str, str], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        _abi(parse_address("ssh://board"), found)


def elf(folder: Path, name: str, machine: int, wide: bool = True, dynamic: bool = False) -> Path:
    """A header like that of an executable, with one program header."""
    kind = 3 if dynamic else 1
    if wide:
        head = (
            b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        )
    else:
        head = (
            b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        )
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + struct.pack("<I", kind) + bytes(60))
    return path


def test_a_runner_says_what_it_runs_on(tmp_path: Path) -> None:
    found = read_runner(elf(tmp_path, "a", 183))
    assert (found.abi, found.static) == ("aarch64", True)
    found = read_runner(elf(tmp_path, "b", 40, wide=False, dynamic=True))
    assert (found.abi, found.static) == ("armv7", False)
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF", elf(tmp_path, "c", 8).read_bytes()):
        (tmp_path / "d").write_bytes(content)
        with pytest.raises(UsageError, match="is no edgeq-runner"):
            read_runner(tmp_path / "d")
    with pytest.raises(UsageError, match="cannot be read"):
        read_runner(tmp_path / "absent")


def test_the_right_runner_is_picked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEQ_RUNNERS", raising=False)
    dynamic = elf(tmp_path, "one/edgeq-runner-a", 183, dynamic=True)
    static = elf(tmp_path, "one/rpi4/edgeq-runner", 183)
    narrow = elf(tmp_path, "two/edgeq-runner", 40, wide=False)
    (tmp_path / "one" / "edgeq-runner.sha256").write_text("0")
    assert find_runner("aarch64", tmp_path / "one").path == static
    assert find_runner("aarch64", dynamic).path == dynamic
    with pytest.raises(UsageError, match="runs on armv7, but the device is aarch64"):
        find_runner("aarch64", narrow)
    with pytest.raises(
        DeviceError, match=r"no edgeq-runner for armv7 in .*one; build it with edgeq cross --target linux-armv7"
    ):
        find_runner("armv7", tmp_path / "one")
    monkeypatch.setenv("EDGEQ_RUNNERS", f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}")
    assert find_runner("armv7").path == narrow
    monkeypatch.setenv("EDGEQ_RUNNERS", str(tmp_path / "three"))
    with pytest.raises(UsageError, match="there is no such folder"):
        find_runner("armv7")
