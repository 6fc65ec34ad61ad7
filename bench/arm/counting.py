"""Runs a program under qemu-user with `count.c`, and tells what one inference of it executes."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import store
from bench.arm.cores import Core

QEMU = "qemu-aarch64"

SOURCE = Path(__file__).with_name("count.c")
"""The plugin."""

_SECONDS = 1800
_ATTEMPTS = 5

Block = tuple[int, tuple[int, ...]]
"""A block's address and its instruction words."""


class CountingError(Exception):
    """Instructions cannot be counted here, or this program's cannot; the message says why."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a program, or a part of it, executed.

    Attributes:
        executions: How often each block ran.
        threads: How many threads ran them.
    """

    executions: Mapping[Block, float]
    threads: int = 1

    @property
    def total(self) -> float:
        """Executed instructions."""
        return sum(times * len(words) for (_, words), times in self.executions.items())

    def words(self) -> dict[int, float]:
        """How often each instruction word was executed, wherever it lies."""
        found: dict[int, float] = {}
        for (_, block), times in self.executions.items():
            for word in block:
                found[word] = found.get(word, 0) + times
        return found

    def minus(self, other: Profile) -> Profile:
        """What this profile has beyond another one. Blocks that the other ran more often stay, negative."""
        left = dict(self.executions)
        for block, times in other.executions.items():
            left[block] = left.get(block, 0) - times
        return Profile({block: times for block, times in left.items() if times}, max(self.threads, other.threads))


CLASSES = ("multiply", "vector load", "vector store", "vector", "load", "store", "branch", "scalar")
"""The classes of A64 instructions: "multiply" are vector products of integers, "vector" the other vector operations."""


def classes(words: Mapping[int, float]) -> dict[str, float]:
    """Sums executions of instruction words by class."""
    found = dict.fromkeys(CLASSES, 0.0)
    for word, times in words.items():
        found[classify(word)] += times
    return found


def classify(word: int) -> str:
    """Returns an A64 instruction's class, by the encodings of the Arm Architecture Reference Manual (DDI 0487, C4.1).

    Operations on float registers are "vector", of one lane too, and so is SVE.
    """
    group = word >> 25 & 15
    if group & 5 == 4:
        return _load_or_store(word)
    if group & 7 == 7:
        return "multiply" if any(word & mask == value for mask, value in _PRODUCTS) else "vector"
    if group == 2:
        return "vector"
    return "branch" if group & 14 == 10 else "scalar"


def _load_or_store(word: int) -> str:
    vector = bool(word >> 26 & 1)
    if word & 0x3B000000 == 0x18000000:  # A literal: it is always loaded.
        load = True
    elif word & 0x30000000 == 0x30000000:  # One register. opc 10 stores 128 bits, or loads and extends a sign.
        opc = word >> 22 & 3
        load = bool(opc & 1) if vector else opc != 0
    else:  # Pairs, several vectors, exclusives.
        load = bool(word >> 22 & 1)
    return ("vector " if vector else "") + ("load" if load else "store")


_PRODUCTS = (
    (0x9F20FC00, 0x0E208000),  # smlal, umlal
    (0x9F20FC00, 0x0E20A000),  # smlsl, umlsl
    (0x9F20FC00, 0x0E20C000),  # smull, umull
    (0xBF20FC00, 0x0E20D000),  # sqdmull
    (0x9F20FC00, 0x0E209400),  # mla, mls
    (0xBF20FC00, 0x0E209C00),  # mul
    (0x9F20FC00, 0x0E20B400),  # sqdmulh, sqrdmulh
    (0x9F20FC00, 0x0E009400),  # sdot, udot
    (0xBF20FC00, 0x0E009C00),  # usdot
    (0xDF20F400, 0x4E00A400),  # smmla, ummla, usmmla
    (0x9F00F400, 0x0F00E000),  # sdot, udot by a lane
    (0xBFC0F400, 0x0F80F000),  # usdot by a lane
    (0xBFC0F400, 0x0F00F000),  # sudot by a lane
    (0x9F00F400, 0x0F002000),  # smlal, umlal by a lane
    (0x9F00F400, 0x0F006000),  # smlsl, umlsl by a lane
    (0x9F00F400, 0x0F00A000),  # smull, umull by a lane
    (0xBF00F400, 0x0F00B000),  # sqdmull by a lane
    (0xBF00F400, 0x0F008000),  # mul by a lane
    (0xBF00F400, 0x2F000000),  # mla by a lane
    (0xBF00F400, 0x2F004000),  # mls by a lane
    (0xBF00E400, 0x0F00C000),  # sqdmulh, sqrdmulh by a lane
)
"""Mask and value of the vector products of integers (C4.1.96). Bit 30, the vectors' length, is open; so is bit 29 where
signed and unsigned products, or sums and differences of them, share the rest."""


@functools.cache
def plugin() -> Path:
    """Returns the plugin, compiled by the host's C compiler.

    Raises:
        CountingError: If there is no compiler, or no qemu.
    """
    if shutil.which(QEMU) is None:
        raise CountingError(f"{QEMU} is missing: install qemu-user (of Debian 12; qemu 7.2 has plugins)")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise CountingError("a C compiler is missing, which makes the plugin that counts: install gcc")
    command = [*compiler.split(), "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-shared"]

    def make(folder: Path) -> None:
        done = subprocess.run(
            [*command, "-fPIC", "-o", str(folder / "count.so"), str(SOURCE)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise store.PreparationError(f"{compiler} cannot compile {SOURCE.name}: {done.stderr.strip()}")

    try:
        return store.entry("arm.plugin", store.digest(SOURCE, *command), make) / "count.so"
    except store.PreparationError as error:
        raise CountingError(str(error)) from None


def executed(
    command: Sequence[str | Path], core: Core, sysroot: Path | None = None, environment: Mapping[str, str] | None = None
) -> Profile:
    """Runs an aarch64 program to its end under qemu, and returns what it executed: exactly if it has one thread.

    Args:
        command: The program and its arguments, with absolute paths: it runs in a folder of its own.
        core: Which CPU.
        sysroot: Where a dynamic program finds its libraries.
        environment: All variables that the program sees; none without it.

    Raises:
        CountingError: If qemu has no plugins, or the program fails.
    """
    library = plugin()
    with tempfile.TemporaryDirectory(prefix="edgeq-count-") as scratch:
        # qemu splits the plugin's argument at commas, which paths may have; relative ones have none.
        shutil.copyfile(library, Path(scratch) / "count.so")
        emulator = [QEMU, "-cpu", core.qemu, "-plugin", "./count.so,out=blocks.txt"]
        if sysroot is not None:
            emulator += ["-L", str(sysroot)]
        # Addresses are the same in every run, so that profiles can be subtracted block by block.
        fixed = ["setarch", "-R"] if _can_fix_addresses() else []
        try:
            done = subprocess.run(
                [*fixed, *emulator, *map(str, command)],
                cwd=scratch,
                env={"PATH": os.environ.get("PATH", ""), **(environment or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CountingError(f"{command[0]} did not end within {_SECONDS} s under {core.name}") from None
        blocks = Path(scratch) / "blocks.txt"
        if not blocks.is_file():
            why = _last_line(done.stderr)
            raise CountingError(
                f"{QEMU} does not load the counting plugin ({why}): plugins need the dynamically linked qemu-user 7.2 "
                "of Debian 12; qemu-user-static and the qemu-user 10 of Debian 13 are built without them"
            )
        if done.returncode:
            raise CountingError(
                f"{command[0]} ended with {done.returncode} under {core.name}: {_last_line(done.stderr)}"
            )
        return read(blocks)


def read(path: Path) -> Profile:
    """Reads what the plugin wrote."""
    found: Counter[Block] = Counter()
    with path.open(encoding="ascii") as stream:
        threads = int(next(stream).removeprefix("vcpus "))
        for line in stream:
            address, times, words = line.split()
            block = tuple(int(words[start : start + 8], 16) for start in range(0, len(words), 8))
            found[int(address, 16), block] += int(times)
    return Profile(found, threads)


def per_inference(run: Callable[[int], Profile], few: int = 1, more: int = 1) -> Profile:
    """Returns what one inference executes: a run with `few + more` images without what a run with `few` has.

    Args:
        run: Runs a program with so many images.
        few: Images of the shorter run, at least 1: the first inference may prepare what later ones find.
        more: By how many images the longer run is longer; the profile is that of all of them, divided.
    """
    short = run(few)
    both = run(few + more).minus(short)
    return Profile({block: times / more for block, times in both.executions.items()}, both.threads)


def exact_inference(run: Callable[[int], Profile]) -> Profile:
    """Returns what one inference executes, to the instruction: what runs with one, two and three images differ by.

    A run may start with a few instructions more than another one: the C library draws the name of a scratch file at
    random, and draws again where the first draw would favour some names. Runs are repeated where that shows.

    Raises:
        CountingError: If the runs never differ by the same.
    """
    for _ in range(_ATTEMPTS):
        first, second, third = run(1), run(2), run(3)
        one = second.minus(first)
        if third.minus(second) == one:
            return one
    raise CountingError(f"{_ATTEMPTS} times, a third image did not take the instructions that a second one did")


@functools.cache
def _can_fix_addresses() -> bool:
    if shutil.which("setarch") is None:
        return False
    return subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False).returncode == 0


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
