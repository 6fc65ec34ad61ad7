"""`edgeq compare`: several quantized models of one float model, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeq.cli.options import OutputFile, parse_preprocessing, preprocessing_options
from edgeq.cli.tables import format_columns

if TYPE_CHECKING:
    from edgeq.verification.several import Several


@click.command("compare")
@click.argument("targets", metavar="DIR|MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DATA", help="Inputs, with labels for accuracy and calibration.")
@click.option(
    "--reference", type=click.Path(path_type=Path), help="Float .onnx or .tflite model. [default: the one in DIR]"
)
@click.option(
    "--backend",
    default="native",
    show_default=True,
    metavar="NAME",
    help="Who runs the models for their figures; `edgeq backends` lists them.",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
@click.option("--samples", type=click.IntRange(1), help="Use the first N inputs only.")
@click.option(
    "--latency/--no-latency",
    "timed",
    default=True,
    show_default=True,
    help="Time one input in the native engine, in alternating rounds; the float model in its own runtime.",
)
@click.option(
    "--shift", metavar="SUITE[:TYPES[:SEVERITIES]]", help="Run corruptions too: imagenet-c::1,3,5, cifar10-c, mnist-c."
)
@click.option("--shift-samples", type=click.IntRange(1), help="Use the first N inputs only for corruptions.")
@preprocessing_options
@click.option("--json", "json_path", type=OutputFile(), help="Write the figures to a file.")
@click.option("--report", "report_path", type=OutputFile(), help="Write a self-contained HTML page.")
def command(
    targets: tuple[Path, ...],
    data: str,
    reference: Path | None,
    backend: str,
    threads: int,
    samples: int | None,
    timed: bool,
    shift: str | None,
    shift_samples: int | None,
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
    json_path: Path | None,
    report_path: Path | None,
) -> None:
    """Put several models in one table: folders of `edgeq export`, .edgeq files, .onnx and .tflite files of other tools.

    All are compared with one float model, on the same inputs. A star marks what no other model in the table beats in
    accuracy and size at once, a plus in accuracy and latency.
    """
    from edgeq.outputs import write_text
    from edgeq.verification.several import verify_several

    found = verify_several(
        targets,
        data=data,
        reference=reference,
        backend=backend,
        preprocessing=parse_preprocessing(resize, crop, mean, std, channels, interpolation),
        samples=samples,
        threads=threads,
        timed=timed,
        shift=shift,
        shift_samples=shift_samples,
        progress=True,
    )
    click.echo(format_several(found))
    if json_path is not None:
        write_text(json_path, json.dumps(found.to_json(), indent=1) + "\n")
    if report_path is not None:
        write_text(report_path, found.html())
        click.echo(f"report: {report_path}")


def format_several(found: Several) -> str:
    """The models in columns, the float model first."""
    from edgeq.verification.several import table_rows

    header, rows = table_rows(found)
    fronts = found.fronts()
    marked = []
    for row in rows:
        marks = "*" * (row[0].text in fronts["size"]) + "+" * (row[0].text in fronts.get("latency", ()))
        marked.append((f"{row[0].text} {marks}".rstrip(), *(cell.whole for cell in row[1:])))
    text = format_columns(header, marked, right=range(1, len(header)))
    text += f"\n\nn = {found.n}; in brackets 95 % intervals; * on the Pareto front of accuracy over size"
    text += ", + over latency" if "latency" in fronts else ""
    return "\n".join((text, *(f"note: {note}" for note in found.notes())))
