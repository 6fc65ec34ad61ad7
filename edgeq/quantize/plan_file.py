"""Plans of mixed precision as TOML files that can be read, edited and replayed.

    [layers]
    "stem" = { bits = 8, sensitivity = 0.0123, sqnr_db = 27.6, bytes = [432, 864], ms = [0.04, 0.03], reason = "..." }
    "expand" = 4

Only the bits have an effect, and how many calibration samples were held back; everything else is the record of what was
measured and may be left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.quantize.policy import similar_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
"""Version of the file's own form."""

LARGEST = 16 << 20
"""Bytes; no plan is longer."""

_HEAD = """\
# The bits of each layer's weights. To change them, set `bits` to 4 or 8 and replay the plan:
#     edgeq export MODEL --bits plan.toml --calib DATA -o OUT
# The same plan, model, data and seed give the same model.edgeq, byte for byte. Everything but `bits` and `held_back` is
# a record of what was measured and has no effect."""

_REACHED = """\
# size: bytes of model.edgeq as a share of the w8a8 export's. latency: time of one run as a share of w8a8's, measured,
# and as the sum of the layers' own times. disagreement: on the samples that were held back."""

_OPTIMUM = """\
# sensitivity: summed over the layers at 4 bits. No plan within the budgets has less than bound; gap is the difference
# as a share of sensitivity."""

_LAYERS = """\
# sensitivity: what 4 bits in this layer alone add to the divergence of the outputs from the float network's.
# sqnr_db: of the layer's own output at 4 bits. bytes, ms: of its weights and its time, at 4 and at 8 bits."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer of a plan.

    Attributes:
        bits: Of its weights, 4 or 8.
        sensitivity: What 4 bits cost; see `edgeq.quantize.sensitivity`. None where it was not measured.
        sqnr_db: Of its output at 4 bits.
        bytes: Of its weights at 4 and at 8 bits.
        ms: Its time at 4 and at 8 bits.
        reason: One sentence.
    """

    bits: int
    sensitivity: float | None = None
    sqnr_db: float | None = None
    bytes: tuple[int, int] | None = None
    ms: tuple[float, float] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan of mixed precision and how it came about.

    Attributes:
        layers: By name, in execution order.
        model: Name of the model.
        model_sha256: Of the float model's file; "" where unknown.
        calibration: data_sha256, samples, seed and held_back: of the chosen samples, how many calibrated nothing.
        budget: What was asked for, by name.
        reached: What came out, by name.
        optimum: sensitivity, bound and gap.
        chosen: `digest` of the bits as they were chosen: it shows whether a plan was edited. "" where unknown.
    """

    layers: dict[str, LayerPlan]
    model: str = ""
    model_sha256: str = ""
    calibration: dict[str, str | int] = field(default_factory=dict)
    budget: dict[str, float] = field(default_factory=dict)
    reached: dict[str, float] = field(default_factory=dict)
    optimum: dict[str, float] = field(default_factory=dict)
    chosen: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the bits by layer."""
        return hashlib.sha256("".join(f"{name}={bits}\n" for name, bits in self.bits.items()).encode()).hexdigest()

    @property
    def bits(self) -> dict[str, int]:
        """Weight bits by layer."""
        return {name: layer.bits for name, layer in self.layers.items()}

    @property
    def held_back(self) -> int:
        """How many of the chosen calibration samples were held back."""
        return int(self.calibration.get("held_back", 0))


def render(plan: PlanFile) -> str:
    """Returns the plan as TOML, a line a layer."""
    lines = [_HEAD, "", f"format = {FORMAT}"]
    lines += [f"model = {_text(plan.model)}"] if plan.model else []
    lines += [f"model_sha256 = {_text(plan.model_sha256)}"] if plan.model_sha256 else []
    lines += [f"chosen = {_text(plan.chosen)}"] if plan.chosen else []
    lines += ["activation_bits = 8"]
    for name, comment, table in (
        ("calibration", "", plan.calibration),
        ("budget", "", plan.budget),
        ("reached", _REACHED, plan.reached),
        ("optimum", _OPTIMUM, plan.optimum),
    ):
        if table:
            lines += ["", *([comment] if comment else []), f"[{name}]"]
            lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    lines += ["", _LAYERS, "[layers]"]
    width = max((len(_text(name)) for name in plan.layers), default=0)
    lines += [f"{_text(name).ljust(width)} = {_layer(layer)}" for name, layer in plan.layers.items()]
    return "\n".join(lines) + "\n"


def _layer(layer: LayerPlan) -> str:
    fields = [f"bits = {layer.bits}"]
    if layer.sensitivity is not None:
        fields.append(f"sensitivity = {_value(layer.sensitivity)}")
    if layer.sqnr_db is not None:
        fields.append(f"sqnr_db = {layer.sqnr_db:.1f}")
    if layer.bytes is not None:
        fields.append(f"bytes = [{layer.bytes[0]}, {layer.bytes[1]}]")
    if layer.ms is not None:
        fields.append(f"ms = [{layer.ms[0]:.4f}, {layer.ms[1]:.4f}]")
    if layer.reason:
        fields.append(f"reason = {_text(layer.reason)}")
    return f"{{ {', '.join(fields)} }}"


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for the delete character, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return _text(value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def load(path: str | Path) -> PlanFile:
    """Reads a plan.

    Raises:
        UsageError: If there is no such file, or it is no plan; the message names the line or the key.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{path}: the plan cannot be read ({error.strerror or error})") from None
    if len(content) > LARGEST:
        raise UsageError(f"{path}: is larger than {LARGEST >> 20} MiB, which no plan is")
    try:
        return parse(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; a plan is a TOML file that `edgeq export` wrote") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def parse(text: str) -> PlanFile:
    """Reads the text of a plan.

    Raises:
        UsageError: If it is not TOML, or holds a key or a value that a plan cannot have.
    """
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"is not valid TOML ({error})") from None
    known = ("format", "model", "model_sha256", "chosen", "activation_bits", *_NUMBERS, "calibration", "layers")
    _check_keys(found, known, "a plan")
    if found.get("format", FORMAT) != FORMAT:
        raise UsageError(f"has format {found['format']!r}; this version of edgeq reads format {FORMAT}")
    if found.get("activation_bits", 8) != 8:
        raise UsageError("activation_bits must be 8: a plan gives bits to weights, activations keep 8")
    layers = found.get("layers")
    if not isinstance(layers, dict) or not layers:
        raise UsageError('has no [layers]; a plan gives every layer a line such as "conv1" = { bits = 4 }')
    tables = {name: _numbers(found.get(name, {}), name) for name in _NUMBERS}
    return PlanFile(
        layers={name: _read_layer(name, entry) for name, entry in layers.items()},
        model=_string(found, "model"),
        model_sha256=_string(found, "model_sha256"),
        calibration=_calibration(found.get("calibration", {})),
        budget=tables["budget"],
        reached=tables["reached"],
        optimum=tables["optimum"],
        chosen=_string(found, "chosen"),
    )


_NUMBERS = ("budget", "reached", "optimum")

_CALIBRATION: Mapping[str, type] = {"data_sha256": str, "samples": int, "seed": int, "held_back": int}

_FIELDS = ("bits", "sensitivity", "sqnr_db", "bytes", "ms", "reason")


def _check_keys(found: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in found:
        if key not in known:
            raise UsageError(f"{where} has no {key!r}.{similar_names(key, known)}")


def _string(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key, "")
    if not isinstance(value, str):
        raise UsageError(f"{key} must be a text, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(found: Any, name: str) -> dict[str, float]:
    if not isinstance(found, dict):
        raise UsageError(f"{name} must be a table of numbers, not {found!r}")
    for key, value in found.items():
        if not _is_number(value):
            raise UsageError(f"{name}.{key} must be a number, not {value!r}")
    return dict(found)


def _calibration(found: Any) -> dict[str, str | int]:
    if not isinstance(found, dict):
        raise UsageError(f"calibration must be a table, not {found!r}")
    _check_keys(found, _CALIBRATION, "[calibration]")
    for key, value in found.items():
        below = isinstance(value, int) and value < 0
        if not isinstance(value, _CALIBRATION[key]) or isinstance(value, bool) or below:
            raise UsageError(f"calibration.{key} cannot be {value!r}")
    return dict(found)


def _read_layer(name: str, entry: Any) -> LayerPlan:
    if _is_number(entry):
        entry = {"bits": entry}
    if not isinstance(entry, dict):
        raise UsageError(f"layer {name!r} must be bits (4 or 8) or a table that holds them, not {entry!r}")
    _check_keys(entry, _FIELDS, f"layer {name!r}")
    bits = entry.get("bits")
    if bits not in (4, 8) or isinstance(bits, float):
        raise UsageError(f"layer {name!r} must have bits = 4 or bits = 8" + ("" if bits is None else f", not {bits!r}"))
    for key in ("sensitivity", "sqnr_db"):
        value = entry.get(key, 0.0)
        if not _is_number(value) or math.isnan(value):
            raise UsageError(f"layer {name!r}: {key} must be a number, not {value!r}")
    pairs: dict[str, tuple[Any, Any] | None] = {}
    for key in ("bytes", "ms"):
        pair = entry.get(key)
        if pair is not None and not (isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))):
            raise UsageError(f"layer {name!r}: {key} must be two numbers, at 4 and at 8 bits, not {pair!r}")
        pairs[key] = None if pair is None else (pair[0], pair[1])
    return LayerPlan(
        bits, entry.get("sensitivity"), entry.get("sqnr_db"), pairs["bytes"], pairs["ms"], _string(entry, "reason")
    )
