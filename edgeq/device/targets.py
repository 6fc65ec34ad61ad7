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
        machine: What `uname -m` says there: aarch64, armv7l or x86_64.
        core: The core that a device of this kind has at least, as qemu and Zig's documentation name it.
        android: Whether the system is Android, where programs arrive through adb and libraries need the NDK.
    """

    name: str
    description: str
    machine: str
    core: str
    android: bool = False

    @property
    def zig_program(self) -> str:
        """Zig's name for static programs of this target: musl, so that any Linux kernel will do."""
        return {"armv7l": "arm-linux-musleabihf"}.get(self.machine, f"{self.machine}-linux-musl")

    @property
    def zig_library(self) -> str:
        """Zig's name for shared libraries, which use the device's own glibc: 2.17 (2012) or later."""
        return {"armv7l": "arm-linux-gnueabihf"}.get(self.machine, f"{self.machine}-linux-gnu") + ".2.17"

    @property
    def gnu(self) -> str:
        """What the programs of an installed GCC for this target begin with."""
        return {"armv7l": "arm-linux-gnueabihf"}.get(self.machine, f"{self.machine}-linux-gnu")


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
            "armv7l",
            "cortex-a7",
        ),
        Target("linux-x86_64", "any 64-bit x86 Linux", "x86_64", "qemu64"),
        Target("android-arm64", "64-bit Arm Android, through adb", "aarch64", "cortex-a53", android=True),
    )
}
"""By name, in the order in which they are listed to a user."""


def find_target(name: str) -> Target:
    """The target of a name.

    Raises:
        UsageError: If there is none; the message lists those that there are.
    """
    if name not in TARGETS:
        raise UsageError(f"there is no target {name!r}; the targets are {', '.join(TARGETS)}")
    return TARGETS[name]


def target_of_machine(machine: str, android: bool = False) -> Target:
    """The general target of a device that says `machine` to `uname -m`.

    Raises:
        UsageError: If edgeq-runner is not built for such a device.
    """
    # 32-bit systems on 64-bit cores say armv8l; a 64-bit kernel below a 32-bit system says aarch64, so whoever asks a
    # device should ask its programs (`getconf LONG_BIT`) too.
    machine = {"arm64": "aarch64", "armv8l": "armv7l", "amd64": "x86_64"}.get(machine, machine)
    name = f"android-{machine}" if android else f"linux-{machine}"
    name = {"android-aarch64": "android-arm64", "linux-armv7l": "linux-armv7"}.get(name, name)
    if name not in TARGETS:
        system = "Android" if android else "Linux"
        raise UsageError(f"edgeq-runner is not built for {machine} {system}; it is for {', '.join(TARGETS)}")
    return TARGETS[name]
