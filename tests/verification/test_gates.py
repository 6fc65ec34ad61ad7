from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from edgeq.errors import UsageError
from edgeq.verification import Gates, check_gates, junit_xml


def case(wrong: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A float model that is always right, and one that answers the first `wrong` inputs differently."""
    labels = np.arange(n) % 3
    reference = np.eye(3)[labels] * 4.0
    quantized = reference.copy()
    quantized[:wrong] = np.eye(3)[(labels[:wrong] + 1) % 3] * 4.0
    return reference, quantized, labels


def test_figures_are_held_against_their_limits() -> None:
    arguments = case(8)
    [drop] = check_gates(Gates(max_accuracy_drop=2.0), *arguments)
    assert (drop.name, drop.value, drop.bound, drop.passed) == ("max-accuracy-drop", 2.0, 2.0, True)
    [drop] = check_gates(Gates(max_accuracy_drop=1.9), *arguments)
    assert not drop.passed
    assert drop.sentence == "The loss of top-1 accuracy, 2.00 points, exceeds the limit of 1.90 points."
    [rate] = check_gates(Gates(max_disagreement=0.02), *arguments)
    assert rate.passed
    assert "2.00%" in rate.sentence


@pytest.mark.parametrize(
    "gates",
    [Gates(max_accuracy_drop=2.5), Gates(max_disagreement=0.025), Gates(max_ece=0.1), Gates(max_ece_increase=0.016)],
)
def test_a_confidence_takes_the_bound(gates: Gates) -> None:
    arguments = case(8)
    [plain] = check_gates(gates, *arguments)
    assert plain.bound == plain.value
    values = {name: getattr(gates, name) for name in Gates.__dataclass_fields__}
    [bounded] = check_gates(Gates(**{**values, "confidence": 0.95}), *arguments)
    [surer] = check_gates(Gates(**{**values, "confidence": 0.999}), *arguments)
    assert plain.value == bounded.value < bounded.bound < surer.bound
    assert "95% confidence" in bounded.sentence


def test_all_gates_in_their_order() -> None:
    names = [one.name for one in check_gates(Gates(1.0, 0.1, 0.1, 0.1), *case(0))]
    assert names == ["max-accuracy-drop", "max-ece", "max-ece-increase", "max-disagreement"]
    assert check_gates(Gates(), *case(0)) == ()


def test_without_labels_disagreement_alone_can_be_asked() -> None:
    reference, quantized, _ = case(3)
    assert check_gates(Gates(max_disagreement=0.01), reference, quantized, None)[0].passed
    with pytest.raises(UsageError, match="need labels"):
        check_gates(Gates(max_ece=0.1), reference, quantized, None)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"max_ece": float("nan")}, "finite"),
        ({"confidence": 0.4}, r"\[0\.5, 1\)"),
        ({"confidence": 1.0}, r"\[0\.5, 1\)"),
        ({"max_disagreement": 2.0}, "0.02 for 2 %"),
    ],
)
def test_senseless_gates(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Gates(**values)


def test_junit() -> None:
    results = check_gates(Gates(max_accuracy_drop=1.0, max_disagreement=0.5), *case(8))
    root = ElementTree.fromstring(junit_xml(results, "a <model>", 1.25))
    [suite] = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("name")) == ("2", "1", "a <model>")
    failed, passed = suite
    assert failed.find("failure") is not None
    assert "exceeds the limit" in (failed.find("failure").text or "")  # type: ignore[union-attr]
    assert passed.find("failure") is None
