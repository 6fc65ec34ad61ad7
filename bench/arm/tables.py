"""Counts as tables in Markdown, for the terminal and for docs/performance-arm.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.arm.counting import CLASSES
from bench.arm.loops import MODELS
from bench.tables import markdown

OURS, NARROW = "edgeq w8a8", "edgeq w4a8"

_GROUPS = {
    "multiply": ("multiply",),
    "vector": ("vector",),
    "vector load, store": ("vector load", "vector store"),
    "load, store": ("load", "store"),
    "scalar, branch": ("scalar", "branch"),
}
assert sorted(name for names in _GROUPS.values() for name in names) == sorted(CLASSES)


def _millions(entry: dict[str, Any] | None) -> str:
    return "" if entry is None else f"{entry['total'] / 1e6:.2f}"


def _judged(ratio: float, bar: float | None) -> tuple[str, str]:
    """A ratio, bold where it holds its bar, and the bar."""
    if bar is None:
        return f"{ratio:.3f}", "none"
    return (f"**{ratio:.3f}**" if ratio <= bar else f"{ratio:.3f}"), f"{bar:g}"


def summary(counts: Sequence[dict[str, Any]]) -> str:
    """A row a network and core: edgeq beside the peer with the fewest instructions."""
    rows = []
    for one in counts:
        entries, best = one["entries"], one["best"]
        ours, narrow = entries.get(OURS), entries.get(NARROW)
        if ours is None:
            continue
        beside = ("", "")
        if best is not None:
            beside = _judged(ours["total"] / entries[best]["total"], one["bar"])
        own = ("", "") if narrow is None else _judged(narrow["total"] / ours["total"], one["bar_narrow"])
        peer = "" if best is None else f"{best}: {_millions(entries[best])}"
        rows.append((one["network"], one["core"], _millions(ours), peer, *beside, _millions(narrow), *own))
    header = ("network", "core", "edgeq W8A8", "best peer", "ratio", "bar", "edgeq W4A8", "to W8A8", "bar")
    return markdown(header, rows)


def classes(counts: Sequence[dict[str, Any]]) -> str:
    """A row a network, core and contender: instructions by class, in millions."""
    rows = []
    for one in counts:
        for name, entry in one["entries"].items():
            groups = [sum(entry["classes"][part] for part in parts) / 1e6 for parts in _GROUPS.values()]
            rows.append((one["network"], one["core"], name, _millions(entry), *(f"{group:.2f}" for group in groups)))
        rows += [(one["network"], one["core"], name, why, *[""] * 5) for name, why in one["problems"].items()]
    return markdown(("network", "core", "contender", "all", *_GROUPS), rows)


def inner_loops(counts: Sequence[dict[str, Any]]) -> str:
    """A row a loop: instructions per multiply-accumulate, and multiply-accumulates a cycle by llvm-mca.

    A loop that several networks run stands in the row of the one where its share is largest.
    """
    found: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for one in counts:
        for scheme, loops in one["loops"].items():
            for loop in loops:
                key = (loop["isa"], scheme, loop["function"], loop["instructions"])
                if key not in found or found[key]["share"] < loop["share"]:
                    found[key] = {**loop, "network": one["network"]}
    rows = []
    for (isa, scheme, function, _), loop in sorted(found.items(), key=lambda item: (item[0][:2], -item[1]["share"])):
        macs = loop["macs"]
        ideal = {model.core: model.pipes * macs / loop["products"] for model in MODELS}
        rates = [f"{core}: {macs / cycles:.1f} of {ideal[core]:.0f}" for core, cycles in loop["cycles"].items()]
        rows.append(
            (
                isa,
                scheme,
                f"`{function}`",
                f"{100 * loop['share']:.0f} % of {loop['network']}",
                f"{loop['instructions']} / {macs}",
                f"{loop['instructions'] / macs:.4f}",
                f"{loop['products'] / macs:.4f}",
                ", ".join(rates),
            )
        )
    header = (
        *("level", "scheme", "function", "share of the instructions", "instructions / MACs of an iteration"),
        *("instructions per MAC", "its products alone", "MACs a cycle by llvm-mca, of the core's limit"),
    )
    return markdown(header, rows)


def made_with(counts: Sequence[dict[str, Any]]) -> str:
    """What was counted: compilers and versions."""
    found = {name: entry["version"] for one in counts for name, entry in one["entries"].items()}
    return markdown(("contender", "compiler or version"), found.items())
