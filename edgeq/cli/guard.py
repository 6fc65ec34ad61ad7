"""`edgeq guard`: when a quantized model should ask somebody else."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeq.cli.options import OutputFile, parse_preprocessing, preprocessing_options, say


@click.command("guard")
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="DATA", help="Held-out inputs; their labels, if any, fit the temperature."
)
@click.option(
    "--catch",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the disagreements with the float model to catch.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="How sure that share shall be, 0.95 say; without it, it is caught on average.",
)
@click.option(
    "--fit-share",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the inputs to fit on; the others check the guard.",
)
@click.option(
    "--reference", type=click.Path(path_type=Path), help="Float .onnx or .tflite model. [default: the one in DIR]"
)
@click.option("--samples", type=click.IntRange(1), help="Use the first N inputs only.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
@preprocessing_options
@click.option("--json", "json_path", type=OutputFile(), help="Write the figures to a file.")
def command(
    target: Path,
    data: str,
    catch: float,
    confidence: float | None,
    fit_share: float,
    reference: Path | None,
    samples: int | None,
    threads: int,
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
    json_path: Path | None,
) -> None:
    """Fit a temperature and a margin that catch disagreements of DIR's model with the float model.

    Both are written into model.edgeq (DIR may also be a .edgeq file). `edgeq predict`, edgeq.Session.predict and
    `edgeq-runner predict` then say which inputs to defer.
    """
    from edgeq.outputs import write_text
    from edgeq.verification.guard import guard

    fit = guard(
        target,
        data=data,
        catch=catch,
        confidence=confidence,
        fit_share=fit_share,
        reference=reference,
        preprocessing=parse_preprocessing(resize, crop, mean, std, channels, interpolation),
        samples=samples,
        threads=threads,
        progress=True,
    )
    for note in fit.notes:
        say(note)
    click.echo(fit.summary())
    if json_path is not None:
        write_text(json_path, json.dumps(fit.to_json(), indent=1) + "\n")
