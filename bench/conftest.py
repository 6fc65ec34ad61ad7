"""`pytest bench`: its options, what its tests share, and the tables at its end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import contenders, freshness, machine, networks, report
from bench.peers import Settings
from edgeq.errors import BackendError
from edgeq.session import native_module

_QUICK_SECONDS = 110
"""After this, --quick, which is to end in three minutes, starts nothing: an unprepared network takes 50 s."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "edgeq's benches")
    group.addoption("--quick", action="store_true", help="three small networks, few shapes: three minutes at most")
    group.addoption("--json", type=Path, metavar="OUT", help="write every figure to a file")
    group.addoption("--write", action="store_true", help="write the tables and the plot into docs/")
    group.addoption("--rounds", type=int, help="alternating rounds (default 7, --quick 5)")
    group.addoption("--seconds", type=float, help="least time of a turn (default 0.3, --quick 0.05)")
    group.addoption("--arm-runner", type=Path, metavar="PATH", help="count this runner for aarch64, not the preset's")
    group.addoption("--networks", help="names with commas; those of bench.networks without it")


class Bench:
    """What the tests of one run share.

    Attributes:
        quick: Whether --quick was given.
        settings: How long things are timed.
        networks: Which networks.
        networks_named: Whether --networks chose them.
        results: JSON values of everything measured so far, as `bench.report` takes them.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.quick: bool = config.getoption("quick")
        default = Settings(5, 0.05) if self.quick else Settings()
        self.settings = Settings(
            config.getoption("rounds") or default.rounds, config.getoption("seconds") or default.seconds
        )
        named = config.getoption("networks")
        self.networks_named = bool(named)
        if named:
            self.networks = tuple(named.split(","))
        else:
            self.networks = networks.QUICK if self.quick else networks.NETWORKS
        self.results: dict[str, Any] = {}
        self._start = time.monotonic()

    def need_time(self) -> None:
        """Skips the test, saying so, when --quick has no time for it."""
        if self.quick and time.monotonic() - self._start > _QUICK_SECONDS:
            pytest.skip("left out: --quick has used up its time")

    @contextmanager
    def one_cpu(self) -> Iterator[None]:
        """Binds the calling thread to one CPU, the last: the first one takes more of the machine's interrupts."""
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cpus)})
        try:
            yield
        finally:
            os.sched_setaffinity(0, cpus)

    def add(self, kind: str, result: dict[str, Any]) -> None:
        """Adds a result of a kind: peers, models, kernels or arm."""
        if not self.results:
            self.results.update(
                {
                    "date": time.strftime("%Y-%m-%d"),
                    "machine": machine.describe(),
                    "versions": contenders.versions(),
                    "not_installed": contenders.not_installed(),
                    "quick": self.quick,
                }
            )
        self.results.setdefault(kind, []).append(result)


_BENCH = pytest.StashKey[Bench]()


class PlayedClock:
    """A clock of pytest-benchmark that advances by times which were measured elsewhere.

    Contenders take turns in a process of their own; what pytest-benchmark keeps and prints is the median of each of a
    contender's rounds.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


CLOCK = PlayedClock()


def play(benchmark: Any, rounds_ms: list[float]) -> None:
    """Hands the rounds of a contender to pytest-benchmark; the test is marked with `timer=CLOCK`."""
    left = iter(rounds_ms)
    benchmark.pedantic(lambda: CLOCK.advance(next(left) / 1e3), rounds=len(rounds_ms), iterations=1)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("write") and config.getoption("quick"):
        raise pytest.UsageError("--write publishes figures, which those of --quick are not meant for: leave one out")
    out = config.getoption("json")
    if out is not None and not out.absolute().parent.is_dir():
        raise pytest.UsageError(f"--json {out}: there is no such folder; name a file in an existing one")
    config.stash[_BENCH] = Bench(config)
    # The tables below say what pytest-benchmark's own, a row a test, would.
    if not config.getoption("benchmark_verbose", False):
        config.option.benchmark_quiet = True


def pytest_sessionstart(session: pytest.Session) -> None:
    try:
        module = Path(native_module().__file__)
    except BackendError:
        return  # What needs the engine says so.
    found = freshness.complaint(module, session.config.rootpath)
    if found is not None:
        raise pytest.UsageError(found)


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Bench:
    """What the tests of one run share."""
    return request.config.stash[_BENCH]


def bench_of(config: pytest.Config) -> Bench:
    """The same, while tests are collected."""
    return config.stash[_BENCH]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash[_BENCH].results
    if not found:
        return
    for title, text in report.sections(found):
        terminalreporter.section(title)
        terminalreporter.write_line(text)
    out = config.getoption("json")
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if config.getoption("write"):
        for path in report.write(found):
            terminalreporter.write_line(f"wrote {path}")
