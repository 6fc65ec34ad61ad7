"""`edgeq run`: arrays through a .edgeq file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("run")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--input", "input_path", required=True, type=click.Path(path_type=Path), help=".npy with the batch first."
)
@click.option(
    "--output", "output_path", required=True, type=click.Path(path_type=Path), help=".npy for the result."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
def command(model: Path, input_path: Path, output_path: Path, threads: int) -> None:
    """Run MODEL.edgeq on an array; float32 gives float32, int8 codes give int8 codes."""
    from edgeq.outputs import load_npy, save_npy
    from edgeq.session import Session

    session = Session(model, threads=threads)
    result = session.run(load_npy(input_path))
    save_npy(output_path, result if not isinstance(result, list) else result[0])
    click.echo(
        f"{output_path}: {result.dtype}{list(result.shape)}"
        if not isinstance(result, list)
        else str(output_path)
    )
