"""`edgeq cross`: edgeq-runner for another machine."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.device.targets import TARGETS


@click.command(
    "cross",
    epilog="\b\nTargets:\n" + "\n".join(f"  {target.name:<15}{target.description}" for target in TARGETS.values()),
)
@click.option("--target", required=True, metavar="NAME", help="What to build for; one of the list below.")
@click.option(
    "--toolchain",
    default="zig",
    show_default=True,
    metavar="zig|gcc|clang|ndk|FILE.cmake",
    help="zig comes from pip; the others are what is installed.",
)
@click.option("--library", is_flag=True, help="Also libedgeq.so, libedgeq.a, the C header edgeq.h and example.c.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Compilers at once. [default: one a processor]")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the results."
)
def command(target: str, toolchain: str, library: bool, jobs: int | None, out: Path) -> None:
    """Build a static edgeq-runner for a device, from this machine.

    With `pip install "edgeq[cross]"` nothing else has to be installed. The same sources and compiler give the same
    bytes. A first build for an architecture takes some minutes, later ones compile what has changed.
    """
    from edgeq.device.cross import cross_build

    def tell(text: str) -> None:
        click.echo(f"{target}: {text}", err=True)

    built = cross_build(target, out, toolchain=toolchain, library=library, jobs=jobs, progress=tell)
    click.echo(built.summary())
