"""The inputs whose answer changed, to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeq import metrics
from edgeq.data import Dataset

MOST = 24


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to one input.

    Attributes:
        label: The class with the highest logit.
        probability: Its softmax probability.
    """

    label: int
    probability: float


@dataclass(frozen=True, slots=True)
class Example:
    """One input on which the two models disagree.

    Attributes:
        position: In the data set.
        image: The input as a picture: uint8, shape (h, w, 1 or 3).
        truth: Its label, or None.
        reference: The float model's answer.
        quantized: The quantized model's answer.
    """

    position: int
    image: NDArray[np.uint8]
    truth: int | None
    reference: Answer
    quantized: Answer


def worst_disagreements(
    reference: ArrayLike, quantized: ArrayLike, labels: ArrayLike | None, dataset: Dataset, most: int = MOST
) -> tuple[Example, ...]:
    """The disagreements with the largest change of a probability, largest first.

    Args:
        reference: The float model's logits, finite, shape (n, classes).
        quantized: The quantized model's, the same shape.
        labels: Class indices, shape (n,), or None.
        dataset: Where the inputs come from: input i is its sample i.
        most: How many to return at most.
    """
    first, second = metrics.softmax(reference), metrics.softmax(quantized)
    answers = metrics.predicted_class(reference), metrics.predicted_class(quantized)
    differ = np.flatnonzero(answers[0] != answers[1])
    change = np.abs(first[differ] - second[differ]).max(axis=1) if differ.size else np.empty(0)
    chosen = differ[np.argsort(-change, kind="stable")[:most]]
    truth = None if labels is None else np.asarray(labels)
    pictures = dataset.images([int(position) for position in chosen]) if chosen.size else []
    return tuple(
        Example(
            position=int(position),
            image=picture,
            truth=None if truth is None else int(truth[position]),
            reference=Answer(int(answers[0][position]), float(first[position, answers[0][position]])),
            quantized=Answer(int(answers[1][position]), float(second[position, answers[1][position]])),
        )
        for position, picture in zip(chosen, pictures, strict=True)
    )
