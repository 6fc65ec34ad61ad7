"""NNCF's post-training quantization of an OpenVINO model; run by OpenVINO in float32 where it is not in integers.

Setting: preset (PERFORMANCE: symmetric activations, MIXED: asymmetric ones), accurate (bias correction layer by layer
on the quantized network instead of the fast one), align (channels of neighbouring convolutions are equalised) and
weight_bits. NNCF's own 4-bit modes (`compress_weights`) are for linear layers: it leaves convolutions at 8 bits. With
weight_bits 4 its `quantize`, for the NPU since other targets refuse them, puts fake quantization of 16 levels before
every convolution, which OpenVINO computes in float.
"""

from __future__ import annotations

import sys

# This file has the name of the package that it imports.
sys.path.append(sys.path.pop(0))

import os
import time

# NNCF and OpenVINO report their use to their makers unless they take the machine for a CI system.
os.environ["CI"] = "true"

import nncf
import openvino
import worker
from nncf.quantization.advanced_parameters import QuantizationParameters


def main():
    job = worker.read()
    setting = job.setting
    core = openvino.Core()
    limits = {"INFERENCE_NUM_THREADS": job.cores, "INFERENCE_PRECISION_HINT": "f32"}
    core.set_property("CPU", limits)
    started = time.process_time()
    # `read_model` leaves a reshape between a bias and its layer, where NNCF's corrections do not find it.
    model = openvino.convert_model(str(job.onnx))
    model.reshape([1, *job.calibration.shape[1:]])
    advanced = nncf.AdvancedQuantizationParameters(disable_channel_alignment=not setting["align"])
    target = nncf.TargetDevice.ANY
    if setting["weight_bits"] != 8:
        advanced.weights_quantization_params = QuantizationParameters(num_bits=setting["weight_bits"])
        target = nncf.TargetDevice.NPU
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(job.batches(1))),
        preset=nncf.QuantizationPreset[setting["preset"]],
        target_device=target,
        subset_size=len(job.calibration),
        fast_bias_correction=not setting["accurate"],
        advanced_parameters=advanced,
    )
    files = [job.out / "model.xml", job.out / "model.bin"]
    openvino.save_model(quantized, str(files[0]), compress_to_fp16=False)
    seconds = time.process_time() - started
    saved = core.read_model(str(files[0]))
    saved.reshape([worker.BATCH, *job.calibration.shape[1:]])
    compiled = core.compile_model(saved, "CPU", limits)
    shipped = files if setting["weight_bits"] == 8 else None
    note = "" if shipped else "16 levels in float files and arithmetic"
    worker.finish(job, lambda x: compiled(x)[0], seconds, ["nncf", "openvino"], shipped, note)


main()
