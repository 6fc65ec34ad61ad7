"""Peers that edgeq is measured beside: the same float model, quantized by the peer's own tool."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import BackendError


def quantize_onnxruntime(
    reference: Path, out: Path, inputs: Sequence[npt.NDArray[np.float32]], activations: str = "uint8"
) -> None:
    """Quantizes a float ONNX model with ONNX Runtime's quantize_static: QDQ, per channel, int8 weights, min-max.

    Args:
        reference: The float model.
        out: Path of the quantized model.
        inputs: Calibration batches as the model takes them.
        activations: "uint8" (U8S8, which x86 kernels fuse) or "int8" (S8S8).

    Raises:
        BackendError: If onnxruntime is not installed or refuses the model.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise BackendError(
            "quantizing with ONNX Runtime needs onnx and onnxruntime: pip install 'edgeq[export]'"
        ) from None

    name = onnx.load(str(reference), load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter([{name: batch} for batch in inputs])

        def get_next(self) -> Any:
            return next(self._batches, None)

    prepared = out.with_suffix(".prepared.onnx")
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        # Shape inference of its own kind fails on some exports; the quantizer needs only ONNX's.
        quant_pre_process(str(reference), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
        )
    except Exception as error:  # the runtime raises its own types, all derived from Exception
        raise BackendError(f"{reference}: ONNX Runtime cannot quantize it ({error})") from error
    finally:
        logging.root.setLevel(level)
        prepared.unlink(missing_ok=True)
