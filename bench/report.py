"""Prints results, and writes them into docs/.

    python -m bench.report RESULTS.json [--write]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import plot, tables
from bench.arm import tables as arm_tables
from bench.studies.tables import replace_table

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
ARM_PAGE = DOCS / "performance-arm.md"
PLOT = DOCS / "performance_peers.svg"


def sections(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns (title, text) of everything that is printed."""
    found = [("machine", tables.machine_table(results))]
    for cap, peers in by_cap(results).items():
        found.append((f"all contenders, cap {cap}", tables.peers_spread(peers)))
    for cap, peers in by_cap(results).items():
        found.append((f"edgeq beside the fastest peer, cap {cap}", tables.peers_summary(peers)))
    models = results.get("models", [])
    if models:
        found += [("edgeq alone", tables.models_table(models)), ("loading", tables.loading_table(models))]
        found.append(("batches", tables.batches_table(models)))
    kernels = results.get("kernels", [])
    if kernels:
        found += [
            ("single layers", tables.kernels_detail(kernels)),
            ("share of the peak", tables.kernels_summary(kernels)),
            ("layers without weights", tables.vectors_summary(kernels)),
            ("weights of 4 bits", tables.narrow_weights(kernels)),
        ]
    counts = results.get("arm", [])
    if counts:
        found += [
            ("executed instructions on Arm, by class, millions", arm_tables.classes(counts)),
            ("inner loops on Arm", arm_tables.inner_loops(counts)),
            ("executed instructions on Arm, millions", arm_tables.summary(counts)),
        ]
    return [(title, text) for title, text in found if text]


def by_cap(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The comparisons with peers, by cap."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in results.get("peers", []):
        found.setdefault(tables.cap_name(one["cap"]), []).append(one)
    return found


def write(results: dict[str, Any]) -> list[Path]:
    """Writes the tables of what was measured, and the plot; returns the files.

    Raises:
        ValueError: If the results are those of a quick run, which are not for publication.
    """
    if results["quick"]:
        raise ValueError("a quick run is not for publication; run `pytest bench --write` without --quick")
    written = []
    counts = results.get("arm", [])
    if counts:
        replace_table(ARM_PAGE, "versions", arm_tables.made_with(counts))
        replace_table(ARM_PAGE, "summary", arm_tables.summary(counts))
        replace_table(ARM_PAGE, "classes", arm_tables.classes(counts))
        replace_table(ARM_PAGE, "inner loops", arm_tables.inner_loops(counts))
        written.append(ARM_PAGE)
    if set(results) & {"peers", "models", "kernels"}:
        written += _write_times(results)
    return written


def _write_times(results: dict[str, Any]) -> list[Path]:
    """Writes the tables of what was timed on this machine, and the plot."""
    replace_table(PAGE, "machine", tables.machine_table(results))
    for cap, peers in by_cap(results).items():
        if f"<!-- table: peers, cap {cap} -->" not in PAGE.read_text(encoding="utf-8"):
            continue  # A cap of another machine; it is in the JSON and in the plot.
        replace_table(PAGE, f"peers, cap {cap}", tables.peers_summary(peers))
        replace_table(PAGE, f"contenders, cap {cap}", tables.peers_detail(peers))
    written = [PAGE]
    if by_cap(results):
        written.append(plot.draw(by_cap(results), PLOT))
    models, kernels = results.get("models", []), results.get("kernels", [])
    if models:
        replace_table(PAGE, "models", tables.models_table(models))
        replace_table(PAGE, "batches", tables.batches_table(models))
        replace_table(PAGE, "loading", tables.loading_table(models))
    if kernels:
        replace_table(PAGE, "kernels", tables.kernels_summary(kernels))
        replace_table(PAGE, "vectors", tables.vectors_summary(kernels))
        replace_table(PAGE, "narrow weights", tables.narrow_weights(kernels))
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints, and writes where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--write", action="store_true", help="write the tables and the plot into docs/")
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    for title, text in sections(results):
        print(f"\n== {title}\n\n{text}")
    if options.write:
        print(*write(results), sep="\n")


if __name__ == "__main__":
    main()
