"""aimet-onnx: quantization simulated in onnxruntime, per-channel weights.

Setting: weight_bits, act_bits (8 by default), equalize (cross-layer equalisation, ReLU6 becoming ReLU), ranges (of the
activations: min_max, tf_enhanced or percentile) and method (none, seq_mse, adaround); iterations of AdaRound for each
layer, of which the tool recommends 15,000 below 8 bits.
"""

from __future__ import annotations

import sys

# This file has the name of the package that it imports.
sys.path.append(sys.path.pop(0))

import time
from pathlib import Path

import aimet_onnx
import numpy as np
import onnx
import torch
import worker
from aimet_onnx.common import quantsim_config
from aimet_onnx.cross_layer_equalization import equalize_model

CONFIGURATION = Path(quantsim_config.__file__).with_name("default_config_per_channel.json")


def main():
    job = worker.read()
    setting = job.setting
    torch.set_num_threads(job.cores)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002, the tool draws from it
    model = onnx.load(str(job.onnx))
    name = model.graph.input[0].name
    samples = [{name: batch} for batch in job.batches()]
    started = time.process_time()
    if setting["equalize"]:
        equalize_model(model)
    sim = aimet_onnx.QuantizationSimModel(
        model,
        param_type=f"int{setting['weight_bits']}",
        activation_type=f"int{setting.get('act_bits', 8)}",
        quant_scheme=setting["ranges"],
        config_file=str(CONFIGURATION),
        dummy_input={name: job.calibration[:1]},
        session_options_kwargs={"intra_op_num_threads": job.cores},
    )
    if setting["method"] == "seq_mse":
        aimet_onnx.apply_seq_mse(sim, samples)
    elif setting["method"] == "adaround":
        aimet_onnx.apply_adaround(sim, samples, num_iterations=setting["iterations"])
    sim.compute_encodings(samples)
    seconds = time.process_time() - started
    worker.finish(job, lambda x: sim.session.run(None, {name: x})[0], seconds, ["aimet-onnx", "onnxruntime"])


main()
