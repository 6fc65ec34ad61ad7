"""`edgeq inspect`: every layer of a .edgeq file."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.tables import format_columns


@click.command("inspect")
@click.argument("model", type=click.Path(path_type=Path))
def command(model: Path) -> None:
    """Show every layer of MODEL (a .edgeq file or an exported folder): shape, bits, kernel, bytes, MACs."""
    from edgeq.exporters.folder import model_file
    from edgeq.importers import from_edgeq
    from edgeq.session import Session

    path = model_file(model)
    _, info = from_edgeq.load(path)
    session = Session(path)
    rows = [
        (
            step.name,
            step.op,
            "x".join(str(size) for size in step.shape),
            f"w{step.weight_bits}" if step.weight_bits else "",
            step.kernel,
            f"{step.weight_bytes:,}" if step.weight_bytes else "",
            f"{step.macs:,}" if step.macs else "",
        )
        for step in session.layers
    ]
    click.echo(
        format_columns(("layer", "operator", "output", "bits", "kernel", "bytes", "MACs"), rows, right=(5, 6))
    )
    click.echo()
    for end, names in (("input", session.inputs), ("output", session.outputs)):
        for item in names:
            click.echo(f"{end:<18} {item}")
    if info.preprocessing is not None:
        click.echo(f"{'preprocessing':<18} {info.preprocessing}")
    if info.guard is not None:
        click.echo(
            f"{'guard':<18} temperature {info.guard.temperature:.6g}, defers where the two highest probabilities "
            f"differ by less than {info.guard.margin:.6g}"
        )
    click.echo(f"{'file':<18} {path.stat().st_size:,} bytes")
    click.echo(f"{'weights in memory':<18} {session.weight_bytes:,} bytes")
    click.echo(f"{'arena, batch 1':<18} {session.arena_bytes(1):,} bytes")
    click.echo(f"{'MACs, batch 1':<18} {session.macs:,}")
