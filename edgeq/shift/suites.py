"""The suites of corruptions: which types there are, how strong each severity is, and how users name them.

The parameters are those of the published sets: ImageNet-C and CIFAR-10-C (Hendrycks and Dietterich 2019, "Benchmarking
neural network robustness to common corruptions and perturbations", arXiv 1903.12261) and MNIST-C (Mu and Gilmer 2019,
"MNIST-C: a robustness benchmark for computer vision", arXiv 1906.02337). The images are drawn by edgeq's own code, some
of them otherwise than the originals (docs/shift.md says which), so figures on them are not figures on the published
sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import UsageError

Parameters = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One corruption at one severity of a suite.

    Attributes:
        suite: A key of `SUITES`.
        kind: One of the suite's types.
        severity: From 1 to the number of severities of the type.
    """

    suite: str
    kind: str
    severity: int

    def __str__(self) -> str:
        return f"{self.suite}:{self.kind}:{self.severity}"


@dataclass(frozen=True, slots=True)
class Suite:
    """A set of corruptions.

    Attributes:
        name: What users call it.
        parameters: For each type its parameters at severity 1, 2, ...
        main: The types that the suite's mean is taken over; the others are the published set's extra ones.
    """

    name: str
    parameters: Mapping[str, tuple[Parameters, ...]]
    main: tuple[str, ...]


GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
"""The groups of the ImageNet-C paper, by the names that a request may use."""

_MAIN = (*GROUPS["noise"], *GROUPS["blur"], *GROUPS["weather"], *GROUPS["digital"])


def _single(*values: Any) -> tuple[Parameters, ...]:
    return tuple((value,) for value in values)


def _zooms(*stops_and_steps: tuple[float, float]) -> tuple[Parameters, ...]:
    return tuple(stops_and_steps)


_IMAGENET: Mapping[str, tuple[Parameters, ...]] = {
    "gaussian_noise": _single(0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "shot_noise": _single(60, 25, 12, 5, 3),  # photons of white
    "impulse_noise": _single(0.03, 0.06, 0.09, 0.17, 0.27),  # share of pixels
    "speckle_noise": _single(0.15, 0.2, 0.35, 0.45, 0.6),  # standard deviation, times the pixel
    "gaussian_blur": _single(1, 2, 3, 4, 6),  # sigma in pixels
    # Radius of the disk, sigma of its edge.
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    # Sigma of the blurs, reach of the swaps, rounds of them.
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),  # length, sigma
    "zoom_blur": _zooms((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),  # end, step
    # Mean and spread of the flakes' noise, zoom, threshold, length and sigma of the fall, weight of the image.
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),  # weights of image and frost
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),  # height, decay of the fractal
    "brightness": _single(0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV
    "contrast": _single(0.4, 0.3, 0.2, 0.1, 0.05),  # factor
    # Strength of the displacement, its smoothness, strength of the affine part: times 244 pixels.
    "elastic_transform": (
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
    "pixelate": _single(0.6, 0.5, 0.4, 0.3, 0.25),  # share of the side that is kept
    "jpeg_compression": _single(25, 18, 15, 10, 7),  # quality
    # Mean and spread of the liquid's noise, its smoothness, threshold, strength or softness, mud instead of water.
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),  # factor and addend of the saturation
}

_CIFAR: Mapping[str, tuple[Parameters, ...]] = {
    "gaussian_noise": _single(0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": _single(500, 250, 100, 75, 50),
    "impulse_noise": _single(0.01, 0.02, 0.03, 0.05, 0.07),
    "speckle_noise": _single(0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": _single(0.4, 0.6, 0.7, 0.8, 1),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": _zooms((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": _single(0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": _single(0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    "pixelate": _single(0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": _single(80, 65, 58, 50, 40),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

_MNIST: Mapping[str, tuple[Parameters, ...]] = {
    "shot_noise": _single(3),
    "impulse_noise": _single(0.17),
    "glass_blur": ((0.7, 1, 2),),
    "motion_blur": ((10, 3),),
    "shear": _single(0.4),  # horizontal displacement a row
    "scale": _single(1 / 0.7),  # the digit shrinks by it
    "rotate": _single(0.4),  # radians
    "brightness": _single(0.5),
    "translate": _single(3),  # pixels, in both directions
    "stripe": _single(0.25),  # share of the width at each side that is inverted
    "fog": ((2, 2),),
    "spatter": ((0.65, 0.3, 1, 0.65, 1.5, True),),
    "dotted_line": ((),),
    "zigzag": ((2.0, 2.0),),  # half a length, height
    "canny_edges": ((1.0, 0.1, 0.2),),  # sigma, low and high threshold
}

SUITES: Mapping[str, Suite] = {
    "imagenet-c": Suite("imagenet-c", _IMAGENET, _MAIN),
    "cifar10-c": Suite("cifar10-c", _CIFAR, _MAIN),
    "mnist-c": Suite("mnist-c", _MNIST, tuple(_MNIST)),
}
"""imagenet-c is for photographs of about 224 pixels, cifar10-c for 32, mnist-c for grey digits of 28: at another size
the same parameters are another strength."""


def parse(text: str) -> tuple[Cell, ...]:
    """The cells that `suite[:types[:severities]]` names, in the suite's order.

    Types are names or groups (noise, blur, weather, digital, extra) with commas between, severities numbers and ranges:
    `imagenet-c:noise,fog:1,3-5`. Without types all the main ones are meant, without severities all.

    Raises:
        UsageError: If a part names nothing that the suite has.
    """
    name, _, rest = text.strip().partition(":")
    suite = SUITES.get(name)
    if suite is None:
        known = ", ".join(SUITES)
        raise UsageError(f"There is no shift suite {name!r}: use one of {known}, as in imagenet-c:blur:1,3,5.")
    kinds, _, severities = rest.partition(":")
    chosen = _kinds(suite, kinds)
    levels = _levels(severities)
    cells = []
    for kind in suite.parameters:
        most = len(suite.parameters[kind])
        wanted = levels or range(1, most + 1)
        if kind in chosen:
            beyond = [level for level in wanted if level > most]
            if beyond:
                raise UsageError(f"{kind} of {suite.name} has severities 1 to {most}, not {beyond[0]}.")
            cells += [Cell(suite.name, kind, level) for level in wanted]
    return tuple(cells)


def _kinds(suite: Suite, text: str) -> set[str]:
    if not text or text == "all":
        return set(suite.main)
    chosen: set[str] = set()
    for word in text.split(","):
        members = GROUPS.get(word, (word,))
        known = [kind for kind in members if kind in suite.parameters]
        if not known:
            raise UsageError(
                f"{suite.name} has no corruption {word!r}. It has {', '.join(suite.parameters)}"
                + (f", and the groups {', '.join(GROUPS)}." if suite.name != "mnist-c" else ".")
            )
        chosen.update(known)
    return chosen


def _levels(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    levels: set[int] = set()
    for word in text.split(","):
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"Severities are numbers and ranges from 1, such as 1,3,5 or 1-5, not {text!r}.")
        low, high = int(first), int(last) if dash else int(first)
        if not 1 <= low <= high <= 5:
            raise UsageError(f"Severities lie in 1 to 5, ranges ascend: {word!r} does not.")
        levels.update(range(low, high + 1))
    return tuple(sorted(levels))
