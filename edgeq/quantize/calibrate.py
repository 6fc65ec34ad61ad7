"""Calibration: streams samples through the float graph and lets observers see every activation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.errors import BackendError, DataError, QuantizationError
from edgeq.exporters.onnx_float import FloatModel, to_float_onnx
from edgeq.ir import BATCH, Graph
from edgeq.ir.tensor import Array
from edgeq.quantize.observers import Observer, observer_factory
from edgeq.quantize.sharing import SharedSet, constant_values, shared_sets
from edgeq.simulate.executor import Feeds, checked_feeds

DEFAULT_SAMPLES = 1024
"""How many samples calibrate unless the user says otherwise (the paper's number)."""

ACTIVATION_BYTES = 256 << 20
"""Samples run together while all observed activations of a batch stay below this."""

KEPT_SAMPLES = 1024
"""Samples that are kept for the methods that run the quantized network."""

KEPT_BYTES = 192 << 20
"""Fewer samples are kept where they would take more than this."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration learned; it holds for every scheme.

    Attributes:
        graph: The float graph that was observed.
        sets: Activations that share quantization.
        observers: By name of the shared set.
        samples: Some of the inputs, by name; the same number of each.
        count: How many samples were observed.
    """

    graph: Graph
    sets: tuple[SharedSet, ...]
    observers: Mapping[str, Observer]
    samples: Mapping[str, Array]
    count: int


def calibrate(
    graph: Graph,
    batches: Iterable[Feeds],
    *,
    observer: str = "histogram",
    kept_samples: int = KEPT_SAMPLES,
    progress: Callable[[int], None] | None = None,
    threads: int | None = None,
) -> Calibration:
    """Runs the float graph in ONNX Runtime and observes every activation that will be quantized.

    Memory does not grow with the number of samples: a batch is split so that its activations stay below
    ACTIVATION_BYTES, and observers have a constant size.

    Args:
        graph: Float, NCHW, after the float passes.
        batches: float32 arrays in NCHW of any batch size (or one array an input, in order or by name).
        observer: A name in `edgeq.quantize.observers.OBSERVERS`.
        kept_samples: How many of the first samples the result keeps.
        progress: Called with the number of samples observed so far after every part of a batch.
        threads: For ONNX Runtime and for counting; all cores without it.

    Raises:
        DataError: If there are no samples, or one has a wrong shape or a value that is not finite.
        QuantizationError: If an activation is not finite on a sample, or no observer has that name.
    """
    threads = threads or os.cpu_count() or 1
    sets = shared_sets(graph)
    make = observer_factory(observer)
    observers = {shared.name: make() for shared in sets}
    for shared in sets:
        for value in constant_values(graph, shared.constants):
            observers[shared.name].observe(value)
    watched = [(shared, member) for shared in sets if shared.fixed is None for member in shared.observed]
    computed = [member for _, member in watched if member not in graph.inputs]
    model = FloatSession(to_float_onnx(graph, computed or None), threads)
    part = _samples_at_once(graph, computed)
    kept: list[dict[str, Array]] = []
    count = 0
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            feeds = checked_feeds(graph, batch, np.float32)
            for name, array in feeds.items():
                if not np.isfinite(array).all():
                    raise DataError(
                        f"Calibration input {name!r} holds NaN or infinite values (near sample {count}); "
                        "check the data and its preprocessing."
                    )
            size = _batch_size(graph, feeds)
            for begin in range(0, size, part):
                slices = slice_feeds(graph, feeds, begin, begin + part)
                values = {**slices, **dict(zip(computed, model.run(slices), strict=False))}
                by_set: dict[str, list[Array]] = {}
                for shared, member in watched:
                    by_set.setdefault(shared.name, []).append(values[member])
                jobs = {
                    name: pool.submit(_observe, observers[name], arrays)
                    for name, arrays in sorted(by_set.items(), key=lambda item: -sum(a.size for a in item[1]))
                }
                for name, job in jobs.items():
                    try:
                        job.result()
                    except QuantizationError as error:
                        raise QuantizationError(
                            f"Tensor {name!r}: {error}; the float model itself overflows there, or an input is far "
                            "outside of what it was trained on."
                        ) from error
                taken = min(part, size - begin)
                _keep(kept, slices, kept_samples)
                count += taken
                if progress is not None:
                    progress(count)
    if count == 0:
        raise DataError(
            "The calibration data hold no samples; give a few hundred inputs like those the model will see."
        )
    samples = {name: np.concatenate([piece[name] for piece in kept]) for name in graph.inputs}
    return Calibration(graph, tuple(sets), observers, samples, count)


def slice_feeds(graph: Graph, feeds: Mapping[str, Array], begin: int, end: int) -> dict[str, Array]:
    """Returns samples begin..end - 1 of every input that has a batch axis, and the others as they are."""
    return {
        name: value[begin:end] if graph.tensor(name).shape[:1] == (BATCH,) else value for name, value in feeds.items()
    }


class FloatSession:
    """A float ONNX model in ONNX Runtime.

    Args:
        model: What to run.
        threads: Intra-operator threads.
    """

    def __init__(self, model: FloatModel, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError("Calibration runs the float model in onnxruntime: pip install edgeq[export].") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Idle threads that spin would take the cores from the observers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Returns the model's outputs in order."""
        outputs: list[Array] = self._session.run(
            None, {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        )
        return outputs


def float_outputs(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """Runs a float graph in ONNX Runtime, a sample at a time; returns its outputs in order, the batch first."""
    session = FloatSession(to_float_onnx(graph), os.cpu_count() or 1)
    count = max(len(value) for value in feeds.values())
    parts = [session.run(slice_feeds(graph, feeds, begin, begin + 1)) for begin in range(count)]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def activation_elements(graph: Graph, names: Iterable[str]) -> int:
    """Returns the elements of these activations at batch 1."""
    return sum(int(np.prod(graph.tensor(name).shape[1:])) for name in names)


def _samples_at_once(graph: Graph, computed: list[str]) -> int:
    return max(1, min(32, ACTIVATION_BYTES // (4 * max(activation_elements(graph, computed), 1))))


def _batch_size(graph: Graph, feeds: Mapping[str, Array]) -> int:
    return max((feeds[name].shape[0] for name in graph.inputs if graph.tensor(name).shape[:1] == (BATCH,)), default=1)


def _observe(observer: Observer, arrays: list[Array]) -> None:
    for array in arrays:
        observer.observe(array)


def _keep(kept: list[dict[str, Array]], slices: Mapping[str, Array], wanted: int) -> None:
    first = next(iter(slices))
    have = sum(piece[first].shape[0] for piece in kept)
    sample_bytes = sum(value[:1].nbytes for value in slices.values())
    room = min(wanted, max(KEPT_BYTES // max(sample_bytes, 1), 1)) - have
    if room > 0:
        kept.append({name: value[:room].copy() for name, value in slices.items()})
