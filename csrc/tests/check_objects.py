"""Checks that no object file holds an instruction that its level's CPUs lack.

A level's flags bind the compiler, but not inline assembly, and a function that the compiler leaves as a weak symbol may
be linked into code of a lower level. Usage: check_objects.py OBJDUMP OBJECT...
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# What a level adds, by mnemonic, where the encoding does not tell: VEX (C4, C5) begins with AVX2, EVEX (62) with
# AVX-512.
_VNNI = re.compile(r"vpdp(busds?|wssds?)$")
_MASKS = re.compile(r"k(mov|and|andn|or|xor|xnor|not|test|ortest|shift|unpck|add)[a-z]*$")
_TILES = re.compile(r"(tile|ldtilecfg|sttilecfg|tdpbusd)")
_VBMI = re.compile(r"(vpermb|vpermi2b|vpermt2b|vpmultishiftqb)$")
_NEVER = re.compile(
    r"(vpmadd52|vpcompress[bw]|vpexpand[bw]|vpsh[lr]dv?[wdq]$|vpopcnt|vpshufbitqmb|vpconflict|vplzcnt|vpbroadcastm|vdpbf16|"
    r"vcvtne|vgf2p8|vaes|vpclmul|vp2intersect|tdpb(ss|su|uu)|tdpbf16|tdpfp16|tileloaddrs|v[a-z0-9]+[ps]h$)"
)
# Conversions between half and single precision end like the instructions of AVX-512-FP16, and packed dwords too.
_NOT_FP16 = re.compile(r"(vcvtps2ph|vpunpck|vpmulh|vbroadcast)")

_LEVELS = ("", "x86_avx2", "x86_avxvnni", "x86_avx512vnni", "x86_avx512vbmi", "x86_amxint8")
_PREFIXES = {"2e", "36", "3e", "26", "64", "65", "67"}


def fault(level: str, code: list[str], mnemonic: str) -> str | None:
    """Why an instruction must not stand in a file of that level, or None."""
    rank = _LEVELS.index(level)
    while code and code[0] in _PREFIXES:
        code = code[1:]
    vex, evex = code[0] in {"c4", "c5"}, code[0] == "62"
    if (vex or evex) and rank < _LEVELS.index("x86_avx2"):
        return "a VEX or EVEX instruction"
    if evex and rank < _LEVELS.index("x86_avx512vnni"):
        return "an EVEX instruction"
    if vex and _VNNI.match(mnemonic) and level != "x86_avxvnni":
        return "VNNI in its VEX form"
    if vex and _MASKS.match(mnemonic) and rank < _LEVELS.index("x86_avx512vnni"):
        return "a mask register"
    if _VBMI.match(mnemonic) and rank < _LEVELS.index("x86_avx512vbmi"):
        return "VBMI"
    if _TILES.match(mnemonic) and rank < _LEVELS.index("x86_amxint8"):
        return "a tile instruction"
    if _NEVER.match(mnemonic) and not _NOT_FP16.match(mnemonic):
        return "an extension that no level has"
    return None


def check_object(objdump: str, path: Path) -> list[str]:
    """The faults of one object file, at most a few; instructions are counted on standard output."""
    level = path.name.split(".")[0]
    level = level if level.startswith("x86_") else ""
    if level not in _LEVELS:
        return [f"{path.name}: no such level"]
    listing = _run(objdump, "-d", "--insn-width=16", path)
    faults: list[str] = []
    count = 0
    for line in listing.splitlines():
        columns = line.split("\t")
        if len(columns) < 3:
            continue
        words = [word for word in columns[2].split() if not word.startswith("{")]
        if not words:
            continue
        count += 1
        reason = fault(level, columns[1].split(), words[0])
        if reason is not None and len(faults) < 5:
            faults.append(f"{path.parent.name}/{path.name}: {' '.join(columns[2].split())}: {reason}")
    if level:
        for line in _run(objdump, "-t", path).splitlines():
            # The flags of a symbol follow its value: w for weak, F for a function.
            flags = line[17:24]
            if "w" in flags and "F" in flags:
                faults.append(f"{path.parent.name}/{path.name}: {line.split()[-1]} is weak: another level may get it")
        if count == 0:
            faults.append(f"{path.parent.name}/{path.name}: no instructions")
    print(f"{path.parent.name}/{path.name}: {count} instructions")
    return faults


def _run(objdump: str, *arguments: str | Path) -> str:
    command = [objdump, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(objdump: str, paths: list[str]) -> int:
    """Checks all files; 1 when one has a fault."""
    faults = [fault for path in paths for fault in check_object(objdump, Path(path))]
    for text in faults:
        print(f"FAIL {text}", file=sys.stderr)
    levels = {Path(path).name.split(".")[0] for path in paths} & set(_LEVELS)
    print("levels:", ", ".join(level for level in _LEVELS if level in levels))
    return 1 if faults or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
