"""onnxruntime's quantize_static: QDQ, uint8 activations, signed weights per channel; run by onnxruntime.

Setting: calibration (MinMax, Entropy or Percentile) and weight_bits (8 or 4).
"""

from __future__ import annotations

import sys

# This file has the name of the package that it imports.
sys.path.append(sys.path.pop(0))

import logging
import time

import onnxruntime
import worker
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

logging.disable(logging.WARNING)


def _session(path, cores):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class _Reader(CalibrationDataReader):
    """Images in parts: the histograms of all activations of all images together would not fit into memory."""

    def __init__(self, name, images):
        self._name, self._images = name, images
        self.set_range(0, len(images))

    def __len__(self):
        return len(self._images)

    def set_range(self, start_index, end_index):
        self._left = iter(range(start_index, end_index))

    def get_next(self):
        index = next(self._left, None)
        return None if index is None else {self._name: self._images[index : index + 1]}


def main():
    job = worker.read()
    name = _session(job.onnx, job.cores).get_inputs()[0].name
    prepared, result = job.out / "prepared.onnx", job.out / "model.onnx"
    started = time.process_time()
    quant_pre_process(str(job.onnx), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(result),
        _Reader(name, job.calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8 if job.setting["weight_bits"] == 8 else QuantType.QInt4,
        activation_type=QuantType.QUInt8,
        calibrate_method=CalibrationMethod[job.setting["calibration"]],
        extra_options={"CalibStridedMinMax": worker.BATCH},
    )
    prepared.unlink()
    seconds = time.process_time() - started
    session = _session(result, job.cores)
    worker.finish(job, lambda x: session.run(None, {name: x})[0], seconds, ["onnxruntime", "onnx"], [result])


main()
