"""`edgeq bench`: latency of a model, on this machine or on devices."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from edgeq.cli.options import OutputFile, device_options, say
from edgeq.cli.tables import format_columns


@click.command("bench")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 1024))
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.05, 600),
    help="Time at least this long.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="First measure the kernels that each layer could use, and write the fastest to a file beside MODEL, "
    "which sessions then follow on this CPU.",
)
@click.option("--layers", is_flag=True, help="Time every layer.")
@click.option(
    "--beside",
    type=click.Choice(["onnxruntime", "openvino", "litert"]),
    help="Time a peer in alternating rounds: on the folder's file for it and, where it can run them, on the float "
    "model and on the float model in its own quantization.",
)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(2, 100), help="Rounds of --beside.")
@device_options(several=True)
@click.option("--cpus", metavar="LIST", help="CPUs of the device to keep to, such as 0-3; needs --device.")
@click.option("--json", "json_path", type=OutputFile(), help="Write the figures to a file.")
def command(
    model: Path,
    threads: int,
    batch: int,
    seconds: float,
    tune: bool,
    layers: bool,
    beside: str | None,
    rounds: int,
    devices: tuple[str, ...],
    runner: Path | None,
    timeout: float | None,
    cpus: str | None,
    json_path: Path | None,
) -> int:
    """Time MODEL, a .edgeq file or an exported folder."""
    if devices:
        if tune or beside is not None:
            from edgeq.errors import UsageError

            raise UsageError("--tune and --beside measure on this machine; leave them out with --device.")
        return _on_devices(model, devices, threads, batch, seconds, layers, cpus, runner, timeout, json_path)
    if cpus is not None or runner is not None or timeout is not None:
        from edgeq.errors import UsageError

        raise UsageError("--cpus, --runner and --timeout need a device; add --device local for this machine.")
    from edgeq.deployment.bench import bench_model
    from edgeq.outputs import write_text

    tuning = _tune(model, threads, batch) if tune else None
    result = bench_model(
        model, threads=threads, batch=batch, seconds=seconds, layers=layers, beside=beside, rounds=rounds
    )
    if tuning is not None:
        result["tuning"] = tuning
    click.echo(_format(result))
    if json_path is not None:
        write_text(json_path, json.dumps(result, indent=1) + "\n")
    return 0


def _on_devices(
    model: Path,
    devices: tuple[str, ...],
    threads: int,
    batch: int,
    seconds: float,
    layers: bool,
    cpus: str | None,
    runner: Path | None,
    timeout: float | None,
    json_path: Path | None,
) -> int:
    """Returns 1 when a device failed: the figures of the others stand all the same."""
    from edgeq.device.bench import bench_devices
    from edgeq.device.device import TIMEOUT
    from edgeq.outputs import write_text

    found = bench_devices(
        model,
        devices,
        threads=threads,
        batch=batch,
        seconds=seconds,
        layers=layers,
        cpus=cpus,
        runner=runner,
        timeout=TIMEOUT if timeout is None else timeout,
        say=say,
    )
    click.echo(format_devices(found))
    if json_path is not None:
        write_text(json_path, json.dumps({"devices": found}, indent=1) + "\n")
    failed = [one for one in found if "error" in one]
    for one in failed:
        say(one["error"])
    return 1 if failed else 0


def format_devices(found: list[dict[str, Any]]) -> str:
    """The figures of devices side by side, with what each says about itself and what disturbed it."""
    header = ("device", "cpu", "instructions", "median ms", "p10", "p90", "GMAC/s", "MHz", "governor", "deg C")
    rows = []
    notes = []
    for one in found:
        if "error" in one:
            rows.append((one["device"], "failed", *[""] * 8))
            continue
        latency, machine = one["latency"], one["machine_after"]
        rows.append(
            (
                one["device"],
                machine["cpu"],
                one["isa"],
                *(f"{latency[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms")),
                f"{one['gmac_per_s']:.1f}",
                f"{machine['mhz']:.0f}" if "mhz" in machine else "",
                machine.get("governor", ""),
                f"{machine['temperature']:.0f}" if "temperature" in machine else "",
            )
        )
        notes += [f"{one['device']}: {warning}" for warning in one["warnings"]]
        if one["emulated"]:
            notes.append(f"{one['device']}: the CPU is emulated; its times mean nothing, its outputs are exact")
    text = format_columns(header, rows, right=range(3, 8))
    good = [one for one in found if "error" not in one]
    if good:
        threads = good[0]["threads"]
        text += f"\n\nbatch {good[0]['batch']}, {threads} thread{'s' if threads > 1 else ''}"
    for note in notes:
        text += f"\nwarning: {note}"
    if any("layers" in one for one in good):
        text += "\n\n" + _device_layers(good)
    return text


def _device_layers(good: list[dict[str, Any]]) -> str:
    """Times of the layers, a column a device. Devices may run other layers together, so each names its own."""
    names = list(dict.fromkeys(layer["name"] for one in good for layer in one["layers"]))
    times = [{layer["name"]: layer["ms"] for layer in one["layers"]} for one in good]
    operators = {layer["name"]: layer["op"] for one in good for layer in one["layers"]}
    rows = [
        (name, operators[name], *(f"{column[name]:.4f}" if column.get(name) else "" for column in times))
        for name in names
        if any(column.get(name) for column in times)
    ]
    header = ("layer", "operator", *(f"ms on {one['device']}" for one in good))
    return format_columns(header, rows, right=range(2, 2 + len(good)))


def _tune(model: Path, threads: int, batch: int) -> dict[str, Any]:
    from edgeq.deployment.tune import tune_model
    from edgeq.errors import UsageError
    from edgeq.exporters.folder import model_file
    from edgeq.tuning import tuning_file

    path = model_file(model)
    if path.suffix.lower() != ".edgeq":
        raise UsageError(f"{path}: --tune needs a .edgeq file, which the tuning lies beside; export the model first")

    def report(number: int, count: int) -> None:
        click.echo(f"\rtuning            session {number + 1} of {count}", nl=number + 1 == count, err=True)

    shown = report if sys.stderr.isatty() else None
    found = tune_model(path, threads=threads, batch=batch, report=shown)
    found.tuning.write(tuning_file(path))
    rows = [(choice.shape, choice.default, choice.kernel, f"{choice.ratio:.3f}") for choice in found.choices]
    changed = [row for row in rows if row[1] != row[2]]
    if changed:
        click.echo(format_columns(("shape", "cost model", "measured", "ratio"), changed, right=(3,)))
    click.echo(
        f"tuning            {len(changed)} of {len(rows)} shapes changed; time divided by that with the cost model's "
        f"kernels: {found.ratio:.3f}"
    )
    click.echo(f"written           {tuning_file(path)}")
    return found.to_json()


def _format(result: dict[str, Any]) -> str:
    latency = result["latency"]
    lines = [
        f"latency           {latency['median_ms']:.3f} ms median, "
        f"{latency['p10_ms']:.3f} p10, {latency['p90_ms']:.3f} p90, "
        f"{latency['runs']} runs, batch {result['batch']}",
        f"instruction set   {result['isa']}, {result['threads']} thread{'s' if result['threads'] > 1 else ''}",
        f"weights           {result['weight_bytes']:,} bytes",
        f"arena             {result['arena_bytes']:,} bytes",
        f"MACs              {result['macs']:,} ({result['gmac_per_s']:.1f} G/s)",
    ]
    for name, peer in result.get("peers", {}).items():
        lines.append(
            f"beside            {name}: {peer['latency']['median_ms']:.3f} ms median; edgeq / peer {peer['ratio']:.3f} "
            f"({peer['ratio_min']:.3f} to {peer['ratio_max']:.3f} over {peer['rounds']} alternating rounds)"
        )
    if "layers" in result:
        rows = [
            (
                layer["name"],
                layer["op"],
                layer["kernel"],
                f"{layer['ms']:.4f}",
                f"{layer['share'] * 100:.1f}",
                f"{layer['gmac_per_s']:.1f}" if layer["macs"] else "",
            )
            for layer in result["layers"]
        ]
        lines += [
            "",
            format_columns(("layer", "operator", "kernel", "ms", "%", "GMAC/s"), rows, right=(3, 4, 5)),
        ]
    return "\n".join(lines)
