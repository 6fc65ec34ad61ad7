"""`edgeq info`: versions, CPU features and kernels."""

from __future__ import annotations

import platform
from importlib import metadata

import click

_PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "ai-edge-litert",
    "tflite-runtime",
    "scikit-learn",
    "pillow",
)


@click.command("info")
def command() -> None:
    """Show versions, the CPU's instruction sets and the kernels that are chosen here."""
    from edgeq import __version__, _native

    click.echo(f"edgeq             {__version__}")
    click.echo(f"python            {platform.python_version()} on {platform.platform()}")
    for package in _PACKAGES:
        click.echo(f"{package:<17} {_version(package)}")
    info = _native.cpu_info()
    click.echo(f"cpu               {info['model']}")
    click.echo(f"instruction sets  {', '.join(info['available'])}")
    if info["refused"]:
        click.echo(f"refused           {', '.join(info['refused'])} (the operating system does not permit it)")
    click.echo(f"in use            {info['in_use']} (EDGEQ_MAX_ISA={info['cap'] or 'not set'})")
    for family, names in sorted(_native.kernel_variants().items()):
        click.echo(f"{family:<17} {', '.join(names)}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
