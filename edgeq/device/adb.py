"""A phone or board that is reached by Android's debug bridge."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from edgeq.device.address import DeviceAddress
from edgeq.device.transport import (
    BEGIN,
    BYTES_PER_SECOND,
    END,
    ConnectionLost,
    Done,
    TimeLimit,
    Transport,
    transfer_seconds,
)
from edgeq.errors import DeviceError

FOLDER = "/data/local/tmp/edgeq"
"""The one place of an Android device that adb may write to and run programs from."""


_CAUSES = (
    ("unauthorized", "it does not trust this computer; unlock its screen and allow USB debugging"),
    ("offline", "it is offline; unplug it and plug it in again, or run adb reconnect"),
    ("not found", "there is no such device; adb devices lists those that are there"),
    ("no permissions", "this user may not use the USB device; install adb's udev rules (Debian: apt install adb)"),
)


class AdbTransport(Transport):
    """Scripts run by `adb shell`, files go by push and pull."""

    folders = (FOLDER,)

    def __init__(self, address: DeviceAddress) -> None:
        super().__init__(address)
        if shutil.which("adb") is None:
            raise DeviceError(
                f"{address.text}: needs the program adb, which is not installed here (Debian: apt install adb)."
            )

    def _adb(self, *words: str) -> list[str]:
        return ["adb", "-s", self.address.where, *words]

    def argv(self, script: str, *, holds: bool) -> list[str]:
        """See `Transport.argv`."""
        # adb joins its words with blanks and the device's shell splits them again.
        return self._adb("shell", f"exec sh -c {shlex.quote(script)}")

    def cause(self, complaint: str) -> str:
        """See `Transport.cause`."""
        for words, cure in _CAUSES:
            if words in complaint:
                return f"{cure}. (adb: {complaint[-200:]})"
        return f"no connection (adb: {complaint[-300:]})" if complaint else "the connection broke"

    def _done(self, stdout: bytes, stderr: str) -> Done:
        # Devices before Android 7 give both streams as one, with the ends of lines of a terminal.
        if END not in stderr and END.encode() in stdout:
            text, _, status = stdout.replace(b"\r\n", b"\n").rpartition(f"{END} ".encode())
            return super()._done(text, f"{stderr}{END} {status.decode()}")
        return super()._done(stdout.replace(b"\r\n", b"\n") if BEGIN.encode() + b"\r" in stdout else stdout, stderr)

    def put(self, source: Path, path: str) -> Done:
        """See `Transport.put`."""
        return self._copy("push", str(source), path, seconds=transfer_seconds(source))

    def get(self, path: str, target: Path, size: int) -> Done:
        """See `Transport.get`."""
        return self._copy("pull", path, str(target), seconds=60 + size / BYTES_PER_SECOND)

    def _copy(self, verb: str, source: str, target: str, seconds: float) -> Done:
        try:
            done = subprocess.run(
                self._adb(verb, source, target),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeLimit(f"{self.address.text}: adb {verb} did not end within {seconds:g} s.") from None
        said = (done.stderr + done.stdout).decode("utf-8", "replace")
        lost = ("device offline", "not found", "no devices", "unauthorized", "device disconnected", "closed")
        remote = "remote" in said or "stat" in said
        if done.returncode != 0 and not remote and any(words in said for words in lost):
            raise ConnectionLost(f"{self.address.text}: {self.cause(' '.join(said.split()))}")
        return Done(done.returncode, done.stdout, said)


def adb_devices() -> list[tuple[str, str, str]]:
    """Serial number, state and model of each device that adb sees; empty where adb is not installed.

    Raises:
        DeviceError: If adb does not answer.
    """
    if shutil.which("adb") is None:
        return []
    try:
        done = subprocess.run(
            ["adb", "devices", "-l"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeviceError("adb devices: no answer within 20 s; end its server: adb kill-server.") from None
    if done.returncode != 0:
        raise DeviceError(f"adb devices: {' '.join(done.stderr.split())}")
    found = []
    for line in done.stdout.partition("List of devices attached")[2].splitlines():
        words = line.split()
        if len(words) < 2 or line.startswith("*"):
            continue
        facts = dict(word.split(":", 1) for word in words[2:] if ":" in word)
        found.append((words[0], words[1], facts.get("model", "")))
    return found
