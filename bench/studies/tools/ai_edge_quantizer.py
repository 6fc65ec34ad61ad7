"""ai-edge-quantizer's static recipes for .tflite files: int8 activations, int8 or int4 weights; run by LiteRT.

Setting: weight_bits and algorithm (of `algorithm_manager.AlgorithmName`). With weight_bits 4 convolutions and linear
layers get 4-bit weights; depthwise convolutions keep 8 bits, since the tool's policy has no 4-bit form for them.
"""

from __future__ import annotations

import sys

# This file has the name of the package that it imports.
sys.path.append(sys.path.pop(0))

import logging
import time

import numpy as np
import worker
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

logging.disable(logging.WARNING)


class _Runner:
    """A .tflite model with the batch that workers use."""

    def __init__(self, path, cores):
        self._interpreter = Interpreter(model_path=str(path), num_threads=cores)
        details = self._interpreter.get_input_details()[0]
        self._input, self._shape = details["index"], details["shape"]
        self._resize(worker.BATCH)

    def _resize(self, count):
        self._interpreter.resize_tensor_input(self._input, [count, *self._shape[1:]])
        self._interpreter.allocate_tensors()
        self._count = count

    def __call__(self, images):
        if len(images) != self._count:
            self._resize(len(images))
        given, made = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        x = images.transpose(0, 2, 3, 1)
        if given["dtype"] == np.int8:
            scale, zero = given["quantization"]
            x = np.clip(np.rint(x / np.float32(scale)) + zero, -128, 127)
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(x, given["dtype"]))
        self._interpreter.invoke()
        y = self._interpreter.get_tensor(made["index"]).astype(np.float32)
        scale, zero = made["quantization"]
        return (y - zero) * np.float32(scale) if made["dtype"] == np.int8 else y


def main():
    job = worker.read()
    job.check_float(_Runner(job.tflite, job.cores))
    signature = Interpreter(model_path=str(job.tflite)).get_signature_list()
    key, ends = next(iter(signature.items()))
    result = job.out / "model.tflite"
    started = time.process_time()
    tool = quantizer.Quantizer(str(job.tflite))
    algorithm = algorithm_manager.AlgorithmName[job.setting["algorithm"]]
    plain = algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT
    names = qtyping.TFLOperationName
    tool.add_static_config(".*", names.ALL_SUPPORTED, 8, 8, algorithm_key=plain)
    layers = [names.CONV_2D, names.FULLY_CONNECTED]
    for layer in layers if job.setting["weight_bits"] == 4 else [*layers, names.DEPTHWISE_CONV_2D]:
        tool.add_static_config(".*", layer, 8, job.setting["weight_bits"], algorithm_key=algorithm)
    samples = [{ends["inputs"][0]: batch.transpose(0, 2, 3, 1)} for batch in job.batches(1)]
    ranges = tool.calibrate({key: samples}, num_threads=job.cores)
    tool.quantize(ranges).export_model(str(result))
    seconds = time.process_time() - started
    runner = _Runner(result, job.cores)
    used = {operator["op_name"] for operator in Interpreter(model_path=str(job.tflite))._get_ops_details()}
    wide = job.setting["weight_bits"] == 4 and "DEPTHWISE_CONV_2D" in used
    note = "depthwise weights stay at 8 bits" if wide else ""
    worker.finish(job, runner, seconds, ["ai-edge-quantizer", "ai-edge-litert"], [result], note)


main()
