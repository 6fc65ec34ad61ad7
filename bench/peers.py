"""The same network and calibration samples in every runtime, in alternating rounds of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import contenders, machine, networks, timing
from bench.contenders import Contender
from bench.store import PreparationError
from edgeq.session import Session

OURS = "edgeq w8a8"
"""What everyone is compared with."""

_PARALLEL_PREPARATIONS = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """How long things are timed.

    Attributes:
        rounds: Alternating rounds, at least 5 for a figure that is published.
        seconds: Each turn takes at least this long.
        min_runs: And at least so many runs.
    """

    rounds: int = 7
    seconds: float = 0.3
    min_runs: int = 3


def caps() -> tuple[list[str | None], list[str]]:
    """Returns the caps under which this CPU has different kernels (None: no cap), and a sentence on each left out."""
    found: list[str | None] = [None]
    notes = []
    available = machine.isas()
    best = available[0]
    for cap in ("avx512vbmi", "avxvnni", "avx2"):
        if cap == "avx512vbmi" and best != "amxint8":
            continue
        if cap in available and cap != best:
            found.append(cap)
        elif cap == best:
            notes.append(f"{cap} is the best that this CPU has: no cap.")
        else:
            notes.append(f"This CPU has no {cap}: that cap gives what the next lower one gives.")
    return found, notes


def taking_part(cap: str | None) -> list[Contender]:
    """The contenders under a cap: fp32 only of runtimes that can be capped, 7-bit weights only without VNNI."""
    return [
        one
        for one in contenders.CONTENDERS
        if (cap is None or one.precision != "fp32" or one.backend in contenders.CAPPED)
        and (one.recipe != "nncf-7bit" or "vnni" not in (cap or "vnni"))
    ]


def measure(
    network: str, cap: str | None, settings: Settings, left_out: Callable[[Contender], str | None] = lambda _: None
) -> dict[str, Any]:
    """Times a network everywhere.

    Args:
        network: In the zoo.
        cap: Highest instruction set of edgeq and, where it can be capped, of the peers; None for no cap.
        settings: How long.
        left_out: Why a contender takes no part, or None when it does.

    Returns:
        JSON values: network, weights, macs, cap, isa, peak_gmac, limit_ms, rounds, seconds, entries by contender (its
        runtime, precision, rounds_ms, median_ms, ratio of edgeq's time to its own as [median, least, largest], and
        more), problems by contender, and best, the fastest int8 peer.
    """
    problems: dict[str, str] = {}
    wanted = []
    for one in taking_part(cap):
        reason = left_out(one) or (None if one.version() else f"{one.backend} is not installed")
        if reason is None:
            wanted.append(one)
        else:
            problems[one.name] = reason
    files = _files(network, wanted, problems)
    session = Session(files[OURS], max_isa=cap)
    quantization = session.outputs[0].quantization
    entries = [
        timing.Entry(
            one.name,
            one.backend,
            files[one.name],
            # Under a cap OpenVINO still chooses bfloat16 by what the CPU has, and then finds no kernel for it.
            exact=one.precision == "fp32" or cap is not None,
            least_db=one.least_db,
            same_as=OURS if one.name == "onnxruntime QDQ" else None,
            step=quantization.scale if quantization is not None else 1 / 256,
        )
        for one in wanted
        if one.name in files
    ]
    job = timing.Job(
        entries,
        networks.reference(network),
        networks.sample(network).shape,
        settings.rounds,
        settings.seconds,
        settings.min_runs,
        machine.cap_environment(cap),
    )
    outcome = timing.run(job)
    peak = machine.peak_gmac(cap)
    result: dict[str, Any] = {
        "network": network,
        "weights": networks.weights_of(network),
        "macs": session.macs,
        "cap": cap,
        "isa": session.isa,
        "peak_gmac": peak,
        "limit_ms": session.macs / peak / 1e6,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "entries": {},
        "problems": {**problems, **outcome.problems},
        "best": None,
    }
    ours = outcome.timings.get(OURS)
    for name, found in outcome.timings.items():
        one = contenders.contender(name)
        result["entries"][name] = {
            "runtime": one.runtime,
            "precision": one.precision,
            "capped": cap is None or one.backend in contenders.CAPPED,
            "median_ms": found.median_ms,
            "p10_ms": found.p10_ms,
            "rounds_ms": list(found.rounds_ms),
            "runs": found.runs,
            "decibels": found.decibels,
            "primitives": dict(found.primitives),
            "ratio": timing.ratio(ours.rounds_ms, found.rounds_ms) if ours is not None else None,
        }
    result["best"] = best_peer(result["entries"], capped=True)
    return result


def best_peer(entries: dict[str, Any], *, capped: bool) -> str | None:
    """Returns the int8 peer with the least median, of those that obey the cap where `capped`; None without any."""
    peers = {
        name: entry["median_ms"]
        for name, entry in entries.items()
        if entry["runtime"] != "edgeq" and entry["precision"] == "int8" and (entry["capped"] or not capped)
    }
    return min(peers, key=lambda name: peers[name]) if peers else None


def _files(network: str, wanted: Sequence[Contender], problems: dict[str, str]) -> dict[str, Path]:
    """The file of each contender; what cannot be made is added to `problems`."""
    # Most of the peers' forms are made from these two.
    networks.reference(network)
    networks.exported(network, "w8a8")

    def one_file(one: Contender) -> Path | str:
        try:
            return contenders.file_of(network, one.recipe)
        except PreparationError as error:
            return str(error)

    with ThreadPoolExecutor(_PARALLEL_PREPARATIONS) as pool:
        found = dict(zip((one.name for one in wanted), pool.map(one_file, wanted), strict=True))
    problems.update({name: f"cannot be made: {path}" for name, path in found.items() if isinstance(path, str)})
    return {name: path for name, path in found.items() if isinstance(path, Path)}
