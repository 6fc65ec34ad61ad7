"""The study behind docs/findings.md: from end to end on the demo, and the rule of its verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.studies import findings


def test_demo_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "findings.md"
    names = ("calibration", "shift", "margin", "temperature", "blame")
    page.write_text("".join(f"<!-- table: {name} -->\n<!-- end: {name} -->\n" for name in names))
    monkeypatch.setattr(findings, "PAGE", page)
    work = tmp_path / "work"
    words = ["--data", "unused", "--work", str(work), "--networks", "demo", "--write"]
    findings.main(words)
    written = page.read_text()
    for scheme in findings.SCHEMES:
        assert written.count(f"| demo | {scheme} | ") == 3  # calibration, margin, temperature
    assert (work / "demo.html").stat().st_size > 10_000
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    findings.main(words)
    assert page.read_text() == written
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == kept, "made again what was there"


def _shifted(rates: list[float]) -> dict[str, Any]:
    """What a comparison of one model says, as far as the table of shifts reads it."""
    cells = [{"severity": severity, "disagreement": rate} for severity in (1, 3, 5) for rate in rates]
    one = {
        "shifts": {"cells": cells, "means": [{"error_ratio": 1.0}]},
        "disagreement": {"rate": 0.05, "interval": [0.04, 0.06]},
    }
    return {"models": [one] * len(findings.SCHEMES)}


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ([0.10, 0.12, 0.11], "agrees"),
        ([0.01, 0.02, 0.015], "does not agree"),
        ([0.02, 0.12, 0.05], "cannot be told"),
    ],
)
def test_shift_verdict(rates: list[float], verdict: str) -> None:
    table = findings.shift_table({"network": _shifted(rates)})
    assert table.count(f" | {verdict} |") == len(findings.SCHEMES)


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [((0.001, 0.01), "agrees"), ((-0.01, -0.001), "does not agree"), ((-0.01, 0.01), "cannot be told")],
)
def test_verdict_is_the_interval_of_the_change(bounds: tuple[float, float], verdict: str) -> None:
    assert findings._verdict(bounds) == verdict
