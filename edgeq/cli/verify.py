"""`edgeq verify`: a quantized model beside its float model, on labelled inputs."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import click

from edgeq.cli.options import OutputFile, device_options, parse_preprocessing, preprocessing_options, say

FAILED_CHECK = 3
"""Exit status when all was measured, but a check that was asked for failed."""


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
@click.option("--outputs", type=click.Path(path_type=Path), help="Take the answers that `edgeq capture` wrote.")
@click.option("--samples", type=click.IntRange(1), help="Use the first N inputs only.")
@device_options(several=False)
@click.option(
    "--fit-share",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the inputs that temperatures are fitted on; the others judge them.",
)
@click.option(
    "--shift", metavar="SUITE[:TYPES[:SEVERITIES]]", help="Run corruptions too: imagenet-c::1,3,5, cifar10-c, mnist-c."
)
@click.option("--shift-samples", type=click.IntRange(1), help="Use the first N inputs only for corruptions.")
@click.option("--shift-data", metavar="DATA", help="Run another data set with the same classes too.")
@click.option(
    "--blame", "blame_samples", type=click.IntRange(1), metavar="N", help="Rank the layers too, on the first N inputs."
)
@click.option("--max-accuracy-drop", type=float, metavar="POINTS", help="Gate: top-1 accuracy, in percent points.")
@click.option("--max-ece", type=float, help="Gate: expected calibration error.")
@click.option("--max-ece-increase", type=float, help="Gate: by how much it may exceed the float model's.")
@click.option("--max-disagreement", type=float, metavar="SHARE", help="Gate: share of changed answers, 0.02 for 2 %.")
@click.option("--confidence", type=float, help="Hold this one-sided bound against the gates, not the figure; 0.95 say.")
@preprocessing_options
@click.option("--json", "json_path", type=OutputFile(), help="Write the figures to a file.")
@click.option("--junit", "junit_path", type=OutputFile(), help="Write the gates' verdicts as JUnit XML.")
@click.option(
    "--report", "report_path", type=OutputFile(), help="Write a self-contained HTML page."
)
def command(
    target: Path,
    reference: Path | None,
    data: str,
    backend: str,
    threads: int,
    outputs: Path | None,
    samples: int | None,
    device: str | None,
    runner: Path | None,
    timeout: float | None,
    fit_share: float,
    shift: str | None,
    shift_samples: int | None,
    shift_data: str | None,
    blame_samples: int | None,
    max_accuracy_drop: float | None,
    max_ece: float | None,
    max_ece_increase: float | None,
    max_disagreement: float | None,
    confidence: float | None,
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
    json_path: Path | None,
    junit_path: Path | None,
    report_path: Path | None,
) -> int:
    """Compare the quantized model of DIR, or a .edgeq, .onnx or .tflite file, with the float model.

    Exits with status 3, and a sentence for each, when a gate (--max-...) is not kept.
    """
    from edgeq.device.device import TIMEOUT, open_device
    from edgeq.errors import UsageError
    from edgeq.outputs import write_text
    from edgeq.verification import Gates, junit_xml, verify

    gates = Gates(max_accuracy_drop, max_ece, max_ece_increase, max_disagreement, confidence)
    if (junit_path is not None or confidence is not None) and not gates.any:
        raise UsageError("--junit and --confidence are about gates, and none is asked: give a --max-... option.")

    if device is None and (runner is not None or timeout is not None):
        raise UsageError("--runner and --timeout need a device; add --device, or leave them out.")
    with ExitStack() as stack:
        connected = None
        if device is not None:
            connected = stack.enter_context(open_device(device, runner=runner, timeout=timeout or TIMEOUT, say=say))
        verification = verify(
            target,
            reference=reference,
            data=data,
            backend=backend,
            threads=threads,
            samples=samples,
            outputs=outputs,
            preprocessing=parse_preprocessing(resize, crop, mean, std, channels, interpolation),
            gates=gates,
            fit_share=fit_share,
            shift=shift,
            shift_samples=shift_samples,
            shift_data=shift_data,
            blame_samples=blame_samples,
            progress=True,
            device=connected,
        )
    click.echo(verification.summary())
    for result in verification.gates:
        click.echo(f"{'passed' if result.passed else 'FAILED'}: {result.sentence}", err=not result.passed)
    if json_path is not None:
        write_text(json_path, json.dumps(verification.to_json(), indent=1) + "\n")
    if report_path is not None:
        write_text(report_path, verification.html())
        click.echo(f"report: {report_path}")
    if junit_path is not None:
        seconds = sum(verification.seconds.values())
        write_text(junit_path, junit_xml(verification.gates, f"edgeq verify {target}", seconds))
    if verification.device is not None and not verification.device.exact:
        found = verification.device
        say(
            f"{found.device} does not compute what the host computes: {found.differing} of {verification.comparison.n} "
            f"inputs differ, the first is input {found.first_differing}. Find the kernel: edgeq selftest {target} "
            f"--device '{device}'"
        )
        return FAILED_CHECK
    return 0 if verification.passed else FAILED_CHECK
