"""`edgeq verify`: a quantized model beside its float model, on labelled inputs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeq.cli.options import parse_preprocessing, preprocessing_options


@click.command("verify")
@click.argument("target", metavar="DIR|MODEL", type=click.Path(path_type=Path))
@click.option(
    "--reference", type=click.Path(path_type=Path), help="Float .onnx or .tflite model. [default: the one in DIR]"
)
@click.option(
    "--data", required=True, metavar="DATA", help="Inputs, with labels for accuracy and calibration."
)
@click.option(
    "--backend",
    default="native",
    show_default=True,
    metavar="NAME",
    help="Who runs the quantized model; `edgeq backends` lists them.",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
@click.option("--samples", type=click.IntRange(1), help="Use the first N inputs only.")
@preprocessing_options
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to a file.")
@click.option(
    "--report", "report_path", type=click.Path(path_type=Path), help="Write a self-contained HTML page."
)
def command(
    target: Path,
    reference: Path | None,
    data: str,
    backend: str,
    threads: int,
    samples: int | None,
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
    json_path: Path | None,
    report_path: Path | None,
) -> None:
    """Compare the quantized model of DIR, or a .edgeq, .onnx or .tflite file, with the float model."""
    from edgeq.outputs import write_text
    from edgeq.verification import verify

    verification = verify(
        target,
        reference=reference,
        data=data,
        backend=backend,
        threads=threads,
        samples=samples,
        preprocessing=parse_preprocessing(resize, crop, mean, std, channels, interpolation),
        progress=True,
    )
    click.echo(verification.summary())
    if json_path is not None:
        write_text(json_path, json.dumps(verification.to_json(), indent=1) + "\n")
    if report_path is not None:
        write_text(report_path, verification.html())
        click.echo(f"report: {report_path}")
