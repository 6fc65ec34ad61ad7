"""`edgeq export`: a float model in, a folder with the quantized model in several formats out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from edgeq.cli.options import parse_preprocessing, preprocessing_options


@click.command("export")
@click.argument("model", required=False)
@click.option(
    "--bits",
    metavar="w8a8|w4a8|w4a4|auto|PLAN.toml",
    help="Bits of weights and activations; auto chooses 4 or 8 for each layer's weights under a budget, and a plan "
    "that it wrote is replayed. [default: w8a8]",
)
@click.option(
    "--budget",
    multiple=True,
    metavar="NAME=NUMBER",
    help="For --bits auto, once or several times: size (share of the w8a8 file), latency (share of w8a8's time here), "
    "disagreement (share of held-back samples), such as size=0.55.",
)
@click.option("--calib", "calibration", metavar="DATA", help="Inputs that show the model's typical ranges.")
@click.option(
    "--calib-samples", default=1024, show_default=True, metavar="N", help="How many of them are used at most."
)
@click.option(
    "--effort",
    type=click.Choice(["fast", "good", "best"]),
    help="Which methods quantize: seconds, a minute, tens of minutes. [default: good with 4-bit weights, else fast]",
)
@click.option(
    "--recipe", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.toml", help="Methods by name instead."
)
@click.option(
    "--observer",
    metavar="minmax|moving-average|histogram|percentile[=P]|mse|kl",
    help="How an activation's range is chosen. [default: the recipe's]",
)
@click.option(
    "--weight-observer",
    type=click.Choice(["minmax", "moving-average", "mse"]),
    help="How a weight channel's range is chosen. [default: the recipe's]",
)
@click.option(
    "--bias-correction/--no-bias-correction",
    default=None,
    help="Correct the shift of each layer's mean. [default: the recipe's, which do]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Chooses the calibration samples.",
)
@click.option(
    "--keep-8bit",
    metavar="first,last|NAMES|auto:N|none",
    help="Layers that keep 8 bits; auto:3 adds the three that 4 bits harm most. [default: first with 4-bit weights]",
)
@click.option("--to", metavar="edgeq,onnx,tflite", help="Formats to write. [default: all that can be made]")
@click.option(
    "--io", type=click.Choice(["float", "int8"]), default="float", show_default=True, help="Ends of .onnx and .tflite."
)
@click.option(
    "--onnx-activations",
    type=click.Choice(["uint8", "int8"]),
    default="uint8",
    show_default=True,
    help="Activation codes of .onnx: uint8 runs in integers on x86.",
)
@click.option(
    "--int4",
    type=click.Choice(["packed", "fast", "old", "none"]),
    default="fast",
    show_default=True,
    help="Which 4-bit weights .onnx and .tflite store two to a byte.",
)
@click.option(
    "--trials", type=click.IntRange(1), metavar="N", help="Repeat N times with other calibration samples: the spread."
)
@click.option("--data", metavar="DATA", help="For --trials: what they are evaluated on.")
@preprocessing_options
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results.",
)
def command(
    model: str | None,
    bits: str | None,
    budget: tuple[str, ...],
    calibration: str | None,
    calib_samples: int,
    effort: str | None,
    recipe: Path | None,
    observer: str | None,
    weight_observer: str | None,
    bias_correction: bool | None,
    seed: int,
    keep_8bit: str | None,
    to: str | None,
    io: Literal["float", "int8"],
    onnx_activations: Literal["uint8", "int8"],
    int4: Literal["packed", "fast", "old", "none"],
    trials: int | None,
    data: str | None,
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
    out: Path,
) -> None:
    """Quantize MODEL and write it to a folder.

    MODEL is a .onnx, .pt2 or .tflite file, or package.module:factory of a torch module; a .onnx or .tflite file that
    another tool has quantized keeps its own numbers and is converted. Without MODEL, the embedded demo: a small
    depthwise-separable network for 8x8 digits.

    DATA is digits, a .npz file (x, y), a folder with one sub-folder a class, a .zip of images with a labels.csv
    (PATH:SPLIT chooses a split), or package.module:factory.
    """
    from edgeq.deployment import FormatOptions, export, run_trials
    from edgeq.errors import UsageError
    from edgeq.exporters.folder import TRIALS_FILE
    from edgeq.outputs import write_text

    if (trials is None) != (data is None):
        raise UsageError("--trials N and --data DATA go together: how often, and on which inputs to measure")
    options: dict[str, Any] = {
        "bits": bits,
        "budget": budget,
        "calibration": calibration,
        "calib_samples": calib_samples,
        "effort": effort,
        "recipe": recipe,
        "observer": observer,
        "weight_observer": weight_observer,
        "bias_correction": bias_correction,
        "seed": seed,
        "keep_8bit": keep_8bit,
        "preprocessing": parse_preprocessing(resize, crop, mean, std, channels, interpolation),
    }
    storage = FormatOptions(io=io, onnx_activations=onnx_activations, int4=int4)
    result = export(model, out=out, to=to, format_options=storage, progress=True, **options)
    click.echo(result.summary())
    if trials is not None:
        found = run_trials(model, trials, data=data, **options)
        write_text(out / TRIALS_FILE, json.dumps(found.to_json(), indent=1) + "\n")
        click.echo(found.summary())
