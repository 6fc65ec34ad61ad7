"""The comparison as plain text for a terminal."""

from __future__ import annotations

import math

from edgeq.verification.compare import Change, Comparison, Quality
from edgeq.verification.prediction import DisagreementPrediction
from edgeq.verification.scaling import TemperatureScaling
from edgeq.verification.shift import ShiftStudy

METRICS = (
    ("top-1 accuracy", "top1"),
    ("top-5 accuracy", "top5"),
    ("ECE, 15 bins", "ece"),
    ("adaptive ECE", "adaptive_ece"),
    ("class-wise ECE", "classwise_ece"),
    ("debiased ECE", "debiased_ece"),
    ("MCE", "mce"),
    ("NLL (nats)", "nll"),
    ("Brier score", "brier"),
    ("mean confidence", "mean_confidence"),
)
"""Name and attribute of every figure of `Quality`, in the order of the table."""

SHARES = ("top1", "top5")
"""Those that are shown in percent."""


def known_metrics(comparison: Comparison) -> list[tuple[str, str]]:
    """Those of `METRICS` that a comparison knows: none without labels, no top-5 with fewer than six classes."""
    quality = comparison.reference
    return [] if quality is None else [one for one in METRICS if getattr(quality, one[1]) is not None]


def metric_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Metric, float value, quantized value and change; empty without labels."""
    first, second = comparison.reference, comparison.quantized
    if first is None or second is None:
        return []
    return [
        (name, *_percent(getattr(first, attribute), getattr(second, attribute)))
        if attribute in SHARES
        else _number(name, attribute, first, second)
        for name, attribute in known_metrics(comparison)
    ]


def _percent(first: float, second: float) -> tuple[str, str, str]:
    return f"{100 * first:.2f} %", f"{100 * second:.2f} %", f"{100 * (second - first):+.2f} points"


def _number(name: str, attribute: str, first: Quality, second: Quality) -> tuple[str, str, str, str]:
    one, two = float(getattr(first, attribute)), float(getattr(second, attribute))
    return name, f"{one:.4f}", f"{two:.4f}", f"{two - one:+.4f}"


def disagreement_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """What differs between the two models, and how much."""
    one = comparison.disagreement
    low, high = one.interval
    rows = [
        (
            "disagreement",
            f"{100 * one.rate:.2f} % ({one.count} of {comparison.n}; 95 % interval {100 * low:.2f} to "
            f"{100 * high:.2f})",
        )
    ]
    for name, share in (
        ("only FP32 right", one.reference_only_correct),
        ("only quantized right", one.quantized_only_correct),
        ("both wrong", one.both_wrong),
    ):
        if share is not None:
            rows.append((f"  {name}", f"{100 * share:.2f} %"))
    if one.top5_overlap is not None:
        rows.append(("top-5 overlap", f"{100 * one.top5_overlap:.1f} %"))
    rows.append(("mean KL divergence", f"{one.mean_kl:.4f} nats"))
    rows.append(("largest change", f"{one.largest_probability_change:.3f} of a probability"))
    rows.append(("logit SQNR", format_sqnr(comparison.logit_sqnr_db)))
    return rows


def change_rows(change: Change) -> list[tuple[str, str]]:
    """The changes that decide, with their intervals."""
    low, high = (100 * bound for bound in change.top1_interval)
    return [
        (
            "change of accuracy",
            f"{100 * change.top1:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}; McNemar p "
            f"{change.mcnemar_p:.2g})",
        ),
        (
            "change of ECE",
            f"{change.ece:+.4f} (95 % interval {change.ece_interval[0]:+.4f} to {change.ece_interval[1]:+.4f})",
        ),
    ]


def scaling_lines(scaling: TemperatureScaling) -> list[str]:
    """Temperature scaling as a small table."""
    lines = [f"temperature scaling, fitted on {scaling.fitted_on} inputs, judged on {scaling.tested_on} others:"]
    width = max(len(name) for name in scaling.rows)
    for name, row in scaling.rows.items():
        low, high = row.ece_interval
        lines.append(
            f"  {name.ljust(width)}  T {row.temperature:6.3f}  ECE {row.ece:.4f} ({low:.4f} to {high:.4f})  "
            f"NLL {row.nll:.4f}"
        )
    return lines


def shift_lines(shifts: ShiftStudy) -> list[str]:
    """Both models under each shift, and the means of the suites."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f} %"

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    rows = [("shift", "FP32 top-1", "quantized", "FP32 ECE", "quantized", "disagreement")]
    for cell in shifts.cells:
        first, second = cell.reference, cell.quantized
        rows.append(
            (
                f"{cell.kind} {cell.severity}" if cell.severity else cell.kind,
                share(None if first is None else first.top1),
                share(None if second is None else second.top1),
                number(None if first is None else first.ece),
                number(None if second is None else second.ece),
                share(cell.disagreement),
            )
        )
    for mean in shifts.means:
        rows.append(
            (
                f"mean of {mean.suite} ({mean.cells})",
                share(None if mean.reference_error is None else 1 - mean.reference_error),
                share(None if mean.quantized_error is None else 1 - mean.quantized_error),
                number(mean.reference_ece),
                number(mean.quantized_ece),
                share(mean.disagreement),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    for mean in shifts.means:
        if mean.error_ratio is not None:
            lines.append(f"errors of the quantized model over the float model's, {mean.suite}: {mean.error_ratio:.3f}")
    return lines


def prediction_lines(prediction: DisagreementPrediction) -> list[str]:
    """How well the quantized model's uncertainty tells where it disagrees."""
    lines = [f"disagreement predicted by the quantized model's uncertainty (base rate {prediction.base_rate:.2%}):"]
    width = max(len(name) for name in prediction.quantized)
    for name, one in prediction.quantized.items():
        figures = "  ".join(
            f"{label} {'n/a' if value is None else f'{value:.3f}'}"
            for label, value in (("AUROC", one.auroc), ("AUPRC", one.auprc), ("TNR at 95 % TPR", one.tnr95))
        )
        lines.append(f"  {name.ljust(width)}  {figures}")
    return lines


def format_sqnr(value: float) -> str:
    """A signal to noise ratio with its unit; in words where the logits are equal."""
    return f"{value:.1f} dB" if math.isfinite(value) else ("equal logits" if value > 0 else "no signal")


def format_table(comparison: Comparison, title: str = "quantized") -> str:
    """The comparison as a plain-text table.

    Args:
        comparison: What to show.
        title: The heading of the quantized model's column, such as "w4a8, native".
    """
    rows = metric_rows(comparison)
    lines = []
    if rows:
        table = [(f"n = {comparison.n}", "FP32", title, "change"), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(4)]
        for row in table:
            cells = [row[0].ljust(widths[0])] + [
                cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
        lines.insert(1, "-" * (sum(widths) + 6))
        lines.append("")
    else:
        lines.append(f"n = {comparison.n}; the data have no labels, so accuracy and calibration are unknown")
    pairs = [*(change_rows(comparison.change) if comparison.change else ()), *disagreement_rows(comparison)]
    width = max(len(name) for name, _ in pairs)
    lines += [f"{name.ljust(width)}  {value}" for name, value in pairs]
    return "\n".join(lines)
