"""Connections to a device: shell scripts run there, files go there and come back."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeq.device.address import DeviceAddress
from edgeq.errors import DeviceError

BEGIN = "edgeq-begin"
"""Printed before what a script prints: what stands before it came from the login shell's own files."""

END = "edgeq-end"
"""Printed to standard error with the status after a script: without it, the connection broke before its end."""

READY = "edgeq-ready"
"""Printed when the script that holds a connection open has made its folders."""

CONNECT_SECONDS = 20.0
BYTES_PER_SECOND = 50_000
"""The slowest line that still counts as one."""


class ConnectionLost(DeviceError):
    """The connection broke; it may come back."""


class TimeLimit(DeviceError):
    """A command took longer than it may."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a script ended.

    Attributes:
        status: Exit status.
        stdout: What it printed.
        stderr: What it complained of.
    """

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")


class Transport:
    """A device that is reached by starting `sh` with a script: on this machine, or by a program that does it elsewhere.

    One script holds the connection open: it makes a folder for the session and removes it when its standard input ends,
    which is when the connection ends, however that happens.

    Attributes:
        folders: Shell words for folders that may keep files on the device, best first.
        shares_files: Whether the device sees this machine's files under their own names.
    """

    folders: tuple[str, ...] = (
        '"${XDG_CACHE_HOME:-$HOME/.cache}/edgeq"',
        '"/var/tmp/edgeq-$(id -u)"',
        '"/tmp/edgeq-$(id -u)"',
    )
    shares_files = False

    def __init__(self, address: DeviceAddress) -> None:
        self.address = address
        self._holder: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None

    def argv(self, script: str, *, holds: bool) -> list[str]:
        """The command of this machine that runs a script on the device.

        Args:
            script: For a POSIX shell.
            holds: Whether this is the script that holds the connection open.
        """
        return ["sh", "-c", script]

    def cause(self, complaint: str) -> str:
        """Says why no connection can be made, and what helps.

        Args:
            complaint: What the program that connects printed to standard error.
        """
        return complaint or "the connection was closed without a word"

    def open(self, script: str) -> list[str]:
        """Connects, runs the script that holds the connection and returns the lines that it prints up to READY.

        Raises:
            ConnectionLost: If there is no connection, saying why.
        """
        self._hang_up()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        argv = self.argv(script, holds=True)
        try:
            self._holder = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                # Ctrl-C reaches this process alone, which then takes leave of the device.
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"{self.address.text}: {argv[0]} cannot be started ({error.strerror}).") from None
        lines = self._lines(self._holder)
        if lines is None:
            complaint = self._complaint()
            self.close()
            raise ConnectionLost(f"{self.address.text}: {self.cause(complaint)}")
        return lines

    def _lines(self, holder: subprocess.Popen[bytes]) -> list[str] | None:
        assert holder.stdout is not None
        found = b""
        deadline = time.monotonic() + CONNECT_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(holder.stdout, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    break
                chunk = os.read(holder.stdout.fileno(), 1 << 16)
                if not chunk:
                    holder.wait()
                    break
                found += chunk
                lines = found.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
                if READY in lines:
                    return lines[: lines.index(READY)]
        return None

    def _complaint(self) -> str:
        """What the holder printed to standard error so far, as one line."""
        if self._complaints is None:
            return ""
        self._complaints.seek(0)
        return " ".join(self._complaints.read(1 << 16).decode("utf-8", "replace").split())

    def execute(self, script: str, *, timeout: float, stdin: Path | None = None) -> Done:
        """Runs a script on the device and waits for it.

        Args:
            script: For a POSIX shell.
            timeout: Seconds that it may take.
            stdin: A file of this machine that it reads.

        Raises:
            ConnectionLost: If the connection broke before its end.
            TimeLimit: If it took longer.
        """
        if self._holder is None or self._holder.poll() is not None:
            raise ConnectionLost(f"{self.address.text}: {self.cause(self._complaint())}")
        # Complaints are understood in English alone.
        framed = f"LC_ALL=C; export LC_ALL; echo {BEGIN}; ( {script}\n); echo {END} $? >&2"
        source: IO[bytes] | int = stdin.open("rb") if stdin is not None else subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                self.argv(framed, holds=False),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        finally:
            if not isinstance(source, int):
                source.close()
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise TimeLimit(f"{self.address.text}: no end after {timeout:g} s.") from None
        except BaseException:
            _end(process)
            raise
        return self._done(stdout, stderr.decode("utf-8", "replace"))

    def _done(self, stdout: bytes, stderr: str) -> Done:
        _, begin, rest = stdout.partition(f"{BEGIN}\n".encode())
        said, end, status = stderr.rpartition(f"{END} ")
        if not begin or not end:
            raise ConnectionLost(f"{self.address.text}: {self.cause(' '.join(stderr.split()))}")
        return Done(int(status.split()[0]), rest, said)

    def put(self, source: Path, path: str) -> Done:
        """Writes a file of this machine to `path` on the device."""
        return self.execute(f"cat > {shlex.quote(path)}", timeout=transfer_seconds(source), stdin=source)

    def get(self, path: str, target: Path, size: int) -> Done:
        """Copies the file `path` of the device, of that many bytes, to this machine."""
        done = self.execute(f"cat {shlex.quote(path)}", timeout=60 + size / BYTES_PER_SECOND)
        if done.status == 0:
            target.write_bytes(done.stdout)
        return done

    def close(self) -> None:
        """Ends the connection; the script that held it cleans up on the device."""
        self._hang_up()

    def _hang_up(self) -> None:
        holder, self._holder = self._holder, None
        if holder is not None and holder.stdin is not None and holder.stdout is not None:
            with contextlib.suppress(BrokenPipeError):
                holder.stdin.close()
            try:
                holder.wait(timeout=10)
            except subprocess.TimeoutExpired:
                _end(holder)
            holder.stdout.close()
        if self._complaints is not None:
            self._complaints.close()
            self._complaints = None


class LocalTransport(Transport):
    """This machine, or an emulator on it."""

    folders = ('"${TMPDIR:-/tmp}/edgeq-$(id -u)"',)
    shares_files = True

    def put(self, source: Path, path: str) -> Done:
        """Copies a file."""
        try:
            shutil.copyfile(source, path)
        except OSError as error:
            return Done(1, b"", f"{path}: {error.strerror}")
        return Done(0, b"", "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that does not end by itself, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def transfer_seconds(source: Path) -> float:
    """How long a file may take to go to the device."""
    return 60 + source.stat().st_size / BYTES_PER_SECOND
