"""Measures how far each operator of an exported .tflite file is from the integer statement, runtime by runtime.

    PYTHONPATH=tests python -m bench.studies.tflite_operators [--seeds N] [--write]

Prints the table of docs/tflite.md, or writes it there. EDGEQ_TFLITE_PYTHON names a Python with tflite-runtime 2.14 and
numpy<2; its column is empty without it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema
from quantized_graphs import CASES, Case
from tflite_graphs import BUILTIN_FUNCTIONS, Sample, function, sample, sample_of

from bench.studies.tables import replace_table
from edgeq.backends import tflite_runner
from edgeq.backends.litert import PYTHON_VARIABLE
from edgeq.ir.tensor import Array
from edgeq.ops.base import Int4Storage

PAGE = Path(__file__).parents[2] / "docs" / "tflite.md"


@dataclass
class Count:
    """Codes compared: how many, how many differ, by how much at most; whether the runtime refused one."""

    total: int = 0
    different: int = 0
    most: int = 0
    refused: bool = False

    def add(self, found: list[Array], expected: list[Array]) -> None:
        for got, wanted in zip(found, expected, strict=True):
            off = np.abs(got.astype(np.int32) - wanted.astype(np.int32))
            self.total += off.size
            self.different += int((off > 0).sum())
            self.most = max(self.most, int(off.max(initial=0)))

    def __str__(self) -> str:
        if self.refused:
            return "refused"
        if not self.total:
            return "-"
        if not self.different:
            return "exact"
        return f"{self.most} step{'s' if self.most > 1 else ''} on {100 * self.different / self.total:.3g} %"


def _row(case: Case, scheme: str) -> str:
    """Which row of the table a case belongs to."""
    words = case.name.split()
    operator = words[0]
    if operator in ("conv", "linear", "conv_transpose"):
        kinds = {"depthwise": "conv depthwise", "1x1": "conv 1x1"}
        kind = kinds.get(words[1], operator) if operator == "conv" else operator
        return f"{kind}, {scheme[:2]}"
    if operator == "resize":
        return " ".join(words[:2])
    return operator


def _samples(seeds: int) -> Iterable[tuple[str, Sample, Sample | None]]:
    """Yields (row, the file for LiteRT, the file for tflite-runtime)."""
    for op, attrs, output, operators in BUILTIN_FUNCTIONS:
        made = sample_of(function(op, attrs, output), seed=0)
        row = f"{op} to {'its fixed range' if 'GATHER' not in operators else 'another range'}"
        yield row, made, made
    for case in CASES:
        if case.name.startswith("block"):
            continue
        weighted = case.name.split()[0] in ("conv", "linear", "conv_transpose")
        for scheme in ("w8a8", "w4a8") if weighted else ("w8a8",):
            for seed in range(seeds):
                made = sample(case, scheme, seed=seed)
                yield _row(case, scheme), made, sample(case, scheme, Int4Storage.OLD, seed=seed)
                if scheme == "w4a8":
                    yield f"{_row(case, scheme)} packed", sample(case, scheme, Int4Storage.PACKED, seed=seed), None


def _builtins(data: bytes) -> set[str]:
    """The operators of a file with their versions."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(data), 0))
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    return {f"{names[code.builtinCode]} {code.version}" for code in model.operatorCodes}


def measure(seeds: int) -> dict[str, tuple[set[str], list[Count]]]:
    """Returns the operators of each row and its counts: LiteRT with XNNPACK, its built-in kernels, tflite-runtime."""
    table: dict[str, tuple[set[str], list[Count]]] = {}
    python = os.environ.get(PYTHON_VARIABLE)
    with tempfile.TemporaryDirectory() as name:
        folder, later = Path(name), []
        for row, made, old in _samples(seeds):
            builtins, counts = table.setdefault(row, (set(), [Count(), Count(), Count()]))
            builtins |= _builtins(made.model.data)
            for xnnpack, count in ((True, counts[0]), (False, counts[1])):
                opened = tflite_runner.open_interpreter(interpreter, made.model.data, xnnpack)
                count.add(tflite_runner.run_interpreter(opened, made.inputs), made.expected)
            if python and old is not None:
                stem = folder / f"{len(later):06d}"
                stem.with_suffix(".tflite").write_bytes(old.model.data)
                np.savez(stem.with_suffix(".npz"), **{str(i): value for i, value in enumerate(old.inputs)})
                later.append((stem, counts[2], old.expected))
        if python:
            script = Path(__file__).parents[2] / "tests" / "run_tflite_folder.py"
            subprocess.run([python, str(script), tflite_runner.__file__, name], check=True, capture_output=True)
        for stem, count, expected in later:
            if not stem.with_suffix(".out.npz").exists():
                count.refused = True
                continue
            with np.load(stem.with_suffix(".out.npz")) as archive:
                count.add([archive[str(i)] for i in range(len(archive.files))], expected)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the operators of exported .tflite files.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="write the table into docs/tflite.md")
    options = parser.parse_args()
    _, version, _ = tflite_runner.find_runtime("ai-edge-litert")
    lines = [
        f"| operator | builtins and their versions | LiteRT {version}, XNNPACK | LiteRT {version}, built-in kernels | "
        "tflite-runtime 2.14.0 |",
        "|---|---|---|---|---|",
    ]
    for row, (builtins, counts) in sorted(measure(options.seeds).items()):
        lines.append(f"| {row} | {', '.join(sorted(builtins))} | {' | '.join(str(count) for count in counts)} |")
    if options.write:
        replace_table(PAGE, "operators", "\n".join(lines))
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
