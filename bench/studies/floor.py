"""edgeq's latency beside ONNX Runtime's on the networks of the zoo, for docs/results.md.

    python -m bench.studies.floor [--networks mobilenet_v2 ...] [--write]

Weights are random where the latency does not depend on them; calibration uses random inputs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from bench.studies.tables import replace_table
from edgeq import zoo
from edgeq.deployment.bench import bench_model
from edgeq.zoo.registry import architecture

NETWORKS = ("mobilenet_v2", "efficientnet_lite0", "shufflenet_v2_x1_0", "resnet18")
RESULTS = Path(__file__).parents[2] / "docs" / "results.md"


def measure(network: str, scheme: str, rounds: int) -> dict[str, Any]:
    """Exports one network and times it beside the peer; returns the figures of `bench_model`."""
    shape = architecture(network).input_shape
    inputs = np.random.default_rng(0).standard_normal((8, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "out"
        edgeq.export(
            getattr(zoo, network)(),
            bits=scheme,
            calibration=inputs,
            example_input=inputs[:1],
            out=folder,
            bias_correction=False,
        )
        return bench_model(folder, beside="onnxruntime", rounds=rounds, seconds=5.0)


def main() -> None:
    """Runs the measurements and writes their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--schemes", nargs="+", default=("w8a8", "w4a8"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lines = [
        "| network | scheme | instruction set | edgeq ms | peer | peer ms | ratio | spread over rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in arguments.networks:
        for scheme in arguments.schemes:
            result = measure(network, scheme, arguments.rounds)
            for name, peer in result["peers"].items():
                lines.append(
                    f"| {network} | {scheme} | {result['isa']} | {peer['edgeq']['median_ms']:.2f} | {name} | "
                    f"{peer['latency']['median_ms']:.2f} | {peer['ratio']:.2f} | "
                    f"{peer['ratio_min']:.2f} to {peer['ratio_max']:.2f}, {peer['rounds']} rounds |"
                )
            print("\n".join(lines[-2:]), flush=True)
    if arguments.write:
        replace_table(RESULTS, "floor", "\n".join(lines))


if __name__ == "__main__":
    main()
