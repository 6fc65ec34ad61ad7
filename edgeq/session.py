"""Runs .edgeq files with the native engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeq.errors import BackendError, UsageError
from edgeq.outputs import first_not_finite
from edgeq.simulate.prediction import Prediction
from edgeq.tuning import tuning_beside

if TYPE_CHECKING:
    from edgeq import _native

Array = npt.NDArray[Any]
Feeds: TypeAlias = Array | Sequence[Array] | Mapping[str, Array]

DEFAULT_MEMORY = 4 << 30
"""Bytes that a session may use when the caller does not say: enough for any sane model, not for a hostile one."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the codes of a tensor map to reals: real = (code - zero_point) * scale.

    Attributes:
        scale: A float32 value.
        zero_point: A code.
        bits: 4 or 8.
    """

    scale: float
    zero_point: int
    bits: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a session takes or gives.

    Attributes:
        name: As in the source model.
        shape: As in the source model; None is the free batch axis.
        dtype: "int8" for a quantized tensor (float32 is taken and given too), "float32" for a float one (softmax).
        quantization: None for a float tensor.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: Quantization | None

    def __str__(self) -> str:
        shape = ", ".join("N" if size is None else str(size) for size in self.shape)
        text = f"{self.name} [{shape}] {self.dtype}"
        if self.quantization is not None:
            q = self.quantization
            text += f", scale {q.scale:.6g}, zero point {q.zero_point}" + (", 4 bits" if q.bits == 4 else "")
        return text


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One operator of the file, and what the engine made of it.

    Attributes:
        name: As in the source model.
        op: Operator of the file.
        shape: Of its output, NHWC; None is the batch.
        bits: Of its output's codes; 0 for float32.
        kernel: The kernel that runs it; "in NAME" when it is fused into another layer, "KERNEL in NAME" when the two
            run a strip of rows at a time, "free" when it costs nothing (a view, or written in place).
        isa: Instruction set of the kernel; "" without one.
        weight_bits: 4 or 8; 0 without weights.
        weight_bytes: Weights in memory, packed for the kernel, with bias and multipliers.
        macs: Multiply-accumulates at batch 1.
        median_ms: Of the last runs of a session with profile=True, else 0. The time of a strip stands at its last
            layer.
        step: Name of the layer at which its time stands: its own, or that of the layers it is fused with.
    """

    name: str
    op: str
    shape: tuple[int | None, ...]
    bits: int
    kernel: str
    isa: str
    weight_bits: int
    weight_bytes: int
    macs: int
    median_ms: float
    step: str


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """A layer whose kernel `tuning` may choose.

    Attributes:
        layer: Name of the layer.
        step: Name of the layer at which its time stands: its own, or that of the layers it is fused with.
        shape: What the choice depends on, as text: the key of a tuning.
        kernel: The kernel that runs.
        candidates: All that could, the best instruction set first.
    """

    layer: str
    step: str
    shape: str
    kernel: str
    candidates: tuple[str, ...]


class Session:
    """A .edgeq model, checked, packed for this CPU and ready to run.

    `run` may be called from any thread; calls of one session wait for each other. Nothing of the file is kept.

    Args:
        source: Path of a .edgeq file, or its bytes.
        threads: Threads of the engine, the caller's included; 0 takes as many as the process may use, at most 16.
            The results do not depend on it.
        max_isa: Highest instruction set to use ("scalar", "avx2", ...); None for what EDGEQ_MAX_ISA says, else all.
        profile: Whether each layer is timed (`layers`).
        tuning: Kernels by the shape that they are for (`kernel_choices`), instead of the cost model's; None for what
            the file that `edgeq bench --tune` wrote beside the model says, {} for none. What this CPU lacks or a cap
            excludes counts for nothing. The results do not depend on it.
        max_memory_bytes: What packed weights and activations may take together.

    Raises:
        FormatError: If the file is damaged, hostile or of another version; it names what is wrong.
        UsageError: If it cannot be opened, or an argument names nothing.
        BackendError: If the engine is not built, or the model needs more memory than it may use.
    """

    _engine_options: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        source: str | Path | bytes,
        threads: int = 1,
        *,
        max_isa: str | None = None,
        profile: bool = False,
        tuning: Mapping[str, str] | None = None,
        max_memory_bytes: int = DEFAULT_MEMORY,
    ) -> None:
        self._source = source if isinstance(source, bytes) else os.fspath(source)
        self._tuning = self._tuning_beside() if tuning is None else tuning
        self._max_isa = max_isa or ""
        self._max_memory_bytes = max_memory_bytes
        self._session = self._load(threads, profile=profile, keep_all=False)
        self.inputs = [_tensor_info(end) for end in self._session.inputs]
        self.outputs = [_tensor_info(end) for end in self._session.outputs]

    def _load(self, threads: int, *, profile: bool, keep_all: bool) -> _native.Session:
        session: _native.Session = native_module().Session(
            self._source,
            threads=threads,
            max_isa=self._max_isa,
            max_memory_bytes=self._max_memory_bytes,
            profile=profile,
            keep_all=keep_all,
            tuning=dict(self._tuning),
            **self._engine_options,
        )
        return session

    def _tuning_beside(self) -> Mapping[str, str]:
        if isinstance(self._source, bytes):
            return {}
        from edgeq import __version__

        return tuning_beside(Path(self._source), self.cpu, __version__)

    def run(self, x: Feeds) -> Any:
        """Runs a batch.

        Args:
            x: One array, one an input in their order, or a mapping from input names; each with the batch first and
                otherwise the shape of its TensorInfo. All float32 (other floats are converted; NaN becomes the code of
                zero), or all int8 codes. Or uint8 images of shape (batch, *image_shape), which the file's
                normalisation and the input's quantization turn into codes in one step, the same ones as from
                `Preprocessing.apply`.

        Returns:
            One array, or a list of them when the model has several outputs: float32 for float32 and images, int8 codes
            for int8 codes (outputs that are not quantized are float32 either way).

        Raises:
            UsageError: If a shape, dtype or name does not fit.
        """
        results = self._run(self._session, x)
        return results[0] if len(results) == 1 else results

    def predict(self, x: Feeds) -> Prediction:
        """Runs a batch through a classifier and says what it answers and whether to trust it.

        The file's guard (`edgeq guard` fits one) has the temperature and the margin; without one the temperature is 1
        and nothing is deferred. edgeq-runner gives the same bits (docs/guard.md).

        Args:
            x: As for `run`, but finite: an answer to NaN would look like any other.

        Raises:
            UsageError: As `run`, or if a sample is not finite, or if the model has not one output of shape
                (batch, classes).
        """
        if len(self.outputs) != 1 or len(self.outputs[0].shape) != 2 or (self.outputs[0].shape[1] or 0) < 2:
            outputs = ", ".join(str(output) for output in self.outputs)
            raise UsageError(
                f"The model is no classifier: predictions need one output [N, classes] of at least two classes, and it "
                f"gives {outputs}; use run."
            )
        given = self._given(x)
        for array, info in zip(given, self.inputs, strict=True):
            broken = first_not_finite(array) if array.dtype.kind == "f" else None
            if broken is not None:
                raise UsageError(
                    f"Input {info.name}: sample {broken} holds NaN or infinite values; remove it or repair where it "
                    "comes from."
                )
        (scores,) = self._run(self._session, given, codes=False)
        return Prediction(*self._session.predict_rows(scores))

    def dump(self, x: Feeds) -> dict[str, Array]:
        """Runs a batch without any fusion and returns every activation, inputs first, in execution order.

        Returns:
            Arrays by tensor name, NHWC: int8 codes, float32 for tensors that are not quantized.

        Raises:
            UsageError: As `run`.
        """
        session = self._load(1, profile=False, keep_all=True)
        self._run(session, x)
        return dict(session.read_activations())

    def _run(self, session: _native.Session, x: Feeds, *, codes: bool = True) -> list[Array]:
        """The outputs; int8 codes give codes unless `codes` is False."""
        given = self._given(x)
        if any(array.dtype == np.uint8 for array in given):
            return session.run_images(self._images(given))
        arrays = [_checked(array, info) for array, info in zip(given, self.inputs, strict=True)]
        if len({array.dtype for array in arrays}) > 1:
            raise UsageError("The inputs must be all float32 or all int8 codes, not a mixture.")
        if len({len(array) for array in arrays}) > 1:
            raise UsageError(f"The inputs differ in their batch: {[len(array) for array in arrays]}.")
        return session.run(arrays, codes and arrays[0].dtype == np.int8)

    def _images(self, given: list[Array]) -> Array:
        if self.image_shape is None:
            raise UsageError(f"Input {self.inputs[0].name} has dtype uint8, but {self._session.image_refusal}.")
        images = given[0]
        if images.ndim != 4 or images.shape[1:] != self.image_shape or len(images) < 1:
            wanted = ", ".join(str(size) for size in self.image_shape)
            raise UsageError(
                f"The images have shape {list(images.shape)}; the model takes [N, {wanted}], N at least 1."
            )
        return np.ascontiguousarray(images)

    def _given(self, x: Feeds) -> list[Array]:
        if isinstance(x, Mapping):
            unknown = [name for name in x if name not in {info.name for info in self.inputs}]
            missing = [info.name for info in self.inputs if info.name not in x]
            if unknown or missing:
                names = ", ".join(info.name for info in self.inputs)
                raise UsageError(f"The model's inputs are {names}; missing {missing}, unknown {unknown}.")
            given = [x[info.name] for info in self.inputs]
        elif len(self.inputs) == 1 and (
            not isinstance(x, (list, tuple)) or len(x) != 1 or np.ndim(x[0]) != len(self.inputs[0].shape)
        ):
            # An array, a torch tensor, or nested lists of one input's numbers.
            given = [np.asarray(x)]
        else:
            given = list(x)
        if len(given) != len(self.inputs):
            raise UsageError(f"The model takes {len(self.inputs)} inputs; {len(given)} were given.")
        return [np.asarray(array) for array in given]

    @property
    def guard(self) -> tuple[float, float] | None:
        """Temperature and margin of the file's guard, or None; `predict` uses them."""
        return self._session.guard

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels (RGB, or gray) of the uint8 images that `run` takes; None when it takes none."""
        return self._session.image_shape

    @property
    def layers(self) -> list[LayerInfo]:
        """Every operator of the file in execution order; with profile=True their times so far."""
        return [_layer_info(entry) for entry in self._session.layers()]

    @property
    def kernel_choices(self) -> list[KernelChoice]:
        """The layers whose kernel `tuning` may choose, in execution order."""
        return [
            KernelChoice(
                layer=entry["name"],
                step=entry["fused_into"] or entry["name"],
                shape=entry["tuning_key"],
                kernel=entry["kernel"],
                candidates=tuple(entry["candidates"]),
            )
            for entry in self._session.layers()
            if entry["tuning_key"]
        ]

    def forget_times(self) -> None:
        """Starts the times of a session with profile=True again."""
        self._session.set_profile(True)

    @property
    def cpu(self) -> str:
        """The CPU's own name."""
        model: str = native_module().cpu_info()["model"]
        return model

    @property
    def threads(self) -> int:
        """Threads of the engine, the caller's included."""
        return self._session.threads

    @property
    def isa(self) -> str:
        """The highest instruction set that the session may use."""
        return self._session.isa

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights, with biases and multipliers."""
        return self._session.weight_bytes

    @property
    def macs(self) -> int:
        """Multiply-accumulates at batch 1."""
        return self._session.macs

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return self._session.file_bytes

    def arena_bytes(self, batch: int = 1) -> int:
        """Bytes of activation memory at a batch size; raises BackendError when the session may not use so many."""
        return self._session.arena_bytes(batch)


def native_module() -> Any:
    """Returns edgeq._native; raises BackendError when it is not built."""
    try:
        from edgeq import _native
    except ImportError as error:
        raise BackendError(
            f"The native engine is not built for this Python ({error}). Install the package with `pip install .`, or "
            "build it in place with `cmake --preset release && cmake --build build/release`."
        ) from None
    return _native


def _shape(sizes: Sequence[int]) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else size for size in sizes)


def _tensor_info(end: tuple[str, tuple[int, ...], str, int, float, int]) -> TensorInfo:
    name, shape, dtype, bits, scale, zero_point = end
    return TensorInfo(name, _shape(shape), dtype, Quantization(scale, zero_point, bits) if dtype == "int8" else None)


def _layer_info(entry: dict[str, Any]) -> LayerInfo:
    words = [entry["kernel"]] if entry["kernel"] else []
    if entry["fused_into"]:
        words.append(f"in {entry['fused_into']}")
    kernel = " ".join(words) or "free"
    return LayerInfo(
        name=entry["name"],
        op=entry["op"],
        shape=_shape(entry["shape"]),
        bits=entry["bits"],
        kernel=kernel,
        isa=entry["isa"],
        weight_bits=entry["weight_bits"],
        weight_bytes=entry["weight_bytes"],
        macs=entry["macs"],
        median_ms=entry["median_ns"] / 1e6,
        step=entry["fused_into"] or entry["name"],
    )


def _checked(found: Array, info: TensorInfo) -> Array:
    """Returns the array as contiguous float32 or int8 of the right shape; raises UsageError otherwise."""
    if found.dtype != np.int8:
        if found.dtype.kind != "f":
            raise UsageError(
                f"Input {info.name} has dtype {found.dtype}; give float32 values, or int8 codes of its quantization."
            )
        found = found.astype(np.float32, copy=False)
    expected = info.shape[1:]
    if found.ndim != len(info.shape) or found.shape[1:] != expected or found.shape[0] < 1:
        wanted = ", ".join("N" if size is None else str(size) for size in info.shape)
        raise UsageError(f"Input {info.name} has shape {list(found.shape)}; the model takes [{wanted}], N at least 1.")
    return np.ascontiguousarray(found)
