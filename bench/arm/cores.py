"""The cores that are emulated, and what each can do at best."""

from __future__ import annotations

from dataclasses import dataclass

_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True, slots=True)
class Core:
    """A CPU model of qemu.

    Attributes:
        name: In tables.
        qemu: What `-cpu` takes.
        part: Part number in /proc/cpuinfo.
        features: Features in /proc/cpuinfo.
        bar: At most this many of the best peer's instructions, at w8a8.
        bar_narrow: At most this many of edgeq's own w8a8 instructions, at w4a8; None where there is no bar.
    """

    name: str
    qemu: str
    part: int
    features: str
    bar: float
    bar_narrow: float | None


CORES = (
    Core("cortex-a53", "cortex-a53", 0xD03, _ARMV8, 0.6, 0.75),
    Core("cortex-a72", "cortex-a72", 0xD08, _ARMV8, 0.6, 0.75),
    Core("cortex-a76", "cortex-a76", 0xD0B, _ARMV82, 0.65, 1.1),
    # No kernel of edgeq uses SVE; without it qemu's "max" resembles the cores that have i8mm and are common.
    Core("max", "max,sve=off", 0xD4D, f"{_ARMV82} i8mm bf16", 0.6, None),
)
"""Those of the tables. cortex-a53 and cortex-a72 have the same instructions, so they differ in nothing that is counted
unless a runtime chooses by part number."""


def core(name: str) -> Core:
    """Returns the core of that name."""
    return next(one for one in CORES if one.name == name)
