"""Latency of a model on devices, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeq.device.address import parse_address
from edgeq.device.backend import edgeq_file
from edgeq.device.device import TIMEOUT, open_device
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import model_file


def bench_devices(
    target: Path,
    devices: Sequence[str],
    *,
    threads: int = 1,
    batch: int = 1,
    seconds: float = 2.0,
    layers: bool = False,
    cpus: str | None = None,
    runner: Path | None = None,
    timeout: float = TIMEOUT,
    say: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Times a model on each device, one after another.

    Args:
        target: A .edgeq file, a quantized .onnx or .tflite file, or an exported folder.
        devices: Addresses.
        threads: Threads of the engine.
        batch: Inputs a run.
        seconds: Time at least this long.
        layers: Whether each layer is timed, in runs of their own.
        cpus: CPUs of the device to keep to, such as 0-3; None for all.
        runner: See `Device`.
        timeout: See `Device`; the asked seconds come on top.
        say: See `Device`.

    Returns:
        For each device what `edgeq-runner bench --json` tells, with `device`, `emulated` and `facts` beside it; where
        it failed, `device` and `error` alone.

    Raises:
        UsageError: If the model or an address names nothing.
    """
    addresses = [parse_address(text) for text in devices]
    words = ["bench", "{0}", "--threads", str(threads), "--batch", str(batch), "--seconds", str(seconds)]
    words += ["--layers"] if layers else []
    words += ["--cpus", cpus] if cpus is not None else []
    path = model_file(target)
    found: list[dict[str, Any]] = []
    with edgeq_file(path) as file:
        for address in addresses:
            try:
                with open_device(address, runner=runner, timeout=timeout, say=say) as device:
                    figures = device.json(words, timeout=timeout + 2 * seconds, files=[file])
                    facts = asdict(device.facts)
            except EdgeqError as error:
                found.append({"device": address.text, "error": str(error)})
                continue
            found.append(
                {
                    "device": address.text,
                    **figures,
                    "model": str(path),
                    "emulated": bool(address.emulator),
                    "facts": facts,
                }
            )
    return found
