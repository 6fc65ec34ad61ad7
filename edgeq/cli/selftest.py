"""`edgeq selftest`: every kernel against the plain loops, on the device that will run it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from edgeq.cli.options import device_options, say


@click.command("selftest")
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@device_options(several=True)
def command(models: tuple[Path, ...], devices: tuple[str, ...], runner: Path | None, timeout: float | None) -> int:
    """Check every kernel that a device's CPU can run, and each MODEL, against the plain loops. [default: local]"""
    from edgeq.device.address import parse_address
    from edgeq.device.backend import edgeq_file
    from edgeq.device.device import TIMEOUT, open_device
    from edgeq.errors import EdgeqError
    from edgeq.exporters.folder import model_file

    addresses = [parse_address(text) for text in devices or ("local",)]
    failed = False
    with ExitStack() as stack:
        files = [stack.enter_context(edgeq_file(model_file(model))) for model in models]
        words = ["selftest", *(f"{{{number}}}" for number in range(len(files)))]
        for address in addresses:
            try:
                with open_device(address, runner=runner, timeout=timeout or TIMEOUT, say=say) as device:
                    done = device.run_runner(words, files=files)
            except EdgeqError as error:
                say(str(error))
                failed = True
                continue
            if len(addresses) > 1:
                click.echo(f"{address.text}:")
            click.echo(done.text.rstrip("\n"))
    return 1 if failed else 0
