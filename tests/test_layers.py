"""The layers that CONTRIBUTING.md draws: imports point down only, and `import edgeq` needs numpy alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgeq"

LEVELS = (
    {"errors", "outputs"},
    {"tuning"},
    {"data", "ir", "metrics"},
    {"shift"},
    {"ops"},
    {"importers", "passes", "torch_executor", "quantize", "simulate", "exporters", "zoo", "session"},
    {"backends", "qat", "device"},
    {"verification", "deployment"},
    {"cli"},
)
"""The rooms of the package, lowest first; those of one level may use each other."""

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "sklearn",
    "PIL",
    "matplotlib",
    "jinja2",
    "tqdm",
    "ai_edge_litert",
    "flatbuffers",
    "tflite_runtime",
    "openvino",
    "nncf",
    "ncnn",
    "MNN",
    "_tools",
)
"""What only an extra installs."""

LIGHT = ("edgeq", "edgeq.session", "edgeq.importers.from_edgeq", "edgeq.simulate", "edgeq.cli", "edgeq.cli.run")
"""What a device uses that only runs .edgeq files."""

LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def rooms_used(file: Path) -> Iterator[tuple[str, int]]:
    """Yields the rooms that a module imports, wherever in it, and the lines."""
    for item in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(item, ast.Import):
            names = [alias.name for alias in item.names]
        elif isinstance(item, ast.ImportFrom):
            assert item.level == 0, f"{file}:{item.lineno}: imports are absolute"
            names = [f"{item.module}.{alias.name}" for alias in item.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "edgeq" and len(parts) > 1 and parts[1] in LEVEL_OF:
                yield parts[1], item.lineno


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [file for file in sorted(PACKAGE.rglob("*.py")) if room_of(file) not in ("__init__", "__main__")]


def test_every_room_has_a_level() -> None:
    assert {room_of(file) for file in modules()} == set(LEVEL_OF)


def test_nothing_imports_upwards() -> None:
    upwards = [
        f"{file.relative_to(PACKAGE)}:{line} imports edgeq.{room}"
        for file in modules()
        for room, line in rooms_used(file)
        if LEVEL_OF[room] > LEVEL_OF[room_of(file)]
    ]
    assert not upwards, "\n".join(upwards)


@pytest.mark.parametrize("module", LIGHT)
def test_running_a_file_needs_no_extra(module: str) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pybind11_stays_in_the_bindings() -> None:
    sources = PACKAGE.parent / "csrc"
    found = {
        file.relative_to(sources).parts[0]
        for file in sources.rglob("*")
        if file.suffix in (".cc", ".h") and "pybind11" in file.read_text(encoding="utf-8")
    }
    assert found == {"bindings"}


def test_native_layers_include_only_those_below() -> None:
    sources = PACKAGE.parent / "csrc"
    order = ("base", "kernels", "ops", "runtime", "api", "runner", "bindings")
    upwards = []
    for room in order:
        above = order[order.index(room) + 1 :]
        for file in sorted((sources / room).rglob("*")):
            if file.suffix not in (".cc", ".h", ".inc"):
                continue
            upwards += [
                f"{file.relative_to(sources)}: {line}"
                for line in file.read_text(encoding="utf-8").splitlines()
                if line.startswith('#include "') and line.split('"')[1].split("/")[0] in above
            ]
    assert not upwards, "\n".join(upwards)


def test_public_names_are_there() -> None:
    import edgeq
    from edgeq.errors import EdgeqError, UsageError

    assert all(hasattr(edgeq, name) for name in edgeq.__all__)
    assert edgeq.EdgeqError is EdgeqError
    assert issubclass(UsageError, edgeq.EdgeqError)
