"""A float graph as a torch module that rounds as its integers do, and trains; these modules need torch when imported.

`module.RoundedNetwork` is what distillation (`edgeq.quantize.distil`) and quantization-aware training (`edgeq.qat`)
optimise.
"""
