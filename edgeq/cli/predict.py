"""`edgeq predict`: answers, calibrated probabilities, margins and what to defer."""

from __future__ import annotations

from pathlib import Path

import click

_BATCH = 64


@click.command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--input", "input_path", required=True, type=click.Path(path_type=Path), help=".npy with the batch first."
)
@click.option("--output", "output_path", default="-", show_default=True, help="CSV file; -: standard output.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
def command(model: Path, input_path: Path, output_path: str, threads: int) -> None:
    """Write each input's class, calibrated probability, margin and whether MODEL's guard defers it, as CSV.

    MODEL is a .edgeq file or an exported folder. edgeq-runner predict writes the same bytes.
    """
    from edgeq.exporters.folder import model_file
    from edgeq.outputs import load_inputs, write_text
    from edgeq.session import Session

    session = Session(model_file(model), threads=threads)
    x = load_inputs(input_path)
    lines = ["class,probability,margin,defer"]
    for first in range(0, max(len(x) if x.ndim else 0, 1), _BATCH):
        found = session.predict(x[first : first + _BATCH] if x.ndim else x)
        rows = zip(found.classes, found.probability, found.margin, found.defer, strict=True)
        lines += [
            f"{answer},{probability:.9g},{margin:.9g},{int(defer)}" for answer, probability, margin, defer in rows
        ]
    text = "\n".join(lines) + "\n"
    if output_path == "-":
        click.echo(text, nl=False)
    else:
        write_text(Path(output_path), text)
