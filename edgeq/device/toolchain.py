"""Which compiler a cross build uses, and where its parts are."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeq.device.targets import Target
from edgeq.errors import BuildError, UsageError

TOOLCHAINS = ("zig", "gcc", "clang", "ndk")

PIP_COMMAND = 'pip install "edgeq[cross]"'


@dataclass(frozen=True, slots=True)
class Toolchain:
    """How CMake is told about a compiler.

    Attributes:
        name: zig, gcc, clang or ndk, or the name of a CMake toolchain file without its ending.
        version: What the compiler says of itself; of a file, the hash of its content.
        definitions: -D arguments of a program's build.
        library_definitions: -D arguments of a shared library's build; None where this tool chain makes none.
        environment: Variables that the build needs beside those that are set.
    """

    name: str
    version: str
    definitions: tuple[str, ...]
    library_definitions: tuple[str, ...] | None
    environment: tuple[tuple[str, str], ...] = ()


def find_toolchain(name: str, target: Target, sources: Path, cache: Path) -> Toolchain:
    """The tool chain called `name`, or the one of a CMake toolchain file, for a target.

    Args:
        sources: The folder of CMakeLists.txt.
        cache: Where a compiler may keep what it builds for itself.

    Raises:
        BuildError: If the compiler is not installed.
        UsageError: If the name is none, or the tool chain does not build for this target.
    """
    files = sources / "csrc" / "toolchains"
    if name == "zig":
        zig = find_zig()
        common = (f"-DCMAKE_TOOLCHAIN_FILE={files / 'zig.cmake'}", f"-DEDGEQ_ZIG={zig}")
        # Android's own C library comes with the NDK alone.
        library = None if target.android else (*common, f"-DEDGEQ_ZIG_TARGET={target.zig_library}")
        caches = tuple((f"ZIG_{kind}_CACHE_DIR", str(cache / "zig")) for kind in ("GLOBAL", "LOCAL"))
        program = (*common, f"-DEDGEQ_ZIG_TARGET={target.zig_program}")
        return Toolchain(name, _version(str(zig), "version"), program, library, caches)
    if name == "ndk":
        return _ndk(target)
    if name in ("gcc", "clang"):
        if target.android:
            raise UsageError(f"--toolchain {name} makes no programs for Android; use zig (the default) or ndk")
        compiler = _installed(f"{target.gnu}-g++" if name == "gcc" else "clang++", name, target)
        definitions: tuple[str, ...] = (
            "-DCMAKE_SYSTEM_NAME=Linux",
            f"-DCMAKE_SYSTEM_PROCESSOR={'armv7l' if target.abi == 'armv7' else target.abi}",
            f"-DCMAKE_CXX_COMPILER={compiler}",
        )
        if name == "clang":
            definitions += (f"-DCMAKE_CXX_COMPILER_TARGET={target.gnu}",)
        if target.abi == "armv7":
            definitions += ("-DCMAKE_CXX_FLAGS=-march=armv7-a+fp -mfloat-abi=hard",)
        return Toolchain(name, _version(compiler, "--version"), definitions, definitions)
    return _from_file(Path(name))


def _from_file(file: Path) -> Toolchain:
    if file.suffix != ".cmake" or not file.is_file():
        raise UsageError(
            f"--toolchain {file} is neither {', '.join(TOOLCHAINS)} nor a CMake toolchain file (FILE.cmake) that exists"
        )
    definitions = (f"-DCMAKE_TOOLCHAIN_FILE={file.resolve()}",)
    return Toolchain(file.stem, hashlib.sha256(file.read_bytes()).hexdigest()[:16], definitions, definitions)


def _ndk(target: Target) -> Toolchain:
    if not target.android:
        raise UsageError(f"--toolchain ndk is for Android; {target.name} wants zig (the default), gcc or clang")
    names = ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK")
    folder = next((os.environ[name] for name in names if os.environ.get(name)), None)
    if folder is None:
        raise BuildError(
            "--toolchain ndk needs the Android NDK: set ANDROID_NDK_HOME to its folder (developer.android.com/ndk has "
            "it), or use --toolchain zig, which needs none for edgeq-runner"
        )
    file = Path(folder) / "build" / "cmake" / "android.toolchain.cmake"
    if not file.is_file():
        raise BuildError(f"{folder} is no Android NDK: {file} is missing")
    # API level 21, Android 5, is the first with 64-bit programs.
    definitions = (
        f"-DCMAKE_TOOLCHAIN_FILE={file}",
        "-DANDROID_ABI=arm64-v8a",
        "-DANDROID_PLATFORM=android-21",
        "-DANDROID_STL=c++_static",
    )
    properties = Path(folder) / "source.properties"
    found = (
        re.search(r"Pkg\.Revision *= *(\S+)", properties.read_text(encoding="utf-8")) if properties.is_file() else None
    )
    return Toolchain("ndk", found[1] if found else "", definitions, definitions)


def _version(program: str, argument: str) -> str:
    done = subprocess.run([program, argument], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise BuildError(
            f"{program} does not run here ({done.stderr.strip()[:200] or done.returncode}); install it anew"
        )
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else ""


def _installed(program: str, toolchain: str, target: Target) -> str:
    found = shutil.which(program)
    if found is None:
        package = {"gcc": f"g++-{target.gnu.replace('_', '-')}", "clang": f"clang, and libstdc++ of {target.gnu}"}
        raise BuildError(
            f"--toolchain {toolchain} needs {program}, which is not on the path. Install it (Debian's package is "
            f"{package[toolchain]}), or use --toolchain zig: {PIP_COMMAND}"
        )
    return found


def find_zig() -> Path:
    """Zig of the Python package ziglang, else on the path.

    Raises:
        BuildError: If there is neither.
    """
    spec = importlib.util.find_spec("ziglang")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).resolve().parent / "zig"
        if program.is_file():
            return program
    found = shutil.which("zig")
    if found is None:
        raise BuildError(
            f"a cross build needs a compiler, and Zig is not installed: {PIP_COMMAND}, or name an installed compiler "
            "with --toolchain gcc, clang, ndk or FILE.cmake"
        )
    return Path(found)


def find_program(name: str) -> Path:
    """`cmake` or `ninja`, of the Python package of that name, else on the path.

    Raises:
        BuildError: If there is neither.
    """
    try:
        package = importlib.import_module(name)
    except ImportError:
        package = None
    for attribute in ("CMAKE_BIN_DIR", "BIN_DIR"):
        folder = getattr(package, attribute, None)
        if folder is not None and (Path(folder) / name).is_file():
            return Path(folder) / name
    found = shutil.which(name)
    if found is None:
        raise BuildError(f"a cross build needs {name}, which is not installed: {PIP_COMMAND}")
    return Path(found)
