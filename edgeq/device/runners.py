"""Finds an edgeq-runner that a device can execute."""

from __future__ import annotations

import os
import shutil
import struct
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.device.targets import GENERAL
from edgeq.errors import DeviceError, UsageError

ABIS = {(1, 40): "armv7", (1, 3): "i686", (2, 62): "x86_64", (2, 183): "aarch64"}
"""ABI by class and machine of an ELF header."""

_PT_INTERP = 3


@dataclass(frozen=True, slots=True)
class Runner:
    """An edgeq-runner.

    Attributes:
        path: Where it is.
        abi: What it runs on, such as aarch64.
        static: Whether it needs no library of the device.
    """

    path: Path
    abi: str
    static: bool


def read_runner(path: Path) -> Runner:
    """Reads what an executable runs on.

    Raises:
        UsageError: If it is no executable of Linux for a CPU that edgeq knows.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(1 << 16)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name an edgeq-runner.") from None
    try:
        if head[:4] != b"\x7fELF" or head[5] != 1:
            raise ValueError
        wide = head[4] == 2
        (machine,) = struct.unpack_from("<H", head, 18)
        abi = ABIS[head[4], machine]
        (offset,) = struct.unpack_from("<Q" if wide else "<I", head, 32 if wide else 28)
        size, count = struct.unpack_from("<HH", head, 54 if wide else 42)
        kinds = [struct.unpack_from("<I", head, offset + number * size)[0] for number in range(count)]
    except (ValueError, KeyError, IndexError, struct.error):
        raise UsageError(f"{path}: is no edgeq-runner; build one with edgeq cross.") from None
    return Runner(path, abi, _PT_INTERP not in kinds)


def find_runner(abi: str, runner: Path | None = None, *, here: bool = False, android: bool = False) -> Runner:
    """Returns the runner for an ABI.

    Args:
        abi: Such as aarch64.
        runner: One that the user named, or a folder of them; None for the folders that EDGEQ_RUNNERS names. Where a
            folder holds none that fits, the one that was installed with edgeq may.
        here: Whether it is for this machine, whose own runner fits best.
        android: Whether it is for Android, for the cure in the message alone.

    Raises:
        UsageError: If the one named runs on something else.
        DeviceError: If there is none.
    """
    if runner is not None and not runner.is_dir():
        found = read_runner(runner)
        if found.abi != abi:
            raise UsageError(f"{runner}: runs on {found.abi}, but the device is {abi}; name another with --runner.")
        return found
    places = [runner] if runner is not None else [Path(words) for words in _folders()]
    fitting = [one for place in places for one in _runners_in(place) if one.abi == abi]
    own = [one for one in _own() if one.abi == abi]
    fitting = own + fitting if here else fitting + own
    if not here:
        # A static one needs nothing of the device.
        fitting.sort(key=lambda one: not one.static)
    if not fitting:
        looked = f" in {', '.join(map(str, places))}" if places else ""
        target = "android-arm64" if android and abi == "aarch64" else GENERAL.get(abi)
        cure = (
            f"build it with edgeq cross --target {target} -o runners and pass --runner runners"
            if target is not None
            else "build it with cmake --preset release and pass --runner PATH"
        )
        raise DeviceError(f"There is no edgeq-runner for {abi}{looked}; {cure} (or name the folder in EDGEQ_RUNNERS).")
    return fitting[0]


def _folders() -> list[str]:
    return [word for word in os.environ.get("EDGEQ_RUNNERS", "").split(os.pathsep) if word]


def _runners_in(folder: Path) -> Iterator[Runner]:
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: there is no such folder; EDGEQ_RUNNERS and --runner name a runner or a folder of them."
        )
    for pattern in ("edgeq-runner*", "*/edgeq-runner*"):
        for path in sorted(folder.glob(pattern)):
            if not path.is_file():
                continue
            try:
                yield read_runner(path)
            except UsageError:
                # A script or a checksum beside the runners.
                continue


def _own() -> Iterator[Runner]:
    """The runner of this machine: of this installation, on the path, or built in the source tree."""
    source = Path(__file__).parent.parent.parent / "build" / "release" / "csrc" / "runner" / "edgeq-runner"
    on_path = shutil.which("edgeq-runner")
    for path in (Path(sysconfig.get_path("scripts")) / "edgeq-runner", Path(on_path) if on_path else None, source):
        if path is not None and path.is_file():
            try:
                yield read_runner(path)
            except UsageError:
                continue
