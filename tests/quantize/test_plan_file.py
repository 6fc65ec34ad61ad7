"""Plans as TOML: written, read, edited, refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import UsageError
from edgeq.quantize.plan_file import LayerPlan, PlanFile, load, parse, render

PLAN = PlanFile(
    {
        "stem": LayerPlan(8, 0.012345678, 27.6, (432, 864), (0.04, 0.03), 'kept: "first"'),
        "a.b/c": LayerPlan(4, 1e-12, math.inf, (5, 9), None, "back\\slash"),
        "naïve \x7f\t": LayerPlan(4),
    },
    model="net",
    model_sha256="ab" * 32,
    calibration={"data_sha256": "cd", "samples": 200, "seed": 0, "held_back": 50},
    budget={"size": 0.55, "disagreement": 0.0},
    reached={"size": 0.5496, "latency": 1.02},
    optimum={"sensitivity": 0.0313, "bound": 0.0313, "gap": 0.0},
)


def test_what_is_written_is_read() -> None:
    plan = replace(PLAN, chosen=PLAN.digest)
    found = parse(render(plan))
    assert found.bits == plan.bits
    assert list(found.layers) == list(plan.layers)
    assert found.layers["stem"] == replace(plan.layers["stem"], sensitivity=0.01235)
    assert found.layers["a.b/c"] == plan.layers["a.b/c"]
    assert (found.model, found.model_sha256, found.chosen) == (plan.model, plan.model_sha256, plan.digest)
    assert (found.calibration, found.budget, found.reached) == (plan.calibration, plan.budget, plan.reached)
    assert found.optimum == plan.optimum
    assert found.held_back == 50
    assert render(found) == render(plan)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        st.builds(
            LayerPlan,
            st.sampled_from([4, 8]),
            st.none() | st.floats(0, 1e9),
            st.none() | st.floats(-200, 200),
            st.none() | st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
            st.none() | st.tuples(st.floats(-10, 1e5), st.floats(0, 1e5)),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_names_and_numbers_survive(layers: dict[str, LayerPlan]) -> None:
    plan = PlanFile(layers)
    found = parse(render(plan))
    assert found.bits == plan.bits
    assert [layer.reason for layer in found.layers.values()] == [layer.reason for layer in layers.values()]
    assert found.digest == plan.digest
    assert render(found) == render(plan)


def test_a_layer_is_a_line_and_an_edit_shows() -> None:
    plan = replace(PLAN, chosen=PLAN.digest)
    lines = render(plan).splitlines()
    (line,) = (number for number, text in enumerate(lines) if text.startswith('"stem"'))
    lines[line] = lines[line].replace("bits = 8", "bits = 4")
    found = parse("\n".join(lines))
    assert found.bits == {**PLAN.bits, "stem": 4}
    assert found.chosen != found.digest


def test_a_plan_may_be_written_by_hand() -> None:
    found = parse('[layers]\nstem = 8\n"head.1" = { bits = 4 }\n')
    assert found.bits == {"stem": 8, "head.1": 4}
    assert found.held_back == 0
    assert found.chosen == ""


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"no \[layers\]"),
        ("[layers]", r"no \[layers\]"),
        ("layers = 3", r"no \[layers\]"),
        ("[layers]\nstem = \nhead = 4", "not valid TOML.*line 2"),
        ("[layers]\nstem = 8\nstem = 4", "not valid TOML"),
        ("[layers]\nstem = 6", "layer 'stem' must have bits = 4 or bits = 8, not 6"),
        ("[layers]\nstem = 8.0", "not 8.0"),
        ("[layers]\nstem = true", "must be bits"),
        ("[layers]\nstem = { }", "must have bits"),
        ("[layers]\nstem = { bit = 4 }", "no 'bit'. Did you mean bits?"),
        ("[layers]\nstem = { bits = 4, bytes = [1] }", "bytes must be two numbers"),
        ("[layers]\nstem = { bits = 4, sensitivity = nan }", "sensitivity must be a number"),
        ("[layers]\nstem = { bits = 4, reason = 3 }", "reason must be a text"),
        ("layer = 3\n[layers]\nstem = 4", "no 'layer'. Did you mean layers?"),
        ("format = 2\n[layers]\nstem = 4", "format 2; this version of edgeq reads format 1"),
        ("activation_bits = 4\n[layers]\nstem = 4", "activations keep 8"),
        ("[budget]\nsize = 'x'\n[layers]\nstem = 4", "budget.size must be a number"),
        ("budget = 3\n[layers]\nstem = 4", "budget must be a table"),
        ("[calibration]\nheld_back = -1\n[layers]\nstem = 4", "held_back cannot be -1"),
        ("[calibration]\nheld_bac = 1\n[layers]\nstem = 4", "Did you mean held_back?"),
        ("model = 3\n[layers]\nstem = 4", "model must be a text"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_reason(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"plan\.toml: "):
        load(path)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(path)
