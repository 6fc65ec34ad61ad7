"""`edgeq backends`: who can run a model here."""

from __future__ import annotations

import click

from edgeq.cli.tables import format_columns


@click.command("backends")
def command() -> None:
    """List the backends of `edgeq verify --backend`, and which are installed."""
    from edgeq.backends.registry import KINDS

    rows = [(kind.name, kind.version() or "not installed", kind.file, kind.purpose) for kind in KINDS]
    click.echo(format_columns(("backend", "version", "runs", "what it is"), rows))
