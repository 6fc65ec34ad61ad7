"""Makes one peer's form of a network, in a process of its own: some of the tools end the process where they fail.

    python -m bench.prepare RECIPE NETWORK FOLDER REFERENCE.onnx [MODEL.tflite]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.networks import calibration
from edgeq.backends import peers, tflite_variants

FILES = {
    "ort": "model.onnx",
    "nncf": "model.xml",
    "nncf-7bit": "model.xml",
    "mnn-kl": "model.mnn",
    "mnn-ema": "model.mnn",
    "mnn-fp32": "model.mnn",
    "ncnn-int8": "model.param",
    "ncnn-fp32": "model.param",
    "tflite-int8": "model.tflite",
    "tflite-own": "model.tflite",
    "tflite-fp32": "model.tflite",
}
"""The file that each recipe makes."""


def main(arguments: Sequence[str]) -> None:
    """Makes the file."""
    recipe, network, folder, reference, *rest = arguments
    source, out = Path(reference), Path(folder) / FILES[recipe]
    if recipe.startswith("tflite"):
        data = Path(rest[0]).read_bytes()
        if recipe == "tflite-fp32":
            out.write_bytes(tflite_variants.to_float(data))
            return
        data = tflite_variants.with_integer_ends(data)
        out.write_bytes(tflite_variants.with_builtin_functions(data) if recipe == "tflite-own" else data)
        return
    inputs = calibration(network)
    if recipe == "ort":
        peers.quantize_onnxruntime(source, out, inputs)
    elif recipe.startswith("nncf"):
        peers.quantize_openvino(source, out, inputs, narrow=recipe == "nncf-7bit")
    elif recipe == "mnn-fp32":
        peers.convert_mnn(source, out)
    elif recipe.startswith("mnn"):
        peers.quantize_mnn(source, out, inputs, "KL" if recipe == "mnn-kl" else "EMA")
    else:
        peers.convert_ncnn(source, out, inputs if recipe == "ncnn-int8" else None)


if __name__ == "__main__":
    main(sys.argv[1:])
