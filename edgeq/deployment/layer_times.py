"""What each layer takes at 4 and at 8 bits, by the native engine's own clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeq.backends.latency import compare, measure
from edgeq.exporters.edgeq_file import encode
from edgeq.ir import Graph
from edgeq.ir.tensor import Array
from edgeq.passes import channels_last, lower
from edgeq.quantize.bias_correction import shrunk_mean
from edgeq.session import Session

ROUNDS = 9
"""Alternating rounds of the networks, so that a drift of the machine meets all of them."""

SECONDS = 0.1
"""Of one network in one round."""


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Times of a network with 8-bit weights and of its layers.

    Attributes:
        total_ms: One run with all layers at 8 bits, as the sum of its steps.
        layers: Time at 4 and at 8 bits by layer. Layers that the engine runs together share their time by
            multiply-accumulates.
    """

    total_ms: float
    layers: Mapping[str, tuple[float, float]]

    @property
    def rest_ms(self) -> float:
        """What no layer's bits change."""
        return self.total_ms - math.fsum(wide for _, wide in self.layers.values())


def layer_times(
    eight: Graph, narrow: Callable[[set[str]], Graph], layers: list[str], x: Mapping[str, Array]
) -> LayerTimes:
    """Times layers at 4 bits beside the same layers at 8.

    The engine runs some layers together, a strip of rows at a time, and clocks them as one step. So that each layer's
    own part shows, network j has the j-th layer of every step at 4 bits and the others at 8. A difference that may be
    chance counts less (`shrunk_mean`), or a choice among many layers would pick the luckiest measurements.

    Args:
        eight: The network with 8-bit weights, NCHW.
        narrow: Returns it with 4-bit weights in these layers.
        layers: The layers to time.
        x: Inputs at batch 1, by name.
    """
    first = _profiled(eight)
    groups = _groups([first, _profiled(narrow(set(layers)))])
    members: dict[int, list[str]] = {}
    for name in layers:
        members.setdefault(groups[name], []).append(name)
    turns = [
        {names[turn] for names in members.values() if turn < len(names)}
        for turn in range(max(len(names) for names in members.values()))
    ]
    sessions = [first, *(_profiled(narrow(turn)) for turn in turns)]
    rounds = np.zeros((ROUNDS, len(sessions), len(members)))
    other = np.zeros(ROUNDS)
    index = {group: column for column, group in enumerate(members)}
    for number in range(ROUNDS):
        for row, session in enumerate(sessions):
            session.forget_times()
            measure(lambda: session.run(x), min_seconds=SECONDS, min_runs=10)  # noqa: B023
            for step in session.layers:
                group = groups.get(step.name)
                if group in index:
                    rounds[number, row, index[group]] += step.median_ms
                elif row == 0:
                    other[number] += step.median_ms
    base = np.median(rounds[:, 0], axis=0)
    macs = {step.name: step.macs for step in first.layers}
    found: dict[str, tuple[float, float]] = {}
    for group, names in members.items():
        column = index[group]
        total = sum(macs[name] for name in names) or 1
        for turn, name in enumerate(names):
            difference = shrunk_mean((rounds[:, 1 + turn, column] - rounds[:, 0, column])[:, None])[0]
            wide = float(base[column]) * macs[name] / total
            found[name] = (wide + float(difference), wide)
    return LayerTimes(float(base.sum() + np.median(other)), {name: found[name] for name in layers})


def time_ratio(graph: Graph, eight: Graph, x: Mapping[str, Array]) -> float:
    """Returns the time of one run of `graph` as a share of that of `eight`, as a whole, in alternating rounds.

    Args:
        graph: A quantized network, NCHW.
        eight: The one that it is compared with.
        x: Inputs at batch 1, by name.
    """
    sessions = [Session(encode(lower(channels_last(one)))) for one in (graph, eight)]
    runs = {"graph": lambda: sessions[0].run(x), "eight": lambda: sessions[1].run(x)}
    return compare(runs, rounds=ROUNDS, seconds=SECONDS).ratio("graph", "eight")[0]


def _profiled(graph: Graph) -> Session:
    return Session(encode(lower(channels_last(graph))), profile=True)


def _groups(sessions: list[Session]) -> dict[str, int]:
    """Numbers the operators so that those which share a step in any of the sessions have the same number."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for session in sessions:
        for layer in session.layers:
            parent[root(layer.name)] = root(layer.step)
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(root(name), len(numbers)) for name in list(parent)}
