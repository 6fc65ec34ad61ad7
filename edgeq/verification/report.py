"""The report: one self-contained HTML page that needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeq.errors import UsageError
from edgeq.verification import diagram
from edgeq.verification.compare import Comparison
from edgeq.verification.table import format_sqnr, metric_rows

if TYPE_CHECKING:
    from edgeq.verification.verify import Verification

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True)
class SplitPart:
    """One part of the disagreements: who is right, how often, and where it lies in the bar (0 to 100)."""

    key: str
    name: str
    count: int
    share: float
    left: float
    width: float


def render(verification: Verification) -> str:
    """The page as text.

    Raises:
        UsageError: If jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise UsageError(
            "The HTML report needs jinja2, which is not installed: pip install 'edgeq[report]'."
        ) from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgeq.verification", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(_TEMPLATE).render(**_values(verification))
    return page


def _values(verification: Verification) -> dict[str, Any]:
    comparison = verification.comparison
    provenance = verification.provenance
    models = []
    if comparison.reference is not None and comparison.quantized is not None:
        models = [
            (
                "fp32",
                "FP32 reference",
                comparison.reference,
                diagram.draw(comparison.reference, comparison.n),
            ),
            (
                "quantized",
                "Quantized",
                comparison.quantized,
                diagram.draw(comparison.quantized, comparison.n),
            ),
        ]
    return {
        "comparison": comparison,
        "provenance": provenance,
        "title": " ".join(part for part in (provenance.model, provenance.scheme) if part)
        or provenance.target,
        "verdict": _verdict(verification),
        "rows": metric_rows(comparison),
        "models": models,
        "split": split_parts(comparison),
        "sqnr": format_sqnr(comparison.logit_sqnr_db),
        "geometry": diagram,
        "facts": _facts(verification),
    }


def _verdict(verification: Verification) -> tuple[str, str]:
    """The verdict on the comparison, and on the device where one ran the model."""
    headline, rest = verdict(verification.comparison)
    if verification.device is not None:
        rest += f" {verification.device.device} {verification.device.sentence(verification.comparison.n)}."
    return headline, rest


def verdict(comparison: Comparison) -> tuple[str, str]:
    """What quantization did: a headline, and the rest of it in a sentence or two."""
    differ = comparison.disagreement
    low, high = differ.interval
    answers = (
        f"It answers {100 * differ.rate:.1f} % of {comparison.n:,} inputs differently from the float model "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )
    first, second = comparison.reference, comparison.quantized
    if first is None or second is None:
        return (
            f"The quantized model answers {100 * differ.rate:.1f} % of the inputs differently.",
            f"{answers}. The data have no labels, so accuracy and calibration are unknown.",
        )
    points = 100 * (second.top1 - first.top1)
    change = (
        "keeps the accuracy of the float model"
        if abs(points) < 0.005
        else (
            f"loses {-points:.2f} points of accuracy"
            if points < 0
            else f"gains {points:.2f} points of accuracy"
        )
    )
    moved = second.ece - first.ece
    calibration = (
        "stays at"
        if abs(moved) < 5e-5
        else (f"rises from {first.ece:.4f} to" if moved > 0 else f"falls from {first.ece:.4f} to")
    )
    return (
        f"The quantized model {change}: {100 * second.top1:.2f} % against {100 * first.top1:.2f} %.",
        f"{answers}. Its expected calibration error {calibration} {second.ece:.4f}.",
    )


def split_parts(comparison: Comparison) -> list[SplitPart]:
    """The disagreements by who is right; empty without labels or without disagreements."""
    differ = comparison.disagreement
    shares = (
        ("lost", "only FP32 is right", differ.reference_only_correct),
        ("won", "only the quantized model is right", differ.quantized_only_correct),
        ("neither", "both are wrong, differently", differ.both_wrong),
    )
    parts: list[SplitPart] = []
    left = 0.0
    for key, name, share in shares:
        if share is None or differ.count == 0:
            return []
        width = 100.0 * share / differ.rate
        parts.append(SplitPart(key, name, round(share * comparison.n), share, left, width))
        left += width
    return parts


def _facts(verification: Verification) -> list[tuple[str, str]]:
    """Everything needed to do the verification again, as name and value."""
    one = verification.provenance
    facts = [
        ("quantized model", one.target),
        ("its SHA-256", one.target_sha256 or "not a file"),
        ("run by", one.backend),
        ("float model", one.reference),
        ("its SHA-256", one.reference_sha256 or "not a file"),
        ("run by", one.reference_backend),
        ("data", f"{one.data}, {verification.comparison.n:,} inputs"),
        ("SHA-256 of the data", one.data_sha256),
        ("preprocessing", _preprocessing_text(one.preprocessing)),
        ("versions", ", ".join(f"{name} {version}" for name, version in one.versions.items())),
    ]
    if verification.seconds:
        spent = ", ".join(f"{name} {value:.1f} s" for name, value in verification.seconds.items())
        facts.append(("time", spent))
    return facts


def _preprocessing_text(values: Any) -> str:
    if not values:
        return "none: inputs were taken as they are"
    parts = []
    for name, value in values.items():
        if value is not None:
            shown = ", ".join(f"{v:g}" for v in value) if isinstance(value, (list, tuple)) else value
            parts.append(f"{name} {shown}")
    return "; ".join(parts)
