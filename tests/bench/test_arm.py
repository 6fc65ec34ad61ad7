"""Counting on emulated Arm cores: what an instruction is, where a loop is, counts that repeat to the instruction."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeq
from bench import report, store
from bench.arm import counting, elf, loops, measure, tables
from bench.arm.contenders import Runner
from bench.arm.cores import CORES, core
from bench.arm.counting import CountingError, Profile

ROOT = Path(__file__).parents[2]

# Assembled by GNU as 2.40: instruction, word, class, multiply-accumulates.
INSTRUCTIONS = (
    ("smlal v0.8h, v1.8b, v2.8b", 0x0E228020, "multiply", 8),
    ("smlal2 v0.8h, v1.16b, v2.16b", 0x4E228020, "multiply", 8),
    ("smull v0.8h, v1.8b, v2.8b", 0x0E22C020, "multiply", 8),
    ("umull2 v0.4s, v1.8h, v2.8h", 0x6E62C020, "multiply", 4),
    ("smlal v0.4s, v1.4h, v2.h[3]", 0x0F722020, "multiply", 4),
    ("mla v0.8h, v1.8h, v2.8h", 0x4E629420, "multiply", 8),
    ("mul v0.4s, v1.4s, v2.4s", 0x4EA29C20, "multiply", 4),
    ("mla v0.8h, v1.8h, v2.h[1]", 0x6F520020, "multiply", 8),
    ("sqrdmulh v0.4s, v1.4s, v2.4s", 0x6EA2B420, "multiply", 0),
    ("sqdmulh v0.4s, v1.4s, v2.s[0]", 0x4F82C020, "multiply", 0),
    ("sdot v0.4s, v1.16b, v2.16b", 0x4E829420, "multiply", 16),
    ("sdot v0.2s, v1.8b, v2.8b", 0x0E829420, "multiply", 8),
    ("sdot v0.4s, v1.16b, v2.4b[2]", 0x4F82E820, "multiply", 16),
    ("usdot v0.4s, v1.16b, v2.16b", 0x4E829C20, "multiply", 16),
    ("sudot v0.4s, v1.16b, v2.4b[1]", 0x4F22F020, "multiply", 16),
    ("smmla v0.4s, v1.16b, v2.16b", 0x4E82A420, "multiply", 32),
    ("usmmla v0.4s, v1.16b, v2.16b", 0x4E82AC20, "multiply", 32),
    ("sadalp v0.4s, v1.8h", 0x4E606820, "vector", 0),
    ("add v0.4s, v1.4s, v2.4s", 0x4EA28420, "vector", 0),
    ("fmla v0.4s, v1.4s, v2.4s", 0x4E22CC20, "vector", 0),
    ("fmla v0.4s, v1.4s, v2.s[1]", 0x4FA21020, "vector", 0),
    ("fadd s0, s1, s2", 0x1E222820, "vector", 0),
    ("pmull v0.8h, v1.8b, v2.8b", 0x0E22E020, "vector", 0),
    ("ldr q0, [x1, #16]", 0x3DC00420, "vector load", 0),
    ("str q0, [x1], #16", 0x3C810420, "vector store", 0),
    ("ldr d0, [x1]", 0xFD400020, "vector load", 0),
    ("ldp q0, q1, [x2]", 0xAD400440, "vector load", 0),
    ("stp q0, q1, [x2], #32", 0xAC810440, "vector store", 0),
    ("ld1 {v0.16b, v1.16b}, [x0], #32", 0x4CDFA000, "vector load", 0),
    ("st1 {v0.16b}, [x0]", 0x4C007000, "vector store", 0),
    ("ld1r {v0.4s}, [x3]", 0x4D40C860, "vector load", 0),
    ("ldr x0, [x1]", 0xF9400020, "load", 0),
    ("ldrsb w0, [x1]", 0x39C00020, "load", 0),
    ("ldrsw x0, [x1, x2]", 0xB8A26820, "load", 0),
    ("str w0, [x1, #4]", 0xB9000420, "store", 0),
    ("ldp x29, x30, [sp], #16", 0xA8C17BFD, "load", 0),
    ("stp x29, x30, [sp, #-16]!", 0xA9BF7BFD, "store", 0),
    ("ldr x0, .", 0x58000000, "load", 0),
    ("ldr q0, .", 0x9C000000, "vector load", 0),
    ("ldxr w0, [x1]", 0x885F7C20, "load", 0),
    ("stxr w2, w0, [x1]", 0x88027C20, "store", 0),
    ("b.ne .", 0x54000001, "branch", 0),
    ("cbnz x0, .", 0xB5000000, "branch", 0),
    ("ret", 0xD65F03C0, "branch", 0),
    ("bl .", 0x94000000, "branch", 0),
    ("add x0, x1, x2", 0x8B020020, "scalar", 0),
    ("madd x0, x1, x2, x3", 0x9B020C20, "scalar", 0),
    ("movi v0.4s, #0", 0x4F000400, "vector", 0),
    ("mov w0, v1.s[2]", 0x0E143C20, "vector", 0),
)


@pytest.mark.parametrize(("text", "word", "kind", "macs"), INSTRUCTIONS, ids=[one[0] for one in INSTRUCTIONS])
def test_an_instruction_has_its_class_and_products(text: str, word: int, kind: str, macs: int) -> None:
    assert counting.classify(word) == kind
    assert loops.macs_of(word) == macs


def test_every_class_is_in_a_column_and_sums_are_kept() -> None:
    words = {word: 3.0 * (place + 1) for place, (_, word, _, _) in enumerate(INSTRUCTIONS)}
    found = counting.classes(words)
    assert set(found) == set(counting.CLASSES)
    assert sum(found.values()) == sum(words.values())


def test_what_one_inference_has_is_the_difference_of_two_runs() -> None:
    start, body, end = (0x1000, (1, 2, 3)), (0x2000, (4, 5)), (0x3000, (6,))
    runs = []

    def run(times: int) -> Profile:
        runs.append(times)
        return Profile({start: 1, body: 10 * times, end: 1})

    one = counting.per_inference(run, 2, 3)
    assert runs == [2, 5]
    assert one.executions == {body: 10}
    assert one.total == 20
    assert one.words() == {4: 10, 5: 10}


def test_an_exact_count_needs_a_third_run_to_agree() -> None:
    start, body, redrawn = (0x1000, (1, 2, 3)), (0x2000, (4, 5)), (0x3000, (6,))
    extra = iter((0, 1, 0, 0, 0, 0))

    def run(times: int) -> Profile:
        return Profile({start: 1, body: 10 * times, redrawn: next(extra)})

    assert counting.exact_inference(run).executions == {body: 10}
    assert next(extra, None) is None
    grows = iter(range(0, 1000, 7))
    with pytest.raises(CountingError, match="a third image"):
        counting.exact_inference(lambda times: Profile({body: next(grows) ** 2}))


def test_a_profile_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "blocks.txt"
    path.write_text("vcpus 2\n1000 7 0e228020d65f03c0\n2000 1 d65f03c0\n")
    found = counting.read(path)
    assert found.executions == {(0x1000, (0x0E228020, 0xD65F03C0)): 7, (0x2000, (0xD65F03C0,)): 1}
    assert (found.threads, found.total) == (2, 15)


@pytest.fixture
def other_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on the path, for a program named qemu-aarch64; the store is empty."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(tmp_path / "store"))
    counting.plugin.cache_clear()
    return tools


def test_a_qemu_without_plugins_is_named(other_qemu: Path) -> None:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("a C compiler is missing: apt-get install gcc")
    (other_qemu / "qemu-aarch64").write_text("#!/bin/sh\necho \"qemu: unknown option 'plugin'\" >&2\nexit 1\n")
    (other_qemu / "qemu-aarch64").chmod(0o755)
    with pytest.raises(CountingError, match=r"unknown option 'plugin'.*qemu-user 7\.2 of Debian 12"):
        counting.executed(["/bin/true"], core("cortex-a76"))
    counting.plugin.cache_clear()


def test_what_is_missing_is_named(other_qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(other_qemu))
    with pytest.raises(CountingError, match="qemu-aarch64 is missing: install qemu-user"):
        counting.plugin()
    (other_qemu / "qemu-aarch64").write_text("")
    (other_qemu / "qemu-aarch64").chmod(0o755)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CountingError, match="a C compiler is missing"):
        counting.plugin()


class _Program:
    """A function at 0x100 with a loop of five instructions from 0x108 on, cut in two by the end of a page at 0x110."""

    text_address = 0x100
    code = (0x8B020020, 0x8B020020, 0x4E829420, 0x4E829420, 0xF1000421, 0x8B020020, 0x54FFFF81, 0xD65F03C0)
    text = b"".join(word.to_bytes(4, "little") for word in code)
    functions = (elf.Function("kernel", 0x100, 32),)

    def function_at(self, address: int) -> elf.Function | None:
        return self.functions[0] if 0x100 <= address < 0x120 else None

    def words(self, begin: int, end: int) -> tuple[int, ...]:
        return self.code[(begin - 0x100) // 4 : (end - 0x100) // 4]


def test_a_loop_is_found_though_a_page_cuts_it() -> None:
    program, base = _Program(), 0x5500000000
    whole = program.code
    blocks = [
        [base + 0x108, 1000.0, list(whole[2:4])],
        [base + 0x110, 1000.0, list(whole[4:7])],
        [base + 0x11C, 1.0, list(whole[7:])],
    ]
    (found,) = loops.hot_loops(program, blocks, 5001)  # type: ignore[arg-type]
    assert found == loops.Loop("kernel", whole[2:7], 1000.0)
    assert (found.macs, found.products) == (32, 2)
    assert loops.hot_loops(program, blocks, 1e9) == []  # type: ignore[arg-type]


def test_names_lose_name_spaces_and_arguments() -> None:
    name = "void edgeq::(anonymous namespace)::run_tiles<edgeq::(anonymous namespace)::NeonDot, 6>(edgeq::P const&)"
    assert elf.short_name(name) == "run_tiles<NeonDot, 6>"
    assert elf.short_name("edgeq::gemm_s8s8c_s8_6x16x4_neondot(edgeq::GemmParams const&)") == (
        "gemm_s8s8c_s8_6x16x4_neondot"
    )


def test_tables_say_which_bars_hold() -> None:
    def entry(millions: float) -> dict[str, object]:
        return {"total": millions * 1e6, "classes": dict.fromkeys(counting.CLASSES, millions / 8 * 1e6), "version": "1"}

    one = {
        "network": "net",
        "core": "cortex-a76",
        "bar": 0.65,
        "bar_narrow": 1.1,
        "entries": {"edgeq w8a8": entry(30), "edgeq w4a8": entry(36), "LiteRT": entry(50), "MNN": entry(60)},
        "problems": {"ncnn": "it failed"},
        "best": "LiteRT",
        "loops": {},
    }
    assert "| 30.00 | LiteRT: 50.00 | **0.600** | 0.65 | 36.00 | 1.200 | 1.1 |" in tables.summary([one])
    assert "| MNN | 60.00 | 7.50 | 7.50 | 15.00 | 15.00 | 15.00 |" in tables.classes([one])
    assert "it failed" in tables.classes([one])
    page = report.ARM_PAGE.read_text(encoding="utf-8")
    for name in ("versions", "summary", "classes", "inner loops"):
        assert f"<!-- table: {name} -->" in page


@pytest.fixture(scope="module")
def runner() -> Runner:
    """A runner for aarch64 that is built already, and a qemu that can count it."""
    try:
        counting.plugin.cache_clear()
        counting.plugin()
    except CountingError as error:
        pytest.skip(str(error))
    for build in ("aarch64-static", "aarch64"):
        path = ROOT / "build" / build / "csrc" / "runner" / "edgeq-runner"
        if path.is_file():
            return measure.runner(path)
    pytest.skip("no runner for 64-bit Arm is built: cmake --preset aarch64 && cmake --build build/aarch64")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo at W8A8."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    edgeq.export(bits="w8a8", calibration="digits", out=folder, to="edgeq")
    return folder / "model.edgeq"


def test_an_inference_counts_the_same_to_the_instruction(runner: Runner, demo: Path, tmp_path: Path) -> None:
    one_core = CORES[2]

    def run(times: int) -> Profile:
        np.save(tmp_path / "in.npy", np.zeros((times, 1, 8, 8), np.float32))
        files = ["--input", tmp_path / "in.npy", "--output", tmp_path / "out.npy"]
        command = [runner.path, "run", demo, *files, "--batch", "1", "--threads", "1"]
        return counting.executed(command, one_core, runner.sysroot)

    one = counting.exact_inference(run)
    assert counting.exact_inference(run) == one
    assert one.threads == 1
    found = counting.classes(one.words())
    assert sum(found.values()) == one.total > 1000
    assert found["multiply"] > 0
    assert one.total < run(1).total
    assert runner.compiler.startswith(("GCC", "clang", "unknown"))
