"""A connected device: what it is, the files it keeps, and edgeq-runner on it."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgeq.data.files import file_digest
from edgeq.device.adb import AdbTransport
from edgeq.device.address import DeviceAddress, parse_address
from edgeq.device.runners import Runner, find_runner
from edgeq.device.ssh import SshTransport
from edgeq.device.transport import READY, ConnectionLost, Done, LocalTransport, TimeLimit, Transport
from edgeq.errors import DeviceError
from edgeq.outputs import load_npy, save_npy

T = TypeVar("T")

TIMEOUT = 600.0
"""Seconds that one command on a device may take unless the user says otherwise."""

PAUSES = (1.0, 4.0)
"""Seconds before a broken connection is made again, for the first and the second time."""

KEPT_FILES = 8
"""Runners and models that a device keeps for the next time; the one that was not used for longest goes first."""

# The pid of this shell names the folder of the session, so that the next session can tell which ones were left behind.
_HOLD = """
umask 077
LC_ALL=C; export LC_ALL
# Ends a line that the login shell may have begun.
echo
fact() { printf 'edgeq-fact %s %s\\n' "$1" "$(printf '%s' "$2" | tr '\\n' ' ')"; }
# Whether a session's folder still has its shell: a pid alone may be another program's by now.
holds() { grep -q edgeq-fact "/proc/${1##*.}/cmdline" 2> /dev/null; }
shell=$(command -v sh)
root=
for try in FOLDERS; do
  scratch=$try/run.$$
  if ! said=$( { mkdir -p "$try/files" "$scratch" && printf '#!%s\\nexit 0\\n' "$shell" > "$scratch/probe" &&
      chmod 700 "$scratch/probe" && [ -s "$scratch/probe" ]; } 2>&1 ); then
    fact rejected "$try: ${said:-the disk is full}"; rm -rf "$scratch"; continue
  fi
  if OWNED && ! [ -O "$try" ]; then
    fact rejected "$try: belongs to another user"; rm -rf "$scratch"; continue
  fi
  if EXECUTES && ! "$scratch/probe" > /dev/null 2>&1; then
    fact rejected "$try: programs may not run from there (it is mounted noexec)"; rm -rf "$scratch"; continue
  fi
  rm -f "$scratch/probe"
  root=$try
  break
done
if [ -n "$root" ]; then
  # A line that fell silent may seem open to the device for hours: what is known to be lost ends now.
  for old in LOST; do
    holds "$old" || continue
    [ -f "$old/pid" ] && kill -9 "$(cat "$old/pid")" 2> /dev/null
    kill -9 "${old##*.}" && rm -rf "$old"
  done
  for old in "$root"/run.*; do
    holds "$old" || rm -rf "$old"
  done
  fact folder "$root"
  fact scratch "$scratch"
  set -- $(df -Pk "$root" 2> /dev/null | tail -n 1)
  fact free_kib "${4:-}"
fi
fact system "$(uname -s) $(uname -r)"
fact machine "$(uname -m)"
fact bits "$(getconf LONG_BIT 2> /dev/null)"
fact abis "$(getprop ro.product.cpu.abilist 2> /dev/null)"
fact features "$(grep -m 1 -E '^(Features|flags)' /proc/cpuinfo 2> /dev/null | cut -d : -f 2)"
board=$(tr -d '\\000' 2> /dev/null < /proc/device-tree/model)
fact board "${board:-$(getprop ro.product.model 2> /dev/null)}"
echo READY
trap '' HUP INT PIPE
cat > /dev/null
[ -n "$root" ] || exit 0
for each in 1 2 3; do
  [ -f "$scratch/pid" ] && kill -9 "$(cat "$scratch/pid")" 2> /dev/null
  rm -rf "$scratch" && break
done
rmdir "$root/files" "$root" 2> /dev/null
"""


# Until the process is gone; it may not have begun when its time was up.
_END = """
seen=
for each in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  pid=$(cat PID 2> /dev/null)
  if [ -n "$pid" ]; then kill -9 "$pid" 2> /dev/null || exit 0; elif [ -n "$seen" ]; then exit 0; fi
  seen=$pid
  sleep 0.2 2> /dev/null || sleep 1
done
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device says about itself.

    Attributes:
        system: Kernel and its release.
        machine: As `uname -m` names it.
        abi: What programs must be built for: aarch64, armv7, x86_64, i686; of the emulated CPU where there is one.
        board: Model of the board or phone, or empty.
        features: CPU features as the kernel names them; empty where a CPU is emulated.
        folder: Where edgeq keeps files there.
        free_bytes: Free space there; None where it is not known.
        rejected: Folders that could not be used, and why.
    """

    system: str
    machine: str
    abi: str
    board: str
    features: tuple[str, ...]
    folder: str
    free_bytes: int | None
    rejected: tuple[str, ...]


class Device:
    """A device that is connected while the context is open.

    A connection that breaks is made again, twice at most, and what was under way is repeated. Whatever a session
    writes lies in a folder of its own, which the device itself removes when the connection ends; the runner and the
    models stay, named by their content, so that they are sent again only when they change.

    Args:
        address: Where it is.
        runner: An edgeq-runner or a folder of them; None to look where `find_runner` does.
        timeout: Seconds that one command may take.
        say: Is told in a sentence what the user should know meanwhile.
    """

    def __init__(
        self,
        address: DeviceAddress | str,
        *,
        runner: Path | None = None,
        timeout: float = TIMEOUT,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.address = parse_address(address) if isinstance(address, str) else address
        self.timeout = timeout
        self._runner_choice = runner
        self._say = say or (lambda sentence: None)
        self._transport = _transport(self.address)
        self._scratch = ""
        self._lost: list[str] = []
        self._placed: dict[tuple[Path, int, int], str] = {}
        self._runner: Runner | None = None
        self._info: dict[str, Any] | None = None
        self._here: tempfile.TemporaryDirectory[str] | None = None
        self._facts: Facts | None = None

    def __enter__(self) -> Device:
        self._here = tempfile.TemporaryDirectory(prefix="edgeq-")
        try:
            self._connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and removes what the session left, there and here."""
        self._transport.close()
        if self._here is not None:
            self._here.cleanup()
            self._here = None

    @property
    def facts(self) -> Facts:
        """What the device says about itself."""
        if self._facts is None:
            raise DeviceError(f"{self.address.text}: is not connected; open it with a with statement.")
        return self._facts

    @property
    def runner(self) -> Runner:
        """The runner that fits the device.

        Raises:
            EdgeqError: If there is none.
        """
        if self._runner is None:
            kind = self.address.kind
            self._runner = find_runner(self.facts.abi, self._runner_choice, here=kind == "local", android=kind == "adb")
        return self._runner

    def _connect(self) -> None:
        folders = [shlex.quote(self.address.folder)] if self.address.folder is not None else self._transport.folders
        script = _HOLD.replace("FOLDERS", " ".join(folders)).replace("READY", READY)
        script = script.replace("OWNED", "false" if self.address.folder is not None else "true")
        # An emulator reads the runner; only a runner that starts by itself needs the right to.
        script = script.replace("EXECUTES", "false" if self.address.emulator else "true")
        script = script.replace("LOST", " ".join(map(shlex.quote, self._lost)))
        self._placed.clear()
        lines = self._transport.open(script)
        found: dict[str, str] = {}
        rejected = []
        for line in lines:
            word, _, rest = line.partition(" ")
            key, _, value = rest.partition(" ")
            if word == "edgeq-fact" and key == "rejected":
                rejected.append(" ".join(value.split()))
            elif word == "edgeq-fact":
                found[key] = value.strip()
        if "folder" not in found:
            cure = f"name a folder that may be written and run from: '{self.address.text}?folder=/PATH'"
            raise DeviceError(
                f"{self.address.text}: no place for files. {'; '.join(rejected)}. Free some space, or {cure}."
            )
        if self._facts is None:
            for reason in rejected:
                self._say(f"{self.address.text}: uses {found['folder']}, since {reason}")
        self._scratch = found["scratch"]
        self._lost.clear()
        self._facts = _facts(self.address, found, tuple(rejected))

    def _steadily(self, action: Callable[[], T]) -> T:
        """Does something; when the connection breaks, connects again and repeats it.

        Raises:
            DeviceError: If it breaks for the third time, or cannot be made again.
        """
        for pause in (*PAUSES, None):
            try:
                if not self._scratch:
                    self._connect()
                return action()
            except ConnectionLost as error:
                self._lost += [self._scratch] if self._scratch else []
                self._scratch = ""
                if pause is None:
                    raise DeviceError(
                        f"{error} It broke {len(PAUSES) + 1} times; try again where the line is better."
                    ) from None
                self._say(f"{error}; connecting again")
                time.sleep(pause)
        raise AssertionError("the last round returns or raises")

    def place(self, source: Path) -> str:
        """Brings a file of this machine onto the device, unless it is there, and returns its path there.

        Raises:
            DeviceError: If it cannot be written; what is there stays as it was.
        """
        return self._steadily(lambda: self._place(source))

    def _place(self, source: Path) -> str:
        if self._transport.shares_files:
            return str(source.resolve())
        status = source.stat()
        key = (source, status.st_mtime_ns, status.st_size)
        if key in self._placed:
            return self._placed[key]
        digest, size = file_digest(source), status.st_size
        suffix = source.suffix if re.fullmatch(r"\.[a-z0-9]+", source.suffix) else ""
        path = f"{self.facts.folder}/files/{digest[:32]}{suffix}"
        check = _check(path, digest, size)
        if self._execute(check).status != 0:
            part = f"{self._scratch}/part"
            done = self._transport.put(source, part)
            if done.status != 0 and _is_full(done.stderr):
                self._execute(self._forget_others())
                done = self._transport.put(source, part)
            if done.status == 0:
                move = f"chmod 700 {shlex.quote(part)} && mv {shlex.quote(part)} {shlex.quote(path)}"
                done = self._execute(f"{_check(part, digest, size)} && {move}")
            if done.status != 0:
                with contextlib.suppress(DeviceError):
                    self._execute(f"rm -f {shlex.quote(part)}")
                raise self._refused(done, f"{source.name} ({size:,} bytes) could not be written")
            folder = shlex.quote(self.facts.folder)
            old = f"ls -t | tail -n +{KEPT_FILES + 1}"
            self._execute(f'cd {folder}/files && {old} | while read -r one; do rm -f "$one"; done')
        self._placed[key] = path
        return path

    def _forget_others(self) -> str:
        """A script that removes the files on the device which this session does not use."""
        used = "|".join(shlex.quote(path) for path in self._placed.values()) or "''"
        folder = shlex.quote(self.facts.folder)
        return f'for one in {folder}/files/*; do case "$one" in {used}) ;; *) rm -f "$one" ;; esac; done'

    def _execute(self, script: str, timeout: float = 60.0) -> Done:
        return self._transport.execute(script, timeout=timeout)

    def run_runner(self, words: Sequence[str], *, timeout: float | None = None, files: Sequence[Path] = ()) -> Done:
        """Runs edgeq-runner on the device.

        Args:
            words: Its arguments; "{0}", "{1}", ... stand for the places of `files` there, "{scratch}" for the folder of
                the session.
            timeout: Seconds that it may take; None for the device's.
            files: Files of this machine that it needs.

        Raises:
            DeviceError: If it fails, with what it said.
        """
        return self._steadily(lambda: self._run_runner(words, timeout, files))

    def _run_runner(self, words: Sequence[str], timeout: float | None, files: Sequence[Path]) -> Done:
        places = {str(number): self._place(file) for number, file in enumerate(files)}
        places["scratch"] = self._scratch
        # The emulator and the runner take the shell's place, so that its pid is theirs.
        command = [*self.address.emulator, self._place(self.runner.path), *(_filled(word, places) for word in words)]
        script = (
            f"cd {shlex.quote(self._scratch)} && "
            f"sh -c 'echo $$ > pid && exec \"$@\"' sh {shlex.join(command)}; status=$?; rm -f pid; exit $status"
        )
        limit = self.timeout if timeout is None else timeout
        try:
            done = self._execute(script, limit)
        except TimeLimit:
            with contextlib.suppress(DeviceError):
                self._execute(_END.replace("PID", shlex.quote(f"{self._scratch}/pid")), 30)
            raise DeviceError(
                f"{self.address.text}: edgeq-runner {words[0]} did not end within {limit:g} s and was ended; allow it "
                "more with --timeout, or give it less to do."
            ) from None
        if done.status != 0:
            raise self._refused(done, f"edgeq-runner {words[0]} failed")
        return done

    def _refused(self, done: Done, what: str) -> DeviceError:
        """The error for a command that failed, with its cause and its cure."""
        said = " ".join(done.stderr.split())
        said = said.removeprefix("edgeq-runner: ")[-600:]
        folder = self.facts.folder
        other = f"name another folder: '{self.address.text}?folder=/PATH'"
        cause = said or done.text.strip()[-300:] or f"exit status {done.status}"
        if _is_full(said):
            cause = (
                f"the disk that holds {folder} is full. Free some space there (edgeq devices --clean "
                f"'{self.address.given}' removes what edgeq keeps), or {other}. ({said})"
            )
        elif done.status == 126 or "Permission denied" in said or "Read-only file system" in said:
            cause = (
                f"{said or 'it may not be executed'}. Allow the user to write and run programs in {folder}, or {other}."
            )
        elif done.status == 127:
            missing = f"{self.address.emulator[0]} is not installed there" if self.address.emulator else ""
            cause = f"it does not start ({said}). " + (
                missing or "It needs a library that the device lacks; take a static one: edgeq cross builds it."
            )
        elif done.status in (128 + 4, 128 + 7, 128 + 11):
            cause = (
                f"it was ended by signal {done.status - 128}: the CPU lacks an instruction, or the runner has a fault. "
                f"Run edgeq selftest --device '{self.address.given}' and report it."
            )
        elif done.status == 128 + 9:
            cause = (
                "the system ended it, most likely because memory ran out; use a smaller batch, or end other programs."
            )
        return DeviceError(f"{self.address.text}: {what}: {cause}")

    def json(self, words: Sequence[str], *, timeout: float | None = None, files: Sequence[Path] = ()) -> dict[str, Any]:
        """Runs edgeq-runner with `--json -` and returns what it printed; see `run_runner`."""
        done = self.run_runner([*words, "--json", "-"], timeout=timeout, files=files)
        try:
            found: dict[str, Any] = json.loads(done.text)
        except ValueError:
            raise DeviceError(
                f"{self.address.text}: edgeq-runner {words[0]} printed no JSON; is {self.runner.path} of this version?"
            ) from None
        if self.address.emulator and "machine" in found:
            # What the system tells is about the machine that emulates.
            for key in {"machine", "machine_after"} & set(found):
                found[key] = {"cpu": " ".join(self.address.emulator), "cpus": found[key]["cpus"]}
            if "warnings" in found:
                found["warnings"] = []
        return found

    def info(self) -> dict[str, Any]:
        """What `edgeq-runner info` tells: version, architecture, instruction sets, the machine."""
        if self._info is None:
            self._info = self.json(["info"])
        return self._info

    def outputs(
        self, model: Path, x: npt.NDArray[Any], *, threads: int = 1, batch: int = 8, count: int = 1
    ) -> list[npt.NDArray[Any]]:
        """Runs a model of one input on a batch.

        Args:
            model: A .edgeq file of this machine.
            x: float32, int8 or uint8 as `edgeq-runner run` takes it, batch first.
            threads: Of the engine.
            batch: Images that it runs at once.
            count: How many outputs the model has.

        Returns:
            Each output, batch first.
        """
        return self._steadily(lambda: self._outputs(model, x, threads, batch, count))

    def _outputs(
        self, model: Path, x: npt.NDArray[Any], threads: int, batch: int, count: int
    ) -> list[npt.NDArray[Any]]:
        assert self._here is not None
        here = Path(self._here.name)
        save_npy(here / "in.npy", np.ascontiguousarray(x))
        sent = f"{self._scratch}/in.npy"
        done = self._transport.put(here / "in.npy", sent)
        if done.status != 0:
            raise self._refused(done, f"the inputs ({x.nbytes:,} bytes) could not be written")
        names = [f"out{number}.npy" for number in range(count)]
        words = ["run", "{0}", "--input", "{scratch}/in.npy"]
        for name in names:
            words += ["--output", f"{{scratch}}/{name}"]
        self._run_runner([*words, "--threads", str(threads), "--batch", str(batch)], None, [model])
        found = []
        for name in names:
            # Outputs are rarely larger than inputs; the limit is of time alone.
            done = self._transport.get(f"{self._scratch}/{name}", here / name, x.nbytes)
            if done.status != 0:
                raise self._refused(done, "the outputs could not be read")
            found.append(load_npy(here / name))
        return found

    def clean(self) -> None:
        """Removes everything that edgeq keeps on the device."""
        if not self._transport.shares_files:
            self._steadily(lambda: self._execute(f"rm -rf {shlex.quote(self.facts.folder)}/files"))


def open_device(
    address: DeviceAddress | str,
    *,
    runner: Path | None = None,
    timeout: float = TIMEOUT,
    say: Callable[[str], None] | None = None,
) -> Device:
    """Returns a device to be opened with a `with` statement; see `Device`."""
    return Device(address, runner=runner, timeout=timeout, say=say)


def _transport(address: DeviceAddress) -> Transport:
    if address.kind == "ssh":
        return SshTransport(address)
    if address.kind == "adb":
        return AdbTransport(address)
    return LocalTransport(address)


def _facts(address: DeviceAddress, found: dict[str, str], rejected: tuple[str, ...]) -> Facts:
    free = found.get("free_kib", "")
    return Facts(
        system=found.get("system", ""),
        machine=found.get("machine", ""),
        abi=_abi(address, found),
        board="" if address.emulator else found.get("board", ""),
        features=() if address.emulator else tuple(found.get("features", "").split()),
        folder=found["folder"],
        free_bytes=int(free) * 1024 if free.isdigit() else None,
        rejected=rejected,
    )


def _abi(address: DeviceAddress, found: dict[str, str]) -> str:
    if address.emulator:
        name = Path(address.emulator[0]).name.removesuffix("-static")
        emulated = {"qemu-aarch64": "aarch64", "qemu-arm": "armv7", "qemu-x86_64": "x86_64", "qemu-i386": "i686"}
        if name not in emulated:
            raise DeviceError(f"{address.text}: the emulator must be one of {', '.join(emulated)}, not {name}.")
        return emulated[name]
    machine, bits = found.get("machine", ""), found.get("bits", "")
    narrow = bits == "32" or (not bits and "abis" in found and found["abis"] != "" and "64" not in found["abis"])
    if not found.get("system", "").startswith("Linux"):
        raise DeviceError(f"{address.text}: runs {found.get('system')}; edgeq-runner is for Linux and Android.")
    if machine in ("aarch64", "arm64", "armv8l"):
        # A 32-bit system on a 64-bit kernel runs 32-bit programs: those are what is to be measured.
        return "armv7" if narrow or machine == "armv8l" else "aarch64"
    if machine.startswith("armv7"):
        return "armv7"
    if machine in ("x86_64", "amd64"):
        return "i686" if narrow else "x86_64"
    if re.fullmatch(r"i[3-6]86", machine):
        return "i686"
    raise DeviceError(
        f"{address.text}: is {machine or 'of an unknown kind'}; edgeq-runner needs ARMv7 with NEON, AArch64 or x86."
    )


def _check(path: str, digest: str, size: int) -> str:
    """Shell words that succeed where `path` has that content, as far as the device can tell; marks it as used."""
    quoted = shlex.quote(path)
    return (
        f"[ -f {quoted} ] && touch {quoted} && if command -v sha256sum > /dev/null; then "
        f'sum=$(sha256sum {quoted}) && [ "${{sum%% *}}" = {digest} ]; else [ $(wc -c < {quoted}) -eq {size} ]; fi'
    )


def _is_full(said: str) -> bool:
    return any(words in said for words in ("No space left", "Disk quota exceeded", "quota exceeded"))


def _filled(word: str, places: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: places[match[1]], word)
