"""Executed instructions of an inference on emulated Arm cores: edgeq and its peers, and edgeq's inner loops."""

from __future__ import annotations

import pytest

from bench.arm import counting, measure
from bench.arm.contenders import NETWORKS, Runner
from bench.arm.cores import CORES, core
from bench.conftest import Bench, bench_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    bench = bench_of(metafunc.config)
    chosen = bench.networks if bench.networks_named else NETWORKS[:1] if bench.quick else NETWORKS
    cores = CORES[2:3] if bench.quick else CORES
    cases = [pytest.param(network, one.name, id=f"{network}-{one.name}") for network in chosen for one in cores]
    metafunc.parametrize(("network", "core_name"), cases)


@pytest.fixture(scope="module")
def runner(request: pytest.FixtureRequest) -> Runner:
    """The runner that --arm-runner names, else the one of the preset aarch64, built where it is out of date."""
    try:
        counting.plugin()
        return measure.runner(request.config.getoption("arm_runner"))
    except counting.CountingError as error:
        pytest.skip(str(error))


def test_arm(bench: Bench, runner: Runner, network: str, core_name: str) -> None:
    # Whether a peer is counted in time is up to the store: an emulated process of one takes half a minute.
    bench.need_time()
    result = measure.measure(runner, network, core(core_name), with_peers=not bench.quick)
    bench.add("arm", result)
    missing = [problem for name, problem in result["problems"].items() if name.startswith("edgeq")]
    assert not missing, missing[0]
