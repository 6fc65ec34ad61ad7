"""`edgeq.prepare_qat`: from a float model to a module that trains with quantization."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeq.errors import ImportModelError, QuantizationError, UsageError
from edgeq.passes import float_pipeline
from edgeq.quantize import DEFAULT_SAMPLES, Scheme
from edgeq.quantize.layers import is_layer
from edgeq.quantize.streams import separate_product_inputs

if TYPE_CHECKING:
    from edgeq.qat.module import QatModule


def prepare_qat(
    model: Any,
    example_input: Any = None,
    bits: str = "w4a4",
    *,
    calibration: Any = None,
    calib_samples: int = DEFAULT_SAMPLES,
    keep_8bit: Sequence[str] | None = None,
    batch_norm: Literal["fold", "train"] = "fold",
    freeze_batch_norm_after: int | None = None,
) -> QatModule:
    """Makes a torch module that computes what the quantized model will, and trains in any training loop.

    Weights, biases and activations are rounded in every pass, by the policy of post-training quantization: the first
    layer and the ends of the network keep 8 bits, activations that share their codes share one quantizer, fixed ranges
    stay fixed. Gradients pass the rounding straight through; the step sizes of weights (a channel) and activations (a
    tensor) are learned too (LSQ, Esser et al. 2019, arXiv 1902.08153).

    `edgeq.export(module, out=...)` writes the usual files.

    Args:
        model: A torch.nn.Module (not changed), the path of a .onnx file, or an onnx.ModelProto.
        example_input: Inputs of a torch module, with the batch as axis 0: a tensor or array, or a sequence of them.
        bits: "w8a8", "w4a8" or "w4a4".
        calibration: Inputs from which ranges and biases start: an array or tensor, or an iterable of batches (a
            DataLoader). Without it, call `calibrate` of the module, or load a state dict.
        calib_samples: At most this many of them are used.
        keep_8bit: Layers that keep 8 bits: "first", "last" or layer names; None for the scheme's default.
        batch_norm: "fold" trains the folded weights and biases; "train" keeps the batch norms behind convolutions and
            linear layers, which normalise with each batch's statistics while they train, and folds them exactly in
            evaluation and at the end.
        freeze_batch_norm_after: With "train": after this many training steps the statistics stay as they are, as with
            `freeze_batch_norm()`; None: never by itself.

    Returns:
        The module, in training mode.

    Raises:
        ImportModelError: If torch is missing, or the model cannot be read as a graph.
        QuantizationError: If a name or scheme is unknown, or there is no batch norm to train.
        EdgeqError: As `QatModule.calibrate` says.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportModelError("training needs torch: pip install 'edgeq[torch,export]'") from error
    from edgeq.importers import from_onnx, from_torch
    from edgeq.qat.batch_norm import find_norms
    from edgeq.qat.module import QatModule

    if batch_norm not in ("fold", "train"):
        raise UsageError(f'batch_norm is "fold" or "train", not {batch_norm!r}')
    scheme = Scheme.parse(bits)
    is_module = isinstance(model, torch.nn.Module)
    name: str | None
    if is_module:
        was_training = model.training
        name, source = from_torch.to_onnx(model, example_input)
    else:
        source = _onnx_bytes(model)
        name = Path(model).stem if isinstance(model, (str, os.PathLike)) else None
    found = from_onnx.read(source, name)
    if found.notes:
        # A loss of log-probabilities (NLLLoss) would silently be one of scores.
        raise ImportModelError(
            f"node {found.notes[0][0]!r}: the model to train ends in a LogSoftmax, which edgeq's files do without; "
            "leave it out of the model and train with a loss that takes scores, such as torch.nn.CrossEntropyLoss"
        )
    graph = float_pipeline(found.graph)
    norms = {}
    if batch_norm == "train":
        if is_module:
            examples = from_torch.examples_of(example_input)
            norms = find_norms(model, examples, graph, [node for node in graph.nodes if is_layer(node)])
        if not norms:
            raise QuantizationError(
                "there is no batch norm to train: none of the model's modules is one that reads a convolution or a "
                'linear layer directly (and a file has them folded already); use batch_norm="fold"'
            )
    if is_module:
        model.train(was_training)
    if scheme.activation_bits == 4:
        graph = separate_product_inputs(graph)
    module = QatModule(
        graph,
        scheme,
        source,
        keep_8bit=None if keep_8bit is None else frozenset(keep_8bit),
        norms=norms,
        freeze_batch_norm_after=freeze_batch_norm_after,
    )
    return module if calibration is None else module.calibrate(calibration, samples=calib_samples)


def _onnx_bytes(model: Any) -> bytes:
    if hasattr(model, "SerializeToString"):
        data: bytes = model.SerializeToString()
        return data
    if isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".onnx":
        from edgeq.importers.onnx_file import file_bytes

        return file_bytes(Path(model))
    raise ImportModelError(
        f"training needs a torch.nn.Module, a .onnx file or an onnx.ModelProto, not {type(model).__name__} {model!r}"
    )
