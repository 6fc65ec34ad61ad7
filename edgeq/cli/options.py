"""Options that several sub-commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgeq.data import Preprocessing
from edgeq.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


class OutputFile(click.Path):
    """A file that a command will write: looked at before any work is done."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path; fails where no file can be written there."""
        path = Path(value)
        if str(value) in ("", "-"):
            self.fail(f"{str(value)!r} names no file; results are written to files only", param, ctx)
        if path.is_dir():
            self.fail(f"{path} is a folder; name a file in it", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{path}: there is no folder {path.parent}; make it first", param, ctx)
        return path


def preprocessing_options(function: F) -> F:
    """Adds --resize, --crop, --mean, --std, --channels and --interpolation."""
    for option in reversed(
        [
            click.option(
                "--resize", type=int, metavar="N", help="Bring the shorter side of images to N pixels."
            ),
            click.option("--crop", metavar="N|HxW", help="Centre crop."),
            click.option(
                "--mean",
                metavar="M[,M,M]",
                help="Subtracted from pixels (0..255), one value or one a channel.",
            ),
            click.option(
                "--std", metavar="S[,S,S]", help="Pixels are divided by it after the mean is subtracted."
            ),
            click.option(
                "--channels", type=click.Choice(["rgb", "bgr", "gray"]), help="Channel order of the model."
            ),
            click.option(
                "--interpolation", type=click.Choice(["bicubic", "bilinear"]), help="Filter of --resize."
            ),
        ]
    ):
        function = option(function)
    return function


def device_options(several: bool) -> Callable[[F], F]:
    """Adds --device, which may stand several times where wanted, --runner and --timeout."""

    def add(function: F) -> F:
        for option in reversed(
            [
                click.option(
                    "--device",
                    "devices" if several else "device",
                    multiple=several,
                    metavar="DEVICE",
                    help="Run on ssh://user@host[:port], adb://serial, qemu://cpu or local"
                    + ("; give it again for more devices side by side." if several else "."),
                ),
                click.option(
                    "--runner",
                    type=click.Path(path_type=Path),
                    help="The edgeq-runner for the device, or a folder of them. [default: EDGEQ_RUNNERS]",
                ),
                click.option(
                    "--timeout",
                    type=click.FloatRange(1, 86400),
                    metavar="S",
                    help="Seconds that one command on the device may take. [default: 600]",
                ),
            ]
        ):
            function = option(function)
        return function

    return add


def say(sentence: str) -> None:
    """Tells the user something while work goes on."""
    click.echo(f"edgeq: {sentence}", err=True)


def parse_preprocessing(
    resize: int | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    channels: str | None,
    interpolation: str | None,
) -> Preprocessing | None:
    """Returns the preprocessing that the options describe, or None when none is given."""
    given: dict[str, Any] = {}
    if resize is not None:
        given["resize"] = resize
    if crop is not None:
        sides = crop.lower().split("x")
        if len(sides) > 2 or not all(side.isdigit() for side in sides):
            raise UsageError(f"--crop takes N or HxW, for example 224 or 192x256, not {crop!r}.")
        given["crop"] = (int(sides[0]), int(sides[-1]))
    for name, text in (("mean", mean), ("std", std)):
        if text is not None:
            given[name] = parse_numbers(f"--{name}", text)
    if channels is not None:
        given["channels"] = channels
    if interpolation is not None:
        given["interpolation"] = interpolation
    return Preprocessing(**given) if given else None


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """Reads numbers separated by commas or blanks."""
    try:
        return tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(
            f"{option} takes numbers separated by commas, for example 123.7,116.3,103.5, not {text!r}."
        ) from None
