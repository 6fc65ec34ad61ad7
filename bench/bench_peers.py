"""edgeq beside the other runtimes: the same network and calibration samples, alternating rounds, one thread."""

from __future__ import annotations

from typing import Any

import pytest

from bench import peers
from bench.conftest import CLOCK, Bench, bench_of, play
from bench.tables import cap_name

_MEASURED: dict[tuple[str, str | None], dict[str, Any]] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    bench = bench_of(metafunc.config)
    cases = []
    found, _ = peers.caps()
    for network in bench.networks:
        # The quick run looks at the caps with its first network only.
        for cap in found if not bench.quick or network == bench.networks[0] else found[:1]:
            for one in peers.taking_part(cap):
                cases.append(pytest.param(network, cap, one.name, id=f"{network}-{cap_name(cap)}-{one.name}"))
    metafunc.parametrize(("network", "cap", "name"), cases)


def measured(bench: Bench, network: str, cap: str | None) -> dict[str, Any]:
    """The comparison of a network under a cap, made for the first of its contenders."""
    if (network, cap) not in _MEASURED:
        bench.need_time()
        result = peers.measure(network, cap, bench.settings)
        _MEASURED[network, cap] = result
        bench.add("peers", result)
    return _MEASURED[network, cap]


@pytest.mark.benchmark(timer=CLOCK)
def test_peers(bench: Bench, benchmark: Any, network: str, cap: str | None, name: str) -> None:
    result = measured(bench, network, cap)
    if name not in result["entries"]:
        problem = result["problems"][name]
        if name.startswith("edgeq"):
            pytest.fail(f"{name} on {network}: {problem}")
        pytest.skip(f"{name} on {network}: {problem}")
    entry = result["entries"][name]
    benchmark.group = f"{network}, cap {cap_name(cap)}"
    benchmark.extra_info.update({key: entry[key] for key in ("ratio", "decibels", "precision", "runtime", "capped")})
    play(benchmark, entry["rounds_ms"])
    assert entry["ratio"] is not None
    low, high = entry["ratio"][1:]
    assert 0 < low <= entry["ratio"][0] <= high
    if cap is not None and "avx512" not in cap and "amx" not in cap:
        disobeyed = [primitive for primitive in entry["primitives"] if "avx512" in primitive or "amx" in primitive]
        assert not disobeyed, f"{name} does not obey the cap {cap}: {disobeyed}"
