"""Every layer of bench/shapes alone: multiply-accumulates a second, and their share of the measured peak."""

from __future__ import annotations

from typing import Any

import pytest

from bench import kernels, layers, peers
from bench.conftest import CLOCK, Bench, bench_of, play
from bench.layers import Layer
from bench.tables import cap_name

_SCHEMES = ("w8a8", "w4a8")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    bench = bench_of(metafunc.config)
    found, _ = peers.caps()
    if bench.quick:
        names, caps, schemes = ["mobilenet_v2"], found[:1], _SCHEMES[:1]
    else:
        names, caps, schemes = layers.networks(), found, _SCHEMES
        if bench.networks_named:
            names = [name for name in names if name in bench.networks]
    cases = []
    for layer, users in layers.merged(names).items():
        for scheme in schemes if layer.macs else schemes[:1]:
            for cap in caps:
                title = f"{layer.title}-{scheme}-{cap_name(cap)}".replace(">", " to ")
                cases.append(pytest.param(layer, users, scheme, cap, id=title))
    metafunc.parametrize(("layer", "users", "scheme", "cap"), cases)


@pytest.mark.benchmark(timer=CLOCK)
def test_kernels(bench: Bench, benchmark: Any, layer: Layer, users: list[str], scheme: str, cap: str | None) -> None:
    bench.need_time()
    with bench.one_cpu():
        result = kernels.measure(layer, users, scheme, cap, bench.settings.rounds, bench.settings.seconds / 10)
    bench.add("kernels", result)
    benchmark.group = f"{layer.kind}, {scheme}, cap {cap_name(cap)}"
    benchmark.extra_info.update({key: result.get(key) for key in ("kernel", "gmac_s", "share", "gelement_s")})
    play(benchmark, [time_us / 1e3 for time_us in result["rounds_us"]])
    assert min(result["rounds_us"]) > 0
