"""What a classifier's scores are, logits or probabilities, and the logits that verification takes them for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.backends.protocol import Backend
from edgeq.errors import BackendError, DataError, EdgeqError
from edgeq.ir import Graph
from edgeq.metrics import log_softmax
from edgeq.simulate.prediction import log_of_probability

Scores = NDArray[np.float32]
Logits = NDArray[np.float64]

SUM_TOLERANCE = 1e-3
"""By how much rows of probabilities may miss 1 where nothing but the numbers says that they are probabilities."""

_ONNX_PASSED = {
    "Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Unsqueeze"
}  # fmt: skip
_TFLITE_PASSED = {"CAST", "DEQUANTIZE", "EXPAND_DIMS", "QUANTIZE", "RESHAPE", "SQUEEZE"}


class Ending(Enum):
    """What a network ends in, and so what its scores are."""

    LOGITS = "logits"
    LOG_SOFTMAX = "log_softmax"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


_OF_OPERATOR = {
    **dict.fromkeys(("LogSoftmax", "LOG_SOFTMAX"), Ending.LOG_SOFTMAX),
    **dict.fromkeys(("softmax", "Softmax", "QLinearSoftmax", "SOFTMAX"), Ending.SOFTMAX),
    **dict.fromkeys(("sigmoid", "Sigmoid", "QLinearSigmoid", "LOGISTIC"), Ending.SIGMOID),
}


def as_logits(scores: NDArray[np.floating[Any]], ending: Ending) -> Logits:
    """The logits that scores stand for: softmax of them gives the model's own probabilities.

    Probabilities p of a softmax become log(max(p, 1e-12)). One score a sample becomes two classes: a logit z is
    [0, z], the p of a sigmoid [log(1 - p), log p].

    Args:
        scores: Shape (n, classes) or (n, 1).
        ending: Of the model that gave them.

    Returns:
        float64, shape (n, classes) or (n, 2); NaN where a probability is not finite.
    """
    values = scores.astype(np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        if ending is Ending.SIGMOID:
            return log_of_probability(np.hstack([1.0 - values, values]))
        return np.hstack([np.zeros_like(values), values])
    return log_of_probability(values) if ending is Ending.SOFTMAX else values


def _normalised(logits: Logits) -> Logits:
    """The log-softmax of logits; rows that are not finite, which `compare` refuses by number, stay as they are."""
    finite = np.isfinite(logits).all(axis=1)
    result: Logits = logits.copy()
    if finite.any():
        result[finite] = log_softmax(logits[finite])
    return result


@dataclass(frozen=True, slots=True)
class Endings:
    """What both models end in.

    Attributes:
        reference: Of the float model.
        quantized: Of the quantized model.
    """

    reference: Ending
    quantized: Ending

    def logits(self, who: str, scores: Scores) -> Logits:
        """Logits of what `reference` or `quantized` gave; see `as_logits`.

        Where one model ends in a log-softmax and the other leaves it out, their logits differ by a number a sample:
        both are normalised then, so that errors of logits mean something.
        """
        logits = as_logits(scores, self.reference if who == "reference" else self.quantized)
        return _normalised(logits) if Ending.LOG_SOFTMAX in (self.reference, self.quantized) else logits


def settle(reference: Ending | None, quantized: Ending | None, scores: tuple[Scores, Scores]) -> Endings:
    """What both models end in, where a file says it or not.

    A float model of unknown ending is judged by its scores: all rows distributions, or not. A quantized one ends as
    the float model does, where its scores may be probabilities.

    Args:
        reference: What the float model's file says, or None.
        quantized: What the quantized model's file says, or None.
        scores: Of the float and the quantized model on the same inputs, shape (n, classes) each.

    Raises:
        DataError: If one score a sample may be a logit or a probability, and nothing tells which.
    """
    first = _by_scores(scores[0], quantized) if reference is None else reference
    if quantized is None:
        quantized = first if first is Ending.LOGITS or _may_be_probabilities(scores[1]) else Ending.LOGITS
    return Endings(first, quantized)


def _by_scores(scores: Scores, other: Ending | None) -> Ending:
    if scores.shape[1] > 1:
        sums = scores.sum(axis=1, dtype=np.float64)
        distributions = bool((scores >= 0).all() and (np.abs(sums - 1.0) <= SUM_TOLERANCE).all())
        return Ending.SOFTMAX if distributions else Ending.LOGITS
    if not _may_be_probabilities(scores):
        return Ending.LOGITS
    if other is None:
        raise DataError(
            "The reference model gives one score a sample, all of them in [0, 1]: nothing tells whether they are "
            "logits or the probabilities of a sigmoid. Name its .onnx or .tflite file, or give at least two classes."
        )
    return other


def _may_be_probabilities(scores: Scores) -> bool:
    return bool(((scores >= 0) & (scores <= 1.0 + SUM_TOLERANCE)).all())


def graph_ending(graph: Graph, output: int = 0) -> Ending:
    """What an output of a graph comes from."""
    node = graph.producers().get(graph.outputs[output])
    while node is not None and node.op in ("reshape", "fake_quant"):
        node = graph.producers().get(node.inputs[0])
    return Ending.LOGITS if node is None else _OF_OPERATOR.get(node.op, Ending.LOGITS)


def ending_of(file: Path | None, backend: Backend | None = None) -> Ending | None:
    """What the model of a file ends in, or None where that is not known: no file, a kind that is not read here, one
    score a sample from a table of codes, which may be a sigmoid's or another function's.

    Args:
        file: The model's file.
        backend: Where no file was named, what runs the model; its `path` is the file, if it has one.
    """
    given = file if file is not None else getattr(backend, "path", None)
    if not isinstance(given, (str, Path)):
        return None
    path = Path(given)
    read = {".edgeq": _edgeq_ending, ".onnx": _onnx_ending, ".tflite": _tflite_ending}.get(path.suffix.lower())
    try:
        return None if read is None or not path.is_file() else read(path)
    except EdgeqError:
        return None  # Operators that edgeq does not know; the runtime may.


def _edgeq_ending(path: Path) -> Ending | None:
    from edgeq.importers.from_edgeq import load

    graph, _ = load(path)
    output = graph.outputs[0]
    node = graph.producers().get(output)
    one_score = all(size == 1 for size in graph.tensor(output).shape[1:])
    return None if one_score and node is not None and node.op == "lut" else graph_ending(graph)


def _onnx_ending(path: Path) -> Ending | None:
    try:
        import onnx
    except ImportError:
        return None
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf raises its own types, all derived from Exception
        raise BackendError(f"{path}: is no ONNX model ({error}).") from error
    made_by = {name: (node.op_type, [*node.input, ""][0]) for node in graph.node for name in node.output}
    return _ending_behind(graph.output[0].name, made_by, _ONNX_PASSED) if graph.output else None


def _tflite_ending(path: Path) -> Ending | None:
    from edgeq.importers.tflite_file import read_file

    file = read_file(path)
    made_by = {str(to): (node.op, str([*node.inputs, -1][0])) for node in file.operators for to in node.outputs}
    return _ending_behind(str(file.outputs[0][0]), made_by, _TFLITE_PASSED) if file.outputs else None


def _ending_behind(name: str, made_by: Mapping[str, tuple[str, str]], passed: Collection[str]) -> Ending:
    """What the first operator before an output is that does more than move, round or convert it.

    Args:
        name: Of the output.
        made_by: Operator and first input of what makes each tensor.
        passed: Operators to look behind.
    """
    for _ in made_by:  # A damaged file may go round in circles.
        if name not in made_by or made_by[name][0] not in passed:
            break
        name = made_by[name][1]
    return _OF_OPERATOR.get(made_by.get(name, ("", ""))[0], Ending.LOGITS)
