"""`edgeq run`: arrays through a .edgeq file."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.options import OutputFile
from edgeq.errors import UsageError


@click.command("run")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--input", "input_path", required=True, type=click.Path(path_type=Path), help=".npy with the batch first."
)
@click.option(
    "--output", "output_path", required=True, type=OutputFile(), help=".npy for the result."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
def command(model: Path, input_path: Path, output_path: Path, threads: int) -> None:
    """Run MODEL.edgeq on an array; float32 gives float32, int8 codes give int8 codes."""
    from edgeq.outputs import load_inputs, save_npy
    from edgeq.session import Session

    session = Session(model, threads=threads)
    if len(session.outputs) != 1:
        names = ", ".join(output.name for output in session.outputs)
        raise UsageError(
            f"{model} has {len(session.outputs)} outputs ({names}) and a .npy file holds one array; use edgeq.Session "
            "from Python, whose run returns them all"
        )
    result = session.run(load_inputs(input_path))
    assert not isinstance(result, list)
    save_npy(output_path, result)
    click.echo(f"{output_path}: {result.dtype}{list(result.shape)}")
