"""`edgeq bench`: latency of a model on this machine."""

from __future__ import annotations

import json
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
@click.option("--layers", is_flag=True, help="Time every layer.")
@click.option(
    "--beside",
    type=click.Choice(["onnxruntime", "openvino", "litert"]),
    help="Time a peer in alternating rounds: on the folder's file for it and, where it can run them, on the float "
    "model and on the float model in its own quantization.",
)
@click.option(
    "--rounds", default=7, show_default=True, type=click.IntRange(2, 100), help="Rounds of --beside."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to a file.")
def command(
    model: Path,
    threads: int,
    batch: int,
    seconds: float,
    layers: bool,
    beside: str | None,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Time MODEL, a .edgeq file or an exported folder."""
    from edgeq.deployment.bench import bench_model
    from edgeq.outputs import write_text

    result = bench_model(
        model, threads=threads, batch=batch, seconds=seconds, layers=layers, beside=beside, rounds=rounds
    )
    click.echo(_format(result))
    if json_path is not None:
        write_text(json_path, json.dumps(result, indent=1) + "\n")


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
