from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from edgeq.verification import Provenance, Verification, compare
from edgeq.verification.report import split_parts, verdict

pytest.importorskip("jinja2")

VOID = {"meta", "link", "br", "img"}


class Balanced(HTMLParser):
    """Checks that every element closes, and collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def verification(n: int = 200, labelled: bool = True, noise: float = 1.0, model: str = "net") -> Verification:
    rng = np.random.default_rng(n)
    reference = rng.normal(size=(n, 10)) * 2
    labels = np.where(rng.random(n) < 0.7, reference.argmax(1), 0) if labelled else None
    comparison = compare(reference, reference + noise * rng.normal(size=reference.shape), labels)
    provenance = Provenance(
        command="edgeq verify out --data digits:test --backend native",
        target="out",
        target_sha256="ab" * 32,
        reference="out/reference.onnx",
        reference_sha256=None,
        scheme="w4a8",
        model=model,
        backend="native",
        reference_backend="onnxruntime 1.0",
        data="digits:test",
        data_sha256="cd" * 32,
        samples=None,
        preprocessing={"resize": None, "mean": [0.0], "std": [240.0], "channels": "gray"},
        versions={"edgeq": "0.1.0"},
    )
    return Verification(comparison, provenance, None, {"data": 1.0})


def parse(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize(
    ("n", "labelled", "noise"), [(200, True, 1.0), (200, False, 1.0), (200, True, 0.0), (1, True, 0.0)]
)
def test_page_is_whole_and_needs_no_network(n: int, labelled: bool, noise: float) -> None:
    page = verification(n, labelled, noise).html()
    parsed = parse(page)
    assert parsed.links == ["data:,"]
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not re.search(r"https?:|//[a-z]|@import|<script", page)
    assert "default-src 'none'" in page
    assert page.count('role="img" aria-labelledby') == (2 if labelled else 0)
    assert "nan" not in re.findall(r"[a-z]+", page.lower())


def test_page_shows_figures_and_how_to_repeat_them() -> None:
    one = verification()
    text = " ".join(" ".join(parse(one.html()).text).split())
    assert one.comparison.reference is not None
    assert f"{one.comparison.reference.ece:.4f}" in text
    assert f"{100 * one.comparison.reference.top1:.2f} %" in text
    for part in (
        "edgeq verify out --data digits:test",
        "ab" * 32,
        "cd" * 32,
        "std 240",
        "w4a8",
        "onnxruntime 1.0",
    ):
        assert part in text


def test_page_escapes_what_it_is_given() -> None:
    page = verification(model="<script>alert(1)</script>").html()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_filled_bins_are_drawn_and_empty_ones_are_not() -> None:
    one = verification()
    assert one.comparison.reference is not None
    filled = sum(bin.count > 0 for bin in one.comparison.reference.bins)
    assert one.html().count('class="bar fp32"') == filled
    assert one.html().count('class="count fp32"') == filled


def test_split_adds_up() -> None:
    one = verification()
    parts = split_parts(one.comparison)
    assert sum(part.count for part in parts) == one.comparison.disagreement.count
    assert sum(part.width for part in parts) == pytest.approx(100.0)
    assert split_parts(verification(labelled=False).comparison) == []
    assert split_parts(verification(noise=0.0).comparison) == []


def test_verdict_says_what_happened() -> None:
    headline, rest = verdict(verification().comparison)
    assert "loses" in headline
    assert "calibration error" in rest
    assert "keeps the accuracy" in verdict(verification(noise=0.0).comparison)[0]
    assert "no labels" in verdict(verification(labelled=False).comparison)[1]
