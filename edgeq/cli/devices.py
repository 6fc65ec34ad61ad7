"""`edgeq devices`: where models can run, and what a device says about itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgeq.cli.options import OutputFile, say
from edgeq.cli.tables import format_columns


@click.command("devices")
@click.argument("devices", metavar="[DEVICE]...", nargs=-1)
@click.option(
    "--runner",
    type=click.Path(path_type=Path),
    help="The edgeq-runner for the devices, or a folder of them. [default: EDGEQ_RUNNERS]",
)
@click.option("--clean", is_flag=True, help="Remove what edgeq keeps on the devices.")
@click.option("--json", "json_path", type=OutputFile(), help="Write the facts to a file.")
def command(devices: tuple[str, ...], runner: Path | None, clean: bool, json_path: Path | None) -> int:
    """List the devices that can be seen from here, or connect to each DEVICE and show what it is."""
    from edgeq.errors import UsageError
    from edgeq.outputs import write_text

    if not devices:
        if clean or json_path is not None or runner is not None:
            raise UsageError("--clean, --json and --runner need a DEVICE; name one, such as ssh://pi@raspberrypi.")
        click.echo(format_columns(("device", "what it is"), _seen()))
        return 0
    found = [_look(text, runner, clean) for text in devices]
    shown = [_format(one) for one in found if "error" not in one]
    if shown:
        click.echo("\n\n".join(shown))
    if json_path is not None:
        write_text(json_path, json.dumps({"devices": found}, indent=1) + "\n")
    for one in found:
        if "error" in one:
            say(one["error"])
    return 1 if any("error" in one for one in found) else 0


def _seen() -> list[tuple[str, str]]:
    from edgeq.device.adb import adb_devices
    from edgeq.device.address import CPUS_32, CPUS_64

    rows = [("local", "this machine")]
    for program, cpus in (("qemu-aarch64", CPUS_64), ("qemu-arm", CPUS_32)):
        there = shutil.which(program) is not None
        words = (
            f"emulated by {program}: right outputs, no times" if there else f"needs {program}, which is not installed"
        )
        rows += [(f"qemu://{cpu}", words) for cpu in cpus]
    for serial, state, model in adb_devices():
        rows.append((f"adb://{serial}", model.replace("_", " ") if state == "device" else f"{model} {state}".strip()))
    if shutil.which("adb") is None:
        rows.append(("adb://serial", "needs adb, which is not installed"))
    rows.append(("ssh://user@host[:port]", "any board that ssh reaches without a password; hosts of ~/.ssh/config too"))
    return rows


def _look(text: str, runner: Path | None, clean: bool) -> dict[str, Any]:
    from edgeq.device.address import parse_address
    from edgeq.device.device import open_device
    from edgeq.errors import EdgeqError, UsageError

    address = parse_address(text)
    try:
        with open_device(address, runner=runner, say=say) as device:
            if clean:
                device.clean()
                return {"device": address.text, "cleaned": True, "facts": asdict(device.facts)}
            found: dict[str, Any] = {"device": address.text, "facts": asdict(device.facts)}
            try:
                found["runner"] = str(device.runner.path)
            except EdgeqError as error:
                return {**found, "no_runner": str(error)}
            return {**found, "info": device.info()}
    except UsageError:
        raise
    except EdgeqError as error:
        return {"device": address.text, "error": str(error)}


def _format(one: dict[str, Any]) -> str:
    facts = one["facts"]
    if one.get("cleaned"):
        return f"{one['device']}: {facts['folder']} holds nothing of edgeq any more"
    lines = [
        ("device", one["device"]),
        ("system", f"{facts['system']}, {facts['machine']}; programs for {facts['abi']}"),
    ]
    if facts["board"]:
        lines.append(("board", facts["board"]))
    if facts["features"]:
        shown = [word for word in facts["features"] if word in _FEATURES]
        lines.append(("CPU features", ", ".join(shown) or "none that edgeq uses"))
    free = "" if facts["free_bytes"] is None else f", {facts['free_bytes'] / 1e6:,.0f} MB free"
    lines.append(("folder", f"{facts['folder']}{free}"))
    if "info" not in one:
        lines.append(("runner", one["no_runner"]))
    else:
        info = one["info"]
        machine = info["machine"]
        lines += [
            ("runner", f"{one['runner']}, {info['version']}"),
            ("cpu", f"{machine['cpu']}, {len(machine['cpus'])} in use"),
            ("instructions", f"{', '.join(info['available'])}; in use {info['in_use']}"),
        ]
        for key, name, form in _MACHINE:
            if key in machine:
                lines.append((name, form.format(machine[key])))
    return "\n".join(f"{name:<16}  {value}" for name, value in lines)


_MACHINE = (
    ("mhz", "frequency", "{:.0f} MHz"),
    ("governor", "governor", "{}"),
    ("temperature", "temperature", "{:.1f} degrees C"),
)

_FEATURES = (
    *("neon", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "vfpv4"),
    *("avx2", "avx_vnni", "avx512_vnni", "avx512vbmi", "amx_int8"),
)
