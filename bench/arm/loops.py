"""The inner loops that a profile finds: instructions per multiply-accumulate, and llvm-mca's cycles on real cores."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.arm.counting import CountingError, classify
from bench.arm.elf import Program

FAMILIES = re.compile(r"gemm|depthwise|run_tiles|tile|panel|winograd|run<", re.IGNORECASE)

_LEAST_SHARE = 0.02
"""Loops with less of an inference's instructions than this are left out."""

_ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class Model:
    """A core as llvm-mca models it.

    Attributes:
        core: What it stands for, in tables.
        cpu: What `-mcpu` takes.
        pipes: 128-bit multiply instructions that it starts in a cycle at best.
        isa: The highest of edgeq's levels that the core has.
    """

    core: str
    cpu: str
    pipes: float
    isa: str


MODELS = (
    Model("A53", "cortex-a53", 1, "neon"),
    Model("A72 (A57's tables)", "cortex-a72", 1, "neon"),
    Model("A55", "cortex-a55", 1, "neondot"),
    Model("A76 (neoverse-n1)", "neoverse-n1", 2, "neondot"),
    Model("A510", "cortex-a510", 1, "neoni8mm"),
    Model("neoverse-v1", "neoverse-v1", 4, "neoni8mm"),
    Model("neoverse-n2", "neoverse-n2", 2, "neoni8mm"),
)
"""LLVM models cortex-a72 and cortex-a76 by the tables of cortex-a57; neoverse-n1 is the A76's sibling with its own.
Pipes are those of Arm's software optimization guides: A53, A55 and A510 multiply 128 bits a cycle, A72 in one
of its two pipes, A76 and N2 in two, V1 in four."""

ISA_OF = {"cortex-a53": "neon", "cortex-a72": "neon", "cortex-a76": "neondot", "max": "neoni8mm"}
"""The level of edgeq's kernels on the cores that are counted."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop without inner branches.

    Attributes:
        function: Where it is.
        words: Its instructions, the branch back last.
        executions: How often it ran in an inference.
    """

    function: str
    words: tuple[int, ...]
    executions: float

    @property
    def macs(self) -> int:
        """Multiply-accumulates of an iteration, by the lanes of its products."""
        return sum(map(macs_of, self.words))

    @property
    def products(self) -> int:
        """Multiply instructions of an iteration."""
        return sum(1 for word in self.words if macs_of(word))


def macs_of(word: int) -> int:
    """Multiply-accumulates of an instruction: 0 for what is no integer product, or rounds one (sqdmulh and others)."""
    if classify(word) != "multiply":
        return 0
    size, full = word >> 22 & 3, word >> 30 & 1
    by_lane = word >> 24 & 1
    opcode = word >> 12 & 15
    if by_lane:
        if opcode in (14, 15):
            return 8 << full
        if opcode in (11, 12, 13):
            return 0
        long = opcode in (2, 6, 10)
    elif not word >> 21 & 1:  # Dot products and matrix products.
        return 32 if word >> 13 & 7 == 5 else 8 << full
    else:
        if opcode in (11, 13):
            return 0
        long = not word >> 10 & 1
    # Long products take 64 bits of each operand, the lower half or, with Q, the upper one; others the whole register.
    lanes = 8 >> size
    return lanes if long else lanes << full


def hot_loops(program: Program, blocks: Sequence[Sequence[Any]], total: float) -> list[Loop]:
    """Returns the loops with products that take the most instructions, one a function, the hottest first.

    Args:
        program: What was counted.
        blocks: Its hottest blocks, each an address, executions and instruction words.
        total: Instructions of the whole inference.

    Raises:
        CountingError: If the program has no symbols.
    """
    if not program.functions:
        raise CountingError("the runner has no symbols, by which inner loops are named: take one that is not stripped")
    base = _load_address(program, blocks)
    found: dict[str, Loop] = {}
    for address, times, words in sorted(blocks, key=lambda block: -block[1] * len(block[2])):
        end = address - base + 4 * len(words)
        target = _backward_target(words[-1], end - 4)
        function = program.function_at(end - 4)
        if target is None or function is None or target < function.address:
            continue
        # qemu ends a block at a page's end too, so that a loop may be two blocks: the program has the whole of it.
        body = program.words(target, end)
        loop = Loop(function.name, body, times)
        straight = not any(_is_branch(word) for word in body[:-1])
        if straight and loop.macs and function.name not in found and len(body) * times >= _LEAST_SHARE * total:
            found[function.name] = loop
    return sorted(found.values(), key=lambda loop: -loop.executions * len(loop.words))


def _load_address(program: Program, blocks: Sequence[Sequence[Any]]) -> int:
    """Where the program was loaded: what most of the blocks agree on that lie in it once."""
    votes: dict[int, float] = {}
    for address, times, words in blocks[:200]:
        pattern = b"".join(word.to_bytes(4, "little") for word in words)
        offset = program.text.find(pattern)
        if offset >= 0 and program.text.find(pattern, offset + 4) < 0:
            base = address - (program.text_address + offset)
            if base % 4096 == 0:
                votes[base] = votes.get(base, 0) + times
    if not votes:
        raise CountingError("none of the counted blocks lies in the runner")
    return max(votes, key=lambda base: votes[base])


def _is_branch(word: int) -> bool:
    return word >> 25 & 14 == 10


def _backward_target(word: int, address: int) -> int | None:
    """Where an instruction branches to, when that is a condition's and lies before it."""
    if word & 0xFF000010 == 0x54000000 or word & 0x7E000000 == 0x34000000:  # b.cond; cbz, cbnz
        offset = _signed(word >> 5 & 0x7FFFF, 19)
    elif word & 0x7E000000 == 0x36000000:  # tbz, tbnz
        offset = _signed(word >> 5 & 0x3FFF, 14)
    else:
        return None
    return address + 4 * offset if offset < 0 else None


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


@functools.cache
def llvm_folder() -> Path:
    """Returns where llvm-mca and llvm-mc are: LLVM_BIN names it, else Debian's llvm-22 is looked for, then the path.

    Raises:
        CountingError: If they are missing.
    """
    named = os.environ.get("LLVM_BIN")
    places = [Path(named)] if named else [Path("/usr/lib/llvm-22/bin")]
    on_path = shutil.which("llvm-mca")
    if not named and on_path:
        places.append(Path(on_path).parent)
    for place in places:
        if (place / "llvm-mca").is_file() and (place / "llvm-mc").is_file():
            return place
    raise CountingError("llvm-mca is missing: install llvm-22, or name a folder that has it in LLVM_BIN")


@functools.cache
def cycles(words: tuple[int, ...], cpu: str) -> float:
    """Returns llvm-mca's cycles of an iteration of a loop, all loads hitting the first cache.

    Raises:
        CountingError: If llvm-mca is missing or refuses the loop.
    """
    folder = llvm_folder()
    # The branch back is one to the next instruction here: llvm-mca repeats the body by itself.
    code = "\n".join(" ".join(f"{byte:#04x}" for byte in word.to_bytes(4, "little")) for word in words)
    text = _run([folder / "llvm-mc", "--disassemble", "-triple=aarch64", "-mattr=+all"], code)
    command = [folder / "llvm-mca", "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm"]
    found = re.search(r"Total Cycles:\s+(\d+)", _run([*command, f"-iterations={_ITERATIONS}"], text))
    if found is None:
        raise CountingError(f"llvm-mca gave no cycles for {cpu}")
    return int(found[1]) / _ITERATIONS


def _run(command: Sequence[str | Path], text: str) -> str:
    done = subprocess.run([*map(str, command)], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CountingError(f"{command[0]} failed: {done.stderr.strip()[:300]}")
    return done.stdout
