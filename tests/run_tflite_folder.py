"""Runs every NAME.tflite of a folder on NAME.npz with the runtime of this Python; writes NAME.out.npz.

    python run_tflite_folder.py RUNNER.py FOLDER

For an environment that has numpy and tflite-runtime only; RUNNER.py is edgeq/backends/tflite_runner.py.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    specification = importlib.util.spec_from_file_location("tflite_runner", sys.argv[1])
    assert specification is not None
    assert specification.loader is not None
    runner = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(runner)
    _, _, module = runner.find_runtime("tflite-runtime")
    for model in sorted(Path(sys.argv[2]).glob("*.tflite")):
        with np.load(model.with_suffix(".npz")) as archive:
            inputs = [archive[str(i)] for i in range(len(archive.files))]
        try:
            interpreter = runner.open_interpreter(module, str(model))
            found = runner.run_interpreter(interpreter, inputs)
        except (ValueError, RuntimeError) as error:
            model.with_suffix(".error").write_text(" ".join(str(error).split()))
            continue
        np.savez(model.with_suffix(".out.npz"), **{str(i): value for i, value in enumerate(found)})


main()
