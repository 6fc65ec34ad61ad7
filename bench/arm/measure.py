"""Counts a network on a core everywhere, and finds edgeq's inner loops in its profiles."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.arm import contenders, guest, loops
from bench.arm.contenders import PEERS, Runner
from bench.arm.cores import Core
from bench.arm.counting import CountingError
from bench.arm.elf import Program
from bench.store import PreparationError
from edgeq.device.runners import read_runner
from edgeq.errors import UsageError

_ROOT = Path(__file__).parents[2]
_BUILD_SECONDS = 1800

SYSROOT = Path("/usr/aarch64-linux-gnu")
"""Where Debian's cross compiler keeps the libraries of what it builds."""

SCHEMES = ("w8a8", "w4a8")


def runner(path: Path | None = None, sysroot: Path = SYSROOT) -> Runner:
    """Returns the runner that is counted.

    Args:
        path: An edgeq-runner for aarch64, such as `edgeq cross --target linux-aarch64` makes; None to build the preset
            aarch64, with GCC's cross compiler.
        sysroot: Where one that is not static finds its libraries.

    Raises:
        CountingError: If it cannot be built, or runs on something else.
    """
    if path is None:
        path = _built()
    try:
        found = read_runner(path)
    except UsageError as error:
        raise CountingError(str(error)) from None
    if found.abi != "aarch64":
        raise CountingError(f"{path}: runs on {found.abi}, but counted are cores of aarch64")
    return Runner(path.absolute(), Program(path).compiler, None if found.static else sysroot)


@functools.cache
def _built() -> Path:
    if shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("cmake") is None:
        raise CountingError(
            "the cross compiler is missing: apt-get install g++-aarch64-linux-gnu, pip install cmake ninja; or name a "
            "runner for aarch64 with --arm-runner"
        )
    commands = [["cmake", "--preset", "aarch64"], ["cmake", "--build", "build/aarch64", "--target", "edgeq-runner"]]
    for command in commands:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=dict(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
        if done.returncode:
            raise CountingError(f"{' '.join(command)} failed: {(done.stdout + done.stderr).strip()[-500:]}")
    return _ROOT / "build" / "aarch64" / "csrc" / "runner" / "edgeq-runner"


def measure(runner: Runner, network: str, core: Core, *, with_peers: bool) -> dict[str, Any]:
    """Counts a network on a core.

    Returns:
        JSON values: network, core, compiler, bar, bar_narrow, entries by contender (total and classes, instructions of
        an inference; version), problems by contender, best (the peer with the fewest instructions) and loops: what
        `_loops` gives, or the sentence that says why not.
    """
    entries: dict[str, Any] = {}
    problems: dict[str, str] = {}
    inner: dict[str, Any] = {}
    program = Program(runner.path)
    for scheme in SCHEMES:
        name = f"edgeq {scheme}"
        try:
            found = contenders.count_edgeq(runner, network, scheme, core)
        except (CountingError, PreparationError) as error:
            problems[name] = str(error)
            continue
        entries[name] = {"total": found["total"], "classes": found["classes"], "version": runner.compiler}
        try:
            inner[scheme] = _loops(program, found, core)
        except CountingError as error:
            problems[f"inner loops of {scheme}"] = str(error)
    for peer in PEERS if with_peers else ():
        try:
            found = contenders.count_peer(peer, network, core)
            version = guest.versions()[peer.package]
            entries[peer.name] = {"total": found["total"], "classes": found["classes"], "version": version}
        except (CountingError, PreparationError) as error:
            problems[peer.name] = str(error)
    peers = [peer.name for peer in PEERS if peer.name in entries]
    return {
        "network": network,
        "core": core.name,
        "compiler": runner.compiler,
        "bar": core.bar,
        "bar_narrow": core.bar_narrow,
        "entries": entries,
        "problems": problems,
        "best": min(peers, key=lambda name: float(entries[name]["total"])) if peers else None,
        "loops": inner,
    }


def _loops(program: Program, counted: dict[str, Any], core: Core) -> list[dict[str, Any]]:
    """The inner loops of an inference, the hottest first, with llvm-mca's cycles on cores of the same level."""
    isa = loops.ISA_OF[core.name]
    return [
        {
            "function": loop.function,
            "share": len(loop.words) * loop.executions / counted["total"],
            "instructions": len(loop.words),
            "products": loop.products,
            "macs": loop.macs,
            "isa": isa,
            "cycles": {model.core: loops.cycles(loop.words, model.cpu) for model in loops.MODELS if model.isa == isa},
        }
        for loop in loops.hot_loops(program, counted["blocks"], counted["total"])
    ]
