"""edgeq's own export of the float network; run by its engine.

Setting: arguments of `edgeq.export`, bits among them.
"""

from __future__ import annotations

import sys

# This file has the name of the package that it imports.
sys.path.append(sys.path.pop(0))

import time

import worker

import edgeq


def main():
    job = worker.read()
    started = time.process_time()
    edgeq.export(job.onnx, calibration=job.calibration, to="edgeq", out=job.out / "export", **job.setting)
    seconds = time.process_time() - started
    file = job.out / "export" / "model.edgeq"
    session = edgeq.Session(file, threads=job.cores)
    worker.finish(job, session.run, seconds, [], [file], versions={"edgeq": edgeq.__version__})


main()
