"""`edgeq blame`: which layers are to blame for what quantization changed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from edgeq.cli.options import OutputFile, parse_preprocessing, preprocessing_options
from edgeq.cli.tables import format_columns


@click.command("blame")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DATA", help="Inputs; labels are not needed.")
@click.option("--samples", default=100, show_default=True, type=click.IntRange(1), help="Use the first N inputs.")
@click.option("--top", default=15, show_default=True, type=click.IntRange(1), help="Layers to show, the worst first.")
@preprocessing_options
@click.option("--json", "json_path", type=OutputFile(), help="Write the figures of all layers.")
def command(
    folder: Path,
    data: str,
    samples: int,
    top: int,
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
    json_path: Path | None,
) -> None:
    """Rank the layers of DIR, a folder of `edgeq export`, by what sparing each would win.

    alone: SQNR of the layer's output with only it quantized; gathered: in the quantized network. The wins are of the
    network's outputs, when this layer alone has 8-bit weights (or, where it has them, float ones).
    """
    from edgeq.outputs import write_text
    from edgeq.verification.blame import blame

    with click.progressbar(length=1000, label="blame", show_eta=True) as bar:

        def show(done: int, count: int) -> None:
            bar.update(1000 * done // count - bar.pos)

        found = blame(
            folder,
            data=data,
            samples=samples,
            preprocessing=parse_preprocessing(resize, crop, mean, std, channels, interpolation),
            progress=show,
        )
    rows = []
    for one in found.ranked()[:top]:
        eight = one.win_8bit_db is not None
        decibels = one.win_8bit_db if one.win_8bit_db is not None else one.win_float_db
        share = one.win_8bit_disagreement if one.win_8bit_disagreement is not None else one.win_float_disagreement
        rows.append(
            (
                one.layer,
                one.op,
                f"w{one.weight_bits}",
                f"{100 * one.macs_share:.1f} %",
                _decibels(one.alone_sqnr_db),
                _decibels(one.gathered_sqnr_db),
                "8 bits" if eight else "float",
                f"{decibels:+.2f} dB",
                f"{0.0 - 100 * share:+.1f} points",
            )
        )
    headings = ("layer", "operator", "bits", "MACs", "alone", "gathered", "spared as", "SQNR", "disagreement")
    click.echo(format_columns(headings, rows, right=(3, 4, 5, 7, 8)))
    click.echo()
    click.echo(
        f"whole network: SQNR {_decibels(found.sqnr_db)}, disagreement {100 * found.disagreement:.1f} % of "
        f"{found.samples} inputs; the emulation answers as the integers do on {100 * found.agreement:.1f} %"
    )
    worst = ",".join(one.layer for one in found.ranked()[:3] if one.win_8bit_db is not None)
    if worst:
        click.echo(f"to spare the worst three: edgeq export ... --keep-8bit first,{worst}")
    if json_path is not None:
        write_text(json_path, json.dumps(found.to_json(), indent=1) + "\n")


def _decibels(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else ("exact" if value > 0 else "no signal")
