"""The page of several models beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeq.verification.charts import (
    WIDE,
    Chart,
    Series,
    chart,
    nice_step,
    pareto_front,
    percent_ticks,
    round_range,
    round_ticks,
)
from edgeq.verification.report import command_words, fill
from edgeq.verification.several import Several, Standing, size_text, table_rows
from edgeq.verification.shift import NATURAL, ShiftCell

_KEYS = ("s1", "s2", "s3", "s5", "neither", "s4", "s6")
"""Colours of the quantized models, over again where there are more; markers and names tell them apart too."""

Interval = tuple[float, float]


def render(several: Several) -> str:
    """The page as text.

    Raises:
        UsageError: If jinja2 is not installed.
    """
    header, rows = table_rows(several)
    # The means of suites have a table of their own, so that neither is wider than a printed page.
    cut = header.index("disagreement") + 1
    keys = ("fp32", *(_KEYS[place % len(_KEYS)] for place in range(len(several.models))))
    values = {
        "kind": "edgeq comparison",
        "title": ", ".join(one.name for one in several.models),
        "sentences": _sentences(several),
        "header": header[:cut],
        "rows": [(key, row[:cut]) for key, row in zip(keys, rows, strict=True)],
        "shift_header": (header[0], *header[cut:]),
        "shift_rows": [(key, (row[0], *row[cut:])) for key, row in zip(keys, rows, strict=True)],
        "fronts": several.fronts(),
        "front_charts": _front_charts(several, keys),
        "interval_charts": _interval_charts(several, keys),
        "shift_charts": _shift_charts(several, keys),
        "keys": list(zip(keys, several.names(), strict=True)),
        "n": several.n,
        "notes": several.notes(),
        "labelled": several.float_quality is not None,
        "command": command_words(several.command),
        "facts": _facts(several),
    }
    return fill("several.html.j2", values)


def _sentences(several: Several) -> list[str]:
    """What decides between the models: the first is the headline."""
    best = max(several.models, key=_worth)
    least = min(several.models, key=lambda one: one.bytes)
    what = "is right on" if several.float_quality is not None else "answers as the float model does on"
    found = [
        f"{best.name} {what} {100 * _worth(best):.2f} % of {several.n:,} inputs, the most of the quantized models."
    ]
    if several.float_quality is not None:
        found.append(f"The float model is right on {100 * several.float_quality.top1:.2f} %.")
    found.append(
        f"{least.name} is the smallest: {size_text(least.bytes)}, {least.bytes / several.reference_bytes:.2f} of the "
        "float model's file."
    )
    timed = [one for one in several.models if one.latency is not None]
    if timed:
        fastest = min(timed, key=_milliseconds)
        found.append(f"{fastest.name} is the fastest: {_milliseconds(fastest):.3f} ms an input.")
    apart = [one.name for one in several.models if _clearly_worse(one)]
    if several.float_quality is not None:
        found.append(
            f"Accuracy is lower than the float model's beyond chance (95 % interval) for {', '.join(apart)}."
            if apart
            else "No model's accuracy differs downwards from the float model's beyond chance (95 % interval)."
        )
    return found


def _worth(one: Standing) -> float:
    comparison = one.verification.comparison
    return 1.0 - comparison.disagreement.rate if comparison.quantized is None else comparison.quantized.top1


def _milliseconds(one: Standing) -> float:
    assert one.latency is not None
    return one.latency.median_ms


def _clearly_worse(one: Standing) -> bool:
    change = one.verification.comparison.change
    return change is not None and change.top1_interval[1] < 0


def _front_charts(several: Several, keys: Sequence[str]) -> list[Chart]:
    """Worth over size, and over latency where it is known."""
    labelled = several.float_quality is not None
    worth = "accuracy, %" if labelled else "answers as the float model's, %"
    scale, unit = (1 << 10, "KiB") if max(several.sizes()) < 1 << 21 else (1 << 20, "MiB")
    costs: list[tuple[str, str, Sequence[float]]] = [
        ("size", f"size of the file, {unit}", [size / scale for size in several.sizes()])
    ]
    times = several.latencies()
    if times is not None:
        costs.append(("latency", "latency of one input, ms", times))
    charts = []
    for name, axis, cost in costs:
        points = list(zip(cost, several.worths(), strict=True))
        front = [points[place] for place in pareto_front(points)]
        span_x = (0.0, round_range([0.0, *cost], 1e-6)[1])
        worths = several.worths()
        margin = 0.08 * (max(worths) - min(worths))
        span_y = round_range([min(worths) - margin, max(worths) + margin], 0.02)
        words = "; ".join(
            f"{who}: {a:.4g}, {100 * b:.2f} %" for who, (a, b) in zip(several.names(), points, strict=True)
        )
        on_it = ", ".join(several.fronts()[name])
        charts.append(
            chart(
                WIDE,
                f"{worth.partition(',')[0].capitalize()} over {name}",
                f"{words}. On the Pareto front: {on_it}.",
                [
                    Series(key, who, (point,), (f"{who}: {point[0]:.4g}, {100 * point[1]:.2f} %",))
                    for key, who, point in zip(keys, several.names(), points, strict=True)
                ],
                (span_x, span_y),
                (_ticks(*span_x), percent_ticks(*span_y)),
                (axis, worth),
                front,
            )
        )
    return charts


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    step = nice_step(high - low, 4)
    return [(value, f"{round(value / step) * step:g}") for value in round_ticks(low, high)]


def _interval_charts(several: Several, keys: Sequence[str]) -> list[tuple[str, list[dict[str, Any]], str]]:
    """For each metric: its name, a line a model, its figure and interval from 0 to 100 of a scale, and the scale."""
    every: list[tuple[str, list[tuple[float, Interval] | None]]] = []
    first = several.float_quality
    if first is not None:
        found = [one.verification.comparison.quantized for one in several.models]
        for name, attribute in (("Accuracy", "top1"), ("ECE", "ece")):
            qualities = [one for one in (first, *found) if one is not None]
            every.append((name, [(getattr(one, attribute), one.intervals[attribute]) for one in qualities]))
    differ = [one.verification.comparison.disagreement for one in several.models]
    every.append(("Disagreement", [None, *((one.rate, one.interval) for one in differ)]))
    charts = []
    for name, values in every:
        known = [bound for value in values if value is not None for bound in value[1]]
        low, high = round_range(known, 0.01, (0.0, 1.0))
        lines = []
        for key, who, value in zip(keys, several.names(), values, strict=True):
            if value is not None:
                at, left, right = (100 * (one - low) / (high - low) for one in (value[0], *value[1]))
                text = f"{100 * value[0]:.2f} % ({100 * value[1][0]:.2f} to {100 * value[1][1]:.2f})"
                lines.append({"key": key, "name": who, "at": at, "left": left, "width": right - left, "text": text})
        charts.append((name, lines, f"from {100 * low:g} to {100 * high:g} %"))
    return charts


def _shift_charts(several: Several, keys: Sequence[str]) -> list[tuple[str, list[Chart]]]:
    """For each suite: accuracy, ECE and disagreement over severity, as means over its types."""
    shifts = several.models[0].verification.shifts
    suites = [] if shifts is None else [mean.suite for mean in shifts.means if mean.suite != NATURAL]
    return [(suite, _suite_charts(several, keys, suite)) for suite in suites]


def _suite_charts(several: Several, keys: Sequence[str], suite: str) -> list[Chart]:
    tables: list[list[ShiftCell]] = []
    for one in several.models:
        assert one.verification.shifts is not None
        tables.append([cell for cell in one.verification.shifts.cells if cell.suite == suite])
    severities = sorted({cell.severity for cell in tables[0]})

    def means(cells: Sequence[ShiftCell], value: Callable[[ShiftCell], float]) -> list[float]:
        found = []
        for severity in severities:
            own = [value(cell) for cell in cells if cell.severity == severity]
            found.append(sum(own) / len(own))
        return found

    def of(side: str, figure: str) -> Callable[[ShiftCell], float]:
        return lambda cell: float(getattr(getattr(cell, side), figure))

    metrics: list[tuple[str, list[list[float] | None]]] = []
    if several.float_quality is not None:
        for name, figure in (("Accuracy", "top1"), ("ECE", "ece")):
            rest = [means(cells, of("quantized", figure)) for cells in tables]
            metrics.append((name, [means(tables[0], of("reference", figure)), *rest]))
    metrics.append(("Disagreement", [None, *(means(cells, lambda cell: cell.disagreement) for cells in tables)]))
    charts = []
    for name, lines in metrics:
        known = [(key, who, line) for key, who, line in zip(keys, several.names(), lines, strict=True) if line]
        span = round_range([0.0, *(value for _, _, line in known for value in line)], 0.05, (0.0, 1.0))
        series = [
            Series(
                key,
                who,
                tuple((float(at), value) for at, value in zip(severities, line, strict=True)),
                tuple(f"{who}, severity {at}: {100 * value:.1f} %" for at, value in zip(severities, line, strict=True)),
            )
            if line
            else Series(key, who, ())  # Keeps the others' markers as they are in the legend.
            for key, who, line in zip(keys, several.names(), lines, strict=True)
        ]
        words = "; ".join(f"{who} {', '.join(f'{100 * value:.1f}' for value in line)} %" for _, who, line in known)
        charts.append(
            chart(
                WIDE,
                f"{name} over severity, mean over the types",
                f"At severities {', '.join(str(one) for one in severities)}: {words}.",
                series,
                ((severities[0] - 0.3, severities[-1] + 0.3), span),
                ([(one, str(one)) for one in severities], percent_ticks(*span)),
                ("severity", f"{name if name == 'ECE' else name.lower()}, %"),
            )
        )
    return charts


def _facts(several: Several) -> list[tuple[str, str]]:
    """Everything needed to do the comparison again, as name and value."""
    first = several.models[0].verification.provenance
    facts = [
        ("float model", f"{several.reference}, run by {several.reference_backend}"),
        ("its SHA-256", several.reference_sha256),
    ]
    for one in several.models:
        source = one.verification.provenance
        facts += [
            (one.name, f"{one.path}, run by {source.backend}"),
            ("its SHA-256", source.target_sha256 or "not a file"),
        ]
    threads = f"{several.threads} thread{'s' if several.threads > 1 else ''}"
    facts += [
        ("data", f"{first.data}, {several.n:,} inputs"),
        ("SHA-256 of the data", first.data_sha256),
        ("versions", ", ".join(f"{name} {version}" for name, version in first.versions.items())),
        ("threads", threads),
    ]
    return facts
