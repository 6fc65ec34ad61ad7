"""Checks that no object file holds an instruction that its level's CPUs lack.

A level's flags bind the compiler, but not inline assembly, and a function that the compiler leaves as a weak symbol may
be linked into code of a lower level. A file whose name is no level's is held to the baseline: x86-64 without AVX,
Armv8.0 without its optional extensions, Armv7-A with the 16 registers of VFPv3.
Usage: check_objects.py OBJDUMP OBJECT...
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One line of a listing: its bytes in hexadecimal, its name and its operands."""

    code: list[str]
    mnemonic: str
    operands: str


# What a level of x86 adds, by mnemonic, where the encoding does not tell: VEX (C4, C5) begins with AVX2, EVEX (62) with
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

_X86_LEVELS = ("", "x86_avx2", "x86_avxvnni", "x86_avx512vnni", "x86_avx512vbmi", "x86_amxint8")
_PREFIXES = {"2e", "36", "3e", "26", "64", "65", "67"}


def x86_fault(level: str, instruction: Instruction) -> str | None:
    """Why an instruction must not stand in a file of that level, or None."""
    rank = _X86_LEVELS.index(level)
    code, mnemonic = instruction.code, instruction.mnemonic
    while code and code[0] in _PREFIXES:
        code = code[1:]
    vex, evex = code[0] in {"c4", "c5"}, code[0] == "62"
    if (vex or evex) and rank < _X86_LEVELS.index("x86_avx2"):
        return "a VEX or EVEX instruction"
    if evex and rank < _X86_LEVELS.index("x86_avx512vnni"):
        return "an EVEX instruction"
    if vex and _VNNI.match(mnemonic) and level != "x86_avxvnni":
        return "VNNI in its VEX form"
    if vex and _MASKS.match(mnemonic) and rank < _X86_LEVELS.index("x86_avx512vnni"):
        return "a mask register"
    if _VBMI.match(mnemonic) and rank < _X86_LEVELS.index("x86_avx512vbmi"):
        return "VBMI"
    if _TILES.match(mnemonic) and rank < _X86_LEVELS.index("x86_amxint8"):
        return "a tile instruction"
    if _NEVER.match(mnemonic) and not _NOT_FP16.match(mnemonic):
        return "an extension that no level has"
    return None


# 64-bit Arm: what came after Armv8.0, and its optional parts. Instructions that older CPUs take for hints (bti,
# paciasp) are in order.
_ARM64_LEVELS = ("", "arm_neon", "arm64_neondot", "arm64_neoni8mm")
_DOT = re.compile(r"[su]dot$")
_I8MM = re.compile(r"(smmla|ummla|usmmla|usdot|sudot)$")
_ARM64_NEVER = {
    "an atomic of Armv8.1 (LSE)": re.compile(
        r"(((ld|st)(add|clr|eor|set|[su]max|[su]min)|swpp?|casp?)(a|l|al)?[bh]?|ldlar[bh]?|stllr[bh]?)$"
    ),
    "a checksum or cryptography": re.compile(r"(crc32|aes|sha(1|256|512)|rax1|bcax|eor3|xar|sm[34]|pmull2?$)"),
    "an instruction of Armv8.1 to 8.6": re.compile(
        r"(sqrdml[as]h|fml[as]l2?$|fcmla|fcadd|fjcvtzs|ldapu?r|stlur|rmif|setf(8|16)|cfinv|[xa]xflag|frint(32|64)|"
        r"(b|bl)ra[ab]z?$|e?reta[ab]$|ldra[ab]|pac[id][ab]z?$|aut[id][ab]z?$|xpac[id]|sb$|bf(dot|mmla|mlal|cvt)|"
        r"irg|gmi|addg|subg|subp|st2?z?g$|stgp|ldg)"
    ),
    "an instruction of Armv9": re.compile(
        r"(ptrue|while|rdvl|addvl|addpl|[su]?q?(inc|dec)[bhwdp]|cnt[bhwd]$|smst|rdsvl|cpyf?[pme]|set[gpme]|wfet|wfit)"
    ),
}
_SVE = re.compile(r"\b(z\d+|p\d+)(\.|/)")
# Arithmetic on half precision; conversions from and to it are Armv8.0's.
_FP16 = re.compile(r"\b(v\d+\.[48]h|h\d+)\b")
_FLOAT = re.compile(r"(f(?!cvt[lnx]?2?$)|[su]cvtf)")
_GENERAL = re.compile(r"[wx](\d+|zr)\b")


def arm64_fault(level: str, instruction: Instruction) -> str | None:
    """As x86_fault, for 64-bit Arm."""
    rank = _ARM64_LEVELS.index(level)
    mnemonic, operands = instruction.mnemonic, instruction.operands
    if mnemonic in {".inst", "udf"} or "undefined" in operands:
        return "unknown"
    if _DOT.match(mnemonic) and rank < _ARM64_LEVELS.index("arm64_neondot"):
        return "a dot product"
    if _I8MM.match(mnemonic) and rank < _ARM64_LEVELS.index("arm64_neoni8mm"):
        return "i8mm"
    if _SVE.search(operands):
        return "SVE"
    if _FLOAT.match(mnemonic) and _FP16.search(operands):
        return "half-precision arithmetic"
    if mnemonic in {"abs", "cnt", "ctz", "smax", "smin", "umax", "umin"} and _GENERAL.match(operands):
        return "an instruction of Armv8.9"
    for reason, pattern in _ARM64_NEVER.items():
        if pattern.match(mnemonic):
            if mnemonic.startswith("pmull") and "1q" not in operands:
                continue  # of bytes: Armv8.0
            return reason
    return None


# 32-bit Arm: Armv7-A with VFPv3. Division of integers, VFPv4 (fused multiply-adds, half precision) and Armv8 are beyond
# it; plain files get neither NEON nor the registers d16 to d31, which not every such CPU has.
_ARM_LEVELS = ("", "arm_neon")
_CONDITION = r"(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al)?"
_ARM_NEVER = {
    "a division": re.compile(rf"[su]div{_CONDITION}(\.w)?$"),
    "VFPv4": re.compile(rf"(vfn?m[as]{_CONDITION}\.|vcvt[bt]{_CONDITION}\.|v\w+\.f16|vcvt{_CONDITION}\.f32\.f16)"),
    "an instruction of Armv8": re.compile(
        rf"(vrint|vcvt[anpm]\.|vmaxnm|vminnm|vsel|(lda|stl)(ex)?[bhd]?{_CONDITION}(\.w)?$|crc32|aes|sha(1|256)|sevl|hlt|"
        r"v[su]dot|vu?s?mmla|vusdot|vsudot|vins|vmovx|vjcvt|vcmla|vcadd|vqrdml[as]h|vfm[as]l|v(dot|mmla|fmab|fmat|cvt)\.bf16)"
    ),
}
_NEON = re.compile(
    r"(v(ld|st)[1-4]\.|v\w+\.(8|16|64|[isup](8|16|64)|i32)$|"
    r"v(ext|tbl|tbx|trn|zip|uzp|swp|dup|and|orr|orn|eor|bic|mvn|bsl|bit|bif)\b)"
)
_VFP_REGISTERS = re.compile(r"(\bq\d+\b|\bd(1[6-9]|2\d|3[01])\b)")


def arm_fault(level: str, instruction: Instruction) -> str | None:
    """As x86_fault, for 32-bit Arm."""
    mnemonic, operands = instruction.mnemonic, instruction.operands
    if mnemonic.startswith("."):
        return None  # data between functions
    if "UNDEFINED" in operands or mnemonic.startswith("udf"):
        return "unknown"
    for reason, pattern in _ARM_NEVER.items():
        if pattern.match(mnemonic):
            return reason
    if level == "" and mnemonic.startswith("v"):
        single = mnemonic.endswith(".f32") and ".f64" not in mnemonic and re.search(r"\bd\d+\b", operands)
        if _NEON.match(mnemonic) or _VFP_REGISTERS.search(operands) or single:
            return "NEON"
    return None


class Architecture(NamedTuple):
    """What binds an architecture's files: its levels, lowest first, and what is a fault in one."""

    levels: tuple[str, ...]
    fault: Callable[[str, Instruction], str | None]


_ARCHITECTURES = {
    "elf64-x86-64": Architecture(_X86_LEVELS, x86_fault),
    "elf64-littleaarch64": Architecture(_ARM64_LEVELS, arm64_fault),
    "elf32-littlearm": Architecture(_ARM_LEVELS, arm_fault),
}
_ALL_LEVELS = tuple(dict.fromkeys(level for it in _ARCHITECTURES.values() for level in it.levels))


def level_of(path: Path) -> str:
    """The level that a file is named after, or "" for a plain one."""
    name = path.name.split(".")[0]
    return name if re.match(r"(x86|arm|arm64)_", name) else ""


def check_object(objdump: str, path: Path) -> list[str]:
    """The faults of one object file, at most a few; instructions are counted on standard output."""
    where = f"{path.parent.name}/{path.name}"
    listing = _run(objdump, "-d", "--insn-width=16", path)
    found = re.search(r"file format (\S+)", listing)
    architecture = _ARCHITECTURES.get(found[1]) if found else None
    level = level_of(path)
    if architecture is None or level not in architecture.levels:
        return [f"{where}: no level of {found[1] if found else 'an unknown format'}"]
    faults: list[str] = []
    count = 0
    for line in listing.splitlines():
        columns = line.split("\t")
        if len(columns) < 3:
            continue
        words = [word for word in " ".join(columns[2:]).split() if not word.startswith("{")]
        if not words:
            continue
        count += 1
        # Notes of the disassembler follow a sign that begins a comment.
        operands = " ".join(words[1:]).partition(" //")[0].partition(" @ ")[0]
        reason = architecture.fault(level, Instruction(columns[1].split(), words[0], operands))
        if reason is not None and len(faults) < 5:
            faults.append(f"{where}: {' '.join(words)}: {reason}")
    if level:
        for line in _run(objdump, "-t", path).splitlines():
            # The flags of a symbol follow its value: w for weak, F for a function.
            symbol = re.match(r"[0-9a-f]{8,16} (.{7}) .*\s(\S+)$", line)
            if symbol and "w" in symbol[1] and "F" in symbol[1]:
                faults.append(f"{where}: {symbol[2]} is weak: another level may get it")
        # What a family has for 64 bits alone leaves an empty file on 32.
        if count == 0 and not path.name.startswith("arm_neon"):
            faults.append(f"{where}: no instructions")
    print(f"{where}: {count} instructions")
    return faults


def _run(objdump: str, *arguments: str | Path) -> str:
    command = [objdump, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(objdump: str, paths: list[str]) -> int:
    """Checks all files; 1 when one has a fault."""
    faults = [fault for path in paths for fault in check_object(objdump, Path(path))]
    for text in faults:
        print(f"FAIL {text}", file=sys.stderr)
    levels = {level_of(Path(path)) for path in paths}
    print("levels:", ", ".join(level or "plain" for level in _ALL_LEVELS if level in levels))
    return 1 if faults or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
