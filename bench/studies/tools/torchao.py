"""torchao's PT2E quantization with the quantizer of PyTorch's x86 Inductor backend; run by torch as simulated
quantization.

Setting: none; the quantizer has one static 8-bit configuration (uint8 activations, int8 weights per channel).
"""

from __future__ import annotations

import sys

# This file has the name of the package that it imports.
sys.path.append(sys.path.pop(0))

import time

import network
import torch
import worker
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer


def main():
    job = worker.read()
    torch.set_num_threads(job.cores)
    model = network.load(job.onnx)

    def run(x):
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    job.check_float(run)
    started = time.process_time()
    example = torch.from_numpy(next(job.batches()))
    model = torch.export.export(model, (example,)).module()
    quantizer = x86_inductor_quantizer.X86InductorQuantizer()
    quantizer.set_global(x86_inductor_quantizer.get_default_x86_inductor_quantization_config())
    model = prepare_pt2e(model, quantizer)
    for batch in job.batches():
        run(batch)
    model = convert_pt2e(model)
    seconds = time.process_time() - started
    worker.finish(job, run, seconds, ["torchao", "torch"])


main()
