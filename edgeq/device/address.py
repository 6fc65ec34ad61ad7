"""What a device is called: local, ssh://user@host[:port], adb://serial, qemu://cpu."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote

from edgeq.errors import UsageError

KINDS = ("local", "ssh", "adb", "qemu")

CPUS_64 = ("cortex-a53", "cortex-a72", "cortex-a76", "max")
"""CPU models of qemu-aarch64 that stand for the boards and phones edgeq is built for."""

CPUS_32 = ("cortex-a7", "cortex-a15")
"""The same of qemu-arm."""

FORMS = "local, ssh://user@host[:port], adb://serial or qemu://cpu"


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """Where a device is and how programs start there.

    Attributes:
        text: As the user wrote it, without what stands after "?".
        kind: One of KINDS.
        where: user@host, the serial number or the CPU model; empty for local.
        port: Of ssh, or None for what ssh itself takes.
        emulator: Words that stand before every program, or none.
        folder: Where files are kept on the device, or None for a folder that it offers.
        given: As the user wrote it, whole.
    """

    text: str
    kind: str
    where: str = ""
    port: int | None = None
    emulator: tuple[str, ...] = ()
    folder: str | None = None
    given: str = field(default="", compare=False)


def parse_address(text: str) -> DeviceAddress:
    """Reads an address; `?emulator=COMMAND` and `?folder=PATH` may follow.

    The emulator is a command of the device that runs the runner there, such as "qemu-aarch64 -cpu cortex-a72"; the
    folder takes the place of the one in which the device keeps the runner and models.

    Raises:
        UsageError: If it has none of the four forms.
    """
    return replace(_parse(text), given=text)


def _parse(text: str) -> DeviceAddress:
    place, _, query = text.partition("?")
    kind, separator, where = place.partition("://")
    where = unquote(where.rstrip("/"))
    options = _options(text, query)
    emulator = tuple(shlex.split(options.get("emulator", "")))
    folder = options.get("folder")
    if folder is not None and not folder.startswith("/"):
        raise UsageError(f"{text}: the folder on the device must begin with /, not {folder!r}.")
    if place == "local":
        return DeviceAddress(place, "local", emulator=emulator, folder=folder)
    if not separator or kind not in KINDS or not where:
        raise UsageError(f"{text!r} names no device; write {FORMS}.")
    # A word that begins with "-" would be taken for an option of ssh or adb.
    if where.startswith("-") or re.search(r"[\s/]", where):
        raise UsageError(f"{text!r} names no device: {where!r} is no name; write {FORMS}.")
    if kind == "qemu":
        if emulator:
            raise UsageError(f"{text}: qemu:// is an emulator itself; leave out emulator=.")
        return DeviceAddress(place, kind, where, emulator=_qemu(text, where), folder=folder)
    if kind == "adb":
        return DeviceAddress(place, kind, where, emulator=emulator, folder=folder)
    host, port = _host_and_port(text, where)
    return DeviceAddress(place, kind, host, port, emulator, folder)


def _options(text: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - {"emulator", "folder"})
    if unknown or (query and not options):
        raise UsageError(
            f"{text}: after ? stand emulator=COMMAND and folder=PATH, not {unknown[0] if unknown else query!r}."
        )
    return options


def _host_and_port(text: str, where: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"((?:[^@]+@)?(?:\[[0-9A-Fa-f:.%\w]+\]|[^:@\[\]]+))(?::(\d{1,5}))?", where)
    if match is None:
        raise UsageError(f"{text!r} names no device; write ssh://user@host or ssh://user@host:port.")
    host, port = match.groups()
    if port is not None and not 1 <= int(port) <= 65535:
        raise UsageError(f"{text}: a port is a number from 1 to 65535.")
    if host.rpartition("@")[2].startswith("-"):
        raise UsageError(f"{text!r} names no device; a host's name does not begin with a dash.")
    return host.replace("[", "").replace("]", ""), None if port is None else int(port)


def _qemu(text: str, where: str) -> tuple[str, ...]:
    """The command of the emulator; qemu's options of the CPU may follow its name, as in max,sve=off."""
    name, comma, features = where.partition(",")
    cpu = name if name.startswith(("cortex-", "max")) else f"cortex-{name}"
    if cpu in CPUS_64:
        return (_installed("qemu-aarch64"), "-cpu", f"{cpu}{comma}{features}")
    if cpu in CPUS_32:
        return (_installed("qemu-arm"), "-cpu", f"{cpu}{comma}{features}")
    raise UsageError(f"{text}: emulated CPUs are {', '.join(CPUS_64 + CPUS_32)}, not {name}.")


def _installed(program: str) -> str:
    """The emulator under the name that it has here."""
    static = f"{program}-static"
    return static if shutil.which(program) is None and shutil.which(static) is not None else program
