"""A device that is reached by the system's OpenSSH client."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from edgeq.device.address import DeviceAddress
from edgeq.device.transport import Transport
from edgeq.errors import DeviceError

_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    # A line that fell silent is given up after 15 seconds.
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ForwardX11=no",
    "ForwardAgent=no",
    "ClearAllForwardings=yes",
    "RequestTTY=no",
    # What ssh_config may ask for people who log in.
    "RemoteCommand=none",
    "LogLevel=ERROR",
)

_LONGEST_FOLDER = 60
"""A Unix socket's path has at most about 104 bytes; ssh adds 17 to ours while it makes the socket."""


class SshTransport(Transport):
    """One connection, which all commands share (ControlMaster); keys, hosts and jumps are the user's ssh_config's.

    EDGEQ_SSH may hold another command for ssh, with options: "ssh -F FILE".
    """

    def __init__(self, address: DeviceAddress) -> None:
        super().__init__(address)
        self._command = shlex.split(os.environ.get("EDGEQ_SSH", "")) or ["ssh"]
        if shutil.which(self._command[0]) is None:
            raise DeviceError(f"{address.text}: needs the program {self._command[0]}, which is not installed here.")
        self._folder: Path | None = None

    def argv(self, script: str, *, holds: bool) -> list[str]:
        """See `Transport.argv`."""
        words = list(self._command)
        for option in _OPTIONS:
            words += ["-o", option]
        words += ["-o", f"ControlPath={self._folder}/socket", "-o", "ControlPersist=no"]
        # Without a connection to share, a command must fail and not make one of its own: its folder is gone by then.
        words += ["-o", "ControlMaster=yes"] if holds else ["-o", "ControlMaster=no", "-o", "ProxyCommand=false"]
        if self.address.port is not None:
            words += ["-p", str(self.address.port)]
        # The user's own shell may be any; the script is for sh.
        return [*words, "--", self.address.where, f"exec sh -c {shlex.quote(script)}"]

    def cause(self, complaint: str) -> str:
        """See `Transport.cause`."""
        return _explain(self.address, complaint)

    def open(self, script: str) -> list[str]:
        """See `Transport.open`."""
        self.close()
        folder = tempfile.gettempdir()
        self._folder = Path(tempfile.mkdtemp(prefix="edgeq-", dir=folder if len(folder) <= _LONGEST_FOLDER else "/tmp"))
        return super().open(script)

    def close(self) -> None:
        """See `Transport.close`."""
        super().close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


_CAUSES = (
    (
        "IDENTIFICATION HAS CHANGED",
        "it has another host key than before; if that is right (a new card, a new system), forget the old one with "
        "ssh-keygen -R",
    ),
    ("Host key verification failed", "its host key is not known here; connect by hand and accept it: {by_hand}"),
    (
        "Permission denied",
        "it accepts none of your keys; give it one, ssh-copy-id {place}, or name the right one in ~/.ssh/config",
    ),
    ("Could not resolve", "there is no host of that name; check the spelling, or use its number"),
    (
        "Connection refused",
        "nothing listens there; start its SSH server (Raspberry Pi: sudo raspi-config, Interface), or give the right "
        "port",
    ),
    ("No route to host", "it is not in this network; is it on, and in the same network?"),
    ("timed out", "it does not answer; is it on, and in the same network?"),
    ("timeout", "it does not answer any more; is it on, and in the same network?"),
)
"""OpenSSH's words, and what they mean for the user."""


def _explain(address: DeviceAddress, complaint: str) -> str:
    """What OpenSSH's words mean for the user."""
    by_hand = f"ssh {f'-p {address.port} ' if address.port is not None else ''}{address.where}"
    for words, cure in _CAUSES:
        if words.lower() in complaint.lower():
            return f"{cure.format(by_hand=by_hand, place=by_hand[4:])}. (ssh: {complaint[-200:]})"
    # The complaint may be that of the trick by which a command without a connection fails.
    if not complaint or "UNKNOWN port" in complaint or "mux" in complaint or "closed" in complaint:
        return "the connection broke"
    return f"no connection (ssh: {complaint[-300:]}). Try by hand: {by_hand}"
