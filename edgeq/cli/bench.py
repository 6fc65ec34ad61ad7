"""`edgeq bench`: latency of a model on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

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
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to a file.")
def command(
    model: Path,
    threads: int,
    batch: int,
    seconds: float,
    tune: bool,
    layers: bool,
    beside: str | None,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Time MODEL, a .edgeq file or an exported folder."""
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
