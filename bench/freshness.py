"""Whether the native module that Python imports was built from the sources of this checkout."""

from __future__ import annotations

import filecmp
import platform
from collections.abc import Iterator
from pathlib import Path

_LAYERS = ("base", "kernels", "ops", "runtime", "bindings")
"""Folders of csrc that the module is built from."""

_SUFFIXES = (".cc", ".h", ".inc")
"""What a build in place links again for. It may leave the module as it is after a change of its own files."""

_INSTALL_SECONDS = 60.0
"""Files that an installation writes lie no further apart than this."""


def complaint(module: Path, root: Path) -> str | None:
    """What is wrong with timing a native module, and what to do, or None.

    A source makes a module stale when it is newer, unless the installation that brought the module says what it was
    built from (`edgeq/_source`) and holds the same text: a checkout may touch a file without changing it.

    Args:
        module: The file that is imported as edgeq._native.
        root: Of the checkout whose benches run; without csrc, or with sources for other CPUs only, all is well.
    """
    newer = _newer_sources(module, root)
    if not newer:
        return None
    listed = ", ".join(str(path.relative_to(root)) for path in newer[:3]) + (" and others" if len(newer) > 3 else "")
    if module.parent == root / "edgeq":
        cure = "Build again: cmake --preset release && cmake --build build/release"
    else:
        cure = (
            "An editable install imports what pip built, not what a build in place leaves in edgeq/. Install again: "
            "pip install -c constraints.txt -e '.[peers]'"
        )
    return (
        f"the native module {module} is older than {listed}: benches would time code that is no longer there. {cure}"
    )


def _newer_sources(module: Path, root: Path) -> list[Path]:
    """The sources that changed after the module was built, the newest first."""
    built = _built(module, root)
    changed = {path: path.stat().st_mtime for path in _sources(root)}
    newer = [path for path, at in changed.items() if at > built and not _was_installed(module, root, path)]
    return sorted(newer, key=lambda path: -changed[path])


def _sources(root: Path) -> Iterator[Path]:
    machine = platform.machine().lower()
    # A change of another architecture's kernels is compiled into nothing here.
    others = "x86_" if machine.startswith(("arm", "aarch")) else "arm"
    for layer in _LAYERS:
        for path in sorted((root / "csrc" / layer).rglob("*")):
            if path.suffix in _SUFFIXES and not path.name.startswith(others):
                yield path


def _built(module: Path, root: Path) -> float:
    """When a module was built, or installed: never too early.

    A build in place copies its module only where it differs: the same bytes may have been linked later. An installer
    may give files the time of their archive; the change of the file's own record is when it came to lie here.
    """
    same = [path for path in root.glob(f"build/*/csrc/bindings/{module.name}") if filecmp.cmp(path, module, False)]
    return max(max(path.stat().st_mtime, path.stat().st_ctime) for path in (module, *same))


def _was_installed(module: Path, root: Path, source: Path) -> bool:
    """Whether the installation that wrote the module wrote the same text of a source beside it."""
    copy = module.parent / "_source" / source.relative_to(root)
    if not copy.is_file() or abs(copy.stat().st_ctime - module.stat().st_ctime) > _INSTALL_SECONDS:
        return False
    return filecmp.cmp(copy, source, shallow=False)
