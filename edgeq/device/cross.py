"""Builds edgeq-runner, and libedgeq, for other machines.

The sources are those of the checkout or, once installed, of the package itself. A build folder a compiler and
architecture stays in the user's cache, so that only what changed is compiled again. The results hold neither paths nor
dates: the same sources and compiler give the same bytes, wherever they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgeq
from edgeq.device.runners import read_runner
from edgeq.device.targets import Target, find_target
from edgeq.device.toolchain import Toolchain, find_program, find_toolchain
from edgeq.errors import BuildError, UsageError
from edgeq.outputs import whole_folder

RUNNER_FILE = "edgeq-runner"
MANIFEST_FILE = "edgeq-runner.json"
LIBRARY_FILES = ("libedgeq.so", "libedgeq.a", "edgeq.h", "example.c")

RUNNER_BYTES_MOST = 1_572_864
"""1.5 MiB: what the runner of any target may have."""

_FREE_BYTES_LEAST = 700_000_000
"""What Zig's libraries and a build take, the first time."""

_SHT_SYMTAB = 2

_KEPT_LINES = 6
"""Of a failed build's log, in the message."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CrossBuild:
    """What a cross build made.

    Attributes:
        target: For which machines.
        folder: Where the files are.
        manifest: The content of MANIFEST_FILE.
    """

    target: Target
    folder: Path
    manifest: dict[str, Any]

    @property
    def runner(self) -> Path:
        """The program."""
        return self.folder / RUNNER_FILE

    def summary(self) -> str:
        """A line a file."""
        files: dict[str, Any] = self.manifest["files"]
        rows = [
            f"{self.folder / name}: {entry['bytes']:,} bytes, sha256 {entry['sha256'][:16]}"
            for name, entry in files.items()
        ]
        return "\n".join(rows)


def cross_build(
    target: str,
    out: Path,
    *,
    toolchain: str = "zig",
    library: bool = False,
    jobs: int | None = None,
    progress: Progress = lambda text: None,
) -> CrossBuild:
    """Builds a static, stripped edgeq-runner for `target` into the folder `out`, with a manifest beside it.

    Args:
        target: A name of TARGETS.
        toolchain: zig, gcc, clang, ndk or a CMake toolchain file.
        library: Also libedgeq.so, libedgeq.a, the header edgeq.h and example.c.
        jobs: Compilers at once; as many as there are processors when None.
        progress: Is told what begins, in a few words.

    Raises:
        UsageError: If the target or tool chain is unknown, or one does not fit the other.
        BuildError: If a tool is missing, the disk is full or the sources do not compile.
    """
    chosen = find_target(target)
    sources = source_folder()
    cache = cache_folder()
    tools = find_toolchain(toolchain, chosen, sources, cache)
    if library and tools.library_definitions is None:
        raise BuildError(
            f"libedgeq for {chosen.name} needs Android's own C library: --toolchain ndk with ANDROID_NDK_HOME set; "
            "edgeq-runner alone needs none"
        )
    _require_space(cache)
    # Both builds end before anything is written to `out`.
    program = _Build(chosen, tools, sources, cache, library=False)
    program.make("edgeq-runner", jobs, progress)
    path = program.folder / "csrc" / "runner" / "edgeq-runner"
    _check_program(path, chosen)
    made = {RUNNER_FILE: path.read_bytes()}
    if library:
        shared = _Build(chosen, tools, sources, cache, library=True)
        shared.make("edgeq_library", jobs, progress)
        api = shared.folder / "csrc" / "api"
        made |= {"libedgeq.so": (api / "libedgeq.so").read_bytes(), "libedgeq.a": (api / "libedgeq.a").read_bytes()}
        made |= {name: (sources / "csrc" / "api" / name).read_bytes() for name in ("edgeq.h", "example.c")}
    manifest = _manifest(chosen, tools, program, made)
    with whole_folder(out, (RUNNER_FILE, MANIFEST_FILE, *LIBRARY_FILES)) as scratch:
        for name, content in made.items():
            (scratch / name).write_bytes(content)
            (scratch / name).chmod(0o755 if name in (RUNNER_FILE, "libedgeq.so") else 0o644)
        (scratch / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return CrossBuild(chosen, out, manifest)


def source_folder() -> Path:
    """The folder of CMakeLists.txt and csrc: a checkout's, else the installed package's.

    Raises:
        BuildError: If the package was installed without its sources.
    """
    package = Path(edgeq.__file__).resolve().parent
    for folder in (package.parent, package / "_source"):
        if (folder / "CMakeLists.txt").is_file() and (folder / "csrc" / "toolchains").is_dir():
            return folder
    raise BuildError(f"{package} holds no C++ sources, which a cross build compiles; install edgeq with pip")


def cache_folder() -> Path:
    """Where builds are kept: $XDG_CACHE_HOME/edgeq/cross, which may be removed at any time."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "edgeq" / "cross"


class _Build:
    """One build folder: a tool chain, an architecture, and a program or a library."""

    def __init__(self, target: Target, tools: Toolchain, sources: Path, cache: Path, *, library: bool) -> None:
        definitions = (tools.library_definitions or ()) if library else tools.definitions
        kind = "library" if library else "runner"
        self._library = library
        self._tools = tools
        self._sources = sources
        self._cache = cache
        # What must not change within a build folder is part of its name.
        key = hashlib.sha256(json.dumps([tools.version, definitions, str(sources)]).encode()).hexdigest()[:12]
        self.folder = cache / f"{target.abi}-{tools.name}-{kind}-{key}"
        self._definitions = (
            *definitions,
            "-DCMAKE_BUILD_TYPE=Release",
            "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
            f"-DEDGEQ_VERSION={edgeq.__version__}",
            "-DEDGEQ_PYTHON=OFF",
            "-DEDGEQ_TESTS=OFF",
            f"-DEDGEQ_RUNNER={'OFF' if library else 'ON'}",
            f"-DEDGEQ_LIBRARY={'ON' if library else 'OFF'}",
            "-DEDGEQ_RUNNER_STATIC=ON",
            "-DEDGEQ_REPRODUCIBLE=ON",
        )

    def make(self, goal: str, jobs: int | None, progress: Progress) -> None:
        """Brings the goal up to date."""
        cmake = find_program("cmake")
        ninja = find_program("ninja")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BuildError(
                f"{self.folder}: cannot be made ({error.strerror}); set XDG_CACHE_HOME to another folder"
            ) from None
        with _lock(self.folder / "lock", progress):
            progress(f"configuring in {self.folder}")
            configure = [
                str(cmake),
                "-G",
                "Ninja",
                f"-DCMAKE_MAKE_PROGRAM={ninja}",
                "-S",
                str(self._sources),
                "-B",
                str(self.folder),
            ]
            self._run([*configure, *self._definitions], "configure.log", lambda line: None)
            build = [str(ninja), "-C", str(self.folder), *(["-j", str(jobs)] if jobs else []), goal]
            self._run(build, "build.log", _BuildLines(progress, zig=self._tools.name == "zig"))

    def _run(self, command: list[str], log_name: str, line_seen: Callable[[str], None]) -> None:
        environment = (
            os.environ | dict(self._tools.environment) | {"SOURCE_DATE_EPOCH": "0", "NINJA_STATUS": "[%f/%t] "}
        )
        # The build is one of its own: flags in the caller's environment are not for another machine.
        for name in ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CC", "CXX"):
            environment.pop(name, None)
        log = self.folder / log_name
        with log.open("w", encoding="utf-8", errors="replace") as stream, subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    stream.write(line)
                    line_seen(line)
                status = process.wait()
            except BaseException:
                process.terminate()
                raise
        if status != 0:
            self._fail(log)

    def _fail(self, log: Path) -> None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        text = "\n".join(lines)
        if re.search(r"No space left|NoSpaceLeft|Disk quota", text):
            raise BuildError(
                f"{self._cache}: the disk is full; free space there, or set XDG_CACHE_HOME to another folder"
            )
        # The first error names the cause; what ninja and CMake add follows it.
        wrong = re.compile(r"\berror\b|not found|killed", re.IGNORECASE)
        first = next((at for at, line in enumerate(lines) if wrong.search(line)), max(0, len(lines) - _KEPT_LINES))
        shown = " | ".join([line.strip() for line in lines[first:] if line.strip()][:_KEPT_LINES])
        raise BuildError(f"the cross build failed; all of it is in {log}: {shown[:2000]}")

    def compiler(self) -> str:
        """What CMake found the compiler to be, such as "Clang 22.1.8"."""
        for file in sorted((self.folder / "CMakeFiles").glob("*/CMakeCXXCompiler.cmake")):
            text = file.read_text(encoding="utf-8")
            found = [re.search(rf'set\(CMAKE_CXX_COMPILER_{name} "(.*)"\)', text) for name in ("ID", "VERSION")]
            return " ".join(match[1] for match in found if match)
        return "unknown"

    def flags(self) -> dict[str, list[str]]:
        """The compiler's flags for the runtime, and what each level's kernels have beside those of the others."""
        commands = json.loads((self.folder / "compile_commands.json").read_text(encoding="utf-8"))
        of_file = {
            Path(entry["file"]).relative_to(self._sources).as_posix(): _flags(entry["command"]) for entry in commands
        }
        common = of_file["csrc/kernels/gemm/pack.cc"]
        result = {"all": common}
        for name, flags in of_file.items():
            level = re.fullmatch(r"csrc/kernels/\w+/((?:x86|arm|arm64)_\w+)\.cc", name)
            if level and level[1] not in result:
                result[level[1]] = [flag for flag in flags if flag not in common]
        return result


class _BuildLines:
    """Tells what matters of ninja's lines."""

    def __init__(self, progress: Progress, *, zig: bool) -> None:
        self._progress = progress
        self._zig = zig
        self._told_tenths = -1

    def __call__(self, line: str) -> None:
        match = re.match(r"\[(\d+)/(\d+)\] ", line)
        if match is None:
            return
        done, total = int(match[1]), int(match[2])
        if done == total - 1:
            first = "; the first time for an architecture, Zig now builds its C and C++ libraries: some minutes"
            self._progress(f"linking{first if self._zig else ''}")
        elif done < total and 10 * done // total > self._told_tenths:
            self._told_tenths = 10 * done // total
            self._progress(f"compiled {done} of {total - 1} files")


def _flags(command: str) -> list[str]:
    """The flags of a compile command that are no files, folders or definitions."""
    words = shlex.split(command)
    skipped = ("-I", "-isystem", "-ffile-prefix-map", "-MF", "-MT", "-MD", "-o", "-c")
    kept = [word for word in words if word.startswith("-") and not word.startswith(skipped)]
    return [word for word in kept if not word.startswith("-DEDGEQ_HAVE")]


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    """Keeps a second build out of the folder until this one ends."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build of the same kind")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _require_space(cache: Path) -> None:
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < _FREE_BYTES_LEAST and not any(cache.glob("zig/*")):
        raise BuildError(
            f"{cache}: {free // 1_000_000} MB are free, and a first cross build takes "
            f"{_FREE_BYTES_LEAST // 1_000_000}; free space there, or set XDG_CACHE_HOME to another folder"
        )


def _check_program(path: Path, target: Target) -> None:
    """The program is what was promised: for this ABI, static, stripped, and small."""
    try:
        runner = read_runner(path)
    except UsageError:
        raise BuildError(f"{path} is no program for Linux; the tool chain builds for something else") from None
    wrong = []
    if runner.abi != target.abi:
        wrong.append(f"is for {runner.abi}, not {target.abi}")
    if not runner.static:
        wrong.append("is linked dynamically")
    if has_symbols(path.read_bytes()):
        wrong.append("is not stripped")
    if wrong:
        raise BuildError(f"the tool chain made an edgeq-runner that {' and '.join(wrong)}; use --toolchain zig")


def has_symbols(content: bytes) -> bool:
    """Whether an ELF file, little-endian, has a symbol table."""
    wide = content[4] == 2
    (start,) = struct.unpack_from("<Q" if wide else "<I", content, 40 if wide else 32)
    size, count = struct.unpack_from("<HH", content, 58 if wide else 46)
    kinds = {struct.unpack_from("<I", content, start + number * size + 4)[0] for number in range(count)}
    return _SHT_SYMTAB in kinds


def _manifest(target: Target, tools: Toolchain, program: _Build, made: dict[str, bytes]) -> dict[str, Any]:
    return {
        "edgeq": edgeq.__version__,
        "target": target.name,
        "abi": target.abi,
        "toolchain": " ".join(word for word in (tools.name, tools.version) if word),
        "compiler": program.compiler(),
        "flags": program.flags(),
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in made.items()
        },
    }
