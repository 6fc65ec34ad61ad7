"""Results as tables in Markdown, for the terminal and for docs/performance.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from bench.peers import OURS, best_peer
from bench.timing import ratio


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; nothing without rows."""
    rows = list(rows)
    if not rows:
        return ""
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
                    f"{entry['p10_ms']:.3f}",
                    spread(entry["ratio"]) if entry["ratio"] else "",
                    f"{entry['decibels']:.1f}",
                    str(entry["runs"]),
                )
            )
        rows += [(one["network"], cap_name(one["cap"]), name, why, *[""] * 5) for name, why in one["problems"].items()]
    header = ("network", "cap", "contender", "ms", "rounds", "10th percentile", "edgeq w8a8 / it", "dB", "runs")
    return markdown(header, rows)


def _inverse(ratio: Sequence[float]) -> str:
    return spread((1 / ratio[0], 1 / ratio[2], 1 / ratio[1]))


def kernels_detail(kernels: Sequence[dict[str, Any]]) -> str:
    """A row a layer, scheme and cap, for the terminal."""
    rows = []
    order = ("kind", "scheme", "cap", "title")
    for one in sorted(kernels, key=lambda entry: [str(entry[name]) for name in order]):
        rate = f"{one['gmac_s']:.1f}" if one["macs"] else f"{one['gelement_s']:.1f} elements"
        share = f"{100 * one['share']:.0f} %" if one["macs"] else ""
        range_us = f"{min(one['rounds_us']):.2f} to {max(one['rounds_us']):.2f}"
        row = (one["title"], one["scheme"], cap_name(one["cap"]), one["kernel"], f"{one['median_us']:.2f}", range_us)
        rows.append((*row, rate, share))
    return markdown(("layer", "scheme", "cap", "kernel", "us", "rounds", "GMAC/s", "of peak"), rows)


def kernels_summary(kernels: Sequence[dict[str, Any]]) -> str:
    """A row a class of layers, scheme and cap: how much of the peak its layers reach."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for one in kernels:
        groups.setdefault((cap_name(one["cap"]), one["kind"], one["scheme"]), []).append(one)
    rows = []
    for (cap, kind, scheme), found in sorted(groups.items()):
        if not found[0]["macs"]:
            continue
        share = [one["share"] for one in found]
        time_us = sum(one["median_us"] for one in found)
        peak = found[0]["gmac_s"] / found[0]["share"]
        together = sum(one["macs"] for one in found) / time_us / 1e3 / peak
        least, most = (pick(found, key=lambda one: one["share"]) for pick in (min, max))
        rows.append(
            (
                cap,
                kind,
                scheme,
                str(len(found)),
                f"{100 * together:.0f} %",
                f"{100 * statistics.median(share):.0f} %",
                f"{100 * least['share']:.0f} % ({least['title']})",
                f"{100 * most['share']:.0f} % ({most['title']})",
            )
        )
    header = ("cap", "layers", "scheme", "how many", "of the peak, all together", "median", "least", "most")
    return markdown(header, rows)


def vectors_summary(kernels: Sequence[dict[str, Any]]) -> str:
    """A row a kind of layer without weights and a cap: elements a second."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in kernels:
        if not one["macs"]:
            groups.setdefault((one["kind"], cap_name(one["cap"])), []).append(one)
    rows = []
    for (kind, cap), found in sorted(groups.items()):
        rates = [one["gelement_s"] for one in found]
        rows.append((kind, cap, str(len(found)), *(f"{pick(rates):.2f}" for pick in (statistics.median, min, max))))
    return markdown(("operator", "cap", "how many", "10^9 elements/s, median", "least", "most"), rows)


def narrow_weights(kernels: Sequence[dict[str, Any]]) -> str:
    """What 4-bit weights cost or save: w4a8's time divided by w8a8's, a class of layers and a cap at a time."""
    eight = {(one["layer"], one["cap"]): one for one in kernels if one["scheme"] == "w8a8"}
    groups: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for one in kernels:
        other = eight.get((one["layer"], one["cap"]))
        if one["scheme"] == "w4a8" and one["macs"] and other is not None:
            entry = (one["median_us"] / other["median_us"], one["title"])
            groups.setdefault((cap_name(one["cap"]), one["kind"]), []).append(entry)
    rows = []
    for (cap, kind), found in sorted(groups.items()):
        ratios = [ratio for ratio, _ in found]
        (low, best), (high, worst) = min(found), max(found)
        ends = (f"{low:.2f} ({best})", f"{high:.2f} ({worst})")
        rows.append((cap, kind, str(len(found)), f"{geometric_mean(ratios):.2f}", *ends))
    return markdown(("cap", "layers", "how many", "w4a8 / w8a8, geometric mean", "least", "largest"), rows)


def models_table(models: Sequence[dict[str, Any]]) -> str:
    """A row a network, scheme and instruction set: both thread counts, 4-bit beside 8-bit weights."""
    rows = []
    for one in models:
        entries = one["entries"]
        for scheme, isa in dict.fromkeys((entry["scheme"], entry["isa"]) for entry in entries.values()):
            single, double, eight = (
                entries.get(f"{weights} {isa} {threads}")
                for weights, threads in ((scheme, 1), (scheme, 2), ("w8a8", 1))
            )
            if single is None:
                continue
            beside = scheme != "w8a8" and eight is not None
            rows.append(
                (
                    one["network"],
                    scheme,
                    isa,
                    f"{single['median_ms']:.2f}",
                    spread(ratio(single["rounds_ms"], eight["rounds_ms"])) if beside else "",
                    f"{double['median_ms']:.2f}" if double else "",
                    spread(ratio(single["rounds_ms"], double["rounds_ms"])) if double else "",
                    f"{one['macs'] / machine_peak(one, isa) / 1e6:.2f}",
                )
            )
    header = ("network", "scheme", "instruction set", "ms", "to w8a8", "ms, 2 threads", "gain of 2 threads", "limit ms")
    return markdown(header, rows)


def batches_table(models: Sequence[dict[str, Any]]) -> str:
    """A row a network: the time of an image in batches."""
    rows = []
    for one in models:
        found = one["batches"]
        if "1" in found:
            single = found["1"]
            others = [
                f"{entry['median_ms']:.2f}: {spread(ratio(entry['rounds_ms'], single['rounds_ms']))}"
                for size, entry in found.items()
                if size != "1"
            ]
            sizes = [size for size in found if size != "1"]
            header = ("network", "batch 1, ms", *(f"batch {size}, ms an image: to batch 1" for size in sizes))
            rows.append((one["network"], f"{single['median_ms']:.2f}", *others))
    return markdown(header, rows) if rows else ""


def machine_peak(model: dict[str, Any], isa: str) -> float:
    """The peak of one core on an instruction set, in GMAC/s, as it was measured with a model."""
    return float(model["peaks_gmac"][isa])


def loading_table(models: Sequence[dict[str, Any]]) -> str:
    """A row a network and scheme: how long loading takes, and what a session holds."""
    rows = []
    for one in models:
        for scheme, found in one["loading"].items():
            sizes = [f"{found[name] / 1024:,.0f}" for name in ("file_bytes", "weight_bytes", "arena_bytes")]
            rows.append((one["network"], scheme, f"{found['load_ms']:.2f}", *sizes))
    return markdown(("network", "scheme", "load, ms", "file KiB", "packed weights KiB", "arena KiB"), rows)


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
