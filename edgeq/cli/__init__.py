"""The command `edgeq`: one thin module a sub-command."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
from typing import Any

import click

from edgeq import __version__
from edgeq.errors import EdgeqError, UsageError

_COMMANDS = (
    "export",
    "verify",
    "compare",
    "blame",
    "capture",
    "guard",
    "run",
    "predict",
    "bench",
    "inspect",
    "backends",
    "cross",
    "devices",
    "selftest",
    "info",
)


class _Commands(click.Group):
    """Imports a sub-command's module when it is asked for, so that `edgeq run` on a device stays light."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = __import__(f"edgeq.cli.{cmd_name}", fromlist=["command"])
        command: click.Command = module.command
        return command


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__)
def cli(debug: bool) -> None:
    """Quantize, ship and prove edge models."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; exits with 0 only on success, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Ended from outside, a command still removes its scratch files, here and on devices.
    # nohup's choice stays.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)
    debug = "--debug" in arguments
    # The place of --debug does not matter: it is one switch of the whole command.
    arguments = (["--debug"] if debug else []) + [word for word in arguments if word != "--debug"]
    try:
        status: Any = cli.main(arguments, prog_name="edgeq", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted; no output was written", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UsageError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except EdgeqError as error:
        if debug:
            raise
        _fail(str(error), 1)
    except MemoryError:
        if debug:
            raise
        _fail("not enough memory; use a smaller batch, fewer calibration samples or a smaller model", 1)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        if debug:
            raise
        _fail(f"internal error ({type(error).__name__}: {error}); --debug shows where", 70)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _fail(message: str, status: int) -> None:
    text = f"edgeq: {' '.join(message.split())}"
    click.echo(
        textwrap.fill(text, 110, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False),
        err=True,
    )
    sys.exit(status)
