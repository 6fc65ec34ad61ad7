"""Devices that need no hardware: an SSH server of the test's own, a stand-in for adb, runners built for Arm."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent
SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").is_file() else None)


EMULATORS = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}


def static_runner(abi: str) -> Path:
    """Returns a static edgeq-runner for an ABI of Arm; the test is skipped without one, or without its emulator.

    Runners are looked for in build/runners, build/ABI-static and build/ABI; EDGEQ_TEST_RUNNERS names another folder.
    """
    from edgeq.device.runners import find_runner
    from edgeq.errors import DeviceError

    if shutil.which(EMULATORS[abi]) is None:
        pytest.skip(f"{EMULATORS[abi]} is not installed: apt-get install qemu-user")
    build = SOURCE / "build"
    built = [build / "runners", *(build / name / "csrc" / "runner" for name in (f"{abi}-static", abi))]
    for place in [Path(os.environ["EDGEQ_TEST_RUNNERS"])] if "EDGEQ_TEST_RUNNERS" in os.environ else built:
        if place.is_dir():
            try:
                found = find_runner(abi, place)
            except DeviceError:
                continue
            if found.static:
                return found.path
    pytest.skip(
        f"no static runner for {abi} is built: edgeq cross --target linux-{abi} -o build/runners, or cmake --preset "
        f"{abi} -B build/{abi}-static -DEDGEQ_TESTS=OFF -DEDGEQ_RUNNER_STATIC=ON && cmake --build build/{abi}-static"
    )


@pytest.fixture(scope="session")
def aarch64_runner() -> Path:
    """A static edgeq-runner for 64-bit Arm, and qemu-aarch64 to run it."""
    return static_runner("aarch64")


@pytest.fixture(scope="session")
def emulated_runner() -> Callable[[str], Path]:
    """Gives a static runner for the ABI of an emulated core."""
    from edgeq.device.address import CPUS_32

    found = {abi: static_runner(abi) for abi in EMULATORS}
    return lambda core: found["armv7" if core in CPUS_32 else "aarch64"]


@pytest.fixture(scope="session")
def native_runner() -> Path:
    """The edgeq-runner of this machine."""
    from edgeq.device.runners import find_runner
    from edgeq.errors import DeviceError

    try:
        return find_runner(os.uname().machine, here=True).path
    except DeviceError as error:
        pytest.skip(f"no runner for this machine: {error}")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded demo as `edgeq export` writes it."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "edgeq", "export", "--bits", "w4a8", "--calib", "digits", "-o", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@dataclass
class Server:
    """An SSH server on the loopback interface, with keys, port and home of its own.

    Attributes:
        folder: Holds its configuration.
        home: What logins find as HOME.
        port: Where it listens.
        ssh: The command that EDGEQ_SSH takes: the client with the key that the server knows.
    """

    folder: Path
    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def ssh(self) -> str:
        return f"ssh -F {self.folder / 'ssh_config'}"

    def address(self, **options: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"ssh://root-or-me@127.0.0.1:{self.port}".replace("root-or-me", user()) + (f"?{query}" if query else "")

    def start(self) -> None:
        assert SSHD is not None
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log)
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as peer:
                    if peer.recv(4) == b"SSH-":
                        return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"sshd does not listen: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        """Ends the server; connections that it has made live on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def connections(self) -> list[int]:
        """Processes that serve the connections."""
        assert self.process is not None
        return [pid for pid, parent in processes() if parent == self.process.pid]

    def cut(self) -> None:
        """Kills every connection, as a pulled cable or a crash would."""
        for pid in self.connections():
            for child, parent in processes():
                # Where the server gives up its rights, the connection is served by a child.
                # A connection may end by itself meanwhile.
                with contextlib.suppress(OSError):
                    if parent == pid and "sshd" in (Path("/proc") / str(child) / "comm").read_text():
                        os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """What lies in the folder that edgeq uses, without the files that it keeps."""
        root = self.home / ".cache" / "edgeq"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if "files" not in path.parts)

    def kept(self) -> list[Path]:
        """The files that edgeq keeps there."""
        return sorted((self.home / ".cache" / "edgeq" / "files").glob("*"))


def user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def processes() -> list[tuple[int, int]]:
    """Pid and parent of every process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found.append((int(entry.name), int(fields[1])))
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("sshd or ssh is not installed: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    for name in ("host", "key", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    if os.getuid() == 0:
        # Where the server of root keeps nothing, and refuses to start without.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = Server(folder, folder / "home", free_port())
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f"Port {server.port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nMaxSessions 20\n"
        f"SetEnv HOME={server.home}\n"
    )
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {key}\n")
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {folder / 'key'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n  GlobalKnownHostsFile none\n"
    )
    yield server
    server.stop()


@pytest.fixture
def server(_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server with an empty home, and ssh told how to log in."""
    shutil.rmtree(_server.home, ignore_errors=True)
    _server.home.mkdir()
    if _server.process is None or _server.process.poll() is not None:
        _server.start()
    monkeypatch.setenv("EDGEQ_SSH", _server.ssh)
    monkeypatch.delenv("EDGEQ_RUNNERS", raising=False)
    yield _server
    if _server.process is not None:
        _server.cut()


ADB = """#!/bin/sh
# Plays adb for one device, whose files lie in $FAKE_ADB_ROOT: devices, push, pull and shell, with adb's own words.
serial=
if [ "$1" = -s ]; then serial=$2; shift 2; fi
case $1 in
devices)
  printf 'List of devices attached\\n'
  printf 'phone1                 device usb:1-1 product:bramble model:Pixel_4a device:bramble transport_id:1\\n'
  printf 'phone2                 unauthorized usb:1-2 transport_id:2\\n\\n'
  exit 0 ;;
esac
echo "$1" >> "$FAKE_ADB_ROOT/calls"
if [ -f "$FAKE_ADB_ROOT/gone" ]; then echo "error: device offline" >&2; exit 1; fi
case $serial in
phone1) ;;
phone2) echo "error: device unauthorized." >&2; echo "This adb server's \\$ADB_VENDOR_KEYS is not set" >&2; exit 1 ;;
*) echo "error: device '$serial' not found" >&2; exit 1 ;;
esac
tmp=/data/local/tmp
place() { printf '%s' "$1" | sed "s|$FAKE_ADB_ROOT$tmp|$tmp|g; s|$tmp|$FAKE_ADB_ROOT$tmp|g"; }
case $1 in
push) cp "$2" "$(place "$3")" 2> "$FAKE_ADB_ROOT/said" || {
    echo "adb: error: failed to copy '$2' to '$3': remote $(sed 's/.*: //' "$FAKE_ADB_ROOT/said")" >&2; exit 1; }
  echo "$2: 1 file pushed, 0 skipped." ;;
pull) cp "$(place "$2")" "$3" 2> /dev/null || { echo "adb: error: failed to stat remote object '$2'" >&2; exit 1; }
  echo "$2: 1 file pulled, 0 skipped." ;;
shell) PATH=$FAKE_ADB_ROOT/bin:$PATH exec sh -c "$(place "$2")" ;;
*) echo "adb: unknown command $1" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a phone behind a stand-in for adb on the path; what it answers is in ADB."""
    root = tmp_path / "phone"
    (root / "data" / "local" / "tmp").mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "getprop").write_text(
        '#!/bin/sh\ncase $1 in ro.product.model) echo "Pixel 4a" ;; ro.product.cpu.abilist) echo arm64-v8a ;; esac\n'
    )
    (root / "bin" / "uname").write_text(
        "#!/bin/sh\ncase $1 in -m) echo aarch64 ;; -s) echo Linux ;; *) echo 4.19 ;; esac\n"
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "adb").write_text(ADB)
    for script in (*(root / "bin").iterdir(), tools / "adb"):
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ADB_ROOT", str(root))
    monkeypatch.delenv("EDGEQ_RUNNERS", raising=False)
    return root
