"""The report: one self-contained HTML page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeq.errors import UsageError
from edgeq.verification import diagram, pictures
from edgeq.verification.charts import SMALL, SQUARE, Chart, Series, chart, percent_ticks, round_range
from edgeq.verification.compare import Comparison
from edgeq.verification.prediction import DisagreementPrediction
from edgeq.verification.scaling import TemperatureScaling
from edgeq.verification.shift import NATURAL, ShiftCell, ShiftFigures, ShiftStudy, SuiteMean
from edgeq.verification.table import SHARES, format_sqnr, known_metrics, metric_rows

if TYPE_CHECKING:
    from edgeq.verification.blame import Blame
    from edgeq.verification.verify import Verification

@dataclass(frozen=True, slots=True)
class SplitPart:
    """One part of the disagreements: who is right, how often, and where it lies in the bar (0 to 100)."""

    key: str
    name: str
    count: int
    share: float
    left: float
    width: float


SERIES_KEYS = ("fp32", "quantized", "s1", "s2", "s3", "s4", "s5", "s6", "neither")
"""Colours of lines in the style sheet, told apart by everyone (after Okabe and Ito 2008)."""

_SCALED = (
    ("fp32", "FP32 before", "FP32"),
    ("fp32", "FP32 after", "FP32, scaled"),
    ("quantized", "Quantized before", "quantized"),
    ("quantized", "Quantized after", "quantized, scaled"),
)
_SHOWN_LAYERS = 20
_TINY = 48
"""Pixels of a side up to which a picture is enlarged with visible pixels."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure of a table, and its interval in words or nothing."""

    text: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: the float model, the quantized one, the change."""

    name: str
    cells: tuple[Cell, Cell, Cell]


@dataclass(frozen=True, slots=True)
class CardAnswer:
    """A model's answer to a pictured input; `mark` is right, wrong, or nothing without a label."""

    key: str
    name: str
    probability: str
    mark: str


@dataclass(frozen=True, slots=True)
class Card:
    """A pictured input: its data: URI, how it is enlarged, its size in pixels, and its text."""

    position: int
    source: str
    size: str
    width: int
    height: int
    text: str
    truth: str
    answers: tuple[CardAnswer, CardAnswer]


@dataclass(frozen=True, slots=True)
class LayerBar:
    """What sparing a layer wins, and where its bar lies (0 to 100)."""

    name: str
    value: float
    left: float
    width: float
    worse: bool


@dataclass(frozen=True, slots=True)
class SuitePanels:
    """The small multiples of one suite: rows of a metric's name and a chart for each type."""

    number: int
    keys: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Chart, ...]], ...]


def render(verification: Verification) -> str:
    """The page as text.

    Raises:
        UsageError: If jinja2 is not installed.
    """
    return fill("report.html.j2", _values(verification))


def fill(template: str, values: Mapping[str, Any]) -> str:
    """A page from a template of this package.

    Args:
        template: Name of its file.
        values: What it shows.

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
    page: str = environment.get_template(template).render(series_keys=SERIES_KEYS, **values)
    return page


def _values(verification: Verification) -> dict[str, Any]:
    comparison = verification.comparison
    provenance = verification.provenance
    models = [
        (key, name, quality, diagram.draw(quality.bins, quality.mean_confidence, quality.ece))
        for key, name, quality in (
            ("fp32", "FP32 reference", comparison.reference),
            ("quantized", "Quantized", comparison.quantized),
        )
        if quality is not None
    ]
    return {
        "kind": "edgeq verification",
        "comparison": comparison,
        "provenance": provenance,
        "title": " ".join(part for part in (provenance.model, provenance.scheme) if part)
        or provenance.target,
        "verdict": verdict(comparison),
        "checks": _checks(verification),
        "notes": verification.notes,
        "rows": _rows(comparison),
        "models": models,
        "split": split_parts(comparison),
        "sqnr": format_sqnr(comparison.logit_sqnr_db),
        "decibels": format_sqnr,
        "geometry": diagram,
        "gallery": _gallery(verification),
        "facts": _facts(verification),
        "command": command_words(provenance.command),
        **_scaling_values(verification.scaling),
        **_prediction_values(verification.prediction),
        **_shift_values(verification.shifts),
        **_blame_values(verification.blame),
    }


def _checks(verification: Verification) -> list[tuple[bool, str]]:
    """Whether each gate, and the device, passed, and the sentence that says so."""
    checks = [(one.passed, one.sentence) for one in verification.gates]
    device = verification.device
    if device is not None:
        checks.append((device.exact, f"{device.device} {device.sentence(verification.comparison.n)}."))
    return checks


def _rows(comparison: Comparison) -> list[Row]:
    first, second, change = comparison.reference, comparison.quantized, comparison.change
    if first is None or second is None or change is None:
        return []
    moved = {"top1": change.top1_interval, "ece": change.ece_interval}
    rows = []
    names = known_metrics(comparison)
    for (name, one, two, difference), (_, attribute) in zip(metric_rows(comparison), names, strict=True):
        share = attribute in SHARES

        def between(bounds: tuple[float, float] | None, share: bool = share, signed: bool = False) -> str:
            if bounds is None:
                return ""
            form = ("%+.2f" if signed else "%.2f") if share else ("%+.4f" if signed else "%.4f")
            low, high = (form % (100 * bound if share else bound) for bound in bounds)
            return f"{low} to {high}"

        cells = (
            Cell(one, between(first.intervals.get(attribute))),
            Cell(two, between(second.intervals.get(attribute))),
            Cell(difference, between(moved.get(attribute), signed=True)),
        )
        rows.append(Row(name, cells))
    return rows


def _scaling_values(scaling: TemperatureScaling | None) -> dict[str, Any]:
    if scaling is None:
        return {"scaling": None, "scaled": [], "scaling_sentence": ""}
    scaled = []
    for key, name, row_name in _SCALED:
        row = scaling.rows[row_name]
        scaled.append((key, name, row, diagram.draw(row.bins, row.mean_confidence, row.ece)))
    before, after, borrowed = (
        scaling.rows[name] for name in ("quantized", "quantized, scaled", "quantized, FP32's temperature")
    )
    sentence = (
        f"Its own temperature, {after.temperature:.3f}, takes the quantized model's ECE from {before.ece:.4f} to "
        f"{after.ece:.4f}; the float model's, {borrowed.temperature:.3f}, to {borrowed.ece:.4f}."
    )
    return {"scaling": scaling, "scaled": scaled, "scaling_sentence": sentence}


def _prediction_values(prediction: DisagreementPrediction | None) -> dict[str, Any]:
    if prediction is None:
        return {"prediction": None, "prediction_sentence": "", "roc": None, "roc_keys": []}
    best = prediction.best()
    if best is None:
        sentence = "n/a: the models disagree on no input, or on every one, so that there is nothing to predict."
        return {"prediction": prediction, "prediction_sentence": sentence, "roc": None, "roc_keys": []}
    sentence = (
        f"The models disagree on {100 * prediction.base_rate:.2f} % of the inputs: the base rate. Of the quantized "
        f"model's own uncertainty scores {best} tells them apart best: AUROC {prediction.quantized[best].auroc:.3f}."
    )
    keys = ("fp32", "s1", "s2", "s3")
    curves = list(zip(keys, prediction.quantized.items(), strict=True))
    ticks = [(value / 5, f"{value / 5:.1f}") for value in range(6)]
    figures = ", ".join(f"{name} {one.auroc:.3f}" for _, (name, one) in curves)
    roc = chart(
        SQUARE,
        "ROC curves of four uncertainty scores",
        f"Areas under the curves: {figures}. The diagonal is what a score without knowledge would reach.",
        [Series(key, name, one.curve or ()) for key, (name, one) in curves],
        ((0.0, 1.0), (0.0, 1.0)),
        (ticks, ticks),
        ("agreeing inputs above the threshold", "disagreeing inputs above it"),
    )
    named = [(key, f"{name}: {one.auroc:.3f}") for key, (name, one) in curves]
    return {"prediction": prediction, "prediction_sentence": sentence, "roc": roc, "roc_keys": named}


def _shift_values(shifts: ShiftStudy | None) -> dict[str, Any]:
    if shifts is None:
        return {"shifts": None, "shift_panels": [], "shift_sentences": []}
    suites = [name for name in dict.fromkeys(cell.suite for cell in shifts.cells) if name != NATURAL]
    panels = [
        suite_panels(number, [cell for cell in shifts.cells if cell.suite == name])
        for number, name in enumerate(suites)
    ]
    return {"shifts": shifts, "shift_panels": panels, "shift_sentences": [_shift_sentence(m) for m in shifts.means]}


def _shift_sentence(mean: SuiteMean) -> str:
    over = f"Mean over {mean.cells} cells of {mean.suite}" if mean.suite != NATURAL else "On other data"
    text = f"{over}: the models disagree on {100 * mean.disagreement:.1f} % of the inputs"
    if mean.reference_error is None or mean.quantized_error is None:
        return f"{text}."
    text += (
        f"; accuracy {100 * (1 - mean.quantized_error):.1f} % against {100 * (1 - mean.reference_error):.1f} %, ECE "
        f"{mean.quantized_ece:.4f} against {mean.reference_ece:.4f}"
    )
    if mean.error_ratio is not None:
        text += f"; the quantized model errs {mean.error_ratio:.3f} times as often as the float model"
    return f"{text}."


def suite_panels(number: int, cells: Sequence[ShiftCell]) -> SuitePanels:
    """A chart for each metric and type of a suite, over severity.

    Args:
        number: Of the suite on the page.
        cells: Of one suite, at least one.
    """
    two = (("fp32", "FP32"), ("quantized", "quantized"))
    rows: list[tuple[str, tuple[Chart, ...]]] = []
    if all(cell.reference is not None and cell.quantized is not None for cell in cells):
        rows.append(("Accuracy, %", _panels(cells, two, lambda cell, key: _side(cell, key).top1, "Accuracy")))
        rows.append(("ECE, %", _panels(cells, two, lambda cell, key: _side(cell, key).ece, "ECE")))
    one = (("neither", "between them"),)
    rows.append(("Disagreement, %", _panels(cells, one, lambda cell, _: cell.disagreement, "Disagreement")))
    return SuitePanels(number, two if len(rows) > 1 else (), tuple(rows))


def _side(cell: ShiftCell, key: str) -> ShiftFigures:
    figures = cell.reference if key == "fp32" else cell.quantized
    assert figures is not None
    return figures


def _panels(
    cells: Sequence[ShiftCell],
    lines: Sequence[tuple[str, str]],
    value: Callable[[ShiftCell, str], float],
    metric: str,
) -> tuple[Chart, ...]:
    """One panel a type; all of them share their axes."""
    every = [value(cell, key) for cell in cells for key, _ in lines]
    severities = sorted({cell.severity for cell in cells})
    span = round_range([0.0, *every], 0.05, (0.0, 1.0))
    ranges = ((severities[0] - 0.4, severities[-1] + 0.4), span)
    ticks = ([(one, str(one)) for one in severities], percent_ticks(*span))
    panels = []
    for kind in dict.fromkeys(cell.kind for cell in cells):
        own = sorted((cell for cell in cells if cell.kind == kind), key=lambda cell: cell.severity)
        series, words = [], []
        for key, name in lines:
            found = [value(cell, key) for cell in own]
            labels = tuple(
                f"{name}, severity {cell.severity}: {100 * one:.1f} %" for cell, one in zip(own, found, strict=True)
            )
            points = tuple((float(cell.severity), one) for cell, one in zip(own, found, strict=True))
            series.append(Series(key, name, points, labels))
            words.append(f"{name} {', '.join(f'{100 * one:.1f}' for one in found)} %")
        shown = ", ".join(str(cell.severity) for cell in own)
        text = f"{metric} under {kind} at severities {shown}: {'; '.join(words)}."
        panels.append(chart(SMALL, kind.replace("_", " "), text, series, ranges, ticks))
    return tuple(panels)


def _blame_values(blame: Blame | None) -> dict[str, Any]:
    if blame is None:
        return {"blame": None, "blame_bars": [], "blame_sentence": ""}
    shown = blame.ranked()[:_SHOWN_LAYERS]
    wins = [one.win_float_db if one.win_8bit_db is None else one.win_8bit_db for one in shown]
    finite = [win if math.isfinite(win) else 0.0 for win in wins]
    low, high = min(0.0, *finite), max(0.0, *finite)
    width = (high - low) or 1.0
    bars = [
        LayerBar(
            f"{one.layer}, w{one.weight_bits}",
            win,
            100 * (min(0.0, win) - low) / width,
            100 * abs(win) / width,
            win < 0,
        )
        for one, win in zip(shown, finite, strict=True)
    ]
    which = "all" if len(shown) == len(blame.layers) else f"the first {len(shown)} of {len(blame.layers)}"
    sentence = (
        f"Each layer alone is given 8-bit weights, or float ones where it has 8 bits: {which} layers by what that "
        "wins. "
        f"The whole network's outputs have a signal to noise ratio of {format_sqnr(blame.sqnr_db)} and "
        f"{100 * blame.disagreement:.1f} % other answers on {blame.samples:,} inputs; the emulation behind "
        f"these figures answers as the integers do on {100 * blame.agreement:.1f} %."
    )
    return {"blame": blame, "blame_bars": bars, "blame_sentence": sentence}


def _gallery(verification: Verification) -> list[Card]:
    names = verification.class_names

    def called(label: int) -> str:
        return names[label] if names is not None and label < len(names) else f"class {label}"

    cards = []
    for one in verification.examples:
        picture = pictures.shrink(one.image, pictures.LARGEST_SIDE)
        height, width = picture.shape[:2]
        answers = tuple(
            CardAnswer(
                key,
                called(answer.label),
                f"{answer.probability:.2f}",
                "" if one.truth is None else "right" if answer.label == one.truth else "wrong",
            )
            for key, answer in (("fp32", one.reference), ("quantized", one.quantized))
        )
        truth = "" if one.truth is None else called(one.truth)
        text = (
            f"Input {one.position}: FP32 says {answers[0].name} with {answers[0].probability}, quantized "
            f"{answers[1].name} with {answers[1].probability}" + (f"; it is {truth}." if truth else ".")
        )
        size = "tiny" if max(height, width) <= _TINY else "photo"
        cards.append(
            Card(one.position, pictures.data_uri(picture), size, width, height, text, truth, (answers[0], answers[1]))
        )
    return cards


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


def command_words(command: str) -> list[str]:
    """A command line cut before its options, so that it wraps between them."""
    first, *options = command.split(" --")
    return [first, *(f"--{option}" for option in options)]


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
