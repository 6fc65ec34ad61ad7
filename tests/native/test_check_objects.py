"""The rules of csrc/tests/check_objects.py: what no object file of a level may hold, and what each of them may."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "csrc" / "tests" / "check_objects.py"


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_objects", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fault(rules: ModuleType, architecture: str, level: str, text: str, code: str = "") -> str | None:
    mnemonic, _, operands = text.partition(" ")
    instruction = rules.Instruction(code.split(), mnemonic, operands)
    result: str | None = getattr(rules, f"{architecture}_fault")(level, instruction)
    return result


_ARM64_NEVER = [
    "ldadd w0, w1, [x2]", "ldaddal x0, x1, [x2]", "stadd w0, [x2]", "swpalb w0, w1, [x2]", "casal w0, w1, [x2]",
    "casp w0, w1, w2, w3, [x4]", "ldsmaxh w0, w1, [x2]", "sqrdmlah v0.8h, v1.8h, v2.8h", "crc32b w0, w1, w2",
    "aese v0.16b, v1.16b", "pmull v0.1q, v1.1d, v2.1d", "fadd v0.8h, v1.8h, v2.8h", "fmul h0, h1, h2",
    "scvtf h0, w1", "fcvtns v0.8h, v1.8h", "fmlal v0.4s, v1.4h, v2.4h", "bfdot v0.4s, v1.8h, v2.8h",
    "bfcvtn v0.4h, v1.4s", "ldaprb w0, [x1]", "fjcvtzs w0, d1", "retaa", "add z0.s, z1.s, z2.s", "ptrue p0.s",
    "ld1w {z0.s}, p0/z, [x0]", "cntb x0", "smax w0, w1, w2", "stg x0, [x1]", ".inst 0x00000001 ; undefined",
]  # fmt: skip
_ARM64_BASELINE = [
    "ldaxr x0, [x1]", "stlxr w0, x1, [x2]", "ldar w0, [x1]", "stlr w0, [x1]", "smlal2 v0.8h, v1.16b, v2.16b",
    "sadalp v0.4s, v1.8h", "fcvtns v0.4s, v1.4s", "fcvtn v0.4h, v1.4s", "fcvtl v0.4s, v1.4h", "sqxtn v0.8b, v1.8h",
    "smax v0.4s, v1.4s, v2.4s", "pmull v0.8h, v1.8b, v2.8b", "cnt v0.8b, v1.8b", "tbx v0.16b, {v1.16b}, v2.16b",
    "bti c", "paciasp", "stp x0, x1, [sp]", "sub w0, w1, w2", "fmla v0.4s, v1.4s, v2.4s",
]  # fmt: skip
_ARM_NEVER = [
    "vfma.f32 q0, q1, q2", "vfnms.f64 d0, d1, d2", "sdiv r0, r1, r2", "udivne r0, r1, r2", "vcvtb.f32.f16 s0, s1",
    "vcvtn.s32.f32 q0, q1", "vcvta.s32.f32 s0, s1", "vrintn.f32 q0, q1", "vmaxnm.f32 q0, q1, q2",
    "vseleq.f32 s0, s1, s2", "lda r0, [r1]", "ldaex r0, [r1]", "stlexd r0, r1, r2, [r3]", "stlb r0, [r1]",
    "vsdot.s8 q0, q1, q2", "crc32b r0, r1, r2", "aese.8 q0, q1", "sevl",
]  # fmt: skip
_ARM_NEON = [
    "vadd.f32 d0, d1, d2", "vmul.f32 q0, q1, q2", "vld1.8 {d0}, [r0]", "vst1.64 {d0-d1}, [r0]", "vdup.32 d0, r0",
    "vorr d0, d1, d2", "vmov.i32 d0, #0", "vmovl.s16 q0, d1", "vmov.u16 r0, d0[1]", "vldr d17, [r0]",
]  # fmt: skip
_ARM_BASELINE = [
    "vadd.f32 s0, s1, s2", "vmla.f64 d0, d1, d2", "vcvt.f64.f32 d0, s1", "vcvt.s32.f32 s0, s1", "vldr d15, [r0]",
    "vmov.32 r0, d0[1]", "vpush {d8}", "ldm r0, {r1, r2}", "ldrexd r0, r1, [r2]", "stm r0, {r1}",
    "smull r0, r1, r2, r3", "dmb ish", ".word 0x00000001",
]  # fmt: skip


@pytest.mark.parametrize("text", _ARM64_NEVER)
@pytest.mark.parametrize("level", ["", "arm64_neoni8mm"])
def test_arm64_beyond_every_level(rules: ModuleType, level: str, text: str) -> None:
    assert _fault(rules, "arm64", level, text) is not None


@pytest.mark.parametrize("text", _ARM64_BASELINE)
def test_arm64_baseline(rules: ModuleType, text: str) -> None:
    assert _fault(rules, "arm64", "", text) is None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("sdot v0.4s, v1.16b, v2.16b", "arm64_neondot"),
        ("udot v0.4s, v1.16b, v2.4b[0]", "arm64_neondot"),
        ("smmla v0.4s, v1.16b, v2.16b", "arm64_neoni8mm"),
        ("usdot v0.4s, v1.16b, v2.16b", "arm64_neoni8mm"),
    ],
)
def test_arm64_levels(rules: ModuleType, text: str, first: str) -> None:
    levels = ["", "arm_neon", "arm64_neondot", "arm64_neoni8mm"]
    for level in levels:
        allowed = levels.index(level) >= levels.index(first)
        assert (_fault(rules, "arm64", level, text) is None) == allowed


@pytest.mark.parametrize("text", _ARM_NEVER)
@pytest.mark.parametrize("level", ["", "arm_neon"])
def test_arm_beyond_every_level(rules: ModuleType, level: str, text: str) -> None:
    assert _fault(rules, "arm", level, text) is not None


@pytest.mark.parametrize("text", _ARM_NEON)
def test_arm_neon_in_its_files_only(rules: ModuleType, text: str) -> None:
    assert _fault(rules, "arm", "", text) == "NEON"
    assert _fault(rules, "arm", "arm_neon", text) is None


@pytest.mark.parametrize("text", _ARM_BASELINE)
def test_arm_baseline(rules: ModuleType, text: str) -> None:
    assert _fault(rules, "arm", "", text) is None


@pytest.mark.parametrize(
    ("text", "code", "first"),
    [
        ("vpaddd %ymm0,%ymm1,%ymm2", "c5 f5 fe d0", "x86_avx2"),
        ("vpdpbusd %zmm0,%zmm1,%zmm2", "62 f2 75 48 50 d0", "x86_avx512vnni"),
        ("vpermb %zmm0,%zmm1,%zmm2", "62 f2 75 48 8d d0", "x86_avx512vbmi"),
        ("tdpbusd %tmm0,%tmm1,%tmm2", "c4 e2 79 5e d1", "x86_amxint8"),
    ],
)
def test_x86_levels(rules: ModuleType, text: str, code: str, first: str) -> None:
    levels = ["", "x86_avx2", "x86_avx512vnni", "x86_avx512vbmi", "x86_amxint8"]
    for level in levels:
        allowed = levels.index(level) >= levels.index(first)
        assert (_fault(rules, "x86", level, text, code) is None) == allowed


def test_file_names_name_levels(rules: ModuleType) -> None:
    assert rules.level_of(Path("gemm/arm64_neondot.cc.o")) == "arm64_neondot"
    assert rules.level_of(Path("gemm/x86_avx2.cc.o")) == "x86_avx2"
    assert rules.level_of(Path("gemm/reference.cc.o")) == ""
