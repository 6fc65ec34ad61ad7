"""What the figures were measured on."""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path
from typing import Any

from edgeq.session import native_module

_FLAGS = ("avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512vbmi", "avx512_bf16", "amx_int8")

ISAS = ("scalar", "avx2", "avxvnni", "avx512vnni", "avx512vbmi", "amxint8")
"""Instruction sets in the order in which EDGEQ_MAX_ISA caps."""

ONEDNN_NAMES = {
    "avx2": "AVX2",
    "avxvnni": "AVX2_VNNI",
    "avx512vnni": "AVX512_CORE_VNNI",
    "avx512vbmi": "AVX512_CORE_VNNI",
}
"""What ONEDNN_MAX_CPU_ISA calls edgeq's instruction sets."""


@functools.cache
def describe() -> dict[str, Any]:
    """Returns JSON values: cpu, flags, cpus, caches, system, governor, temperature, clock_ghz and peaks_gmac by
    instruction set."""
    native = native_module()
    text = _text("/proc/cpuinfo")
    flags = set(_field(text, "flags").split())
    return {
        "cpu": _field(text, "model name") or platform.processor(),
        "model": f"{_field(text, 'vendor_id')} family {_field(text, 'cpu family')} model {_field(text, 'model')}",
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cpus": os.cpu_count(),
        "caches": _caches(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "not readable",
        "temperature": _text("/sys/class/thermal/thermal_zone0/temp").strip() or "not readable",
        "clock_ghz": native.measure_clock() / 1e9,
        "peaks_gmac": {isa: rate / 1e9 for _, isa, rate in native.measure_peaks()},
    }


def isas() -> list[str]:
    """The instruction sets that this CPU runs, best first."""
    return list(reversed(native_module().cpu_info()["available"]))


def peak_gmac(isa: str | None) -> float:
    """Returns the multiply-accumulate rate of one core under a cap, in 10^9 a second; None for no cap."""
    allowed = ISAS if isa is None else ISAS[: ISAS.index(isa) + 1]
    return max(rate for name, rate in describe()["peaks_gmac"].items() if name in allowed)


def cap_environment(isa: str | None) -> dict[str, str]:
    """Returns the variables that cap edgeq and oneDNN, as they are read when a process loads them."""
    return {} if isa is None else {"EDGEQ_MAX_ISA": isa, "ONEDNN_MAX_CPU_ISA": ONEDNN_NAMES[isa]}


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_text(index / name).strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join(found) or "not readable"


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
