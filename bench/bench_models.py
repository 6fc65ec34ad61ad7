"""edgeq alone at every scheme, under every instruction set that this CPU runs, with one and two threads."""

from __future__ import annotations

from typing import Any

import pytest

from bench import machine, models, networks
from bench.conftest import CLOCK, Bench, bench_of, play

_MEASURED: dict[str, dict[str, Any]] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    bench = bench_of(metafunc.config)
    cases = []
    for network in bench.networks[:1] if bench.quick else bench.networks:
        for scheme in networks.SCHEMES[:2] if bench.quick else networks.SCHEMES:
            for isa in machine.isas():
                for threads in (1, 2):
                    if isa != "scalar" or (threads == 1 and not bench.quick):
                        name = f"{scheme} {isa} {threads}"
                        cases.append(pytest.param(network, name, id=f"{network}-{name}"))
    metafunc.parametrize(("network", "name"), cases)


@pytest.mark.benchmark(timer=CLOCK)
def test_models(bench: Bench, benchmark: Any, network: str, name: str) -> None:
    if network not in _MEASURED:
        bench.need_time()
        _MEASURED[network] = models.measure(network, bench.settings, bench.quick)
        bench.add("models", _MEASURED[network])
    result = _MEASURED[network]
    if name not in result["entries"] and name.endswith(" 2") and name not in result["problems"]:
        pytest.skip("two threads need two CPUs")
    assert name in result["entries"], result["problems"].get(name)
    benchmark.group = network
    play(benchmark, result["entries"][name]["rounds_ms"])
