"""Benches refuse a native module that is older than its sources, and no other."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.freshness import complaint

ROOT = Path(__file__).parents[2]
NAME = "_native.cpython-311-x86_64-linux-gnu.so"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, an hour old."""
    root = tmp_path / "checkout"
    for name in ("base/types.h", "kernels/gemm/gemm.cc", "kernels/gemm/kernels.inc", "bindings/native.cc"):
        path = root / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        touch(path, -3600)
    (root / "edgeq").mkdir()
    return root


def touch(path: Path, seconds: float) -> None:
    """Gives a file a time so many seconds from now."""
    at = time.time() + seconds
    os.utime(path, (at, at))


def install(root: Path) -> Path:
    """What an editable install writes: the module, and the sources but the bindings."""
    package = root.parent / "site-packages" / "edgeq"
    shutil.copytree(root / "csrc", package / "_source" / "csrc", ignore=shutil.ignore_patterns("bindings"))
    (package / NAME).write_text("built")
    return package / NAME


def build_in_place(root: Path) -> Path:
    built = root / "build" / "release" / "csrc" / "bindings" / NAME
    built.parent.mkdir(parents=True)
    for path in (built, root / "edgeq" / NAME):
        path.write_text("built")
    return root / "edgeq" / NAME


def test_an_install_of_a_fresh_clone_is_fresh(checkout: Path) -> None:
    module = install(checkout)
    assert complaint(module, checkout) is None
    touch(module, -7200)  # an installer that keeps the times of its archive
    assert complaint(module, checkout) is None


def test_a_changed_source_makes_an_install_stale(checkout: Path) -> None:
    module = install(checkout)
    source = checkout / "csrc/kernels/gemm/gemm.cc"
    source.write_text("changed")
    touch(source, 10)
    found = complaint(module, checkout)
    assert found is not None
    assert "older than csrc/kernels/gemm/gemm.cc:" in found
    assert "pip install" in found
    # A build in place does not help: it is not imported.
    build_in_place(checkout)
    (checkout / "edgeq" / NAME).write_text("built later")
    assert complaint(module, checkout) == found


def test_a_touched_source_does_not(checkout: Path) -> None:
    module = install(checkout)
    touch(checkout / "csrc/kernels/gemm/gemm.cc", 10)
    assert complaint(module, checkout) is None
    touch(checkout / "csrc/bindings/native.cc", 20)  # nobody knows what that was
    assert "csrc/bindings/native.cc" in (complaint(module, checkout) or "")


def test_sources_of_another_installation_prove_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = install(checkout)
    touch(checkout / "csrc/kernels/gemm/gemm.cc", 10)
    monkeypatch.setattr("bench.freshness._INSTALL_SECONDS", -1.0)  # as if another module had been copied there later
    assert complaint(module, checkout) is not None


def test_a_build_in_place(checkout: Path) -> None:
    module = build_in_place(checkout)
    assert complaint(module, checkout) is None
    touch(checkout / "csrc/base/types.h", 10)
    assert "cmake --build build/release" in (complaint(module, checkout) or "")
    # Building again linked the same bytes, which are not copied.
    touch(checkout / "build/release/csrc/bindings" / NAME, 20)
    assert complaint(module, checkout) is None
    (checkout / "build/release/csrc/bindings" / NAME).write_text("other")
    touch(checkout / "build/release/csrc/bindings" / NAME, 20)
    assert complaint(module, checkout) is not None


def test_what_is_not_compiled_here_does_not_count(checkout: Path) -> None:
    module = build_in_place(checkout)
    other = "x86_avx2.cc" if platform.machine().startswith(("arm", "aarch")) else "arm64_neondot.cc"
    for name in (f"kernels/gemm/{other}", "kernels/CMakeLists.txt", "tests/kernel_test.cc", "runner/main.cc"):
        path = checkout / "csrc" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        touch(path, 10)
    assert complaint(module, checkout) is None


def test_without_sources_all_is_well(tmp_path: Path) -> None:
    module = tmp_path / "site-packages" / "edgeq" / NAME
    module.parent.mkdir(parents=True)
    module.write_text("built")
    assert complaint(module, tmp_path / "elsewhere") is None


def test_benches_stop(tmp_path: Path) -> None:
    """In a copy of the benches whose sources lie in the future."""
    pytest.importorskip("edgeq._native", reason="the native engine is not built")
    (tmp_path / "csrc" / "base").mkdir(parents=True)
    (tmp_path / "csrc" / "base" / "types.h").write_text("new")
    touch(tmp_path / "csrc" / "base" / "types.h", 3600)
    for name in ("bench", "edgeq"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "pytest", "bench", "--collect-only", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == pytest.ExitCode.USAGE_ERROR, found.stdout + found.stderr
    assert "is older than csrc/base/types.h" in found.stderr
