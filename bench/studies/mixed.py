"""Mixed precision between w4a8 and w8a8, for docs/results.md.

    python -m bench.studies.mixed --data DIR [--share 0.5] [--write]

DIR holds imagenet_sample and imagenet_val10, each with images_224.zip and labels.csv. Bits are chosen on the split
`calib` of the sample only, under a size budget that lies at `share` of the way from the w4a8 to the w8a8 file;
evaluation uses the split `eval` of the sample and the validation images together, so no image plays both parts. The
plan is then replayed, and the bytes of the two model.edgeq compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import edgeq
from bench.studies.tables import replace_table
from edgeq.data import open_dataset
from edgeq.verification.compare import compare
from edgeq.zoo.registry import architecture

NETWORKS = ("efficientnet_lite0", "mobilenet_v2")
CALIBRATION = "imagenet_sample/images_224.zip:calib"
EVALUATION = ("imagenet_sample/images_224.zip:eval", "imagenet_val10/images_224.zip")
RESULTS = Path(__file__).parents[2] / "docs" / "results.md"


def study(
    network: str,
    model: Any,
    arguments: Mapping[str, Any],
    evaluation: tuple[np.ndarray, np.ndarray],
    share: float,
    folder: Path,
) -> list[dict[str, Any]]:
    """Exports one network at w8a8, w4a8 and between; returns a row a form, the float network's first.

    Args:
        network: Its name in the rows.
        model: For `edgeq.export`.
        arguments: Of `edgeq.export`: calibration and preprocessing.
        evaluation: Inputs and labels.
        share: The budget's place between the sizes at w4a8 (0) and w8a8 (1).
        folder: Where the exports go.
    """
    rows = []
    images, labels = evaluation
    sizes: dict[str, int] = {}
    reference = None
    for form in ("w8a8", "w4a8", "mixed"):
        budget = None
        if form == "mixed":
            budget = {"size": (share * sizes["w8a8"] + (1 - share) * sizes["w4a8"]) / sizes["w8a8"]}
        out = folder / form
        started = time.perf_counter()
        result = edgeq.export(
            model, bits="auto" if budget else form, budget=budget, out=out, to="edgeq", **arguments
        )
        seconds = time.perf_counter() - started
        sizes[form] = (out / "model.edgeq").stat().st_size
        if reference is None:
            reference = _float_logits(out / "reference.onnx", images)
            rows.append({"network": network, "form": "FP32", **_figures(reference, reference, labels)})
        session = edgeq.Session(out / "model.edgeq", threads=2)
        logits = np.concatenate([session.run(images[begin : begin + 50]) for begin in range(0, len(images), 50)])
        row = {
            "network": network,
            "form": form,
            **_figures(logits, reference, labels),
            "size": sizes[form] / sizes["w8a8"],
            "seconds": seconds,
        }
        if form == "mixed":
            row |= {"plan": result.manifest["plan"], "counts": result.manifest["layers_by_bits"]}
            again = folder / "again"
            edgeq.export(model, bits=out / "plan.toml", out=again, to="edgeq", **arguments)
            row["replays"] = (again / "model.edgeq").read_bytes() == (out / "model.edgeq").read_bytes()
        rows.append(row)
    return rows


def _images(data: Path, network: str) -> tuple[np.ndarray, np.ndarray]:
    preprocessing = architecture(network).preprocessing
    batches = [
        batch for source in EVALUATION for batch in open_dataset(str(data / source)).batches(50, preprocessing)
    ]
    return np.concatenate([b.inputs for b in batches]), np.concatenate([np.asarray(b.labels) for b in batches])


def _float_logits(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images[index : index + 1]})[0] for index in range(len(images))])


def _figures(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    found = compare(reference, logits, labels).to_json()
    return {
        "n": len(labels),
        "top1": found["quantized"]["top1"],
        "ece": found["quantized"]["ece"],
        "disagreement": found["disagreement"]["rate"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| network | bits | n | top-1 | ECE | disagreement | size to w8a8 | layers w4 / w8 | gap | replays "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts: Mapping[str, int] = row.get("counts", {})
        cells = [
            row["network"],
            row["form"],
            row["n"],
            f"{row['top1']:.1%}",
            f"{row['ece']:.3f}",
            f"{row['disagreement']:.1%}",
            f"{row['size']:.3f}" if "size" in row else "",
            f"{counts['w4']} / {counts['w8']}" if counts else "",
            f"{row['plan']['optimum']['gap']:.1%}" if counts else "",
            ("same bytes" if row["replays"] else "OTHER BYTES") if counts else "",
            f"{row['seconds']:.0f}" if "seconds" in row else "",
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the study and writes its table into docs/results.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calib-samples", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.5, help="of the way from the w4a8 to the w8a8 file")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for network in arguments.networks:
        given = {
            "calibration": str(arguments.data / CALIBRATION),
            "calib_samples": arguments.calib_samples,
            "preprocessing": architecture(network).preprocessing,
        }
        images = _images(arguments.data, network)
        with tempfile.TemporaryDirectory() as scratch:
            model = f"edgeq.zoo.pretrained:{network}"
            rows += study(network, model, given, images, arguments.share, Path(scratch))
        print(table(rows), flush=True)
    if arguments.write:
        replace_table(RESULTS, "mixed", table(rows))


if __name__ == "__main__":
    main()
