"""Peers that edgeq is measured beside: the same float model and samples, quantized by the peer's own tool or way.

MNN's tools print, and end the process where they fail: call them in a process of their own.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeq.backends.ncnn_files import to_ncnn
from edgeq.errors import BackendError
from edgeq.exporters.onnx_float import to_float_onnx
from edgeq.importers import from_onnx
from edgeq.ir import Graph
from edgeq.outputs import write_text
from edgeq.passes import float_pipeline

Samples = Sequence[npt.NDArray[np.float32]]
"""Calibration batches as the float model takes them."""


def quantize_onnxruntime(reference: Path, out: Path, inputs: Samples, activations: str = "uint8") -> None:
    """Quantizes a float ONNX model with ONNX Runtime's quantize_static: QDQ, per channel, int8 weights, min-max.

    Args:
        reference: The float model.
        out: Path of the quantized model.
        inputs: Calibration batches.
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


def quantize_openvino(reference: Path, out: Path, inputs: Samples, *, narrow: bool = False) -> None:
    """Quantizes a float ONNX model for OpenVINO with NNCF's `quantize`, preset MIXED.

    Args:
        reference: The float model.
        out: Path of the quantized model, .xml; its weights go beside it.
        inputs: Calibration batches.
        narrow: Whether all weights take half their range: without VNNI, oneDNN's sums of two products saturate at 16
            bits.

    Raises:
        BackendError: If nncf is not installed or refuses the model.
    """
    try:
        import nncf
        import openvino
    except ImportError:
        raise BackendError("quantizing for OpenVINO needs openvino and nncf: pip install 'edgeq[peers]'") from None
    try:
        model = openvino.Core().read_model(str(reference))
        model.reshape(list(inputs[0].shape))
        dataset = nncf.Dataset(list(inputs))
        advanced = nncf.AdvancedQuantizationParameters()
        if narrow:
            advanced.overflow_fix = nncf.OverflowFix.ENABLE
        quantized = nncf.quantize(
            model,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            advanced_parameters=advanced,
        )
        openvino.save_model(quantized, str(out), compress_to_fp16=False)
    except Exception as error:  # both raise types of their own, all derived from Exception
        raise BackendError(f"{reference}: NNCF cannot quantize it ({error})") from error


def convert_mnn(reference: Path, out: Path, *, static: bool = False) -> None:
    """Converts a float ONNX model to a .mnn file, batch 1.

    Args:
        reference: The float model.
        out: Path of the .mnn file.
        static: Whether the shapes are fixed and their computation is dropped.

    Raises:
        BackendError: If MNN is not installed or refuses the model.
    """
    import onnx

    tools = _mnn_tools()
    model = onnx.load(str(reference))
    for end in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        sizes = end.type.tensor_type.shape.dim
        if sizes and not sizes[0].dim_value:
            sizes[0].dim_value = 1
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source.onnx"
        onnx.save(model, str(source))
        words = ["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(out), "--bizCode", "edgeq"]
        tools.mnnconvert([*words, *(["--saveStaticModel"] if static else [])])
    if not out.is_file():
        raise BackendError(f"{reference}: MNN cannot convert it")


def quantize_mnn(reference: Path, out: Path, inputs: Samples, method: Literal["KL", "EMA"]) -> None:
    """Quantizes a float ONNX model with MNN's tool; it reads images, so the samples are rounded to 8 bits.

    Args:
        reference: The float model.
        out: Path of the .mnn file.
        inputs: Calibration batches of one sample each, of 1 or 3 channels.
        method: How the range of an activation is chosen. The tool takes KL with fixed shapes and EMA without.

    Raises:
        BackendError: If MNN is not installed, or the tool gives no model.
    """
    tools = _mnn_tools()
    largest = max(float(np.abs(batch).max()) for batch in inputs) or 1.0
    _, channels, height, width = inputs[0].shape
    with tempfile.TemporaryDirectory() as scratch:
        folder, source, config = Path(scratch) / "images", Path(scratch) / "float.mnn", Path(scratch) / "config.json"
        folder.mkdir()
        for i, batch in enumerate(inputs):
            pixels = np.clip(np.rint(batch[0] * (127 / largest) + 128), 0, 255).astype(np.uint8).transpose(1, 2, 0)
            header = f"P{6 if channels == 3 else 5} {width} {height} 255\n".encode()
            (folder / f"{i}.ppm").write_bytes(header + pixels.tobytes())
        convert_mnn(reference, source, static=method == "KL")
        settings = {
            "format": "RGB" if channels == 3 else "GRAY",
            "mean": [128.0] * channels,
            "normal": [largest / 127] * channels,
            "width": width,
            "height": height,
            "path": f"{folder}/",
            "used_image_num": len(inputs),
            "feature_quantize_method": method,
            "weight_quantize_method": "MAX_ABS",
            "input_type": "image",
        }
        write_text(config, json.dumps(settings))
        # The package's command line passes three words, which its own library no longer takes.
        tools.mnnquant(["mnnquant", str(source), str(out), str(config)])
    if not out.is_file():
        raise BackendError(f"{reference}: MNN cannot quantize it with {method}")


def convert_ncnn(reference: Path, out: Path, inputs: Samples | None = None) -> None:
    """Writes a float ONNX model for ncnn, in int8 where samples are given (`edgeq.backends.ncnn_files`).

    Args:
        reference: The float model.
        out: Path of the .param file; the .bin file goes beside it.
        inputs: Calibration batches, or None for float32.

    Raises:
        GraphError: If the model has an operator that is not written there.
    """
    graph = float_pipeline(from_onnx.load(reference))
    model = to_ncnn(graph, None if inputs is None else _largest(graph, inputs))
    out.with_suffix(".bin").write_bytes(model.weights)
    write_text(out, model.param)


def _largest(graph: Graph, inputs: Samples) -> Mapping[str, float]:
    """The largest magnitude of every activation over the samples."""
    import onnxruntime

    computed = [tensor.name for tensor in graph.activations() if tensor.name not in graph.inputs]
    content = to_float_onnx(graph, computed).proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    largest = dict.fromkeys([graph.inputs[0], *computed], 0.0)
    for batch in inputs:
        for found, value in zip([graph.inputs[0], *computed], [batch, *session.run(None, {name: batch})], strict=True):
            largest[found] = max(largest[found], float(np.abs(value).max()))
    return largest


def _mnn_tools() -> Any:
    """MNN's converter and quantizer; its command lines install a package when they start, the library does not."""
    try:
        import _tools
    except ImportError:
        raise BackendError("converting for MNN needs MNN: pip install 'edgeq[peers]'") from None
    return _tools
