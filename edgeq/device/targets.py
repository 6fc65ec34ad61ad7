"""The machines that `edgeq cross` builds for."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.errors import UsageError


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of device: an architecture, a system, and a core to emulate it with.

    One program serves every core of an architecture: it holds the kernels of all instruction sets and chooses when it
    loads a model. So the four 64-bit boards and 64-bit Android get the same bytes.

    Attributes:
        name: What --target takes.
        description: The boards or systems, in words.
        abi: What its programs are built for: aarch64, armv7 or x86_64.
        core: The core that a device of this kind has at least, as qemu and Zig's documentation name it.
        android: Whether the system is Android, where programs arrive through adb and libraries need the NDK.
    """

    name: str
    description: str
    abi: str
    core: str
    android: bool = False

    @property
    def zig_program(self) -> str:
        """Zig's name for static programs of this target: musl, so that any Linux kernel will do."""
        return {"armv7": "arm-linux-musleabihf"}.get(self.abi, f"{self.abi}-linux-musl")

    @property
    def zig_library(self) -> str:
        """Zig's name for shared libraries, which use the device's own glibc: 2.17 (2012) or later."""
        return {"armv7": "arm-linux-gnueabihf"}.get(self.abi, f"{self.abi}-linux-gnu") + ".2.17"

    @property
    def gnu(self) -> str:
        """What the programs of an installed GCC for this target begin with."""
        return {"armv7": "arm-linux-gnueabihf"}.get(self.abi, f"{self.abi}-linux-gnu")


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("rpi-zero2", "Raspberry Pi Zero 2 W, 64-bit system", "aarch64", "cortex-a53"),
        Target("rpi3", "Raspberry Pi 3, 64-bit system", "aarch64", "cortex-a53"),
        Target("rpi4", "Raspberry Pi 4 and 400, 64-bit system", "aarch64", "cortex-a72"),
        Target("rpi5", "Raspberry Pi 5 and 500", "aarch64", "cortex-a76"),
        Target("linux-aarch64", "any 64-bit Arm Linux", "aarch64", "cortex-a53"),
        Target(
            "linux-armv7",
            "any 32-bit Arm Linux from Armv7 on, Raspberry Pi 2 to 4 with a 32-bit system",
            "armv7",
            "cortex-a7",
        ),
        Target("linux-x86_64", "any 64-bit x86 Linux", "x86_64", "qemu64"),
        Target("android-arm64", "64-bit Arm Android, through adb", "aarch64", "cortex-a53", android=True),
    )
}
"""By name, in the order in which they are listed to a user."""


GENERAL = {"aarch64": "linux-aarch64", "armv7": "linux-armv7", "x86_64": "linux-x86_64"}
"""The target that runs on every Linux of an ABI."""


def find_target(name: str) -> Target:
    """The target of a name.

    Raises:
        UsageError: If there is none; the message lists those that there are.
    """
    if name not in TARGETS:
        raise UsageError(f"there is no target {name!r}; the targets are {', '.join(TARGETS)}")
    return TARGETS[name]
