"""The plot of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers import OURS
from edgeq.outputs import whole_file

_COLOURS = ("#1f6f8b", "#99a8b2", "#d9a441")
_WIDTH = 0.8


def draw(by_cap: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> Path:
    """Draws edgeq's time divided by the fastest peer's, a group of bars a network and a bar a cap, as SVG.

    A line on each bar spans the rounds; a black mark is where the multiply-accumulates at the measured peak would be.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    # Equal figures give equal files.
    style = {"svg.hashsalt": "edgeq", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    names = list(dict.fromkeys(one["network"] for peers in by_cap.values() for one in peers))
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(8.4, 3.4), layout="constrained")
        width = _WIDTH / len(by_cap)
        for index, (cap, peers) in enumerate(by_cap.items()):
            found = [one for one in peers if one["best"] is not None and OURS in one["entries"]]
            at = [names.index(one["network"]) - _WIDTH / 2 + (index + 0.5) * width for one in found]
            ratios = [one["entries"][one["best"]]["ratio"] for one in found]
            below, above = ([abs(ratio[0] - ratio[i]) for ratio in ratios] for i in (1, 2))
            label = "all instruction sets" if cap == "none" else f"no more than {cap}"
            axes.bar(at, [ratio[0] for ratio in ratios], width * 0.92, color=_COLOURS[index % 3], label=label)
            axes.errorbar(at, [ratio[0] for ratio in ratios], [below, above], fmt="none", ecolor="#404040", lw=0.8)
            limits = [one["limit_ms"] / one["entries"][one["best"]]["median_ms"] for one in found]
            mark = "multiply-accumulates at the measured peak" if index == 0 else None
            axes.scatter(at, limits, marker="_", s=260 * width, color="black", lw=1.6, zorder=3, label=mark)
        axes.axhline(1, color="#404040", lw=0.8)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.text(len(names) - 0.42, 1.01, "the fastest peer", ha="right", va="bottom")
        axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=20, ha="right")
        axes.set_ylabel("edgeq's time / the fastest peer's")
        axes.set_ylim(0, max(1.1, axes.get_ylim()[1]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.14))
        with whole_file(path) as scratch:
            figure.savefig(scratch, format="svg", metadata={"Date": None})
        plt.close(figure)
    return path
