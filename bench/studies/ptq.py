"""Accuracy, calibration and disagreement of real networks on real images, for docs/results.md.

    python -m bench.studies.ptq --data DIR [--calib-samples 200] [--equal 16]

DIR holds imagenet_sample and imagenet_val10, each with images_224.zip and labels.csv. Calibration uses the split
`calib` of the sample
only; evaluation uses the split `eval` of the sample and the validation images, so no image plays both parts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import edgeq
from bench.studies.tables import replace_table
from edgeq.backends.simulate import SimulateBackend
from edgeq.data import open_dataset
from edgeq.zoo.registry import architecture

NETWORKS = ("efficientnet_lite0", "mobilenet_v2")
SCHEMES = ("w8a8", "w4a8", "w4a4")
EVALUATION = {"sample:eval": "imagenet_sample/images_224.zip:eval", "val10": "imagenet_val10/images_224.zip"}
RESULTS = Path(__file__).parents[2] / "docs" / "results.md"


def study(
    data: Path, network: str, scheme: str, samples: int, equal: int, folder: Path
) -> list[dict[str, Any]]:
    """Exports one network at one scheme and verifies it on each evaluation set; returns a row a set."""
    found = architecture(network)
    started = time.perf_counter()
    result = edgeq.export(
        f"edgeq.zoo.pretrained:{network}",
        bits=scheme,
        calibration=str(data / "imagenet_sample/images_224.zip:calib"),
        calib_samples=samples,
        preprocessing=found.preprocessing,
        out=folder,
    )
    seconds = time.perf_counter() - started
    rows = []
    for name, source in EVALUATION.items():
        comparison = edgeq.verify(folder, data=str(data / source), threads=2)
        rows.append(
            {
                "network": network,
                "scheme": scheme,
                "data": name,
                "figures": comparison.to_json(),
                "export_seconds": seconds,
                "bytes": result.manifest["files"]["model.edgeq"]["bytes"],
                "bit_equal": _bit_equal(folder, str(data / source), found.preprocessing, equal),
            }
        )
    return rows


def _bit_equal(folder: Path, source: str, preprocessing: Any, count: int) -> str:
    """Compares native with simulate on the first `count` images; returns e.g. "16 of 16"."""
    if count == 0:
        return "not run"
    session = edgeq.Session(folder / "model.edgeq")
    oracle = SimulateBackend(folder / "model.edgeq")
    same = 0
    for batch in open_dataset(source).batches(4, preprocessing, range(count)):
        same += int((session.run(batch.inputs) == oracle.run(batch.inputs)).all(axis=1).sum())
    return f"{same} of {count}"


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| network | scheme | images | n | FP32 top-1 | top-1 | FP32 ECE | ECE | disagreement | logit SQNR "
        "| .edgeq KiB | native = simulate |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = row["figures"]
        reference, quantized = figures["reference"], figures["quantized"]
        lines.append(
            f"| {row['network']} | {row['scheme']} | {row['data']} | {figures['n']} | {reference['top1']:.1%} | "
            f"{quantized['top1']:.1%} | {reference['ece']:.3f} | {quantized['ece']:.3f} | "
            f"{figures['disagreement']['rate']:.1%} | {figures['logit_sqnr_db']:.1f} dB | "
            f"{row['bytes'] / 1024:,.0f} | {row['bit_equal']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the study and writes its table into docs/results.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calib-samples", type=int, default=200)
    parser.add_argument(
        "--equal", type=int, default=16, help="images on which native and simulate are compared"
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for network in arguments.networks:
        for scheme in arguments.schemes:
            with tempfile.TemporaryDirectory() as scratch:
                found = study(
                    arguments.data,
                    network,
                    scheme,
                    arguments.calib_samples,
                    arguments.equal,
                    Path(scratch) / "out",
                )
            print(table(found), flush=True)
            rows += found
    if arguments.write:
        replace_table(RESULTS, "ptq", table(rows))


if __name__ == "__main__":
    main()
