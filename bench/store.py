"""A folder of prepared models, each found again by the content it was made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER_VARIABLE = "EDGEQ_BENCH_CACHE"
"""Names the folder; else it lies in the user's cache."""

FAILURE = "failed.txt"
"""A file of an entry that could not be made: why. It is kept, since the same content fails again."""

_UNUSED_DAYS = 3


class PreparationError(Exception):
    """A model cannot be made; the message says why."""


def root() -> Path:
    """Returns the folder of all entries."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeq-bench"


def digest(*parts: str | bytes | Path) -> str:
    """Hashes texts, bytes and the contents of files and of folders' Python files."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(part.rglob("*.py")) if part.is_dir() else [part]
            content = b"".join(file.name.encode() + file.read_bytes() for file in files)
        else:
            content = part.encode() if isinstance(part, str) else part
        state.update(len(content).to_bytes(8, "little") + content)
    return state.hexdigest()[:20]


def entry(label: str, key: str, make: Callable[[Path], None]) -> Path:
    """Returns the folder of an entry, made whole or not at all.

    Args:
        label: What it is, for people.
        key: Digest of everything its content depends on.
        make: Writes into the folder it is given; a PreparationError is remembered.

    Raises:
        PreparationError: If it cannot be made, now or before.
    """
    base = root()
    folder = base / f"{label}-{key}"
    if not folder.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{label}.", dir=base))
        try:
            try:
                make(scratch)
            except PreparationError as error:
                (scratch / FAILURE).write_text(str(error), encoding="utf-8")
            try:
                scratch.rename(folder)
            except OSError:
                if not folder.is_dir():  # Otherwise another process made the same entry meanwhile.
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _forget_unused(base, label, folder)
    os.utime(folder)
    failure = folder / FAILURE
    if failure.is_file():
        raise PreparationError(failure.read_text(encoding="utf-8"))
    return folder


def _forget_unused(base: Path, label: str, current: Path) -> None:
    """Removes earlier contents of one label that nobody used for days."""
    names: Sequence[Path] = [one for one in base.glob(f"{label}-*") if one != current]
    for folder in names:
        if time.time() - folder.stat().st_mtime > _UNUSED_DAYS * 86400:
            shutil.rmtree(folder, ignore_errors=True)
