"""Cross builds: targets, tool chains, errors before and during a build, and the bytes that come out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgeq
from edgeq.cli import cli
from edgeq.device import cross, toolchain
from edgeq.device.cross import MANIFEST_FILE, RUNNER_BYTES_MOST, RUNNER_FILE, CrossBuild, cross_build, has_symbols
from edgeq.device.targets import GENERAL, TARGETS, find_target
from edgeq.errors import BuildError, UsageError

ROOT = Path(__file__).parent.parent.parent
GOLDEN = sorted((ROOT / "tests" / "golden" / "edgeq").glob("*.edgeq"))

needs_cmake = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("ninja") is None, reason="needs cmake and ninja on the path"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgeq" / "cross"


def broken_toolchain(folder: Path, message: str) -> Path:
    """A CMake toolchain file whose configuration ends with a message."""
    file = folder / "broken.cmake"
    file.write_text(f'message(FATAL_ERROR "{message}")\n', encoding="utf-8")
    return file


def test_an_unknown_target_is_answered_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rpi9") as caught:
        cross_build("rpi9", tmp_path / "out")
    assert all(name in str(caught.value) for name in TARGETS)
    assert not (tmp_path / "out").exists()


def test_help_lists_the_targets() -> None:
    shown = CliRunner().invoke(cli, ["cross", "--help"]).output
    assert all(target.name in shown and target.description in " ".join(shown.split()) for target in TARGETS.values())


def test_general_targets_fit_their_abi() -> None:
    assert {abi: find_target(name).abi for abi, name in GENERAL.items()} == {abi: abi for abi in GENERAL}
    assert {target.abi for target in TARGETS.values()} == set(GENERAL)


def test_without_zig_the_error_names_the_pip_command(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r'pip install "edgeq\[cross\]"'):
        cross_build("rpi4", tmp_path / "out")


@pytest.mark.parametrize("program", ["cmake", "ninja"])
def test_without_a_build_tool_the_error_names_it(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(toolchain.importlib, "import_module", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=rf'needs {program}, .*pip install "edgeq\[cross\]"'):
        toolchain.find_program(program)


@pytest.mark.parametrize(
    "target, name, error",
    [
        ("android-arm64", "gcc", "no programs for Android"),
        ("android-arm64", "clang", "no programs for Android"),
        ("rpi4", "ndk", "ndk is for Android"),
        ("android-arm64", "ndk", "set ANDROID_NDK_HOME"),
        ("rpi4", "msvc", "neither zig, gcc, clang, ndk nor a CMake toolchain file"),
        ("rpi4", "nowhere.cmake", "nor a CMake toolchain file"),
        ("linux-armv7", "gcc", "needs arm-linux-gnueabihf-g\\+\\+.*Debian's package is g\\+\\+-arm-linux-gnueabihf"),
    ],
)
def test_a_tool_chain_that_cannot_is_refused(
    target: str, name: str, error: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises((BuildError, UsageError), match=error):
        cross_build(target, tmp_path / "out", toolchain=name)
    assert not (tmp_path / "out").exists()


def test_an_ndk_that_is_none_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    with pytest.raises(BuildError, match="is no Android NDK"):
        cross_build("android-arm64", tmp_path / "out", toolchain="ndk")


def test_an_ndk_is_told_the_abi_and_the_oldest_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "build" / "cmake" / "android.toolchain.cmake"
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 27.2.1\n", encoding="utf-8")
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    tools = toolchain.find_toolchain("ndk", TARGETS["android-arm64"], ROOT, tmp_path)
    assert tools.version == "27.2.1"
    assert {f"-DCMAKE_TOOLCHAIN_FILE={file}", "-DANDROID_ABI=arm64-v8a"} <= set(tools.definitions)


def test_a_library_for_android_wants_the_ndk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "find_zig", lambda: Path("/usr/bin/env"))
    monkeypatch.setattr(toolchain, "_version", lambda program, argument: "0")
    with pytest.raises(BuildError, match="--toolchain ndk"):
        cross_build("android-arm64", tmp_path / "out", library=True)


def test_a_nearly_full_disk_is_seen_before_anything_is_built(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cross.shutil, "disk_usage", lambda folder: usage._replace(free=5_000_000))
    with pytest.raises(BuildError, match=r"5 MB are free.*XDG_CACHE_HOME"):
        cross_build("rpi4", tmp_path / "out", toolchain=str(broken_toolchain(tmp_path, "not reached")))
    assert not cache.exists()


@needs_cmake
@pytest.mark.parametrize(
    "message, told",
    [("the compiler is out", "the compiler is out"), ("write: No space left on device", "the disk is full")],
)
def test_a_failed_build_tells_why_and_leaves_the_results_alone(
    message: str, told: str, tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / RUNNER_FILE).write_text("an earlier one", encoding="utf-8")
    with pytest.raises(BuildError, match=told):
        cross_build("rpi4", out, toolchain=str(broken_toolchain(tmp_path, message)))
    assert [path.name for path in out.iterdir()] == [RUNNER_FILE]
    assert (out / RUNNER_FILE).read_text(encoding="utf-8") == "an earlier one"


def test_a_dynamic_program_is_refused() -> None:
    shell = Path(shutil.which("sh") or "/bin/sh").resolve()
    name = GENERAL.get({"armv7l": "armv7"}.get(os.uname().machine, os.uname().machine))
    if name is None:
        pytest.skip(f"edgeq-runner is not built for {os.uname().machine}")
    with pytest.raises(BuildError, match="is linked dynamically"):
        cross._check_program(shell, TARGETS[name])
    other = next(target for target in TARGETS.values() if target.name != name and target.abi != TARGETS[name].abi)
    with pytest.raises(BuildError, match=f"not {other.abi}"):
        cross._check_program(shell, other)


def elf(section_kinds: list[int], *, wide: bool) -> bytes:
    """An ELF file of section headers alone."""
    start, size = 64, 64 if wide else 40
    head = bytearray(start)
    head[:6] = b"\x7fELF" + bytes([2 if wide else 1, 1])
    struct.pack_into("<Q" if wide else "<I", head, 40 if wide else 32, start)
    struct.pack_into("<HH", head, 58 if wide else 46, size, len(section_kinds))
    sections = [struct.pack("<II", 0, kind).ljust(size, b"\0") for kind in section_kinds]
    return bytes(head) + b"".join(sections)


@pytest.mark.parametrize("wide", [False, True])
def test_symbols_are_found(wide: bool) -> None:
    assert not has_symbols(elf([0, 1, 3], wide=wide))
    assert has_symbols(elf([0, 1, 2, 3], wide=wide))


def test_progress_tells_tenths_and_the_long_link() -> None:
    told: list[str] = []
    seen = cross._BuildLines(told.append, zig=True)
    for done in range(1, 41):
        seen(f"[{done}/40] Building\n")
    seen("a warning\n")
    assert told[-1].startswith("linking; the first time")
    assert len(told) == 11


def test_the_manifest_keeps_flags_and_no_paths() -> None:
    command = (
        "'/a b/zig' c++ --target=x -DEDGEQ_HAVE_NEON=1 -I/home/csrc -mcpu=generic -Os -ffile-prefix-map=/home=. "
        "-o o.o -c f.cc"
    )
    assert cross._flags(command) == ["--target=x", "-mcpu=generic", "-Os"]


# What follows compiles.

needs_zig = pytest.mark.skipif(
    toolchain.importlib.util.find_spec("ziglang") is None and shutil.which("zig") is None,
    reason='needs Zig: pip install "edgeq[cross]"',
)
CPUS = {"aarch64": ("cortex-a53", "cortex-a72", "cortex-a76", "max"), "armv7": ("cortex-a7", "cortex-a15")}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CrossBuild]:
    """Builds for a target, in the user's own cache: Zig's libraries take minutes."""
    made: dict[str, CrossBuild] = {}

    def one(target: str) -> CrossBuild:
        if target not in made:
            made[target] = cross_build(target, tmp_path_factory.mktemp("cross") / target, progress=print)
        return made[target]

    return one


@pytest.mark.slow
@needs_zig
@pytest.mark.parametrize("target", ["rpi4", "linux-armv7", "android-arm64"])
def test_a_runner_is_small_and_says_what_it_is(target: str, build: Callable[[str], CrossBuild]) -> None:
    made = build(target)
    content = made.runner.read_bytes()
    assert len(content) <= RUNNER_BYTES_MOST
    assert os.access(made.runner, os.X_OK)
    manifest = json.loads((made.folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    assert manifest["files"][RUNNER_FILE] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert (manifest["edgeq"], manifest["target"]) == (edgeq.__version__, target)
    for text in (content, json.dumps(manifest).encode()):
        assert str(ROOT).encode() not in text
        assert str(Path.home()).encode() + b"/" not in text
    assert "-ffp-contract=off" in manifest["flags"]["all"]
    assert not [flag for flags in manifest["flags"].values() for flag in flags if "native" in flag]


@pytest.mark.slow
@needs_zig
@pytest.mark.parametrize("target", ["rpi4", "linux-armv7"])
def test_a_runner_computes_on_every_core_what_this_machine_does(
    target: str, build: Callable[[str], CrossBuild], tmp_path: Path, rng: np.random.Generator
) -> None:
    made = build(target)
    emulator = shutil.which({"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}[made.target.abi])
    if emulator is None:
        pytest.skip("qemu-user is not installed: apt-get install qemu-user")
    for core in CPUS[made.target.abi]:
        program = [emulator, "-cpu", core, str(made.runner)]
        tested = subprocess.run(
            [*program, "selftest", "--family", "lut", *map(str, GOLDEN)], capture_output=True, text=True, check=False
        )
        assert tested.returncode == 0, tested.stdout + tested.stderr
        for model in GOLDEN:
            session = edgeq.Session(model)
            x = rng.normal(0, 1, (2, *session.inputs[0].shape[1:])).astype(np.float32)
            np.save(tmp_path / "x.npy", x)
            outputs = [tmp_path / f"{number}.npy" for number in range(len(session.outputs))]
            words = [word for path in outputs for word in ("--output", str(path))]
            subprocess.run([*program, "run", str(model), "--input", str(tmp_path / "x.npy"), *words], check=True)
            expected = session.run(x)
            for path, value in zip(outputs, expected if isinstance(expected, list) else [expected], strict=True):
                assert np.load(path).tobytes() == value.tobytes(), f"{core}: {model.name}"


@pytest.mark.slow
@needs_zig
def test_the_same_bytes_from_another_place(
    build: Callable[[str], CrossBuild], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip installs, in another folder, with another build folder: the bytes that the checkout gave."""
    first = build("rpi4")
    sources = tmp_path / "site" / "edgeq" / "_source"
    shutil.copytree(ROOT / "csrc", sources / "csrc", ignore=shutil.ignore_patterns("bindings", "tests"))
    shutil.copy(ROOT / "CMakeLists.txt", sources)
    (sources / "csrc" / "tests").mkdir()
    for name in ("kernel_test.cc", "kernel_test.h"):
        shutil.copy(ROOT / "csrc" / "tests" / name, sources / "csrc" / "tests")
    # Only Zig's own libraries are shared: building them again takes minutes.
    other = tmp_path / "cache" / "edgeq" / "cross"
    other.mkdir(parents=True)
    (other / "zig").symlink_to(cross.cache_folder() / "zig")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cross, "source_folder", lambda: sources)
    second = cross_build("rpi5", tmp_path / "out")
    assert second.runner.read_bytes() == first.runner.read_bytes()
    assert second.manifest["files"] == first.manifest["files"]
