"""Reads ONNX files from anywhere: everything is bounded and checked before it is used."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import ImportModelError
from edgeq.importers.reading import read_limited
from edgeq.ir.tensor import Array

MAX_MODEL_BYTES = 2**31 - 1
"""What protobuf can hold; weights in external files count too."""

MAX_NODES = 1_000_000
"""Nodes after the model's own functions are expanded."""

FLOAT_TYPES = ("float64", "float32", "float16", "bfloat16")
INTEGER_TYPES = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")


def read_model(source: Any) -> Any:
    """Returns an onnx.ModelProto with its weights inside and its local functions expanded.

    Args:
        source: A path, the bytes of a file, or an onnx.ModelProto (which is not changed).

    Raises:
        ImportModelError: If the file is missing, too large, not ONNX, or refers to data outside its folder.
    """
    _require_onnx()
    import onnx

    folder: Path | None = None
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    else:
        if isinstance(source, (str, os.PathLike)):
            path = Path(source)
            folder, data = path.parent, read_limited(path, MAX_MODEL_BYTES, "ONNX")
        else:
            data = bytes(source)
        model = _parse(data)
    if not model.HasField("graph"):
        raise ImportModelError(
            "this is not an ONNX model: it has no graph; check that the file is a complete .onnx file"
        )
    _load_external_data(model, folder)
    return _inline_functions(model)


def file_bytes(path: Path) -> bytes:
    """Returns an ONNX file's bytes, with the weights that it keeps in other files taken in.

    Raises:
        ImportModelError: As `read_model`.
    """
    _require_onnx()
    import onnx

    data = read_limited(path, MAX_MODEL_BYTES, "ONNX")
    model = _parse(data)
    if all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in _all_tensors(model)):
        return data
    _load_external_data(model, path.parent)
    whole: bytes = model.SerializeToString()
    return whole


def tensor_value(tensor: Any, where: str) -> Array:
    """Returns the value of an onnx.TensorProto; raises ImportModelError when its size or type is wrong."""
    import onnx

    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, TypeError, ValueError):
        raise ImportModelError(f"{where}: tensor {tensor.name!r} has no known element type") from None
    if dtype.name not in FLOAT_TYPES + INTEGER_TYPES:
        raise ImportModelError(
            f"{where}: tensor {tensor.name!r} has elements of type {dtype.name}, which are not supported"
        )
    elements = _elements(tensor, where)
    if tensor.raw_data and len(tensor.raw_data) != elements * dtype.itemsize:
        raise ImportModelError(
            f"{where}: tensor {tensor.name!r} of shape {list(tensor.dims)} needs {elements * dtype.itemsize} bytes and "
            f"has {len(tensor.raw_data)}; the file is damaged"
        )
    try:
        value = np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:
        raise ImportModelError(
            f"{where}: tensor {tensor.name!r} cannot be read ({error}); the file is damaged"
        ) from None
    if value.shape != tuple(tensor.dims):
        raise ImportModelError(
            f"{where}: tensor {tensor.name!r} does not have the shape it declares; the file is damaged"
        )
    return value.astype(np.float32) if dtype.name in ("float16", "bfloat16") else value


def _require_onnx() -> None:
    try:
        importlib.import_module("onnx")
    except ImportError:
        raise ImportModelError(
            "reading ONNX needs the package onnx; install it with: pip install 'edgeq[export]'"
        ) from None


def _elements(tensor: Any, where: str) -> int:
    total = 1
    for size in tensor.dims:
        if size < 0:
            raise ImportModelError(
                f"{where}: tensor {tensor.name!r} has the shape {list(tensor.dims)}; the file is damaged"
            )
        total *= size
    if total > MAX_MODEL_BYTES or len(tensor.dims) > 16:
        raise ImportModelError(f"{where}: tensor {tensor.name!r} of shape {list(tensor.dims)} is too large")
    return total


def _parse(data: bytes) -> Any:
    import onnx

    try:
        return onnx.load_model_from_string(data)
    except Exception as error:
        raise ImportModelError(
            f"this is not an ONNX model, or it is truncated ({len(data)} bytes; {str(error).strip() or 'unreadable'})"
        ) from None


def _all_tensors(model: Any) -> Iterator[Any]:
    graphs = [model.graph]
    node_lists = [function.node for function in model.functions]
    while graphs or node_lists:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            node_lists.append(graph.node)
            continue
        for node in node_lists.pop():
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)


def _load_external_data(model: Any, folder: Path | None) -> None:
    import onnx

    budget = MAX_MODEL_BYTES
    for tensor in _all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if folder is None:
            raise ImportModelError(
                f"tensor {tensor.name!r} is stored in another file; give the path of the .onnx file, not its bytes"
            )
        data = _external_bytes(tensor, folder, budget)
        budget -= len(data)
        tensor.raw_data = data
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _external_bytes(tensor: Any, folder: Path, budget: int) -> bytes:
    import onnx

    where = f"external data of tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    root = folder.resolve()
    try:
        path = (root / entries["location"]).resolve()
        offset = int(entries.get("offset", "0"))
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        length = _elements(tensor, where) * dtype.itemsize
        declared = int(entries.get("length", str(length)))
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise ImportModelError(
            f"{where} is not described properly ({error!r}); the file is damaged"
        ) from None
    if not path.is_relative_to(root):
        raise ImportModelError(
            f"{where} lies outside the model's folder ({entries['location']!r}); it is not read"
        )
    try:
        size = path.stat().st_size if path.is_file() else -1
        if size < 0:
            raise ImportModelError(
                f"{where} should be in {entries['location']!r} beside the model; there is no such file"
            )
        if declared != length or offset < 0 or offset + length > size or length > budget:
            raise ImportModelError(
                f"{where} needs {length} bytes at {offset} of {entries['location']!r}, which has {size}; the file is "
                "truncated or too large"
            )
        with path.open("rb") as file:
            file.seek(offset)
            data: bytes = file.read(length)
            return data
    except OSError as error:
        raise ImportModelError(f"{where} cannot be read: {error.strerror or error}") from None


def _inline_functions(model: Any) -> Any:
    if not model.functions:
        return model
    import onnx.inliner

    sizes: dict[tuple[str, str], int] = {}
    bodies = {(f.domain, f.name): f.node for f in model.functions}

    def expanded(nodes: Any, depth: int) -> int:
        if depth > 64:
            raise ImportModelError("the model's functions call each other in a cycle or too deeply")
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in sizes:
                sizes[key] = expanded(bodies[key], depth + 1)
            total += sizes.get(key, 1)
            if total > MAX_NODES:
                raise ImportModelError(f"the model's functions expand to more than {MAX_NODES} nodes")
        return total

    expanded(model.graph.node, 0)
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise ImportModelError(f"the model's own functions cannot be expanded: {error}") from None
