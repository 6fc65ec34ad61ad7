"""torch -> ONNX -> Graph, through torch.onnx.export (the dynamo exporter)."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.errors import ImportModelError
from edgeq.importers.from_onnx import load as load_onnx
from edgeq.ir import Graph

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 20
"""The first with Gelu."""
TRACED_BATCH = 2
"""An example batch of 1 or 0 would be specialised into the program."""


def load(
    source: nn.Module | str | os.PathLike[str],
    example_input: Any = None,
    *,
    name: str | None = None,
    opset: int = OPSET,
) -> tuple[Graph, bytes]:
    """Reads a torch model as a float graph.

    Args:
        source: As `to_onnx` takes it.
        example_input: As `to_onnx` takes it.
        name: The graph's name; else what the model is called.
        opset: ONNX operator set to export with.

    Returns:
        The checked graph and the bytes of the float ONNX model it was read from.

    Raises:
        ImportModelError: As `to_onnx`, or if the model cannot be expressed.
    """
    found, data = to_onnx(source, example_input, opset=opset)
    return load_onnx(data, name or found), data


def to_onnx(
    source: nn.Module | str | os.PathLike[str], example_input: Any = None, *, opset: int = OPSET
) -> tuple[str, bytes]:
    """Exports a torch model of any form to ONNX.

    Args:
        source: A module (switched to evaluation mode), the path of a `.pt2` file (torch.export.save), or
            "package.module:factory", a callable without arguments that returns a module, or a pair of module and
            example input.
        example_input: For a module or factory: a tensor or array, or a sequence of them, with the batch as axis 0
            (its size does not matter).
        opset: ONNX operator set to export with.

    Returns:
        What the model is called (the module's class, the factory, or the file's stem), and an ONNX file with its
        weights.

    Raises:
        ImportModelError: If torch or onnxscript is missing, or the model cannot be exported.
    """
    _require_torch()
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if text.endswith(".pt2") or ":" not in text:
            return Path(text).stem, _export_program(_read_program(Path(text)), opset)
        module, example_input = _from_factory(text, example_input)
        return text.rsplit(":", 1)[1], export_onnx(module, example_input, opset=opset)
    return type(source).__name__, export_onnx(source, example_input, opset=opset)


def export_onnx(
    module: nn.Module,
    example_input: Any,
    *,
    opset: int = OPSET,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> bytes:
    """Returns a module as an ONNX file with its weights inside and the batch axis free.

    Args:
        module: Switched to evaluation mode.
        example_input: A tensor or array, or a sequence of them, with the batch as axis 0.
        opset: ONNX operator set.
        input_names: Names for the inputs, else torch's.
        output_names: Names for the outputs, else torch's.

    Raises:
        ImportModelError: If torch or onnxscript is missing, or torch cannot export the module.
    """
    _require_torch()
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ImportModelError(f"a torch.nn.Module is needed, got {type(module).__name__}")
    examples = examples_of(example_input)
    with _quiet():
        try:
            batch = torch.export.Dim("batch")
            shapes = tuple({0: batch} for _ in examples)
            with torch.no_grad():
                program = torch.export.export(module.eval(), examples, dynamic_shapes=shapes)
        except Exception as error:
            raise ImportModelError(_export_failure(type(module).__name__, error)) from error
    return _export_program(program, opset, input_names, output_names)


def _export_program(
    program: Any,
    opset: int,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> bytes:
    import torch

    with _quiet():
        try:
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=input_names,
                output_names=output_names,
                verbose=False,
                custom_translation_table={torch.ops.aten.upsample_linear1d.vec: _resize_signal},
            )
            assert exported is not None
            model = exported.model_proto
            _forget_machine(model)
            data: bytes = model.SerializeToString()
        except Exception as error:
            raise ImportModelError(_export_failure("the program", error)) from error
    return data


def _resize_signal(x: Any, size: Sequence[int] | None, align_corners: bool, scales: Sequence[float] | None) -> Any:
    """Linear interpolation of [N, C, L] as an ONNX Resize: torch writes gathers that move the batch axis."""
    from onnxscript import opset18 as op

    mode = "align_corners" if align_corners else "pytorch_half_pixel"
    attributes = {"axes": [2], "mode": "linear", "coordinate_transformation_mode": mode}
    if size is None:
        assert scales is not None
        return op.Resize(x, None, op.Constant(value_floats=[float(scale) for scale in scales]), **attributes)
    return op.Resize(x, None, None, op.Constant(value_ints=[int(length) for length in size]), **attributes)


def _forget_machine(model: Any) -> None:
    """Drops the stack traces that torch writes into its models: they hold paths of the machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *model.functions):
        item.doc_string = ""
        del item.metadata_props[:]


def _read_program(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise ImportModelError(
            f"there is no file {path}; give a .pt2 file of torch.export.save, or package.module:factory"
        )
    with _quiet():
        try:
            return torch.export.load(str(path))
        except Exception as error:
            raise ImportModelError(
                f"{path} is not a program of torch.export.save, or it is damaged ({_first_line(error)})"
            ) from error


def _from_factory(text: str, example_input: Any) -> tuple[Any, Any]:
    module_name, _, factory_name = text.partition(":")
    # A model beside the user is found as `python -m` would find it.
    added = os.getcwd() not in sys.path
    if added:
        sys.path.insert(0, os.getcwd())
    try:
        factory: Any = importlib.import_module(module_name)
        for part in factory_name.split("."):
            factory = getattr(factory, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportModelError(f"cannot find {text!r}: {_first_line(error)}") from error
    finally:
        if added:
            sys.path.remove(os.getcwd())
    try:
        made = factory()
    except Exception as error:
        raise ImportModelError(f"{text}() failed: {type(error).__name__}: {_first_line(error)}") from error
    if isinstance(made, tuple) and len(made) == 2:
        return made[0], made[1] if example_input is None else example_input
    return made, example_input


def examples_of(example_input: Any) -> tuple[Tensor, ...]:
    """Returns example inputs as float32 tensors of batch TRACED_BATCH; raises ImportModelError when they are none."""
    import numpy as np
    import torch

    if example_input is None:
        raise ImportModelError(
            "a torch module needs an example input: a float tensor with the batch as axis 0, or a sequence of them"
        )
    several = example_input if isinstance(example_input, (list, tuple)) else [example_input]
    examples = []
    for value in several:
        tensor = (
            value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value, dtype=np.float32))
        )
        if tensor.ndim < 1 or tensor.shape[0] < 1:
            raise ImportModelError(
                f"the example input must have a batch as axis 0, its shape is {list(tensor.shape)}"
            )
        repeats = (TRACED_BATCH,) + (1,) * (tensor.ndim - 1)
        examples.append(tensor[:1].detach().to(torch.float32).repeat(repeats))
    return tuple(examples)


def _require_torch() -> None:
    for package in ("torch", "onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise ImportModelError(
                f"a torch model needs the package {package}; install it with: pip install 'edgeq[torch,export]'"
            ) from None


def _export_failure(what: str, error: Exception) -> str:
    return (
        f"torch cannot export {what}: {type(error).__name__}: {_first_line(error)}. The model must be traceable by "
        "torch.export with a free batch axis; export it to ONNX yourself to see the details"
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's progress lines, warnings and log messages away from the user."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
