"""`edgeq capture`: keeps what a quantized model answers, to verify it elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from edgeq.cli.options import OutputFile, device_options, parse_preprocessing, preprocessing_options, say


@click.command("capture")
@click.argument("target", metavar="DIR|MODEL", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DATA", help="Inputs; labels are not needed.")
@click.option("-o", "--out", required=True, type=OutputFile(), help="The capture, an .npz file.")
@click.option(
    "--backend",
    default="native",
    show_default=True,
    metavar="NAME",
    help="Who runs the model; `edgeq backends` lists them.",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 32))
@click.option("--samples", type=click.IntRange(1), help="Use the first N inputs only.")
@device_options(several=False)
@preprocessing_options
def command(
    target: Path,
    data: str,
    out: Path,
    backend: str,
    threads: int,
    samples: int | None,
    device: str | None,
    runner: Path | None,
    timeout: float | None,
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
) -> None:
    """Run the quantized model of DIR, or a model file, and write its logits with hashes of the inputs.

    `edgeq verify DIR --outputs FILE` compares them with the float model later, on any machine.
    """
    from edgeq.device.device import TIMEOUT, open_device
    from edgeq.errors import UsageError
    from edgeq.verification.capture import capture

    if device is None and (runner is not None or timeout is not None):
        raise UsageError("--runner and --timeout need a device; add --device, or leave them out.")
    with ExitStack() as stack:
        connected = None
        if device is not None:
            connected = stack.enter_context(open_device(device, runner=runner, timeout=timeout or TIMEOUT, say=say))
        found = capture(
            target,
            data=data,
            backend=backend,
            threads=threads,
            samples=samples,
            preprocessing=parse_preprocessing(resize, crop, mean, std, channels, interpolation),
            device=connected,
        )
    found.save(out)
    click.echo(f"{out}: {len(found.logits)} answers of {found.backend}")
