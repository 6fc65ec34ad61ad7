"""Results as tables in Markdown, for the terminal and for docs/performance.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from bench.peers import OURS, best_peer


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def spread(ratio: Sequence[float]) -> str:
    """Returns a ratio's median with its smallest and largest value over the rounds."""
    return f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive values."""
    return math.exp(sum(map(math.log, values)) / len(values))


def cap_name(cap: str | None) -> str:
    """What a cap is called."""
    return cap or "none"


def machine_table(results: dict[str, Any]) -> str:
    """What was measured on, with which versions."""
    found = results["machine"]
    peaks = ", ".join(f"{isa} {rate:.1f}" for isa, rate in found["peaks_gmac"].items())
    rows = [
        ("CPU", f"{found['cpu']} ({found['model']}), {found['cpus']} cores"),
        ("instruction sets", " ".join(found["flags"])),
        ("caches", found["caches"]),
        ("clock, measured", f"{found['clock_ghz']:.2f} GHz (governor {found['governor']}, {found['temperature']})"),
        ("peak of one core, measured, GMAC/s", peaks),
        ("system", found["system"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in results["versions"].items())),
        ("not installed", ", ".join(results["not_installed"]) or "none"),
        ("measured", results["date"]),
    ]
    return markdown(("", ""), rows)


def peers_summary(peers: Sequence[dict[str, Any]]) -> str:
    """A row a network: edgeq beside the fastest peer."""
    rows = []
    ratios = []
    for one in peers:
        entries, best = one["entries"], one["best"]
        if OURS not in entries or best is None:
            continue
        ours, ratio = entries[OURS], entries[best]["ratio"]
        ratios.append(ratio[0])
        four = entries.get("edgeq w4a8")
        any_peer = best_peer(entries, capped=False)
        other = entries[any_peer]
        rows.append(
            [
                one["network"] + (" (trained)" if one["weights"] == "trained" else ""),
                f"{one['macs'] / 1e6:.0f}",
                f"{one['limit_ms']:.2f}",
                f"{ours['median_ms']:.2f}",
                f"{ours['median_ms'] / one['limit_ms']:.1f}",
                f"{best} {entries[best]['median_ms']:.2f}",
                f"**{ratio[0]:.2f}** ({ratio[1]:.2f} to {ratio[2]:.2f})",
                *([] if one["cap"] is None else [f"{any_peer} {other['median_ms']:.2f}: {spread(other['ratio'])}"]),
                f"{four['median_ms']:.2f}: {_inverse(four['ratio'])}" if four else "",
            ]
        )
    if not rows:
        return "no network was measured with edgeq and a peer"
    capped = peers[0]["cap"] is not None
    header = [
        "network",
        "MMAC",
        "limit ms",
        "edgeq ms",
        "times the limit",
        "fastest peer" + (" that obeys the cap" if capped else "") + ", ms",
        "edgeq / peer",
        *(["fastest of all, not capped"] if capped else []),
        "w4a8 ms, to w8a8",
    ]
    mean = geometric_mean(ratios)
    rows.append(["geometric mean", *[""] * 5, f"**{mean:.2f}**, largest {max(ratios):.2f}", *[""] * (len(header) - 7)])
    return markdown(header, rows)


def peers_detail(peers: Sequence[dict[str, Any]]) -> str:
    """A row a contender, a column a network: medians in ms, and why one is missing."""
    names = list(dict.fromkeys(name for one in peers for name in (*one["entries"], *one["problems"])))
    names.sort(key=lambda name: _order(name))
    notes: dict[str, str] = {}
    rows = []
    for name in names:
        row = [name]
        for one in peers:
            entry = one["entries"].get(name)
            if entry is not None:
                row.append(f"**{entry['median_ms']:.2f}**" if name == one["best"] else f"{entry['median_ms']:.2f}")
            else:
                reason = one["problems"].get(name, "not measured")
                row.append(notes.setdefault(reason, f"[{len(notes) + 1}]"))
        rows.append(row)
    table = markdown(["ms", *(one["network"] for one in peers)], rows)
    return "\n".join([table, *(["", *(f"{number} {reason}  " for reason, number in notes.items())] if notes else [])])


def _order(name: str) -> int:
    from bench.contenders import CONTENDERS

    return [one.name for one in CONTENDERS].index(name)


def peers_spread(peers: Sequence[dict[str, Any]]) -> str:
    """A row a network and contender: everything that was measured, for the terminal."""
    rows = []
    for one in peers:
        for name, entry in sorted(one["entries"].items(), key=lambda item: item[1]["median_ms"]):
            rows.append(
                (
                    one["network"],
                    cap_name(one["cap"]),
                    name + ("" if entry["capped"] else " (not capped)"),
                    f"{entry['median_ms']:.3f}",
                    f"{min(entry['rounds_ms']):.3f} to {max(entry['rounds_ms']):.3f}",
                    spread(entry["ratio"]) if entry["ratio"] else "",
                    f"{entry['decibels']:.1f}",
                    str(entry["runs"]),
                )
            )
        rows += [(one["network"], cap_name(one["cap"]), name, why, *[""] * 4) for name, why in one["problems"].items()]
    header = ("network", "cap", "contender", "ms", "rounds", "edgeq w8a8 / it", "dB", "runs")
    return markdown(header, rows)


def _inverse(ratio: Sequence[float]) -> str:
    return spread((1 / ratio[0], 1 / ratio[2], 1 / ratio[1]))


def primitives_of(peers: Sequence[dict[str, Any]]) -> str:
    """Which implementations OpenVINO chose under each cap: that the cap is obeyed."""
    found: dict[str, dict[str, int]] = {}
    for one in peers:
        for entry in one["entries"].values():
            if entry["precision"] == "int8":
                for name, count in entry["primitives"].items():
                    into = found.setdefault(cap_name(one["cap"]), {})
                    into[name] = into.get(name, 0) + count
    rows = []
    for cap, counts in found.items():
        rows.append((cap, ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))))
    return markdown(("cap", "OpenVINO's implementations of layers with weights, and how many over all networks"), rows)
