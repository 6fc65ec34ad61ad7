"""The page with everything in it: every section, no request, and no complaint of a browser."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgeq.data import Preprocessing
from edgeq.verification import Gates, Verification, verify
from edgeq.verification.blame import Blame, LayerBlame
from edgeq.verification.verify import DeviceCheck

pytest.importorskip("jinja2")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
SECTIONS = (
    "The float model beside the quantized one",
    "Is the confidence honest?",
    "With a temperature",
    "Where the two answer differently",
    "Does uncertainty tell where?",
    "On shifted inputs",
    "Which layers are to blame",
    "Do it again",
)


class Classifier:
    """A float classifier on images of 32 by 32, rounded where it stands for a quantized one."""

    def __init__(self, name: str, step: float = 0.0) -> None:
        self.name, self.step = name, step
        self.weights = np.random.default_rng(0).normal(size=(3 * 32 * 32, 7)).astype(np.float32) / 40

    def run(self, x: np.ndarray) -> np.ndarray:
        logits: np.ndarray = x.reshape(len(x), -1) @ self.weights
        return np.round(logits / self.step).astype(np.float32) * np.float32(self.step) if self.step else logits


def layer(name: str, bits: int, win: float) -> LayerBlame:
    eight = None if bits == 8 else win
    return LayerBlame(name, "conv", bits, 0.5, 20.0, np.inf, 0.99, 1.5, 30.0, eight, eight and 0.01, win, 0.01, 0.001)


@pytest.fixture(scope="module")
def full() -> Verification:
    """A verification of which nothing is missing."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (150, 32, 32, 3), dtype=np.uint8)
    record = Preprocessing(mean=127, std=64)
    inputs = (images.transpose(0, 3, 1, 2).astype(np.float32) - 127) / 64
    labels = np.where(rng.random(150) < 0.7, Classifier("f").run(inputs).argmax(1), rng.integers(0, 7, 150))
    found = verify(
        Classifier("coarse", 0.8),
        data=(images, labels),
        reference=Classifier("float"),
        preprocessing=record,
        gates=Gates(max_accuracy_drop=50.0, max_disagreement=0.0),
        shift="cifar10-c:gaussian_noise,contrast:1,3",
        shift_samples=20,
        shift_data=(images[:30], labels[:30]),
    )
    layers = (layer("stem", 8, -0.25), layer("<b>&middle", 4, 2.5), layer("head", 4, 0.5))
    return replace(
        found,
        device=DeviceCheck("ssh://board", "Cortex-A55", "neon", 3, 7, 0.25),
        blame=Blame(20, 12.5, 0.05, 1.0, layers),
    )


class Page(HTMLParser):
    """Collects what a page would load, its identifiers, headings and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.drawings: list[dict[str, str | None]] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        names = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        self.sources += [values[name] or "" for name in names if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        self.images += [values] if tag == "img" else []
        self.drawings += [values] if tag == "svg" else []
        assert tag not in ("script", "iframe", "object", "embed", "a")
        self._within = tag

    def handle_data(self, data: str) -> None:
        if self._within in ("h2", "h3") and data.strip():
            self.headings.append(data.strip())


def test_every_section_is_there_and_nothing_is_loaded(full: Verification) -> None:
    text = full.html()
    page = Page(text)
    assert [one for one in page.headings if one in SECTIONS] == list(SECTIONS)
    assert all(source.startswith("data:") for source in page.sources)
    assert len(set(page.ids)) == len(page.ids)
    assert not re.search(r"https?:|url\((?!#)|@import", text)
    assert not re.search(r"\b(nan|inf|None)\b", re.sub(r"data:image[^\"]*", "", text))


def test_every_drawing_has_a_title_and_words_or_is_decoration(full: Verification) -> None:
    text = full.html()
    page = Page(text)
    drawn = [one for one in page.drawings if "aria-hidden" not in one]
    # Two diagrams, four with temperatures, the ROC curves, and accuracy, ECE and disagreement of two types.
    assert len(drawn) == 2 + 4 + 1 + 3 * 2
    for one in drawn:
        assert one["role"] == "img"
        assert set((one["aria-labelledby"] or "").split()) <= set(page.ids)
    assert all(re.search(r"\d", words) for words in re.findall(r"<desc[^>]*>([^<]*)</desc>", text))


def test_verdict_comes_first_and_names_every_check(full: Verification) -> None:
    text = full.html()
    verdict = text[text.index('class="verdict"') : text.index("<h2>")]
    assert verdict.count("<b>passed</b>") == 1
    assert verdict.count("<b>FAILED</b>") == 2
    for one in full.gates:
        assert one.sentence in verdict
    assert "DIFFERS from the host on 3 of 150 inputs" in verdict


def test_gallery_shows_the_examples_with_both_answers(full: Verification) -> None:
    page = Page(full.html())
    assert len(page.images) == len(full.examples) > 5
    for shown, one in zip(page.images, full.examples, strict=True):
        assert base64.b64decode((shown["src"] or "").partition(",")[2]).startswith(b"\x89PNG")
        assert f"Input {one.position}: FP32 says class {one.reference.label} with" in (shown["alt"] or "")
        assert f"quantized class {one.quantized.label} with {one.quantized.probability:.2f}" in (shown["alt"] or "")
        assert f"it is class {one.truth}." in (shown["alt"] or "")


def test_layers_are_ranked_and_their_names_are_text(full: Verification) -> None:
    text = full.html()
    assert "<b>&middle" not in text
    order = [text.index(f'<tr><th scope="row">{name}') for name in ("&lt;b&gt;&amp;middle, w4", "head, w4", "stem, w8")]
    assert order == sorted(order)
    assert text.count('class="worse"') == 1


def test_intervals_stand_below_their_figures(full: Verification) -> None:
    quality, change = full.comparison.quantized, full.comparison.change
    assert quality is not None
    assert change is not None
    text = full.html()
    for low, high in (quality.intervals["ece"],):
        assert f"<small>{low:.4f} to {high:.4f}</small>" in text
    low, high = change.top1_interval
    assert f"<small>{100 * low:+.2f} to {100 * high:+.2f}</small>" in text


def test_what_was_not_asked_is_left_out(full: Verification) -> None:
    bare = replace(full, scaling=None, shifts=None, blame=None, prediction=None, gates=(), device=None, examples=())
    page = Page(bare.html())
    assert "Where the two answer differently" in page.headings
    absent = {"With a temperature", "Does uncertainty tell where?", "On shifted inputs", "Which layers are to blame"}
    assert not absent & set(page.headings)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open the page with")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_a_browser_opens_it_without_complaint(full: Verification, tmp_path: Path, scheme: str, width: int) -> None:
    assert CHROMIUM is not None
    path = tmp_path / "page.html"
    path.write_text(full.html(), encoding="utf-8")
    picture = tmp_path / "page.png"
    words = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        f"--window-size={width},2000",
        f"--screenshot={picture}",
        path.as_uri(),
    ]
    run = subprocess.run(words, capture_output=True, text=True, timeout=120)
    # What a page does wrong, or is kept from loading, is a message of its console.
    assert "CONSOLE" not in run.stderr
    assert picture.is_file(), run.stderr[-2000:]
    image = pytest.importorskip("PIL.Image").open(picture).convert("RGB")
    ground = image.getpixel((2, 2))
    assert (sum(ground) < 150) == (scheme == "dark")
    assert len(image.getcolors(1 << 24)) > 50
