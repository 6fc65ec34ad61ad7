"""An arm64 Python with the peers' wheels in a folder of the store: no chroot, no binfmt, nothing installed.

Debian's arm64 packages are unpacked where qemu's `-L` finds them; wheels are unpacked beside them.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import edgeq
from bench import store
from bench.arm.cores import CORES, Core
from bench.store import PreparationError

_DEBIAN = "http://deb.debian.org/debian"
_SUITE = "bookworm"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_PACKAGES = (
    *("python3.11-minimal", "python3.11", "libpython3.11-minimal", "libpython3.11-stdlib", "libpython3.11"),
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5"),
    *("libsqlite3-0", "libuuid1", "libgomp1", "libcrypt1"),
)

_PLATFORMS = ("2_34", "2_28", "2_27", "2_17")

PYTHON = Path("usr/bin/python3.11")
"""The interpreter in a root."""

WHEELS = ("numpy<2.3", "flatbuffers", "onnxruntime", "ai-edge-litert", "ncnn", "MNN")
"""What is unpacked; pip is asked for one at a time, since platforms differ."""

_IMPORTS = {
    "litert": "import ai_edge_litert.interpreter",
    "onnxruntime": "import onnxruntime",
    "ncnn": "import ncnn",
    "mnn": "import MNN",
}
_SECONDS = 900


@functools.cache
def roots() -> Path:
    """Returns the folder with a root for each core, by its name, as qemu's `-L` takes it.

    They share Debian's arm64 packages and differ in /proc/cpuinfo. qemu 7.2 shows the host's where the root has none,
    and the runtimes' detection of features, which finds nothing of Arm there, ends the process by a signal.

    Raises:
        PreparationError: If a tool or the network is missing.
    """

    def make(folder: Path) -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise PreparationError(f"{tool} is missing: the arm64 Python is unpacked from Debian's packages")
        if not _KEYRING.is_file():
            raise PreparationError(f"{_KEYRING} is missing: install debian-archive-keyring")
        apt = folder / "apt"
        for name in ("lists/partial", "cache/archives/partial", "debs", "parts"):
            (apt / name).mkdir(parents=True)
        source = f"deb [arch=arm64 signed-by={_KEYRING}] {_DEBIAN} {_SUITE} main\n"
        (apt / "sources.list").write_text(source, encoding="utf-8")
        options = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "root",
            "Dir::State::Lists": apt / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": apt / "cache",
            "Dir::Etc::SourceList": apt / "sources.list",
            "Dir::Etc::SourceParts": apt / "parts",
        }
        apt_get = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
        _run([*apt_get, "update"], apt)
        _run([*apt_get, "download", *_PACKAGES], apt / "debs")
        shared = folder / "shared"
        for package in sorted((apt / "debs").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(shared)], apt)
        shutil.rmtree(apt)
        for core in CORES:
            (folder / core.name / "proc").mkdir(parents=True)
            (folder / core.name / "proc" / "cpuinfo").write_text(_cpuinfo(core), encoding="ascii")
            for path in shared.iterdir():
                (folder / core.name / path.name).symlink_to(Path("..") / "shared" / path.name)

    return store.entry("arm.debian", store.digest(_SUITE, *_PACKAGES, *map(_cpuinfo, CORES)), make)


@functools.cache
def packages() -> Path:
    """Returns the folder with the wheels' contents, for PYTHONPATH; `versions` reads what they are.

    Raises:
        PreparationError: If pip finds no wheel for one of them.
    """

    def make(folder: Path) -> None:
        wheels, out = folder / "wheels", folder / "py"
        for package in WHEELS:
            platforms = [f"--platform=manylinux_{version}_aarch64" for version in _PLATFORMS]
            platforms.append("--platform=manylinux2014_aarch64")
            command = ["python3", "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(wheels)]
            _run([*command, "--python-version=311", *platforms, package], folder)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(out)
        shutil.rmtree(wheels)

    return store.entry("arm.wheels", store.digest(*WHEELS, *_PLATFORMS), make) / "py"


def versions() -> dict[str, str]:
    """Returns the versions of the unpacked wheels, by lower-case name."""
    found = {}
    for info in packages().glob("*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        found[name.lower().replace("_", "-")] = version
    return found


def environment() -> dict[str, str]:
    """Returns the variables of a process in the arm64 Python, in which nothing varies between runs."""
    return {
        "PYTHONPATH": os.pathsep.join([str(packages()), str(Path(edgeq.__file__).parents[1])]),
        "PYTHONPYCACHEPREFIX": str(store.root() / "arm.pycache"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


@functools.cache
def compile_modules(backend: str) -> None:
    """Compiles the modules that a backend imports, once: each emulated process would spend most of its time on that.

    Raises:
        PreparationError: If it cannot be imported on one of the cores.
    """
    root = roots() / CORES[-1].name
    code = f"import edgeq.backends.{backend}, edgeq.backends.registry, numpy; {_IMPORTS[backend]}"
    writing = {name: value for name, value in environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = ["qemu-aarch64", "-cpu", CORES[-1].qemu, "-L", str(root), str(root / PYTHON), "-c", code]
    _run(command, root, {"PATH": os.environ.get("PATH", ""), **writing})


def _cpuinfo(core: Core) -> str:
    one = (
        f"BogoMIPS\t: 108.00\nFeatures\t: {core.features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {core.part:#05x}\nCPU revision\t: 1\n\n"
    )
    return "".join(f"processor\t: {cpu}\n{one}" for cpu in range(4))


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PreparationError(f"{command[0]} failed: {lines[-1] if lines else done.returncode}")
