"""Brevitas' post-training flow of its ImageNet example; run by torch as simulated quantization.

Setting: weight_bits, act_bits (8 by default), equalize (iterations of cross-layer equalisation), method (none, gptq,
gpfq, qronos) and percentile (of the activations' range). Bias correction always comes last, as in the example.
"""

from __future__ import annotations

import sys

# This file has the name of the package that it imports.
sys.path.append(sys.path.pop(0))

import random
import time

import network
import numpy as np
import torch
import worker
from brevitas.graph.quantize import preprocess_for_quantize
from brevitas_examples.imagenet_classification.ptq import ptq_common


def main():
    job = worker.read()
    setting = job.setting
    torch.set_num_threads(job.cores)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    model = network.load(job.onnx)

    def run(x):
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    job.check_float(run)
    loader = [(torch.from_numpy(batch), None) for batch in job.batches()]
    started = time.process_time()
    model = preprocess_for_quantize(
        model, equalize_iters=setting["equalize"], equalize_merge_bias=True, merge_bn=False
    )
    model = ptq_common.quantize_model(
        model,
        backend="layerwise",
        weight_bit_width=setting["weight_bits"],
        act_bit_width=setting.get("act_bits", 8),
        bias_bit_width=32,
        weight_quant_granularity="per_channel",
        act_quant_percentile=setting["percentile"],
        act_quant_type="asym",
        scale_factor_type="float_scale",
        quant_format="int",
        weight_narrow_range=True,
        weight_param_method=setting.get("weight_ranges", "stats"),
        layerwise_first_last_bit_width=8,
    )
    model.eval()
    with torch.no_grad():
        model(loader[0][0])
    ptq_common.calibrate(loader, model)
    if setting["method"] == "gptq":
        ptq_common.apply_gptq(loader, model, act_order=True, use_quant_activations=True, create_weight_orig=True)
    elif setting["method"] == "gpfq":
        ptq_common.apply_gpfq(loader, model, act_order=True)
    elif setting["method"] == "qronos":
        ptq_common.apply_qronos(model, loader)
    ptq_common.apply_bias_correction(loader, model)
    seconds = time.process_time() - started
    note = "additions in float" + ("; first and last layer at 8 bits" if setting["weight_bits"] != 8 else "")
    worker.finish(job, run, seconds, ["brevitas", "torch"], None, note)


main()
