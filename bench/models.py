"""edgeq alone: every scheme on every instruction set of this CPU, with one and two threads, in alternating rounds."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from bench import machine, networks, timing
from bench.peers import Settings
from edgeq.session import Session

_SCALAR = Settings(rounds=3, seconds=0.02, min_runs=1)
"""The scalar kernels are there to be right, not fast: a few runs say how slow they are."""

_LOADS = 7

BATCHES = (1, 2, 8, 32)
"""Images at once, on the best instruction set, one thread, w8a8."""


def measure(network: str, settings: Settings, quick: bool) -> dict[str, Any]:
    """Times a network.

    Args:
        network: In the zoo.
        settings: How long.
        quick: Whether scalar kernels and the 4-bit activations are left out.

    Returns:
        JSON values: network, macs, peaks_gmac by instruction set, entries by "SCHEME ISA THREADS" (rounds_ms,
        median_ms and more), problems by the same, batches by size (rounds_ms and median_ms of an image), and loading by
        scheme.
    """
    schemes = networks.SCHEMES[:2] if quick else networks.SCHEMES
    sets = [isa for isa in machine.isas() if not quick or isa != "scalar"]
    counts = (1, 2) if len(os.sched_getaffinity(0)) > 1 else (1,)
    made = {scheme: networks.exported(network, scheme) / "model.edgeq" for scheme in schemes}
    result: dict[str, Any] = {
        "network": network,
        "macs": Session(made["w8a8"]).macs,
        "peaks_gmac": {isa: machine.peak_gmac(isa) for isa in sets},
        "entries": {},
        "problems": {},
        "batches": {},
        "loading": {scheme: loading(str(path)) for scheme, path in made.items()},
    }
    fast = [isa for isa in sets if isa != "scalar"]
    groups = [(fast, counts, settings)] + ([(["scalar"], (1,), _SCALAR)] if "scalar" in sets else [])
    for group, threads, how in groups:
        cases = {
            f"{scheme} {isa} {count}": (scheme, isa, count) for scheme in schemes for isa in group for count in threads
        }
        entries = [
            timing.Entry(name, "native", made[scheme], threads=count, isa=isa)
            for name, (scheme, isa, count) in cases.items()
        ]
        outcome = timing.run(_job(network, entries, how))
        result["problems"].update(outcome.problems)
        for name, found in outcome.timings.items():
            scheme, isa, count = cases[name]
            result["entries"][name] = {
                "scheme": scheme,
                "isa": isa,
                "threads": count,
                "median_ms": found.median_ms,
                "p10_ms": found.p10_ms,
                "rounds_ms": list(found.rounds_ms),
                "runs": found.runs,
            }
    if not quick:
        entries = [timing.Entry(f"batch {size}", "native", made["w8a8"], batch=size) for size in BATCHES]
        outcome = timing.run(_job(network, entries, settings))
        result["problems"].update(outcome.problems)
        for size in BATCHES:
            found = outcome.timings.get(f"batch {size}")
            if found is not None:
                rounds_ms = [time_ms / size for time_ms in found.rounds_ms]
                result["batches"][str(size)] = {"rounds_ms": rounds_ms, "median_ms": float(np.median(rounds_ms))}
    return result


def _job(network: str, entries: list[timing.Entry], how: Settings) -> timing.Job:
    shape = networks.sample(network).shape
    return timing.Job(entries, networks.reference(network), shape, how.rounds, how.seconds, how.min_runs)


def loading(path: str) -> dict[str, Any]:
    """How long a file takes to load with warm caches, and what its session holds."""
    times = []
    for _ in range(_LOADS):
        start = time.perf_counter()
        session = Session(path)
        times.append(time.perf_counter() - start)
    return {
        "load_ms": float(np.median(times)) * 1e3,
        "file_bytes": session.file_bytes,
        "weight_bytes": session.weight_bytes,
        "arena_bytes": session.arena_bytes(),
    }
